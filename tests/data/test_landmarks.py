"""Landmarks in manifests: their columns, tables of other landmarkers, the search and what it keeps; rendered hands."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from handreid.data import landmark_search, sources
from handreid.data.landmark_columns import (
    HandsFound,
    landmark_notes,
    landmarks_from_table,
    read_landmarks,
    with_landmarks,
    with_pixel_aspect,
)
from handreid.data.landmark_search import add_landmarks, see
from handreid.data.manifest import Manifest, read
from handreid.data.rendered import render
from handreid.data.rendered.anatomy import person, stream
from handreid.data.rendered.compose import compose
from handreid.data.rendered.landmarks import landmarks
from handreid.data.rendered.scene import sample_scene
from handreid.data.rendered.shape import Grid
from handreid.data.rendered.skin import surface
from handreid.errors import DataError, ManifestError, PhotoError
from handreid.landmarks import HandLandmarks
from handreid.landmarks.align import thumb_on_right
from handreid.landmarks.text import landmarks_points, landmarks_text
from tests.landmarks.hands import hand


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render(tmp_path_factory.mktemp("hands") / "all", identities=3, photos=4, size=96, workers=1)


@pytest.fixture
def photos(rendered: Path) -> Manifest:
    manifest = sources.csv(rendered)
    return replace(manifest, table=manifest.table.drop("hands", "landmarks", "handedness"))


def bright(picture: np.ndarray) -> Sequence[HandLandmarks]:
    """A landmarker without a model: a hand at the centre, as large as the picture."""
    height, width = picture.shape[:2]
    return (hand(scale=height / 4, at=(width / 2, height / 2)),)


def nothing(_: np.ndarray) -> Sequence[HandLandmarks]:
    return ()


def two(picture: np.ndarray) -> Sequence[HandLandmarks]:
    return (hand(scale=20), *bright(picture))


# Rendered hands


@pytest.mark.parametrize("aspect", ["dorsal", "palmar"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_points_of_rendered_hands_are_in_the_hand(side: str, aspect: str):
    """By the outline that the renderer paints: joints well inside, fingertips just inside."""
    for identity in range(4):
        who = person(3, identity)
        scene = sample_scene(stream(3, identity, 3, 0), who.hands[side], aspect, 1, None)
        size = 192
        points = landmarks(who.hands[side], scene, size)
        canvas = compose(Grid(size, scene.framing), who, surface(3, identity, who, side, aspect), scene)
        inside = (points > 0).all(axis=1) & (points < size).all(axis=1)
        assert inside[[5, 9, 13, 17]].all()
        cols, rows = points.astype(int)[inside].T
        depth = -canvas.outline[rows, cols]  # cm
        tips = np.isin(np.flatnonzero(inside), [4, 8, 12, 16, 20])
        assert depth[~tips].min() > 0.3
        assert depth[tips].min() > 0.1
        assert depth[tips].max() < 1.0
        assert thumb_on_right(HandLandmarks(points)) == ((aspect == "dorsal") == (side == "left"))


def test_a_rendered_table_holds_them(rendered: Path):
    manifest = sources.csv(rendered)
    found = read_landmarks(manifest)
    assert [None if one is None else one.handedness for one in found] == manifest.table["side"].to_list()
    assert manifest.table["hands"].to_list() == [1] * 12
    assert "landmarks" not in manifest.metadata
    first = next(one for one in found if one)
    assert 0.15 * 96 < first.size < 0.7 * 96


# Columns


def test_a_cell_keeps_points_to_a_hundredth_of_a_pixel():
    points = np.random.default_rng(0).uniform(-50, 4000, (21, 2))
    assert np.abs(landmarks_points(landmarks_text(points)) - points).max() <= 0.0051
    table = pl.DataFrame({"landmarks": [landmarks_text(points)]})
    split = table.select(pl.col("landmarks").str.split(" ").list.eval(pl.element().cast(pl.Float64)))
    assert np.allclose(split["landmarks"][0].to_list(), points.ravel(), atol=0.0051)


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_columns_survive_a_file(photos: Manifest, suffix: str):
    found = [HandsFound((hand(scale=30 + row),)) if row % 3 else HandsFound(()) for row in range(len(photos))]
    filled = with_landmarks(with_pixel_aspect(photos, 4 / 3), found, "a test")
    path = photos.root / f"with-landmarks{suffix}"
    filled.write(path)
    again = read(path)
    assert again.hash == filled.hash
    assert again.table["pixel_aspect"].to_list() == [4 / 3] * len(photos)
    hands = read_landmarks(again)
    assert [one is None for one in hands] == [row % 3 == 0 for row in range(len(photos))]
    assert hands[1] is not None
    assert np.allclose(hands[1].points, hand(scale=31).points * [4 / 3, 1], atol=0.01)  # as taken: widened
    path.unlink()


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("landmarks", "1 2 3", "hands.csv line 2: landmarks '1 2 3': it holds 3 numbers"),
        ("landmarks", " ".join(["x"] * 42), "'x' is not a number"),
        ("landmarks", " ".join(["nan"] * 42), "all finite"),
        ("landmark_score", "1.5", "landmark_score 1.5 is not from 0 to 1"),
        ("pixel_aspect", "0", "pixel_aspect 0 is not from 0.1 to 10"),
        ("handedness", "rigth", "handedness 'rigth' is not one of left, right .did you mean 'right'"),
        ("hands", "-1", "hands -1 is not a count"),
        ("pixel_aspect", "wide", "wrong type"),
    ],
)
def test_wrong_values_are_named_with_their_line(tmp_path: Path, column: str, value: str, message: str):
    (tmp_path / "hands.csv").write_text(f"path,subject,{column}\na.jpg,anna,{value}\n")
    with pytest.raises(ManifestError, match=message):
        sources.csv(tmp_path / "hands.csv", allow_missing=True)


# Tables of other landmarkers


def write_points(path: Path, lines: Sequence[str], extra: str = "") -> Path:
    names = ",".join(f"{axis}{number}" for number in range(21) for axis in "xy")
    path.write_text("\n".join([f"path,{names}{extra}", *lines]) + "\n")
    return path


def numbers(scale: float) -> str:
    return ",".join(f"{value:.1f}" for value in hand(scale=scale).points.ravel())


def test_points_of_another_landmarker(photos: Manifest, tmp_path: Path):
    names = photos.table["path"].to_list()
    table = write_points(
        tmp_path / "points.csv",
        [f"{names[2]},{numbers(30)},0.7,left", f"{names[0]},{numbers(40)},,", f"{names[1]}{',' * 44}"],
        ",score,handedness",
    )
    found = landmarks_from_table(photos, table)
    assert found.table["hands"].to_list() == [1, 0, 1, *[None] * 9]
    hands = read_landmarks(found)
    assert hands[0] is not None
    assert hands[2] is not None
    assert hands[1] is None
    assert (hands[2].score, hands[2].handedness, hands[0].score, hands[0].handedness) == (0.7, "left", 1.0, None)
    assert np.allclose(hands[2].points, hand(scale=30).points, atol=0.06)
    assert any("1 photos without a hand" in note and names[1] in note for note in landmark_notes(found))


def test_every_wrong_line_of_a_table_is_named(photos: Manifest, tmp_path: Path):
    names = photos.table["path"].to_list()
    lines = [
        f"{names[0]},{numbers(30)}",
        f"{names[0]},{numbers(30)}",
        f"strange.jpg,{numbers(30)}",
        f"{names[1]},{numbers(30)[:-4]}x.x",
    ]
    with pytest.raises(ManifestError) as error:
        landmarks_from_table(photos, write_points(tmp_path / "points.csv", lines))
    for message in (
        "line 3: path .* already given",
        "line 4: path 'strange.jpg' is not in",
        "line 5: .* is not a number",
    ):
        assert re.search(message, str(error.value)), message


def test_a_table_without_coordinates_says_what_it_needs(photos: Manifest, tmp_path: Path):
    (tmp_path / "points.csv").write_text("path,x0\na,1\n")
    with pytest.raises(ManifestError, match="no column 'y0'"):
        landmarks_from_table(photos, tmp_path / "points.csv")


# The search


def test_any_function_is_a_landmarker(photos: Manifest):
    found = add_landmarks(photos, bright, name="brightness")
    assert found.table["hands"].to_list() == [1] * 12
    assert landmark_notes(found) == ["landmarks: 12 of 12 photos show one hand, by brightness"]
    again = add_landmarks(found, nothing)
    assert again.table["landmarks"].null_count() == 12
    assert len(landmark_notes(again)) == 2  # not those of the search before
    several = add_landmarks(photos, two)
    assert several.table["hands"].to_list() == [2] * 12
    largest = read_landmarks(several)[0]
    assert largest is not None
    assert largest.size == pytest.approx(96 / 4, abs=0.1)
    assert any("12 photos with several hands, the largest is taken: Hands/p00000" in note for note in several.notes)


@pytest.mark.parametrize("aspect", [1.0, 4 / 3])
@pytest.mark.parametrize("orientation", [1, 6])
def test_points_are_in_pixels_of_the_file_whatever_was_searched(tmp_path: Path, aspect: float, orientation: int):
    """A large JPEG is searched smaller, widened, and turned upright by EXIF."""
    pixels = np.zeros((3200, 4000, 3), np.uint8)
    pixels[600:680, 3000:3100] = 255  # in the file as stored
    exif = Image.Exif()
    exif[0x112] = orientation
    Image.fromarray(pixels).save(tmp_path / "large.jpg", exif=exif)
    centre = (3050, 640) if orientation == 1 else (3200 - 640, 3050)
    shapes = []

    def spot(picture: np.ndarray) -> Sequence[HandLandmarks]:
        shapes.append(picture.shape)
        rows, cols = np.nonzero(picture[..., 0] > 128)
        found = hand(scale=50)
        middle = np.array([cols.mean() + 0.5, rows.mean() + 0.5])
        return (HandLandmarks(found.points - found.points[0] + middle),)

    table = pl.DataFrame({"path": ["large.jpg"], "subject": ["anna"]})
    manifest = with_pixel_aspect(Manifest(table, tmp_path), aspect)
    found = landmarks_points(add_landmarks(manifest, spot).table["landmarks"][0])
    assert np.abs(found[0] - centre).max() < 4
    height, width = shapes[0][:2]
    assert min(height, width) < 1600
    full = (4000, 3200) if orientation == 1 else (3200, 4000)
    assert width / height == pytest.approx(full[0] * aspect / full[1], rel=0.01)


class Counting:
    """Stands for MediaPipe's Hand Landmarker."""

    calls = 0

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, picture: np.ndarray) -> Sequence[HandLandmarks]:
        type(self).calls += 1
        return bright(picture)


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Manifest]:
    monkeypatch.setattr(landmark_search, "HandLandmarker", Counting)
    monkeypatch.setattr(landmark_search, "check_installed", lambda: None)
    monkeypatch.setattr(landmark_search, "check_model", lambda path: path.read_text() * 16)
    landmark_search._landmarker.cache_clear()
    monkeypatch.setattr(Counting, "calls", 0)
    (tmp_path / "one.task").write_text("aaaa")
    (tmp_path / "two.task").write_text("bbbb")

    def run(manifest: Manifest, model: str = "one.task") -> Manifest:
        return add_landmarks(manifest, tmp_path / model, folder=tmp_path / "cache", workers=1)

    return run


def test_a_photo_is_searched_once_for_its_content_aspect_and_model(
    photos: Manifest, search: Callable[..., Manifest], tmp_path: Path
):
    first = search(photos)
    assert Counting.calls == 12
    assert search(photos).table.equals(first.table)
    assert Counting.calls == 12
    search(with_pixel_aspect(photos, 2.0))
    assert Counting.calls == 24
    search(photos, "two.task")
    assert Counting.calls == 36
    copied = tmp_path / "copy.jpg"  # the same content under another name
    copied.write_bytes(photos.paths()[3].read_bytes())
    search(Manifest(pl.DataFrame({"path": ["copy.jpg"], "subject": ["x"]}), tmp_path))
    assert Counting.calls == 36
    with Image.open(copied) as photo:
        photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(copied)
    search(Manifest(pl.DataFrame({"path": ["copy.jpg"], "subject": ["x"]}), tmp_path))
    assert Counting.calls == 37


def test_what_was_found_before_an_unreadable_photo_is_kept(
    photos: Manifest, search: Callable[..., Manifest], tmp_path: Path
):
    (photos.root / "broken.jpg").write_bytes(b"no photo")
    rows = [*photos.table["path"].to_list(), "broken.jpg"]
    table = pl.DataFrame({"path": rows, "subject": ["x"] * len(rows)})
    with pytest.raises(PhotoError, match=r"broken.jpg cannot be read as an image"):
        search(Manifest(table, photos.root))
    assert Counting.calls == 12
    search(photos)
    assert Counting.calls == 12
    (photos.root / "broken.jpg").unlink()
    with pytest.raises(ManifestError, match=r"broken.jpg no longer exists"):
        search(Manifest(table, photos.root))


def test_a_wrong_number_of_workers_is_refused(photos: Manifest):
    with pytest.raises(DataError, match="workers is 0"):
        add_landmarks(photos, bright, workers=0)


def test_a_small_photo_is_searched_at_its_size(photos: Manifest):
    seen = see(photos.paths()[0])
    assert seen.picture.size == seen.file_size == (96, 96)
