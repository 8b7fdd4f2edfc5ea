"""Photos read with their hand aligned: turns are undone, nothing else is changed, and no caller forgets landmarks."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from handreid.data import sources
from handreid.data.landmark_columns import with_pixel_aspect
from handreid.data.loading import decode, decode_all
from handreid.data.manifest import Manifest
from handreid.data.photo_file import PhotoFile, photo_files
from handreid.data.rendered import render
from handreid.errors import DataError, PhotoError
from handreid.landmarks import HandLandmarks
from handreid.landmarks.align import PLACES
from handreid.types import Alignment, Preprocessing
from tests.landmarks.hands import hand
from tests.turned import turned

HALF = ((0.5,) * 3, (0.5,) * 3)
PLAIN = Preprocessing((64, 64), *HALF)
HAND, UPRIGHT = (replace(PLAIN, alignment=Alignment(kind)) for kind in ("hand", "upright"))


@pytest.fixture(scope="module")
def hands(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return sources.csv(render(tmp_path_factory.mktemp("hands") / "all", identities=2, photos=4, size=128, workers=1))


def pixels(manifest: Manifest, preprocessing: Preprocessing) -> np.ndarray:
    return decode_all(photo_files(manifest), preprocessing).astype(float)


def dotted(path: Path, found: HandLandmarks, size: tuple[int, int], numbers: tuple[int, ...], aspect: float = 1.0):
    """A white photo, black where points of the hand are, and its hand in pixels of the photo as taken."""
    picture = np.full((size[1], size[0], 3), 255, np.uint8)
    for x, y in (found.points[list(numbers)]).round().astype(int):
        picture[y - 14 : y + 14, x - 14 : x + 14] = 0
    Image.fromarray(picture).save(path)
    return PhotoFile(path, HandLandmarks(found.points * [aspect, 1]), aspect, searched=True)


@pytest.mark.parametrize("degrees", [90, 180, 37])
def test_turning_a_photo_hardly_changes_its_aligned_picture(hands: Manifest, tmp_path: Path, degrees: float):
    other = turned(hands, tmp_path, degrees)
    kinds = ("hand", "upright") if degrees % 90 == 0 else ("hand",)  # a canvas turned by 37 degrees is larger
    for kind in kinds:
        preprocessing = replace(PLAIN, alignment=Alignment(kind, fill="replicated"))  # as `turned` fills
        aligned = np.abs(pixels(other, preprocessing) - pixels(hands, preprocessing)).mean(axis=(1, 2, 3))
        plain = np.abs(pixels(other, PLAIN) - pixels(hands, PLAIN)).mean(axis=(1, 2, 3))
        assert aligned.mean() < 6
        assert (aligned < plain / 3).all()


@pytest.mark.parametrize("aspect", [1.0, 4 / 3])
def test_points_arrive_at_their_places_from_any_file(tmp_path: Path, aspect: float):
    """From a squashed photo too, and where the photo is much larger than the input."""
    found = hand(scale=180.0, turn=2.0, at=(400.0, 420.0))
    squashed = HandLandmarks(found.points * [1 / aspect, 1])
    photo = dotted(tmp_path / "a.png", squashed, (round(900 / aspect), 800), (0, 5, 17), aspect)
    for margin in (0.0, 0.2):
        preprocessing = replace(PLAIN, alignment=Alignment("hand", margin=margin))
        picture = decode(photo, preprocessing)[0].astype(float)
        for place in PLACES[[0, 1, 4]]:
            x, y = ((margin + place * (1 - 2 * margin)) * 64).astype(int)
            assert picture[max(0, y - 4) : y + 5, max(0, x - 4) : x + 5].min() < 200


@pytest.mark.parametrize(("resize", "width", "seen"), [("squash", 32, 1.0), ("pad", 32, 0.5), ("crop", 32, 1.0)])
def test_the_aligned_square_is_resized_as_a_photo_is(tmp_path: Path, resize: str, width: int, seen: float):
    """Wrist to knuckle in an input of 64 x 32: the square fills its height, or its width if it is fitted."""
    photo = dotted(tmp_path / "a.png", hand(scale=180.0, at=(400.0, 420.0)), (900, 800), (0, 9))
    preprocessing = replace(HAND, size=(64, width), resize=resize, alignment=Alignment("hand", fill="blank"))
    rows = np.flatnonzero(decode(photo, preprocessing)[0].min(axis=1) < 220)
    assert np.ptp(rows) == pytest.approx(64 * seen * (PLACES[0, 1] - PLACES[2, 1]), abs=5)


def test_a_jpeg_is_decoded_large_enough_for_a_small_hand(tmp_path: Path):
    """A hand that is an eighth of the photo still has the pixels of the model's input."""
    small = hand(scale=60.0, at=(1200.0, 1100.0))
    picture = np.full((1600, 2400, 3), 255, np.uint8)
    picture[:, ::8] = picture[:, 1::8] = picture[:, 2::8] = picture[:, 3::8] = 0  # stripes, 4 pixels each
    Image.fromarray(picture).save(tmp_path / "a.jpg", quality=95)
    photo = PhotoFile(tmp_path / "a.jpg", small, searched=True)
    assert decode(photo, HAND).std() > 60  # decoded at an eighth, they are an even grey
    assert decode(photo, PLAIN).std() < 20


def test_sideways_by_exif(hands: Manifest, tmp_path: Path):
    """Landmarks are of the photo as a viewer shows it."""
    photo = photo_files(hands)[0]
    upright = Image.open(photo.path).crop((0, 0, 128, 100))
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.png", exif=exif)
    upright.save(tmp_path / "b.png")
    assert np.array_equal(*(decode(replace(photo, path=tmp_path / name), HAND) for name in ("a.png", "b.png")))


@pytest.mark.parametrize(("fill", "colour"), [("blank", 255), ("mean", 100), ("replicated", 100)])
def test_what_lies_outside_the_photo(tmp_path: Path, fill: str, colour: int):
    Image.new("RGB", (100, 100), (100, 100, 100)).save(tmp_path / "a.png")
    photo = PhotoFile(tmp_path / "a.png", hand(scale=50.0, at=(50.0, 99.0)), searched=True)
    picture = decode(photo, replace(PLAIN, alignment=Alignment("hand", fill=fill, margin=0.4)))
    assert picture[0, 0, 0] == colour
    assert picture[0, 32, 32] == 100


def test_without_alignment_landmarks_and_aspect_change_nothing(hands: Manifest):
    bare = replace(hands, table=hands.table.drop("hands", "landmarks"))
    assert np.array_equal(pixels(with_pixel_aspect(hands, 2.0), PLAIN), pixels(bare, PLAIN))


# Photos without a hand


def without(manifest: Manifest, rows: list[int], hands: int | None = 0) -> Manifest:
    found = [None if row in rows else cell for row, cell in enumerate(manifest.table["landmarks"])]
    counts = [hands if row in rows else 1 for row in range(len(manifest))]
    columns = pl.Series("landmarks", found, dtype=pl.String), pl.Series("hands", counts, dtype=pl.Int64)
    return replace(manifest, table=manifest.table.with_columns(*columns))


def test_photos_without_a_hand_are_refused_by_number_and_name(hands: Manifest):
    with pytest.raises(DataError, match=r"no hand was found on 2 of 8 photos \(.*\): leave them out.*without_hand"):
        pixels(without(hands, [1, 6]), HAND)
    with pytest.raises(DataError, match="no hand was found on 1 of 1 photos"):
        decode(photo_files(without(hands, [1]))[1], UPRIGHT)


def test_photos_without_a_hand_are_taken_as_they_are(hands: Manifest):
    some = without(hands, [1])
    preprocessing = replace(PLAIN, alignment=Alignment("hand", without_hand="as_is"))
    mixed = pixels(some, preprocessing)
    assert np.array_equal(mixed[1], pixels(some, PLAIN)[1])
    assert np.array_equal(mixed[0], pixels(hands, HAND)[0])


@pytest.mark.parametrize("without_hand", ["refuse", "as_is"])
def test_photos_that_nobody_searched_are_an_error(hands: Manifest, without_hand: str):
    preprocessing = replace(PLAIN, alignment=Alignment("hand", without_hand=without_hand))
    bare = replace(hands, table=hands.table.drop("hands", "landmarks"))
    for manifest, count in ((bare, 8), (without(hands, [2], None), 1)):
        with pytest.raises(DataError, match=f"{count} of 8 photos .* without landmarks: run `handreid data landmarks`"):
            pixels(manifest, preprocessing)
    with pytest.raises(DataError, match=r"aligns hands .*run `handreid data landmarks`"):
        decode(PhotoFile(hands.paths()[0]), preprocessing)


def test_points_that_coincide_name_the_photo(hands: Manifest):
    flat = replace(photo_files(hands)[0], hand=HandLandmarks(np.full((21, 2), 5.0)))
    for preprocessing in (HAND, UPRIGHT):
        with pytest.raises(DataError, match=rf"{flat.path.name}: .*coincide.*correct its landmarks"):
            decode(flat, preprocessing)
    with pytest.raises(PhotoError, match=r"gone.png is missing"):
        decode(replace(flat, path=flat.path.with_name("gone.png"), hand=hand()), HAND)


# The cache of decoded photos


def test_the_cache_knows_landmarks_and_aspect_only_where_they_are_used(hands: Manifest, tmp_path: Path):
    def cached(manifest: Manifest, preprocessing: Preprocessing) -> int:
        decode_all(photo_files(manifest), preprocessing, cache="disk", folder=tmp_path)
        return len(list(tmp_path.glob("photos-*.npy")))

    moved = replace(hands, table=hands.table.with_columns(landmarks=pl.col("landmarks").reverse()))
    wide = with_pixel_aspect(hands, 2.0)
    assert [cached(one, PLAIN) for one in (hands, moved, wide)] == [1, 1, 1]
    assert [cached(one, HAND) for one in (hands, moved, wide, hands)] == [2, 3, 4, 4]
    assert cached(hands, replace(HAND, alignment=Alignment("hand", fill="blank"))) == 5


def test_hashes_of_preprocessing_are_what_they_were():
    """Of caches and finished stages, before there was alignment."""
    assert repr(PLAIN) == (
        "Preprocessing(size=(64, 64), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), resize='squash', "
        "interpolation='bicubic')"
    )
    assert "Alignment(kind='hand'" in repr(HAND)
