"""Decoded photos: right side up, the model's size, once; a cache that cannot be stale (trap 13)."""

import errno
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import handreid.data.loading as loading
from handreid.data.photo_file import PhotoFile
from handreid.errors import OutputError, PhotoError
from handreid.files import cache_folder, file_hash, write_json
from handreid.progress import NullProgress
from handreid.types import Preprocessing

HALF = ((0.5,) * 3, (0.5,) * 3)
SMALL = Preprocessing((24, 32), *HALF)


def decode(path: Path, preprocessing: Preprocessing, enlarge: float = 1.0) -> np.ndarray:
    return loading.decode(PhotoFile(path), preprocessing, enlarge)


def decode_all(paths: list[Path], preprocessing: Preprocessing, **options) -> np.ndarray:
    return loading.decode_all([PhotoFile(path) for path in paths], preprocessing, **options)


def save(path: Path, colour: tuple[int, int, int] = (200, 80, 40), size: tuple[int, int] = (64, 48), **options) -> Path:
    Image.new("RGB", size, colour).save(path, **options)
    return path


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Photos that were really decoded, in order."""
    seen: list[Path] = []

    original = loading.decode

    def noted(photo, *rest):
        seen.append(photo.path)
        return original(photo, *rest)

    monkeypatch.setattr(loading, "decode", noted)
    return seen


def test_a_photo_has_the_size_channels_and_colours_of_the_file(tmp_path: Path):
    photo = decode(save(tmp_path / "a.png"), SMALL)
    assert (photo.shape, photo.dtype) == ((3, 24, 32), np.uint8)
    assert photo[:, 0, 0].tolist() == [200, 80, 40]


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_other_modes_become_rgb(tmp_path: Path, mode: str):
    Image.new("RGB", (40, 40), (90, 90, 90)).convert(mode).save(tmp_path / f"a.{'jpg' if mode == 'CMYK' else 'png'}")
    photo = decode(next(tmp_path.glob("a.*")), SMALL)
    assert photo.shape == (3, 24, 32)
    assert abs(int(photo[0, 5, 5]) - 90) < 8


def test_a_turned_photo_is_upright(tmp_path: Path):
    """A phone writes the sensor's pixels and says in EXIF how it was held."""
    upright = Image.new("RGB", (32, 24), (255, 255, 255))
    upright.paste((0, 0, 0), (0, 0, 16, 24))  # left half black
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.jpg", exif=exif, quality=95)
    photo = decode(tmp_path / "a.jpg", SMALL)
    assert photo[0, :, :12].mean() < 20
    assert photo[0, :, -12:].mean() > 235


@pytest.mark.parametrize(("resize", "corner"), [("squash", 0), ("crop", 0), ("pad", 255)])
def test_what_becomes_of_another_shape(tmp_path: Path, resize: str, corner: int):
    save(tmp_path / "a.png", (0, 0, 0), (30, 90))
    photo = decode(tmp_path / "a.png", Preprocessing((32, 32), *HALF, resize=resize))
    assert photo.shape == (3, 32, 32)
    assert photo[0, 0, 0] == corner
    assert photo[0, 16, 16] == 0


def test_photos_are_enlarged_for_cropping(tmp_path: Path):
    assert decode(save(tmp_path / "a.png"), SMALL, 1.25).shape == (3, 30, 40)


def test_bad_photos_are_named(tmp_path: Path):
    whole = save(tmp_path / "a.jpg", size=(300, 200)).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "empty.jpg").touch()
    for name in ("cut", "text", "empty"):
        with pytest.raises(PhotoError, match=rf"{name}\.jpg cannot be read as an image"):
            decode_all([tmp_path / "a.jpg", tmp_path / f"{name}.jpg"], SMALL)
    with pytest.raises(PhotoError, match=r"gone\.jpg is missing"):
        decode_all([tmp_path / "gone.jpg"], SMALL)


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_photos_keep_their_order_and_cannot_be_written_to(tmp_path: Path, cache: str):
    paths = [save(tmp_path / f"{number}.png", (number, 0, 0)) for number in (30, 10, 20)]
    photos = decode_all(paths, SMALL, cache=cache, folder=tmp_path / "cache")
    assert photos[:, 0, 0, 0].tolist() == [30, 10, 20]
    with pytest.raises(ValueError, match="read-only"):
        photos[0] = 0


def test_a_second_run_decodes_nothing_again(tmp_path: Path, decoded: list[Path]):
    paths = [save(tmp_path / f"{number}.png", (number, 0, 0)) for number in range(4)]
    first = decode_all(paths, SMALL, cache="disk", folder=tmp_path / "cache")
    assert len(decoded) == 4
    again = decode_all(paths, SMALL, cache="disk", folder=tmp_path / "cache")
    assert len(decoded) == 4
    assert np.array_equal(first, again)
    assert isinstance(again, np.memmap)


def test_a_photo_changed_in_place_is_decoded_anew(tmp_path: Path, decoded: list[Path]):
    """Same name, same length, same date: only the content tells."""
    path = save(tmp_path / "a.bmp", (10, 10, 10))
    before = path.stat()
    decode_all([path], SMALL, cache="disk", folder=tmp_path / "cache")
    save(path, (99, 10, 10))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    photos = decode_all([path], SMALL, cache="disk", folder=tmp_path / "cache")
    assert photos[0, 0, 0, 0] == 99
    assert len(decoded) == 2


@pytest.mark.parametrize(
    "other",
    [Preprocessing((32, 32), *HALF), Preprocessing((24, 32), *HALF, resize="pad"), SMALL],
    ids=["size", "pad", "zoom"],
)
def test_other_preprocessing_is_another_key(tmp_path: Path, other: Preprocessing):
    path = save(tmp_path / "a.png", size=(90, 30))
    decode_all([path], SMALL, cache="disk", folder=tmp_path / "cache")
    enlarge = 1.5 if other == SMALL else 1.0
    photos = decode_all([path], other, enlarge=enlarge, cache="disk", folder=tmp_path / "cache")
    assert np.array_equal(photos[0], decode(path, other, enlarge))
    assert len(list((tmp_path / "cache").glob("photos-*.npy"))) == 2


def test_an_interrupted_cache_leaves_nothing_behind(tmp_path: Path):
    paths = [save(tmp_path / "a.png"), tmp_path / "b.png"]
    paths[1].write_text("broken")
    with pytest.raises(PhotoError):
        decode_all(paths, SMALL, cache="disk", folder=tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_large_sets_go_to_disk_by_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HANDREID_CACHE", str(tmp_path / "elsewhere"))
    assert cache_folder() == tmp_path / "elsewhere"
    path = save(tmp_path / "a.png")
    assert not isinstance(decode_all([path], SMALL), np.memmap)
    monkeypatch.setattr(loading, "MEMORY_LIMIT", 100)
    assert isinstance(decode_all([path], SMALL), np.memmap)
    assert len(list((tmp_path / "elsewhere").glob("photos-*.npy"))) == 1


class TestCacheFile:
    """The file of decoded photos proves itself: whatever was done to it, what is used is what was decoded."""

    @pytest.fixture
    def paths(self, tmp_path: Path) -> list[Path]:
        return [save(tmp_path / f"{number}.png", (number, 0, 0)) for number in (30, 10, 20)]

    def again(self, paths: list[Path], folder: Path) -> tuple[list[int], list[str]]:
        """The photos' first bytes, and what was said."""
        heard = Heard()
        photos = decode_all(paths, SMALL, cache="disk", folder=folder, progress=heard)
        return photos[:, 0, 0, 0].tolist(), heard.lines

    @pytest.mark.parametrize("damage", ["flip", "cut", "longer", "empty", "text", "pickle", "other", "note", "no note"])
    def test_what_is_not_as_written_is_decoded_anew_and_said(self, tmp_path: Path, paths: list[Path], damage: str):
        folder = tmp_path / "cache"
        assert self.again(paths, folder) == ([30, 10, 20], [])
        (file,) = folder.glob("photos-*.npy")
        (note,) = folder.glob("photos-*.json")
        whole = file.read_bytes()
        match damage:
            case "flip":
                file.write_bytes(whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:])
            case "cut":
                file.write_bytes(whole[:-500])
            case "longer":
                file.write_bytes(whole + b"x")
            case "empty":
                file.write_bytes(b"")
            case "text":
                file.write_text("no array")
            case "pickle":
                np.save(file, np.array([Bomb()] * 3, object), allow_pickle=True)
            case "other":
                np.save(file, np.zeros((3, 3, 24, 32), np.float32))
            case "note":
                note.write_text('{"sha256": "0"')
            case "no note":
                note.unlink()
        photos, lines = self.again(paths, folder)
        assert photos == [30, 10, 20]
        assert len(lines) == 1
        assert re.match(rf"{re.escape(str(file))} .+: decoding the photos again$", lines[0])
        assert file.read_bytes() == whole
        assert self.again(paths, folder) == ([30, 10, 20], [])

    @pytest.mark.parametrize("array", [np.zeros((2, 3, 24, 32), np.uint8), np.zeros((3, 3, 24, 32), np.int8)])
    def test_another_array_with_its_own_note_is_not_taken(self, tmp_path: Path, paths: list[Path], array: np.ndarray):
        folder = tmp_path / "cache"
        self.again(paths, folder)
        (file,) = folder.glob("photos-*.npy")
        np.save(file, array)
        write_json(file.with_suffix(".json"), {"sha256": file_hash(file)})
        photos, lines = self.again(paths, folder)
        assert photos == [30, 10, 20]
        assert "holds something else than these photos" in lines[0]

    def test_it_is_hashed_once_in_a_process(self, tmp_path: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch):
        self.again(paths, tmp_path / "cache")
        self.again(paths, tmp_path / "cache")
        monkeypatch.setattr("hashlib.file_digest", lambda *_: pytest.fail("the file was read again"))
        assert self.again(paths, tmp_path / "cache")[0] == [30, 10, 20]

    def test_a_full_disk_is_an_error(self, tmp_path: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch):
        """Writing into a mapped file would end the process."""

        class Full:
            def __init__(self, file) -> None:
                self.file = file

            def __enter__(self):
                return self

            def __exit__(self, *_: object) -> None:
                self.file.close()

            def write(self, _: object) -> None:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(
            Path,
            "open",
            lambda path, mode="r", opened=Path.open: Full(opened(path, mode)) if "w" in mode else opened(path, mode),
        )
        with pytest.raises(OutputError, match=r"photos-.*\.npy cannot be written: No space left on device"):
            decode_all(paths, SMALL, cache="disk", folder=tmp_path / "cache")
        assert not list((tmp_path / "cache").iterdir())

    def test_a_folder_that_cannot_be_made_is_an_error(self, tmp_path: Path, paths: list[Path]):
        (tmp_path / "file").touch()
        with pytest.raises(OutputError, match=r"file.cache: decoded photos cannot be cached there .* HANDREID_CACHE"):
            decode_all(paths, SMALL, cache="disk", folder=tmp_path / "file" / "cache")

    def test_a_missing_photo_is_named_before_anything_is_written(self, tmp_path: Path, paths: list[Path]):
        with pytest.raises(PhotoError, match=r"gone\.jpg is missing; run `handreid data check`"):
            decode_all([*paths, tmp_path / "gone.jpg"], SMALL, cache="disk", folder=tmp_path / "cache")
        assert not (tmp_path / "cache").exists()

    def test_no_photos_are_no_file(self, tmp_path: Path):
        assert decode_all([], SMALL, cache="disk", folder=tmp_path / "cache").shape == (0, 3, 24, 32)


class Heard(NullProgress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("the cache was unpickled",)
