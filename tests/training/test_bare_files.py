"""Photo files without a manifest: a model that aligns or mirrors finds their hands itself."""

import shutil
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

import handreid
from handreid.data.landmark_search import see
from handreid.data.manifest import Manifest, read
from handreid.data.photo_file import PhotoFile, photo_files
from handreid.errors import DataError, PhotoError, WeightsError
from handreid.evaluation.embed import read_facts
from handreid.evaluation.embed_files import embed_files
from handreid.landmarks import HandLandmarks, Landmarker
from handreid.models.embedder import Embedder
from handreid.progress import NullProgress
from handreid.runs.folder import Run
from handreid.training.train import train
from tests.cli.test_commands import complaint
from tests.data.test_aligned import without
from tests.training.conftest import short_recipe

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*", "ignore:.*in eval mode at the start.*"
)


class Told(NullProgress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def exact(photos: Iterable[PhotoFile]) -> Landmarker:
    """Finds the hands that are known, and the side that is stated, by the photo's pixels."""
    hands = {see(photo.path).picture.tobytes(): photo for photo in photos}

    def find(picture: np.ndarray) -> list[HandLandmarks]:
        photo = hands[picture.tobytes()]
        return [] if photo.hand is None else [replace(photo.hand, handedness=photo.side)]

    return find


@pytest.fixture
def whole(hands: Path) -> Manifest:
    return read(hands)


def test_files_are_embedded_as_in_a_manifest_with_landmarks(canonical: Run, whole: Manifest):
    expected, find = handreid.embed(canonical, whole), exact(photo_files(whole))
    paths = [*whole.paths()[:5], whole.paths()[2]]
    assert np.allclose(handreid.embed(canonical, paths, landmarker=find), expected[[0, 1, 2, 3, 4, 2]], atol=1e-5)
    assert np.allclose(handreid.embed(canonical, str(paths[3]), landmarker=find), expected[3:4], atol=1e-5)
    assert not np.allclose(expected, handreid.embed(canonical, without(whole, list(range(40)))), atol=1e-2)


def test_the_table_says_what_was_found_and_done(canonical: Run, whole: Manifest, tmp_path: Path):
    """Of a folder and a file in it; of two hands the larger one is taken."""
    photos = photo_files(whole)[1:4]
    paths = [shutil.copy(photo.path, tmp_path / f"{number}.png") for number, photo in enumerate(photos)]
    assert photos[0].hand is not None
    small, known, told = HandLandmarks(photos[0].hand.points / 4, handedness="left"), exact(photos), Told()
    two = see(photos[0].path).picture.tobytes()

    def find(picture: np.ndarray) -> list[HandLandmarks]:
        return [small, *known(picture)] if picture.tobytes() == two else list(known(picture))

    out = tmp_path / "e.parquet"
    table = embed_files(canonical, [paths[0], tmp_path], out, landmarker=find, progress=told)
    assert table["path"].to_list() == list(map(str, paths))
    assert table["hands"].to_list() == [2, 1, 1]
    assert any("1 photos with several hands, the largest is taken" in line for line in told.lines)
    assert np.allclose(table["embedding"].to_numpy(), handreid.embed(canonical, whole)[1:4], atol=1e-5)
    sides = [photo.side for photo in photos]
    assert {"left", "right"} == set(sides)
    assert table["side_used"].to_list() == table["handedness"].to_list() == sides
    assert table["mirrored"].to_list() == [side == "left" for side in sides]
    assert set(table["side_from"]) == {"landmarks"}
    assert pl.read_parquet(out).equals(table)
    assert read_facts(out)["chirality"] == "canonical"


def test_a_photo_without_a_hand(canonical: Run, whole: Manifest):
    """The model takes it as it is, but not without a side."""
    photos = photo_files(whole)[:2]
    find = exact([photos[1], replace(photos[0], hand=None)])
    with pytest.raises(DataError, match=r"give the side of 1 of 2 .*unknown_side"):
        handreid.embed(canonical, [photo.path for photo in photos], landmarker=find)


def test_a_model_that_needs_no_hands_looks_for_none(whole: Manifest, hands: Path, tmp_path: Path):
    plain = train(short_recipe(), hands, tmp_path / "plain")

    def find(picture: np.ndarray) -> list[HandLandmarks]:
        raise AssertionError(picture.shape)

    found = handreid.embed(plain, whole.paths()[:3], landmarker=find)
    assert np.allclose(found, handreid.embed(plain, whole)[:3], atol=1e-5)
    table = embed_files(plain, whole.paths()[:3], tmp_path / "e.parquet")
    assert table.columns == ["path", "embedding"]


def test_without_the_extra_or_the_model_it_is_one_clear_line(
    canonical: Run, whole: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    photo, out = whole.paths()[0], tmp_path / "e.parquet"
    monkeypatch.setenv("HANDREID_LANDMARKER", str(tmp_path / "gone.task"))
    with pytest.raises(WeightsError, match=r"\$HANDREID_LANDMARKER is .*gone.task, and there is no such file"):
        handreid.embed(canonical, photo)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    for landmarker in (None, tmp_path / "hand.task"):
        with pytest.raises(WeightsError, match=r"pip install 'handreid\[landmarks\]'.*align or mirror photo files"):
            handreid.embed(canonical, photo, landmarker=landmarker)
    assert "pip install 'handreid[landmarks]'" in complaint("embed", canonical.folder, photo, "--out", out)
    assert not out.exists()
    with pytest.raises(DataError, match="landmarker is for photo files"):
        handreid.embed(canonical, whole, landmarker=exact([]))


def test_wrong_files_and_options(canonical: Run, hands: Path, tmp_path: Path):
    out = ("--out", tmp_path / "e.parquet")
    photo, empty = tmp_path / "a.png", tmp_path / "empty"
    Image.new("RGB", (64, 64)).save(photo)
    empty.mkdir()
    assert "gone.jpg: no such photo" in complaint("embed", canonical.folder, tmp_path / "gone.jpg", *out)
    assert "is a manifest, not a photo" in complaint("embed", canonical.folder, hands, *out)
    assert "no manifest" in complaint("embed", canonical.folder, photo, "--data", hands, *out)
    assert "no manifest" in complaint("embed", canonical.folder, photo, "--split", "test", *out)
    assert "--landmarker is for photo files" in complaint("embed", canonical.folder, "--landmarker", photo, *out)
    assert "there is no photo below" in complaint("embed", canonical.folder, empty, *out)
    with pytest.raises(PhotoError, match=r"2 of 2 photos are missing: gone.jpg, lost.jpg"):
        handreid.embed(canonical, ["gone.jpg", "lost.jpg"])
    blank = exact([PhotoFile(photo, searched=True)])
    with pytest.raises(DataError, match="of 1 of 1 photos"):
        handreid.embed(canonical, photo, landmarker=blank)
    assert Embedder.load(canonical.model).preprocessing.mirrors
