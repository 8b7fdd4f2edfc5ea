"""Rendered hands: the same every time, true to what is said of them, and whole or not there."""

import csv
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from open_clip import SimpleTokenizer
from PIL import Image

from handreid.data.captioning.chooser import Chooser
from handreid.data.captioning.facts import Fact
from handreid.data.captioning.length import LONGEST
from handreid.data.captioning.sentence import sentence
from handreid.data.captions import split_wordings
from handreid.data.rendered import VIEWS, render
from handreid.data.rendered.anatomy import SKIN_WORDS, Person, person, stream
from handreid.data.rendered.appearance import visible_facts
from handreid.data.rendered.captions import MOST, WORDINGS
from handreid.data.rendered.compose import compose
from handreid.data.rendered.exposure import apply_camera
from handreid.data.rendered.folder import RENDERER, Request, _rows
from handreid.data.rendered.pose import limbs
from handreid.data.rendered.scene import Framing, Scene, sample_scene
from handreid.data.rendered.shape import Grid
from handreid.data.rendered.skin import surface
from handreid.data.rendered.skin_marks import PALM, Spot, Stroke
from handreid.errors import DataError

COLUMNS = (
    "path subject side aspect camera session caption "
    "skin skin_tone age nails polish moles scar accessories ring ring_finger sleeve background pose "
    "hands landmarks handedness anatomy"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render(tmp_path_factory.mktemp("hands") / "all", identities=5, photos=8, size=48, workers=1).parent


@pytest.fixture(scope="module")
def rows(folder: Path) -> list[dict[str, str]]:
    return table(folder)


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "hands.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*.*")) if path.name != "rendered.json"}


def shot(identity: int, photo: int = 0, polish: str | None = None, **changes: object) -> tuple[Person, Scene]:
    who = person(0, identity)
    scene = sample_scene(stream(0, identity, 3, photo), who.hands["right"], "dorsal", 1, polish)
    return who, replace(scene, **changes)


def test_table(folder: Path, rows: list[dict[str, str]]) -> None:
    assert list(rows[0]) == COLUMNS.split()
    assert len(rows) == 40
    anatomy: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        anatomy.setdefault((row["subject"], row["side"]), set()).add(row["anatomy"])
    assert len(set.union(*anatomy.values())) == len(anatomy) == 10  # the same on all photos of a hand, and of no other
    assert {len(cell.split()) for cells in anatomy.values() for cell in cells} == {78}
    assert len({row["subject"] for row in rows}) == 5
    assert [(row["aspect"], row["side"]) for row in rows[:8]] == [*VIEWS, *VIEWS]
    assert {row["path"] for row in rows} == {f"Hands/{path.name}" for path in (folder / "Hands").iterdir()}
    for row in rows:
        with Image.open(folder / row["path"]) as photo:
            assert photo.size == (48, 48)


def test_processes_do_not_change_a_byte(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handreid.data.rendered.folder.ALONE", 1)
    other = render(tmp_path / "again", identities=5, photos=8, size=48, workers=2).parent
    assert contents(other) == contents(folder)


@pytest.mark.parametrize(("identities", "photos"), [(2, 8), (2, 3)])
def test_a_photo_does_not_depend_on_how_many_others_there_are(
    folder: Path, rows: list[dict[str, str]], tmp_path: Path, identities: int, photos: int
) -> None:
    fewer = render(tmp_path / "fewer", identities=identities, photos=photos, size=48, workers=1).parent
    for row in table(fewer):
        assert (fewer / row["path"]).read_bytes() == (folder / row["path"]).read_bytes()
        assert row in rows


def test_seed_matters(folder: Path, tmp_path: Path) -> None:
    other = render(tmp_path / "other", identities=1, photos=1, size=48, seed=1).parent
    assert contents(other)["p00000_00_dorsal_right.jpg"] != contents(folder)["p00000_00_dorsal_right.jpg"]


def test_no_two_photos_are_alike(folder: Path) -> None:
    assert len(set(contents(folder).values())) == 40 + 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"identities": 0}, "identities is 0"),
        ({"photos": 0}, "photos is 0"),
        ({"size": 8}, "size is 8.*at least 32"),
        ({"seed": -1}, "seed is -1"),
        ({"workers": 0}, "workers is 0"),
        ({"views": []}, "views is"),
        ({"views": [VIEWS[0], VIEWS[0]]}, "each once"),
    ],
)
def test_bad_arguments(tmp_path: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        render(tmp_path / "new", **{"identities": 1, "photos": 1, **change})
    assert not (tmp_path / "new").exists()


def test_another_request_for_the_same_folder(folder: Path) -> None:
    with pytest.raises(DataError, match=r"other arguments.*choose another folder"):
        render(folder, identities=3, photos=8, size=48)


def test_a_folder_of_somebody_else(tmp_path: Path) -> None:
    (tmp_path / "hands.csv").write_text("path,subject\n")
    with pytest.raises(DataError, match="not rendered by handreid"):
        render(tmp_path, identities=1, photos=1)
    assert (tmp_path / "hands.csv").read_text() == "path,subject\n"


def test_complete_folder_is_kept_and_a_lost_photo_drawn_again(folder: Path) -> None:
    before = contents(folder)
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*.*")}
    told: list[int] = []
    render(folder, identities=5, photos=8, size=48, progress=told.append)
    assert told == [40]
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.*")} == times
    (folder / "Hands" / "p00003_02_palmar_right.jpg").unlink()
    render(folder, identities=5, photos=8, size=48, progress=told.append)
    assert told == [40, 39, 1]
    assert contents(folder) == before


def test_one_aspect_only(tmp_path: Path) -> None:
    made = render(tmp_path, identities=1, photos=3, size=32, views=[("palmar", "left")])
    assert {(row["aspect"], row["side"]) for row in table(made.parent)} == {("palmar", "left")}


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_in_the_middle_and_continued(folder: Path, tmp_path: Path, workers: int) -> None:
    code = (
        "import sys; from pathlib import Path; from handreid.data.rendered import folder, render\n"
        "folder.ALONE = 1\n"
        "if __name__ == '__main__':\n"
        f"    render(Path(sys.argv[1]), identities=5, photos=8, size=48, workers={workers},\n"
        "           progress=lambda more: print(more, flush=True))"
    )
    script = tmp_path / "draw.py"
    script.write_text(code)
    out = tmp_path / "out"
    process = subprocess.Popen([sys.executable, str(script), str(out)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    done = 0
    while done < 8:
        done += int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)  # ends when the last worker that shares the pipe has ended
    assert not (out / "hands.csv").exists()
    there = list((out / "Hands").glob("*.jpg"))
    assert 8 <= len(there) < 40
    for path in there:
        assert path.read_bytes() == (folder / "Hands" / path.name).read_bytes()
    render(out, identities=5, photos=8, size=48, workers=1)
    assert contents(out) == contents(folder)


def test_both_aspects_share_the_outline() -> None:
    who, scene = shot(3)
    (a, b), (c, d) = scene.framing.matrix
    x, y = scene.framing.origin
    mirrored = replace(scene, aspect="palmar", framing=Framing(((-a, -b), (c, d)), (1 - x, y)))
    back = compose(Grid(96, scene.framing), who, surface(0, 3, who, "right", "dorsal"), scene).outline < 0
    palm = compose(Grid(96, mirrored.framing), who, surface(0, 3, who, "right", "palmar"), mirrored).outline < 0
    assert np.mean(back != palm[:, ::-1]) < 0.01
    stranger = person(0, 4)
    theirs = replace(scene, limbs=limbs(stranger.hands["right"], scene.pose))
    other = compose(Grid(96, scene.framing), stranger, surface(0, 4, stranger, "right", "dorsal"), theirs).outline < 0
    assert 0.1 < np.mean(back) < 0.8
    assert np.mean(back != other) > 0.02


def test_left_and_right_are_alike_but_not_equal() -> None:
    for identity in range(20):
        hands = person(0, identity).hands
        left, right = (np.array([b for d in hands[s].digits for b in d.phalanges]) for s in ("left", "right"))
        stranger = np.array([b for d in person(0, identity + 1).hands["right"].digits for b in d.phalanges])
        assert 0 < np.abs(left / right - 1).max() < 0.08
        assert np.abs(left - right).mean() < np.abs(stranger - right).mean()
        who = person(0, identity)
        marks = [surface(0, identity, who, side, "palmar") for side in ("left", "right")]
        assert marks[0].moles != marks[1].moles or not marks[0].moles
        major = [[s for s in m.strokes if s.width > 0.055 and s.part == PALM] for m in marks]
        assert len(major[0]) == len(major[1])
        assert major[0] != major[1]


def test_thumb_side_tells_left_from_right() -> None:
    """Fingers down, the thumb of a dorsal right hand is to the right; palms and left hands are mirrored."""
    for aspect, side in VIEWS:
        who = person(0, 1)
        scene = sample_scene(stream(0, 1, 3, 0), who.hands[side], aspect, 1, None)
        thumb, little = (scene.framing.place(scene.limbs[k].base)[0] for k in (0, 4))
        assert (thumb > little) == ((aspect == "dorsal") == (side == "right"))


def test_skin_tones_cover_the_range() -> None:
    people = [person(0, k) for k in range(200)]
    tones = [who.tone for who in people]
    assert min(tones) < 0.03
    assert max(tones) > 0.97
    assert {who.skin for who in people} == set(SKIN_WORDS)
    who, scene = shot(0)
    marks = surface(0, 0, who, "right", "dorsal")
    inside = compose(Grid(72, scene.framing), who, marks, scene).outline < -0.3
    grey = [
        apply_camera(replace(who, tone=tone), marks, scene, 72)[inside].mean() for tone in np.linspace(0, 1, 7).tolist()
    ]
    assert all(np.diff(grey) < -5)


def test_captions_say_what_the_table_says() -> None:
    request = Request(RENDERER, 24, 3, 0, 32, VIEWS)
    rows = [{name: str(value) for name, value in row.items()} for k in range(24) for row in _rows(request, k)]
    texts = [split_wordings(row["caption"]) for row in rows]
    assert all(len(set(each)) == WORDINGS for each in texts)
    for word in ("scar", "mole", "sleeve", "ring on", "painted", "wooden", "veins", "hair", "slim", "fingers spread"):
        assert any(word in text for each in texts for text in each)
    for row, each in zip(rows, texts, strict=True):
        for text in each:
            _check_caption(text, row)


def _check_caption(text: str, row: dict[str, str]) -> None:
    other = {"left": "right", "right": "left"}[row["side"]]
    assert f"{row['side']} hand" in text
    assert f"{other} hand" not in text
    assert (re.search("palmar|palm of|palm side", text) is not None) == (row["aspect"] == "palmar")
    tones = re.findall(r"((?:very )?(?:fair|medium|brown|dark))(?:-skinned|-toned skin| skin| tone)", text)
    assert set(tones) <= {row["skin"]}
    lengths = re.findall(r"(short|medium|long)(?:-length)?(?: \w+)? (?:finger)?nails", text)
    assert set(lengths) <= {row["nails"]}
    assert row["aspect"] == "dorsal" or "nails" not in text or row["nails"] == "long"
    assert "painted nails" not in text or row["polish"] == "none" or f"{row['polish']}-painted nails" in text
    assert "nails painted" not in text or f"nails painted {row['polish']}" in text
    assert "polish" not in text or f"{row['polish']} polish" in text or f"{row['polish']} nail polish" in text
    assert "scar" not in text or f"scar {row['scar']}" in text
    assert "mole" not in text or int(row["moles"]) > 0
    assert "sleeve" not in text or f"a {row['sleeve']} sleeve" in text
    assert " ring " not in text.replace("ring finger", "") or re.search(
        f"a {row['ring']} ring (on|around) the {row['ring_finger']}", text
    )
    assert (row["ring"] != "none") == (row["accessories"] == "1") == (row["ring_finger"] != "none")
    assert "wood" not in text or row["background"] == "wood"
    assert not re.search("person|young|old|adult", text)


def test_the_longest_captions_fit_clips_text_tower() -> None:
    """The longest fact of each kind, as many as a wording says, the longest ones."""
    tokens = SimpleTokenizer()
    kinds = ("skin", "nails", "fingers", "veins", "hair", "scar", "mole", "ring", "sleeve", "cloth", "light", "blur")
    longest = dict.fromkeys(kinds, (0, Fact("has", ("",))))
    for identity in range(80):
        who, scene = shot(identity, polish="dark red")
        for fact in visible_facts(who, surface(0, identity, who, "right", "dorsal"), scene):
            length = max(len(tokens.encode(form)) for form in fact.forms)
            kind = next((kind for kind in kinds if kind in fact.forms[0]), kinds[0])
            longest[kind] = max(longest[kind], (length, fact), key=lambda pair: pair[0])
    most = [fact for _, fact in sorted(longest.values(), key=lambda pair: -pair[0])[:MOST]]
    lengths = [len(tokens.encode(sentence("palmar", "right", most, Chooser(0, "", n)))) for n in range(400)]
    assert 50 < max(lengths) <= LONGEST


def test_the_hand_stands_out_from_the_background() -> None:
    contrasts = []
    for identity in range(24):
        who, scene = shot(identity)
        marks = surface(0, identity, who, "right", "dorsal")
        outline = compose(Grid(64, scene.framing), who, marks, scene).outline
        photo = apply_camera(who, marks, scene, 64).astype(float)
        hand, behind = photo[outline < -0.2], photo[outline > 0.4]
        assert len(hand) > 300
        assert len(behind) > 300
        assert hand.std() > 4
        contrasts.append(np.abs(hand.mean(axis=0) - behind.mean(axis=0)).max())
    assert np.median(contrasts) > 40
    assert min(contrasts) > 5


def test_nails_are_on_the_back_only() -> None:
    who, scene = shot(2)
    bright = replace(scene, worn=replace(scene.worn, polish="blue", ring=None, sleeve=None))
    for aspect in ("dorsal", "palmar"):
        marks = surface(0, 2, who, "right", aspect)
        bare, painted = (
            compose(Grid(128, s.framing), who, marks, replace(s, aspect=aspect)).colour
            for s in (replace(bright, worn=replace(bright.worn, polish=None)), bright)
        )
        x, y = scene.framing.place(scene.limbs[2].place(0.0, scene.limbs[2].true[-1] - 0.5))
        changed = np.abs(bare - painted)[:, int(y * 128), int(x * 128)].max() > 0.3
        assert changed == (aspect == "dorsal")


@pytest.mark.parametrize("part", [2, PALM])
def test_marks_are_where_they_belong_in_every_pose(part: int) -> None:
    spot = Spot(part, (0.1, 3.0), (0.2, 0.2), dark=0.6)
    line = Stroke(part, (-0.3, 3.0), (0.5, 3.0), 0.1, dark=0.6)
    for photo in range(3):
        who, scene = shot(5, photo)
        grid = Grid(128, scene.framing)
        plain = replace(surface(0, 5, who, "right", "dorsal"), moles=(), scar=None)
        for marked in (replace(plain, moles=(spot,)), replace(plain, scar=line)):
            change = compose(grid, who, plain, scene).colour[1] - compose(grid, who, marked, scene).colour[1]
            row, column = np.unravel_index(change.argmax(), change.shape)
            at = scene.limbs[part].place(0.1, 3.0) if part != PALM else (0.1, 3.0)
            x, y = scene.framing.place(at)
            assert change.max() > 0.3
            assert np.hypot(row + 0.5 - y * 128, column + 0.5 - x * 128) < 0.45 * grid.pixels_per_cm
            assert np.mean(change > 0.05) < 0.01
