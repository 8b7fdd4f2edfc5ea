"""Turned, scaled and shifted copies of photos: landmarks go where pixels go, and a seed says everything."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from handreid.data.landmark_columns import HandsFound, pixel_aspects, read_landmarks, with_landmarks, with_pixel_aspect
from handreid.data.manifest import Manifest, read
from handreid.data.perturb import perturb
from handreid.errors import DataError, PhotoError
from tests.cli.test_commands import complaint, handreid
from tests.landmarks.hands import hand

DOTS = (0, 9, 17)
SKIN = (210, 150, 120)


@pytest.fixture
def dotted(tmp_path: Path) -> Manifest:
    """Three dark photos of 200 x 150, with a white dot at some of the points of their hand."""
    rows, found = [], []
    for number in range(3):
        one = hand(scale=40.0, turn=number, at=(100.0, 80.0))
        picture = np.full((150, 200, 3), 30, np.uint8)
        for x, y in one.points[list(DOTS)].round().astype(int):
            picture[y - 3 : y + 3, x - 3 : x + 3] = 255
        name = f"p{number}/a.png"
        (tmp_path / "photos" / name).parent.mkdir(parents=True)
        Image.fromarray(picture).save(tmp_path / "photos" / name)
        rows.append((name, f"p{number}"))
        found.append(HandsFound((one,)))
    table = pl.DataFrame(rows, schema=["path", "subject"], orient="row")
    return with_landmarks(Manifest(table, tmp_path / "photos"), found, "a test")


def copies(manifest: Manifest) -> list[np.ndarray]:
    return [np.asarray(Image.open(path)).astype(int) for path in manifest.paths()]


@pytest.mark.parametrize("aspect", [1.0, 4 / 3])
def test_landmarks_are_where_the_pixels_are(dotted: Manifest, tmp_path: Path, aspect: float):
    given = with_pixel_aspect(dotted, aspect)
    made = perturb(given, tmp_path / "out", seed=3, size=160)
    assert pixel_aspects(made) == [1.0] * 3
    for before, after, picture in zip(read_landmarks(given), read_landmarks(made), copies(made), strict=True):
        assert before is not None
        assert after is not None
        ratio = after.size / before.size * max(200 * aspect, 150) / 160
        assert 0.6 <= ratio <= 1
        for x, y in after.points[list(DOTS)].round().astype(int):
            assert picture[y, x].min() > 150


def test_the_manifest_of_the_copies(dotted: Manifest, tmp_path: Path):
    made = perturb(dotted, tmp_path / "out", seed=0, size=64)
    again = read(tmp_path / "out" / "manifest.parquet")
    assert again.hash == made.hash
    assert again.table["subject"].to_list() == ["p0", "p1", "p2"]
    assert again.table["perturbed_from"].to_list() == dotted.table["path"].to_list()
    assert all(picture.shape == (64, 64, 3) for picture in copies(again))


def test_a_seed_says_everything_whatever_the_order(dotted: Manifest, tmp_path: Path):
    one, other = (perturb(dotted, tmp_path / name, seed=seed, size=64) for name, seed in (("1", 1), ("2", 2)))
    turned = perturb(replace(dotted, table=dotted.table.reverse()), tmp_path / "3", seed=1, size=64)
    assert turned.table["sha256"].to_list() == one.table["sha256"].to_list()[::-1]
    assert not set(one.table["sha256"]) & set(other.table["sha256"])
    assert not set(one.table["landmarks"]) & set(other.table["landmarks"])


def test_a_hand_on_a_light_table_is_cut_out(tmp_path: Path):
    picture = Image.new("RGB", (100, 100), (250, 250, 250))
    picture.paste(SKIN, (30, 30, 70, 70))
    (tmp_path / "photos").mkdir()
    picture.save(tmp_path / "photos" / "a.png")
    manifest = Manifest(pl.DataFrame({"path": ["a.png"], "subject": ["anna"]}), tmp_path / "photos")
    shares = []
    for seed in range(3):
        (copy,) = copies(perturb(manifest, tmp_path / str(seed), seed=seed, size=100))
        assert (np.abs(copy - SKIN).max(axis=2) < 12).mean() > 0.04
        shares.append((copy.min(axis=2) > 235).mean())
    assert max(shares) < 0.02  # of the table; it was 84 %


def test_backgrounds_kept_or_from_a_folder(dotted: Manifest, tmp_path: Path):
    (tmp_path / "tables" / "deep").mkdir(parents=True)
    Image.new("RGB", (90, 90), (20, 200, 40)).save(tmp_path / "tables" / "deep" / "green.png")
    ways = {"generated": None, "kept": (30, 30, 30), tmp_path / "tables": (20, 200, 40)}
    tables = []
    for number, (way, colour) in enumerate(ways.items()):
        made = perturb(dotted, tmp_path / str(number), seed=0, size=64, backgrounds=way)
        tables.append(made.table["landmarks"].to_list())
        for picture in copies(made):
            # of 200 x 150: a copy shows 27 to 75 % of photo
            around = 0 if colour is None else (np.abs(picture - colour).max(axis=2) < 12).mean()
            assert colour is None or around > (0.9 if way == "kept" else 0.2), way
    assert tables[0] == tables[1] == tables[2]  # the same turns, whatever is behind


def test_what_is_wrong_is_one_clear_error(dotted: Manifest, tmp_path: Path):
    with pytest.raises(DataError, match="size is 8"):
        perturb(dotted, tmp_path / "out", seed=0, size=8)
    dotted.write(tmp_path / "m.parquet")
    nowhere = complaint(
        "data", "perturb", tmp_path / "m.parquet", "--out", tmp_path / "out", "--backgrounds", tmp_path / "no"
    )
    assert "no such folder of backgrounds; give a folder of photos, `generated` or `kept`" in " ".join(nowhere.split())
    called = handreid("data", "perturb", tmp_path / "m.parquet", "--out", tmp_path / "out", "--size", "64")
    assert "3 photos, hash" in called.out
    again = complaint("data", "perturb", tmp_path / "m.parquet", "--out", tmp_path / "out")
    assert "is not an empty folder: give a new one" in " ".join(again.split())


@pytest.mark.parametrize("there", [False, True])
def test_ended_early_it_leaves_nothing(dotted: Manifest, tmp_path: Path, there: bool):
    dotted.paths()[2].write_bytes(b"no photo")
    out = tmp_path / "out"
    if there:
        out.mkdir()
    with pytest.raises(PhotoError, match=r"p2/a\.png"):
        perturb(dotted, out, seed=0, size=64)
    assert out.exists() == there
    assert not there or not list(out.iterdir())
