"""`check` finds what was put wrong, and nothing else."""

import hashlib
import os
import re
import struct
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image, ImageFile

from handreid.data import sources
from handreid.data.check import Finding, check
from handreid.data.manifest import Manifest

SHARED = Path(__file__).parents[3] / "shared" / "data"
PEOPLE = {"a": 3, "b": 3, "c": 2}


@pytest.fixture
def photos(tmp_path: Path) -> Manifest:
    """Noise, different in every photo: JPEG, PNG and BMP."""
    random = np.random.default_rng(0)
    rows = []
    for who, count in PEOPLE.items():
        (tmp_path / who).mkdir()
        for number in range(count):
            path = f"{who}/{number}.{('jpg', 'png', 'bmp')[number]}"
            Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(tmp_path / path)
            rows.append({"path": path, "subject": who, "origin": f"hands.csv line {len(rows) + 2}"})
    return Manifest(pl.DataFrame(rows), tmp_path)


def put(manifest: Manifest, column: str, values: list[str | None]) -> Manifest:
    return Manifest(manifest.table.with_columns(pl.Series(column, values, dtype=pl.String)), manifest.root)


def kinds(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.severity, finding.kind) for finding in findings]


def test_sound_photos_give_no_finding(photos: Manifest) -> None:
    heard: list[int] = []
    assert check(photos, progress=heard.append) == []
    assert sum(heard) == len(photos)


def test_missing_photos_are_named_once(photos: Manifest) -> None:
    (photos.root / "a" / "1.png").unlink()
    (found,) = check(photos)
    assert (found.severity, found.kind, found.rows) == ("error", "missing", (1,))
    assert "1 of 8 photos" in found.message
    assert "a/1.png (hands.csv line 3)" in found.message
    assert check(photos, pixels=False) == [found]


@pytest.mark.parametrize("name", ["a/0.jpg", "a/1.png", "a/2.bmp"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_damaged_photos_are_found_by_decoding(photos: Manifest, name: str, damage: str) -> None:
    path = photos.root / name
    whole = path.read_bytes()
    path.write_bytes({"truncated": whole[: len(whole) * 2 // 3], "empty": b"", "text": b"not a photo"}[damage])
    (found,) = check(photos)
    assert (found.severity, found.kind) == ("error", "unreadable")
    assert f"{name} (hands.csv line " in found.message
    assert check(photos, pixels=False) == []


def test_same_pixels_under_two_subjects_whatever_the_format(photos: Manifest) -> None:
    with Image.open(photos.root / "a" / "1.png") as image:
        image.save(photos.root / "b" / "2.bmp")
    (found,) = check(photos)
    assert (found.severity, found.kind, found.rows) == ("error", "same-pixels", (1, 5))
    assert "under 2 subjects (a, b): a/1.png (hands.csv line 3), b/2.bmp (hands.csv line 7)" in found.message


def test_same_pixels_twice_under_one_subject_warn(photos: Manifest) -> None:
    (photos.root / "a" / "0.jpg").write_bytes((photos.root / "a" / "1.png").read_bytes())
    (found,) = check(photos)
    assert (found.severity, found.kind, found.rows) == ("warning", "same-pixels", (0, 1))


def test_copies_in_the_draws_of_a_prepared_tree_are_no_repetition(tmp_path: Path) -> None:
    for folder in ("train/x", "query0/a", "gallery1/a"):
        (tmp_path / folder).mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    for name, which in (("train/x/0.png", 0), ("train/x/1.png", 1), ("query0/a/0.png", 2), ("gallery1/a/0.png", 2)):
        Image.fromarray(noise[which]).save(tmp_path / name)
    assert check(sources.folders(tmp_path)) == []


def test_wrong_values_are_findings_when_a_file_is_checked(tmp_path: Path) -> None:
    (tmp_path / "hands.csv").write_text("path,subject,side\na.jpg,1,rigth\n")
    (found,) = check(tmp_path / "hands.csv")
    assert (found.severity, found.kind) == ("error", "value")
    assert found.message == "hands.csv line 2: side 'rigth' is not one of left, right (did you mean 'right'?)"


def test_subject_on_both_sides_of_a_split(photos: Manifest) -> None:
    split = ["train", "train", "test", "validation", "validation", "query", "train", "train"]
    found = check(put(photos, "split", split), pixels=False)
    assert kinds(found) == [("error", "both-sides"), ("error", "both-sides")]
    assert found[0].message == "1 subjects are both in training and in the test: a"
    assert found[1].message == "1 subjects are both in validation and in the test: b"
    assert found[0].rows == (0, 1, 2)


def test_distractors_are_on_no_side(photos: Manifest) -> None:
    split = ["train", "train", "distractor", "train", "train", "train", "test", "test"]
    assert check(put(photos, "split", split), pixels=False) == []


def test_identities_with_one_photo_are_counted(photos: Manifest) -> None:
    aspect, side = ["dorsal"] * 8, ["left"] * 7 + ["right"]
    found = check(put(put(photos, "aspect", aspect), "side", side), pixels=False)
    assert kinds(found) == [("warning", "single-photo")] * 2
    assert found[0].message == "2 of 4 identities (label hand) have one photo only: c/left, c/right"
    assert found[0].rows == (6, 7)


def test_truncation_is_found_where_others_tolerate_it(photos: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.ImageFile.LOAD_TRUNCATED_IMAGES", True)
    path = photos.root / "a" / "0.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    assert kinds(check(photos)) == [("error", "unreadable")]


def scene(height: int = 96, width: int = 128, seed: int = 0) -> np.ndarray:
    """As smooth as a photo, with a sensor's noise."""
    random = np.random.default_rng(seed)
    small = random.integers(20, 230, (height // 16, width // 16, 3), dtype=np.uint8)
    planes = [
        Image.fromarray(plane).resize((width, height), Image.Resampling.BICUBIC) for plane in small.transpose(2, 0, 1)
    ]
    noisy = np.stack([np.asarray(plane) for plane in planes], 2) + random.normal(0, 3, (height, width, 3))
    return noisy.clip(0, 255).astype(np.uint8)


def of(root: Path, subjects: dict[str, str], **columns: list[str]) -> Manifest:
    table = pl.DataFrame({"path": list(subjects), "subject": list(subjects.values()), **columns})
    return Manifest(table.with_columns(origin=pl.lit("hands.csv")), root)


class TestDamage:
    """Photos that Pillow decodes without a word."""

    @pytest.fixture
    def photo(self, tmp_path: Path) -> Path:
        Image.fromarray(scene()).save(tmp_path / "a.jpg", quality=90)
        return tmp_path / "a.jpg"

    def findings(self, path: Path) -> list[Finding]:
        return [finding for finding in check(of(path.parent, {path.name: "a"})) if finding.kind != "single-photo"]

    @pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
    @pytest.mark.parametrize("share", [0.3, 0.6, 0.97])
    def test_cut_short_with_an_end_marker(self, photo: Path, mode: str, share: float):
        Image.fromarray(scene()).convert(mode).save(photo, quality=90)
        whole = photo.read_bytes()
        photo.write_bytes(whole[: int(share * len(whole))] + b"\xff\xd9")
        with Image.open(photo) as image:
            image.load()
        (found,) = self.findings(photo)
        assert (found.severity, found.kind, found.rows) == ("error", "damaged", (0,))
        assert "a.jpg (hands.csv) is damaged" in found.message
        assert "Corrupt JPEG data: premature end of data segment" in found.message

    def test_flipped_bytes(self, photo: Path):
        """What no decoder notices, the manifest's hash does."""
        whole, random = photo.read_bytes(), np.random.default_rng(0)
        told = []
        manifest = of(photo.parent, {"a.jpg": "a"}, sha256=[hashlib.sha256(whole).hexdigest()])
        for _ in range(40):
            place = int(random.integers(700, len(whole) - 2))
            photo.write_bytes(whole[:place] + bytes([whole[place] ^ int(random.integers(1, 256))]) + whole[place + 1 :])
            found = {finding.kind for finding in check(manifest)}
            assert "changed" in found
            told.append(bool(found & {"damaged", "unreadable"}))
        assert sum(told) > 5

    def test_a_hole_in_a_png_or_no_end(self, tmp_path: Path):
        path = tmp_path / "a.png"
        Image.fromarray(scene()).save(path)
        whole = path.read_bytes()
        path.write_bytes(whole[:-6] + b"\0" + whole[-5:])  # in the checksum
        assert [found.kind for found in self.findings(path)] == ["damaged"]
        path.write_bytes(whole[:-12])
        (found,) = self.findings(path)
        assert "it ends before its end marker" in found.message

    def test_a_comment_of_a_png_is_no_part_of_the_picture(self, tmp_path: Path):
        Image.fromarray(scene()).save(tmp_path / "a.png")
        whole = (tmp_path / "a.png").read_bytes()
        (tmp_path / "a.png").write_bytes(whole[:-12] + b"\0\0\0\3tEXta\0bnone" + whole[-12:])
        assert self.findings(tmp_path / "a.png") == []

    @pytest.mark.parametrize("extra", [b"\0\0\0", b""])
    @pytest.mark.parametrize("after", [b"", b"a video of the phone" * 40])
    def test_sound_ones_are_left_alone(self, photo: Path, extra: bytes, after: bytes):
        whole = photo.read_bytes()
        photo.write_bytes(whole[:-2] + extra + whole[-2:] + after)
        assert self.findings(photo) == []

    @pytest.mark.parametrize(
        "options",
        [
            {"progressive": True},
            {"keep_rgb": True},
            {"restart_marker_blocks": 3},
            {"subsampling": 0},
            {"format": "MPO", "save_all": True, "append_images": [Image.new("RGB", (9, 9))]},
        ],
    )
    def test_all_kinds_of_jpeg_are_sound(self, photo: Path, options: dict[str, object]):
        Image.fromarray(scene()).save(photo, **options)
        assert self.findings(photo) == []

    @pytest.mark.parametrize(
        ("name", "turn"),
        [("a.bmp", 1), ("a.tif", 1), *((name, turn) for name in ("a.png", "a.webp", "a.jpg") for turn in (1, 3, 6, 8))],
    )
    def test_a_grey_tail_outlives_another_format(self, photo: Path, name: str, turn: int):
        whole = photo.read_bytes()
        photo.write_bytes(whole[: len(whole) // 2] + b"\xff\xd9")
        exif = Image.Exif()
        exif[0x0112] = turn
        with Image.open(photo) as image:
            image.load()
            image.save(photo.with_name(name), **({} if name == "a.bmp" else {"exif": exif, "quality": 90}))
        (found,) = self.findings(photo.with_name(name))
        assert (found.severity, found.kind) == ("error", "damaged")
        assert re.search(r"was cut short before it was saved: its last \d+ rows are grey", found.message)

    @pytest.mark.parametrize("colour", [(128, 128, 128), (0, 0, 0), (40, 90, 200), (255, 255, 255)])
    def test_a_plain_background_is_none(self, tmp_path: Path, colour: tuple[int, int, int]):
        picture = np.full((96, 128, 3), colour, np.uint8)
        picture[16:64, 20:] = scene()[16:64, 20:]  # an arm from the right
        Image.fromarray(picture).save(tmp_path / "a.png")
        assert self.findings(tmp_path / "a.png") == []

    def test_a_black_end_may_be_a_border(self, tmp_path: Path):
        picture = scene()
        picture[80:] = 0
        Image.fromarray(picture).save(tmp_path / "a.png")
        (found,) = self.findings(tmp_path / "a.png")
        assert (found.severity, found.kind, found.rows) == ("warning", "damaged", (0,))

    @pytest.mark.parametrize("mode", ["RGB", "L", "1", "RGBA"])
    def test_a_photo_that_shows_nothing(self, tmp_path: Path, mode: str):
        Image.new(mode, (40, 30)).save(tmp_path / "a.png")
        (found,) = self.findings(tmp_path / "a.png")
        assert (found.severity, found.kind, found.rows) == ("warning", "flat", (0,))
        assert found.message == "1 photos are of one colour only: a.png (hands.csv)"

    def test_a_profile_that_is_not_used(self, tmp_path: Path):
        Image.fromarray(scene()).save(tmp_path / "a.png", icc_profile=b"none")
        (found,) = self.findings(tmp_path / "a.png")
        assert (found.severity, found.kind) == ("warning", "profile")
        assert "1 photos have a colour profile that is ignored" in found.message


class TestManyFiles:
    def test_files_are_compared_with_the_hashes_of_the_manifest(self, photos: Manifest):
        hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in photos.paths()]
        stated = put(photos, "sha256", [hashes[0].upper(), *hashes[1:6], "0" * 64, None])
        (found,) = check(stated)
        assert (found.severity, found.kind, found.rows) == ("error", "changed", (6,))
        assert "1 of 8 photos are not the files that the manifest was prepared with: c/0.jpg" in found.message
        assert check(stated, pixels=False) == []

    @pytest.mark.parametrize(
        "error", [struct.error("x"), RuntimeError("x"), TypeError("x"), MemoryError(), RecursionError()]
    )
    def test_one_photo_never_ends_it(self, photos: Manifest, monkeypatch: pytest.MonkeyPatch, error: Exception):
        def wrong(image, load=ImageFile.ImageFile.load):
            if image.format == "BMP":
                raise error
            return load(image)

        monkeypatch.setattr(ImageFile.ImageFile, "load", wrong)
        found = check(photos)
        assert kinds(found) == [("error", "unreadable")] * 2
        assert [finding.rows for finding in found] == [(2,), (5,)]

    def test_one_picture_is_one_whatever_its_file(self, tmp_path: Path):
        """As it is, turned by EXIF, with an alpha channel; grey as L, as RGB, with 16 bits."""
        picture = Image.fromarray(scene(64, 64))
        grey, exif = picture.convert("L"), Image.Exif()
        exif[0x0112] = 6
        for name in "abcdef":
            (tmp_path / name).mkdir()
        picture.save(tmp_path / "a/1.png")
        picture.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "b/1.png", exif=exif)
        picture.convert("RGBA").save(tmp_path / "c/1.png")
        grey.save(tmp_path / "d/1.png")
        grey.convert("RGB").save(tmp_path / "e/1.bmp")
        Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save(tmp_path / "f/1.tif")
        found = check(
            of(tmp_path, {f"{n}/1.{'bmp' if n == 'e' else 'tif' if n == 'f' else 'png'}": n for n in "abcdef"})
        )
        same = [finding for finding in found if finding.kind == "same-pixels"]
        assert [finding.severity for finding in same] == ["error", "error"]
        assert "the same pixels under 3 subjects (a, b, c)" in same[0].message
        assert "the same pixels under 3 subjects (d, e, f)" in same[1].message

    def test_what_is_no_file_is_told_with_and_without_pixels(self, photos: Manifest):
        (photos.root / "a" / "1.png").unlink()
        os.mkfifo(photos.root / "a" / "1.png")
        (photos.root / "b" / "1.png").unlink()
        (photos.root / "b" / "1.png").mkdir()
        (photos.root / "c" / "1.png").unlink()
        (photos.root / "c" / "1.png").symlink_to("1.png")
        for pixels in (True, False):
            found = check(photos, pixels=pixels)
            assert kinds(found) == [("error", "unreadable")] * 3
            told = ("a pipe or a device", "it is a folder", "symbolic links")
            assert all(what in finding.message for what, finding in zip(told, found, strict=True))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real photos are not beside the repository")
def test_the_six_of_11k_hands_are_named(tmp_path: Path) -> None:
    """On the complete table, without the pixels."""
    sources.hands11k_metadata(SHARED / "hands11k-180" / "HandInfo.csv").write(tmp_path / "m.parquet")
    found = check(tmp_path / "m.parquet", pixels=False)
    (six,) = [finding for finding in found if finding.kind == "both-sides"]
    assert six.severity == "warning"
    assert "test in another: 0001039, 0001042, 0001043, 0001046, 0001050, 0001051;" in six.message


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real photos are not beside the repository")
def test_the_real_photos_have_no_error() -> None:
    found = check(sources.hands11k(SHARED / "hands11k-180", allow_missing=True))
    assert {finding.severity for finding in found} == {"warning"}
