"""Photos of left hands mirrored to right ones: by which side, with every alignment, and what depends on it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image, ImageOps

from handreid.data import sources
from handreid.data.loading import decode, decode_all
from handreid.data.manifest import Manifest
from handreid.data.photo_file import PhotoFile, photo_files
from handreid.data.rendered import render
from handreid.errors import DataError
from handreid.landmarks import HandLandmarks
from handreid.landmarks.align import apply, mirror_image
from handreid.types import Alignment, Chirality, Preprocessing
from tests.landmarks.hands import hand
from tests.turned import turned

# so large that pixels are not averaged in blocks first, which begin at the left edge of a photo and of its mirror image
PLAIN = Preprocessing((112, 96), (0.5,) * 3, (0.5,) * 3)
CANONICAL = replace(PLAIN, chirality=Chirality())
KINDS = ("none", "upright", "hand")


@pytest.fixture(scope="module")
def hands(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """As PNG files, so that a mirrored copy holds the same pixels."""
    folder = tmp_path_factory.mktemp("hands")
    return turned(sources.csv(render(folder / "all", identities=2, photos=4, size=128, workers=1)), folder / "png", 0)


def aligned(preprocessing: Preprocessing, kind: str, **options: float | str) -> Preprocessing:
    return preprocessing if kind == "none" else replace(preprocessing, alignment=Alignment(kind, **options))


def pixels(manifest: Manifest, preprocessing: Preprocessing) -> np.ndarray:
    return decode_all(photo_files(manifest), preprocessing).astype(float)


def mirrored_copy(photo: PhotoFile, folder: Path) -> PhotoFile:
    """The photo's mirror image in a file of its own, which shows a right hand."""
    picture = ImageOps.mirror(Image.open(photo.path).convert("RGB"))
    path = folder / f"{photo.path.stem}-mirrored.png"
    picture.save(path)
    assert photo.hand is not None
    moved = HandLandmarks(apply(mirror_image(picture.width), photo.hand.points))
    return replace(photo, path=path, hand=moved, stated_side="right")


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_left_hand_is_read_as_its_mirror_image(hands: Manifest, tmp_path: Path, kind: str, resize: str):
    """From the photo, as from a mirrored file of it; palms and backs, whichever side the thumb is on."""
    preprocessing = aligned(replace(CANONICAL, resize=resize), kind, margin=0.1)
    photos = photo_files(hands)
    assert {(photo.side, aspect) for photo, aspect in zip(photos, hands.table["aspect"], strict=True)} >= {
        ("left", "dorsal"), ("left", "palmar"), ("right", "dorsal"), ("right", "palmar")}  # fmt: skip
    for photo in photos:
        read = decode(photo, preprocessing).astype(float)
        as_is = decode(photo, replace(preprocessing, chirality=None)).astype(float)
        if photo.side == "right":
            assert np.array_equal(read, as_is)
            continue
        expected = decode(mirrored_copy(photo, tmp_path), preprocessing).astype(float)
        assert np.abs(read - expected).mean() < 0.5
        assert np.abs(read - as_is[..., ::-1]).mean() < 0.5
        assert np.abs(read - as_is).mean() > 3


def test_mirroring_undoes_a_squashed_photo_too(tmp_path: Path):
    """Points are in pixels of the photo as taken: a dot of the file's left half arrives on the right."""
    picture = np.full((80, 60, 3), 255, np.uint8)
    picture[36:44, 10:16] = 0
    Image.fromarray(picture).save(tmp_path / "a.png")
    found = hand(scale=40.0, at=(39.0, 60.0))  # the file's 60 pixels were 120
    photo = PhotoFile(tmp_path / "a.png", found, 2.0, searched=True, stated_side="left")
    preprocessing = replace(CANONICAL, size=(60, 60), alignment=Alignment("upright"))
    dark = np.argwhere(decode(photo, preprocessing)[0] < 128).mean(axis=0)
    plain = np.argwhere(decode(photo, replace(preprocessing, chirality=None))[0] < 128).mean(axis=0)
    assert dark[0] == pytest.approx(plain[0], abs=0.5)
    assert dark[1] == pytest.approx(59 - plain[1], abs=0.5)


@pytest.mark.parametrize(
    ("stated", "predicted", "side", "source"),
    [
        ("left", "right", "left", "manifest"),
        ("right", "left", "right", "manifest"),
        (None, "left", "left", "landmarks"),
        (None, "right", "right", "landmarks"),
        (None, None, None, None),
    ],
)
def test_the_manifests_side_comes_first(hands: Manifest, stated, predicted, side, source):
    columns = {"side": [stated] * len(hands), "handedness": [predicted] * len(hands)}
    table = hands.table.with_columns(pl.Series(name, cells, dtype=pl.String) for name, cells in columns.items())
    photo = photo_files(replace(hands, table=table))[0]
    assert (photo.side, photo.side_from) == (side, source)
    marked = table.with_columns(side_probability=pl.lit(0.95 if stated else None, dtype=pl.Float64))
    again = photo_files(replace(hands, table=marked))[0]
    assert (again.side, again.side_from) == (side, "prediction" if source == "manifest" else source)
    assert photo.is_mirrored(CANONICAL) == (side == "left")
    assert not photo.is_mirrored(PLAIN)


@pytest.mark.parametrize("kind", KINDS)
def test_photos_of_an_unknown_side(hands: Manifest, kind: str):
    """Refused with their number, or as they are; a photo that nobody searched is an error in either case."""
    nothing = pl.lit(None, pl.String)
    unknown = replace(hands, table=hands.table.with_columns(side=nothing, handedness=nothing))
    with pytest.raises(DataError, match=r"neither the manifest nor landmarks give the side of 8 of 8 .*unknown_side"):
        pixels(unknown, aligned(CANONICAL, kind))
    taken = replace(PLAIN, chirality=Chirality("as_is"))
    assert np.array_equal(pixels(unknown, aligned(taken, kind)), pixels(hands, aligned(PLAIN, kind)))
    bare = replace(unknown, table=unknown.table.drop("hands", "landmarks"))
    with pytest.raises(DataError, match=r"8 of 8 photos .*run `handreid data landmarks`"):
        pixels(bare, aligned(taken, kind))


def test_without_alignment_no_points_are_needed(hands: Manifest):
    bare = replace(hands, table=hands.table.drop("hands", "landmarks"))
    assert np.array_equal(pixels(bare, CANONICAL), pixels(hands, CANONICAL))


def test_a_photo_without_a_hand_is_mirrored_as_it_is(hands: Manifest):
    nothing = hands.table.with_columns(hands=pl.lit(0), landmarks=pl.lit(None, pl.String))
    preprocessing = aligned(CANONICAL, "hand", without_hand="as_is")
    assert np.array_equal(pixels(replace(hands, table=nothing), preprocessing), pixels(hands, CANONICAL))


def test_the_cache_of_decoded_photos_knows_sides_only_where_they_are_used(hands: Manifest, tmp_path: Path):
    def cached(manifest: Manifest, preprocessing: Preprocessing) -> int:
        decode_all(photo_files(manifest), preprocessing, cache="disk", folder=tmp_path)
        return len(list(tmp_path.glob("photos-*.npy")))

    swapped = replace(hands, table=hands.table.with_columns(pl.col("side").replace({"left": "right", "right": "left"})))
    assert [cached(one, PLAIN) for one in (hands, swapped)] == [1, 1]
    assert [cached(one, CANONICAL) for one in (hands, swapped, hands)] == [2, 3, 3]


def test_hashes_without_it_are_what_they_were(hands: Manifest):
    """Of caches and finished stages, before there was chirality."""
    assert "chirality" not in repr(PLAIN)
    assert "chirality=Chirality(unknown_side='refuse')" in repr(CANONICAL)
    photo = photo_files(hands)[0]
    assert photo.marks(PLAIN) == ""
    marks = photo.marks(aligned(PLAIN, "hand"))
    assert len(marks) == 16
    assert replace(photo, stated_side="left").marks(aligned(CANONICAL, "hand")) == f"{marks} mirrored"
