"""Photos known by content: one picture, one hash, whatever its file is."""

import hashlib
import os
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import handreid.data.photo_hashes as hashes
from handreid.data import decoding
from handreid.data.photo_hashes import file_hashes, photo_hashes, pixel_hash
from handreid.errors import PhotoError

GREY = np.random.default_rng(0).integers(0, 256, (30, 40), dtype=np.uint8)
PICTURE = np.random.default_rng(1).integers(0, 256, (30, 40, 3), dtype=np.uint8)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """One picture as RGB, with an alpha channel, turned by EXIF, and as BMP."""
    (tmp_path / "photos").mkdir()
    picture, exif = Image.fromarray(PICTURE), Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "photos" / "a.png")
    picture.convert("RGBA").save(tmp_path / "photos" / "b.png")
    picture.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "photos" / "c.png", exif=exif)
    picture.save(tmp_path / "photos" / "d.bmp")
    return sorted((tmp_path / "photos").iterdir())


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    seen: list[Path] = []

    def noted(path: Path):
        seen.append(path)
        return decoding.opened(path)

    monkeypatch.setattr(hashes, "opened", noted)
    return seen


def pixels(paths: list[Path], folder: Path) -> list[str | None]:
    return [found and found.pixels for found in photo_hashes(paths, folder=folder)]


def test_a_picture_has_one_hash_and_each_file_its_own(tmp_path: Path, paths: list[Path]):
    found = photo_hashes(paths, folder=tmp_path)
    assert {photo.pixels for photo in found} == {hashlib.sha256(b"RGB 40x30" + PICTURE.tobytes()).hexdigest()}
    assert [photo.file for photo in found] == [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    assert pixel_hash(Image.fromarray(PICTURE)) == found[0].pixels


def test_grey_is_grey(tmp_path: Path):
    grey = Image.fromarray(GREY)
    grey.save(tmp_path / "a.png")
    grey.convert("RGB").save(tmp_path / "b.png")
    Image.fromarray(GREY.astype(np.uint16) * 257).save(tmp_path / "c.png")
    assert len(set(pixels([tmp_path / f"{name}.png" for name in "abc"], tmp_path))) == 1


def test_one_pixel_makes_another_picture(tmp_path: Path, paths: list[Path]):
    changed = PICTURE.copy()
    changed[0, 0, 0] ^= 1
    Image.fromarray(changed).save(paths[1])
    Image.fromarray(PICTURE.reshape(40, 30, 3)).save(paths[2])
    assert len(set(pixels(paths, tmp_path))) == 3


def test_strips_make_no_other_hash(tmp_path: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch):
    before = pixels(paths, tmp_path)
    monkeypatch.setattr(decoding, "_STRIP", 100)
    assert pixels(paths, tmp_path / "elsewhere") == before


def test_what_is_not_there_has_none(tmp_path: Path, paths: list[Path]):
    assert file_hashes([tmp_path / "gone.jpg"]) == [None]
    found = photo_hashes([paths[0], tmp_path / "gone.jpg", paths[0] / "below.jpg"], folder=tmp_path)
    assert [photo is None for photo in found] == [False, True, True]


def test_what_cannot_be_read_is_named(tmp_path: Path, paths: list[Path]):
    (tmp_path / "text.jpg").write_text("no photo")
    with pytest.raises(PhotoError, match=r"text\.jpg cannot be read as an image"):
        photo_hashes([*paths, tmp_path / "text.jpg"], folder=tmp_path)
    os.mkfifo(tmp_path / "pipe.jpg")
    for path, told in ((tmp_path / "pipe.jpg", "a pipe or a device"), (tmp_path, "it is a folder")):
        with pytest.raises(PhotoError, match=f"{path.name} cannot be read .*{told}"):
            file_hashes([path])


def test_a_file_is_decoded_once_on_a_machine(tmp_path: Path, paths: list[Path], decoded: list[Path]):
    before = pixels(paths, tmp_path)
    assert len(decoded) == 4
    paths[0].rename(paths[0].with_name("z.png"))
    assert pixels([paths[0].with_name("z.png"), *paths[1:]], tmp_path) == before
    assert len(decoded) == 4


@pytest.mark.parametrize("damage", ["text", "empty", "cut", "flipped", "wrong table", "wrong row"])
def test_a_damaged_database_is_made_anew(tmp_path: Path, paths: list[Path], decoded: list[Path], damage: str):
    before = pixels(paths, tmp_path)
    (file,) = tmp_path.glob("photo-hashes-*.sqlite")
    whole = file.read_bytes()
    match damage:
        case "text":
            file.write_text("no database")
        case "empty":
            file.write_bytes(b"")
        case "cut":
            file.write_bytes(whole[: len(whole) // 2])
        case "flipped":
            place = whole.index(before[0].encode())
            file.write_bytes(whole[:place] + (b"0" if whole[place] != ord("0") else b"1") + whole[place + 1 :])
        case "wrong table":
            file.unlink()
            with sqlite3.connect(file) as database:
                database.execute("CREATE TABLE photos (name TEXT)")
            database.close()
        case "wrong row":
            with sqlite3.connect(file) as database:
                database.execute("UPDATE photos SET pixels = ?", ("f" * 64,))
            database.close()
    assert pixels(paths, tmp_path) == before
    assert len(decoded) > 4
    decoded.clear()
    pixels(paths, tmp_path)
    assert pixels(paths, tmp_path) == before
    assert len(decoded) <= 4


def test_where_nothing_can_be_kept_hashes_are_the_same(tmp_path: Path, paths: list[Path]):
    (tmp_path / "file").touch()
    assert pixels(paths, tmp_path / "file" / "cache") == pixels(paths, tmp_path)
