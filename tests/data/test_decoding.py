"""Every photo goes through one decoder: what people see, or an error that names the file, and nothing else."""

import os
import re
import struct
import threading
import time
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

import handreid
from handreid.data import decoding
from handreid.data.decoding import open_upright, opened
from handreid.data.pixels import Look
from handreid.errors import DataError, PhotoError
from tests import profiles

FULL = (10_000, 10_000)  # nothing is reduced
TURNS = range(1, 9)
ORIENTATION = 0x0112


def noise(height: int = 40, width: int = 56, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Smooth, so that a lossy copy is near."""
    small = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, channels), dtype=np.uint8)
    planes = [
        Image.fromarray(plane).resize((width, height), Image.Resampling.BICUBIC) for plane in small.transpose(2, 0, 1)
    ]
    return np.stack([np.asarray(plane) for plane in planes], 2)


def rgb(path: Path, at_least: tuple[int, int] = FULL) -> np.ndarray:
    photo = open_upright(path, at_least)
    assert photo.mode == "RGB"
    return np.asarray(photo).astype(int)


def turned(number: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = number
    return exif


def as_before(path: Path, at_least: tuple[int, int]) -> np.ndarray:
    """What handreid did until it had one decoder; results in docs/ come from it."""
    with Image.open(path) as image:
        image.draft("RGB", at_least)
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


class TestAsBefore:
    @pytest.mark.parametrize("at_least", [FULL, (20, 20), (5, 9)])
    @pytest.mark.parametrize(
        ("name", "mode", "options"),
        [
            ("a.jpg", "RGB", {"quality": 90}),
            ("a.jpg", "RGB", {"quality": 95, "subsampling": 0, "progressive": True}),
            ("a.jpg", "L", {}),
            ("a.jpg", "CMYK", {}),
            ("a.png", "RGB", {}),
            ("a.png", "L", {}),
            ("a.png", "1", {}),
            ("a.png", "P", {}),
            ("a.bmp", "RGB", {}),
            ("a.tif", "RGB", {"compression": "tiff_lzw"}),
            ("a.tif", "YCbCr", {}),
            ("a.webp", "RGB", {"lossless": True}),
            ("a.gif", "P", {}),
        ],
    )
    def test_ordinary_photos_keep_every_byte(
        self, tmp_path: Path, name: str, mode: str, options: dict[str, object], at_least: tuple[int, int]
    ):
        Image.fromarray(noise()).convert(mode).save(tmp_path / name, **options)
        assert np.array_equal(rgb(tmp_path / name, at_least), as_before(tmp_path / name, at_least))

    @pytest.mark.parametrize("number", TURNS)
    @pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif", "a.avif"])
    def test_turned_ones_too(self, tmp_path: Path, name: str, number: int):
        Image.fromarray(noise()).save(tmp_path / name, exif=turned(number))
        assert np.array_equal(rgb(tmp_path / name), as_before(tmp_path / name, FULL))
        assert rgb(tmp_path / name).shape == ((40, 56, 3) if number < 5 else (56, 40, 3))

    @pytest.mark.parametrize("name", ["a.jpg", "a.png"])
    def test_a_profile_that_says_srgb_changes_nothing(self, tmp_path: Path, name: str):
        Image.fromarray(noise()).save(tmp_path / name, icc_profile=profiles.rgb(profiles.SRGB))
        assert np.array_equal(rgb(tmp_path / name), as_before(tmp_path / name, FULL))

    def test_nothing_else_opens_a_photo(self):
        source = Path(handreid.__file__).parent
        users = [path.name for path in source.rglob("*.py") if re.search(r"Image\.open\(", path.read_text("utf-8"))]
        assert users == ["decoding.py"]


class TestFormats:
    @pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif", "a.bmp", "a.gif", "a.avif"])
    def test_those_listed_are_read_whatever_the_file_is_called(self, tmp_path: Path, name: str):
        Image.fromarray(noise()).save(tmp_path / name)
        os.rename(tmp_path / name, tmp_path / "photo.jpg")  # noqa: PTH104
        assert np.abs(rgb(tmp_path / "photo.jpg") - noise()).mean() < 25

    @pytest.mark.parametrize("kind", ["PPM", "TGA", "PCX", "SGI", "ICO", "JPEG2000", "DDS", "PDF", "EPS"])
    def test_others_are_refused_by_name(self, tmp_path: Path, kind: str):
        Image.fromarray(noise()).save(tmp_path / "a.jpg", kind)
        with pytest.raises(PhotoError, match=r"a\.jpg cannot be read as an image \(it is no JPEG, PNG, WEBP, .* file"):
            open_upright(tmp_path / "a.jpg", FULL)

    def test_no_program_is_started(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        Image.fromarray(noise()).save(tmp_path / "a.jpg", "EPS")
        for name in ("Popen", "run", "check_call", "call"):
            monkeypatch.setattr(f"subprocess.{name}", lambda *_, **__: pytest.fail("a program was started"))
        monkeypatch.setattr("os.system", lambda *_: pytest.fail("a program was started"))
        with pytest.raises(PhotoError):
            open_upright(tmp_path / "a.jpg", FULL)

    def test_two_pictures_of_a_phone_are_its_first(self, tmp_path: Path):
        one, other = Image.fromarray(noise()), Image.fromarray(noise(seed=1))
        one.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[other])
        one.save(tmp_path / "b.jpg")
        with Image.open(tmp_path / "a.jpg") as image:
            assert image.format == "MPO"
        assert np.array_equal(rgb(tmp_path / "a.jpg"), rgb(tmp_path / "b.jpg"))

    @pytest.mark.parametrize("name", ["a.gif", "a.tif", "a.png", "a.webp"])
    def test_of_several_pictures_it_is_the_first(self, tmp_path: Path, name: str):
        frames = [Image.new("RGB", (16, 16), colour) for colour in ((250, 0, 0), (0, 250, 0), (0, 0, 250))]
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
        assert rgb(tmp_path / name)[4, 4].tolist() == [250, 0, 0]

    def test_a_heic_photo_says_what_to_install(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64))
        monkeypatch.setattr(decoding, "_register_heic", lambda: False)
        with pytest.raises(PhotoError, match=r"a\.heic .*it is a HEIC photo; `pip install 'handreid\[heic\]'`"):
            open_upright(tmp_path / "a.heic", FULL)


class TestHeic:
    @pytest.fixture(autouse=True)
    def needs_pillow_heif(self):
        pytest.importorskip("pillow_heif").register_heif_opener()

    @pytest.mark.parametrize("number", TURNS)
    def test_a_photo_is_turned_once(self, tmp_path: Path, number: int):
        exif = turned(number).tobytes()  # pillow-heif writes it as the container's own turn as well, as phones do
        Image.fromarray(noise(64, 96)).save(tmp_path / "a.heic", exif=exif, quality=95)
        Image.fromarray(noise(64, 96)).save(tmp_path / "a.png", exif=exif)
        assert (b"irot" in (tmp_path / "a.heic").read_bytes()) == (number not in (1, 2, 4))
        assert np.abs(rgb(tmp_path / "a.heic") - rgb(tmp_path / "a.png")).mean() < 8

    def test_another_suffix_and_a_profile(self, tmp_path: Path):
        profile = profiles.rgb(profiles.DISPLAY_P3)
        Image.new("RGB", (64, 64), (200, 120, 90)).save(tmp_path / "a.jpg", "HEIF", quality=95, icc_profile=profile)
        assert np.abs(rgb(tmp_path / "a.jpg")[32, 32] - [213, 115, 83]).max() <= 4

    def test_its_thumbnail_is_not_the_photo(self, tmp_path: Path):
        Image.fromarray(noise(256, 256)).save(tmp_path / "a.heic", thumbnails=[128])
        assert open_upright(tmp_path / "a.heic", (32, 32)).size == (256, 256)

    def test_a_damaged_one_is_named(self, tmp_path: Path):
        Image.fromarray(noise(64, 96)).save(tmp_path / "a.heic")
        whole = (tmp_path / "a.heic").read_bytes()
        (tmp_path / "a.heic").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(PhotoError, match=r"a\.heic cannot be read"):
            open_upright(tmp_path / "a.heic", FULL)


HAND = (np.hypot(*(np.mgrid[:40, :56] - np.array([20, 28])[:, None, None])) < 14).astype(bool)
SKIN, HIDDEN = (200, 150, 120), (10, 250, 30)


def cut_out(folder: Path, kind: str) -> Path:
    """A hand on nothing, whose colours below are green."""
    colours = np.where(HAND[..., None], SKIN, HIDDEN).astype(np.uint8)
    alpha = np.where(HAND, 255, 0).astype(np.uint8)
    rgba = Image.fromarray(np.dstack([colours, alpha]))
    path = folder / f"a.{kind.split()[0]}"
    match kind.split()[1:]:
        case ["rgba"]:
            rgba.save(path)
        case ["lossless"]:
            rgba.save(path, lossless=True, exact=True)
        case ["la"]:
            Image.merge("LA", (rgba.convert("RGB").convert("L"), rgba.getchannel("A"))).save(path)
        case ["palette"]:
            rgba.quantize(16).save(path)
        case ["index"]:
            Image.fromarray(HAND.astype(np.uint8), "L").convert("P").save(path, transparency=0)
        case ["trns"]:
            rgba.convert("RGB").save(path, transparency=HIDDEN)
        case ["grey", bits]:
            levels = {"1": (0, 255), "8": (40, 150), "16": (40 * 257, 150 * 257)}[bits]
            image = Image.fromarray(
                np.where(HAND, levels[1], levels[0]).astype(np.uint16 if bits == "16" else np.uint8)
            )
            (image.convert("1") if bits == "1" else image).save(path, transparency=levels[0])
    return path


class TestSeenThrough:
    @pytest.mark.parametrize(
        "kind",
        [
            "png rgba",
            "png la",
            "png palette",
            "png trns",
            "png grey 1",
            "png grey 8",
            "png grey 16",
            "webp lossless",
            "tif rgba",
            "tif la",
            "gif rgba",
            "gif index",
            "avif rgba",
        ],
    )
    def test_it_is_white_and_never_the_hidden_colour(self, tmp_path: Path, kind: str):
        photo = rgb(cut_out(tmp_path, kind))
        far = np.hypot(*(np.mgrid[:40, :56] - np.array([20, 28])[:, None, None])) > 18
        assert (photo[far] >= 253).all()
        if kind not in ("png grey 1", "gif index"):
            assert (photo[HAND].mean(0) < 245).all()

    @pytest.mark.parametrize("bits", [2, 4])
    def test_a_png_of_few_bits(self, tmp_path: Path, bits: int):
        """Pillow scales the pixels and not the colour that is seen through."""
        top = 2**bits - 1
        rows = b"".join(b"\0" + bytes([(top << (8 - bits)) | (1 << (8 - 2 * bits))]) for _ in range(2))
        (tmp_path / "a.png").write_bytes(png(2, 2, bits, 0, rows, trns=struct.pack(">H", 1)))
        assert rgb(tmp_path / "a.png")[0].tolist() == [[255] * 3, [255] * 3]
        (tmp_path / "b.png").write_bytes(png(2, 2, bits, 0, rows))
        assert rgb(tmp_path / "b.png")[0].tolist() == [[255] * 3, [255 // top] * 3]

    def test_a_png_of_three_times_16_bits(self, tmp_path: Path):
        rows = b"\0" + struct.pack(">6H", *(257 * level for level in (*SKIN, *HIDDEN)))
        trns = struct.pack(">3H", *(257 * level for level in HIDDEN))
        (tmp_path / "a.png").write_bytes(png(2, 1, 16, 2, rows, trns=trns))
        assert rgb(tmp_path / "a.png")[0].tolist() == [list(SKIN), [255] * 3]

    def test_half_is_half(self, tmp_path: Path):
        Image.new("RGBA", (4, 4), (100, 0, 200, 128)).save(tmp_path / "a.png")
        assert rgb(tmp_path / "a.png")[0, 0].tolist() == [177, 127, 227]

    def test_what_covers_all_changes_nothing(self, tmp_path: Path):
        photo = Image.fromarray(noise())
        photo.putalpha(255)
        photo.save(tmp_path / "a.png")
        assert np.array_equal(rgb(tmp_path / "a.png"), noise())


def png(width: int, height: int, bits: int, kind: int, rows: bytes, trns: bytes = b"", exif: bytes = b"") -> bytes:
    """With EXIF behind the pixels, where it may be."""

    def part(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">2I5B", width, height, bits, kind, 0, 0, 0)
    parts = [part(b"IHDR", header), part(b"tRNS", trns) if trns else b"", part(b"IDAT", zlib.compress(rows))]
    return b"".join([b"\x89PNG\r\n\x1a\n", *parts, part(b"eXIf", exif) if exif else b"", part(b"IEND", b"")])


def tiff(pixels: bytes, width: int, height: int, **tags: tuple[int, ...]) -> bytes:
    """Little-endian and raw: grey where nothing else is said."""
    numbers = {"bits": 258, "photometric": 262, "samples": 277, "format": 339, "orientation": 274, "unit": 296}
    entries = {256: (width,), 257: (height,), 259: (1,), 273: (8,), 278: (height,), 279: (len(pixels),), 262: (1,)}
    entries |= {numbers[name]: value for name, value in tags.items()}
    body = struct.pack("<H", len(entries))
    for tag in sorted(entries):
        assert len(entries[tag]) == 1
        body += struct.pack("<HHII", tag, 4 if tag in (256, 257, 273, 278, 279) else 3, 1, entries[tag][0])
    return b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + body + bytes(4)


class TestBits:
    @pytest.mark.parametrize("name", ["a.png", "a.tif"])
    @pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}])
    def test_16_are_as_their_copy_of_8(self, tmp_path: Path, name: str, options: dict[str, str]):
        grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
        Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / name, **options if name == "a.tif" else {})
        assert np.array_equal(rgb(tmp_path / name), np.stack([grey] * 3, 2))

    @pytest.mark.parametrize("options", [{}, {"compression": "tiff_adobe_deflate"}])
    def test_the_other_end_first(self, tmp_path: Path, options: dict[str, str]):
        grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
        image = Image.frombytes("I;16B", (16, 16), (grey.astype(np.uint16) * 257).astype(">u2").tobytes())
        image.save(tmp_path / "a.tif", **options)
        assert np.array_equal(rgb(tmp_path / "a.tif")[..., 0], grey)

    def test_between_two_levels_the_nearer(self, tmp_path: Path):
        Image.fromarray(np.array([[0, 128, 129, 65535 - 128, 65535]], np.uint16)).save(tmp_path / "a.png")
        assert rgb(tmp_path / "a.png")[0, :, 0].tolist() == [0, 0, 1, 255, 255]

    def test_white_may_be_0(self, tmp_path: Path):
        pixels = np.array([[0, 65535]], "<u2").tobytes()
        (tmp_path / "a.tif").write_bytes(tiff(pixels, 2, 1, bits=(16,), photometric=(0,)))
        assert rgb(tmp_path / "a.tif")[0, :, 0].tolist() == [255, 0]

    def test_12_have_a_range_too(self, tmp_path: Path):
        (tmp_path / "a.tif").write_bytes(tiff(bytes([0xFF, 0xF8, 0x00]), 2, 1, bits=(12,)))
        assert rgb(tmp_path / "a.tif")[0, :, 0].tolist() == [255, 128]

    @pytest.mark.parametrize("kind", [2, 6])
    def test_three_or_four_times_16(self, tmp_path: Path, kind: int):
        colour = struct.pack(">4H", *(257 * level for level in (*SKIN, 255)))[: 6 if kind == 2 else 8]
        (tmp_path / "a.png").write_bytes(png(1, 1, 16, kind, b"\0" + colour))
        assert rgb(tmp_path / "a.png")[0, 0].tolist() == list(SKIN)

    @pytest.mark.parametrize("kind", ["float", "integer", "signed 8", "signed 16", "lab"])
    def test_what_has_no_range_is_refused(self, tmp_path: Path, kind: str):
        path = tmp_path / "a.tif"
        match kind:
            case "float":
                Image.fromarray(np.ones((4, 4), np.float32)).save(path)
            case "integer":
                Image.fromarray(np.ones((4, 4), np.int32)).save(path)
            case "lab":
                Image.new("LAB", (4, 4)).save(path)
            case _:
                bits = int(kind.split()[1])
                path.write_bytes(tiff(bytes(bits // 2), 2, 2, bits=(bits,), format=(2,)))
        with pytest.raises(PhotoError, match=r"a\.tif .*(the range of its pixels|signed numbers|it is no).*"):
            open_upright(path, FULL)


class TestTurned:
    def test_odd_tags_are_of_no_interest(self, tmp_path: Path):
        """A resolution unit as text, which Pillow cannot write again (kind of Pillow #4665, #7839, #8965)."""
        tags = [
            struct.pack("<HHI", ORIENTATION, 3, 1) + struct.pack("<HH", 6, 0),
            struct.pack("<HHI", 0x128, 2, 2) + b"2\0\0\0",
            struct.pack("<HHI", 0x8769, 4, 1) + struct.pack("<I", 0xFFFFFFF0),
            struct.pack("<HHI", 0x10F, 77, 0xFFFFFFFF) + bytes(4),
        ]
        exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + b"".join(tags) + bytes(4)
        photo = Image.fromarray(noise())
        photo.save(tmp_path / "a.jpg", exif=exif)
        photo.save(tmp_path / "b.jpg", exif=turned(6))
        assert np.array_equal(rgb(tmp_path / "a.jpg"), rgb(tmp_path / "b.jpg"))

    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize(("kind", "code"), [(1, "B"), (3, "H"), (4, "I")])
    def test_the_tag_may_be_of_any_whole_number(self, tmp_path: Path, order: str, kind: int, code: str):
        value = struct.pack(order + code, 3).ljust(4, b"\0")
        exif = {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "HIH", 42, 8, 1)
        exif += struct.pack(order + "HHI", ORIENTATION, kind, 1) + value + bytes(4)
        Image.fromarray(noise()).save(tmp_path / "a.jpg", exif=b"Exif\0\0" + exif, quality=95)
        assert np.abs(rgb(tmp_path / "a.jpg") - noise()[::-1, ::-1]).mean() < 4

    @pytest.mark.parametrize(
        "exif",
        [
            b"II*\x00\x08\x00\x00\x00",
            b"II*\x00\xff\xff\xff\xff",
            b"II*\x00\x08\x00\x00\x00\xff\xff" + bytes(30),
            b"XX",
            b"MM\x00*",
            bytes(99),
            b"II*\x00\x08\x00\x00\x00\x01\x00" + struct.pack("<HHI4s", ORIENTATION, 2, 2, b"6\x00\x00\x00"),
            b"II*\x00\x08\x00\x00\x00\x01\x00" + struct.pack("<HHIHH", ORIENTATION, 3, 1, 99, 0),
        ],
    )
    def test_damaged_exif_turns_nothing(self, tmp_path: Path, exif: bytes):
        Image.fromarray(noise()).save(tmp_path / "a.jpg", exif=b"Exif\0\0" + exif, quality=95)
        assert np.abs(rgb(tmp_path / "a.jpg") - noise()).mean() < 4

    def test_a_png_may_say_it_behind_its_pixels(self, tmp_path: Path):
        exif = b"MM\0*\0\0\0\x08\0\1" + struct.pack(">HHIHH", ORIENTATION, 3, 1, 6, 0) + bytes(4)
        (tmp_path / "a.png").write_bytes(png(2, 1, 8, 0, b"\0\x10\x20", exif=exif))
        assert rgb(tmp_path / "a.png")[..., 0].tolist() == [[0x10], [0x20]]

    def test_xmp_says_it_where_exif_does_not(self, tmp_path: Path):
        xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="3"/>'
        Image.fromarray(noise()).save(tmp_path / "a.jpg", xmp=xmp, quality=95)
        assert np.array_equal(rgb(tmp_path / "a.jpg"), as_before(tmp_path / "a.jpg", FULL))
        assert np.abs(rgb(tmp_path / "a.jpg") - noise()[::-1, ::-1]).mean() < 4

    def test_a_tiff_is_turned_once(self, tmp_path: Path):
        (tmp_path / "a.tif").write_bytes(tiff(bytes([1, 2]), 2, 1, bits=(8,), orientation=(6,), unit=(77,)))
        assert rgb(tmp_path / "a.tif")[..., 0].tolist() == [[1], [2]]


class TestColours:
    @pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp", "a.avif", "a.jpg"])
    def test_display_p3_of_a_phone(self, tmp_path: Path, name: str):
        """Expected by the definitions of both spaces, in double precision."""
        profile = profiles.rgb(profiles.DISPLAY_P3)
        Image.new("RGB", (16, 16), (200, 120, 90)).save(tmp_path / name, icc_profile=profile, quality=100)
        assert np.abs(rgb(tmp_path / name)[8, 8] - [213, 115, 83]).max() <= 2

    def test_adobe_rgb(self, tmp_path: Path):
        Image.new("RGB", (8, 8), (180, 140, 100)).save(
            tmp_path / "a.png", icc_profile=profiles.rgb(profiles.ADOBE_RGB, 563 / 256)
        )
        linear = (np.array([180, 140, 100]) / 255) ** (563 / 256)
        seen = np.linalg.inv(np.array(profiles.SRGB).T) @ np.array(profiles.ADOBE_RGB).T @ linear
        expected = 255 * (1.055 * seen ** (1 / 2.4) - 0.055)
        assert np.abs(rgb(tmp_path / "a.png")[4, 4] - expected).max() <= 1.5

    @pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
    def test_grey_stays_grey(self, tmp_path: Path, mode: str):
        level = 40 * 257 if mode == "I;16" else 40
        Image.new(mode, (8, 8), (40, 255) if mode == "LA" else level).save(
            tmp_path / "a.png", icc_profile=profiles.grey(1.8)
        )
        expected = 255 * (1.055 * (40 / 255) ** (1.8 / 2.4) - 0.055)
        red, green, blue = rgb(tmp_path / "a.png")[4, 4].tolist()
        assert red == green == blue == pytest.approx(expected, abs=1)

    def test_grey_with_a_profile_of_colours(self, tmp_path: Path):
        Image.new("L", (8, 8), 40).save(tmp_path / "a.jpg", icc_profile=profiles.rgb(profiles.DISPLAY_P3))
        assert np.abs(rgb(tmp_path / "a.jpg")[4, 4] - 40).max() <= 1

    def test_print(self, tmp_path: Path):
        """The profile decides, not the plain formula: full black ink is a dark grey on its paper."""
        image = Image.new("CMYK", (16, 16), (0, 0, 0, 255))
        image.save(tmp_path / "a.tif", icc_profile=profiles.cmyk())
        image.save(tmp_path / "b.tif")
        assert 20 < rgb(tmp_path / "a.tif")[8, 8].mean() < 60
        assert rgb(tmp_path / "b.tif")[8, 8].tolist() == [0, 0, 0]

    def test_palettes_and_what_is_seen_through(self, tmp_path: Path):
        profile = profiles.rgb(profiles.DISPLAY_P3)
        rgba = Image.new("RGBA", (8, 8), (200, 120, 90, 255))
        rgba.putpixel((0, 0), (0, 255, 0, 0))
        rgba.save(tmp_path / "a.png", icc_profile=profile)
        rgba.quantize(4).save(tmp_path / "b.png", icc_profile=profile)
        for name in ("a.png", "b.png"):
            photo = rgb(tmp_path / name)
            assert photo[0, 0].tolist() == [255, 255, 255]
            assert np.abs(photo[4, 4] - [213, 115, 83]).max() <= 2

    @pytest.mark.parametrize("kind", ["noise", "cut", "print", "grey", "black"])
    def test_one_that_cannot_be_used_is_left_out_and_said(self, tmp_path: Path, kind: str):
        good = profiles.rgb(profiles.DISPLAY_P3)
        dark = tuple((0.0, 0.0, 0.0) for _ in range(3))
        profile = {
            "noise": b"no profile at all",
            "cut": good[:200],
            "print": profiles.cmyk(),
            "grey": profiles.grey(1.8),
            "black": profiles.rgb(dark),
        }[kind]
        Image.fromarray(noise()).save(tmp_path / "a.png", icc_profile=profile)
        assert np.array_equal(rgb(tmp_path / "a.png"), noise())
        with opened(tmp_path / "a.png") as photo:
            assert photo.look.profile_trouble

    def test_a_profile_is_read_once_and_shared_by_threads(self, tmp_path: Path):
        Image.fromarray(noise(160, 160)).save(tmp_path / "a.png", icc_profile=profiles.rgb(profiles.DISPLAY_P3))
        alone = rgb(tmp_path / "a.png")
        with ThreadPoolExecutor(8) as pool:
            assert all(np.array_equal(photo, alone) for photo in pool.map(rgb, [tmp_path / "a.png"] * 64))


class TestSize:
    def test_the_limit_is_told_before_anything_is_decoded(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        Image.new("1", (300, 200)).save(tmp_path / "a.png")
        monkeypatch.setattr(ImageFile.ImageFile, "load", lambda *_: pytest.fail("it was decoded"))
        monkeypatch.setenv("HANDREID_MAX_PIXELS", "59_999")
        told = (
            r"a\.png cannot be read as an image \(300 x 200 pixels are more than the limit of 59,999; set HANDREID_MAX"
        )
        with pytest.raises(PhotoError, match=told):
            open_upright(tmp_path / "a.png", FULL)

    @pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.webp", "a.gif", "a.bmp", "a.avif"])
    def test_it_holds_for_every_format_and_can_be_raised(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ):
        Image.new("RGB", (300, 200)).save(tmp_path / name)
        monkeypatch.setattr(decoding, "LIMIT", 20_000)
        with pytest.raises(PhotoError, match=r"more .*than the limit of 20,000"):
            open_upright(tmp_path / name, FULL)
        monkeypatch.setenv("HANDREID_MAX_PIXELS", "60000")
        assert open_upright(tmp_path / name, FULL).size == (300, 200)

    def test_pillow_has_no_say_and_gets_its_settings_back(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
        for name in ("a.png", "a.tif", "a.webp"):
            Image.new("RGB", (64, 64)).save(tmp_path / name)
            assert open_upright(tmp_path / name, FULL).size == (64, 64)
        cut = (tmp_path / "a.png").read_bytes()[:-30]
        (tmp_path / "cut.png").write_bytes(cut)
        with pytest.raises(PhotoError):
            open_upright(tmp_path / "cut.png", FULL)
        assert Image.MAX_IMAGE_PIXELS == 100
        assert ImageFile.LOAD_TRUNCATED_IMAGES

    @pytest.mark.parametrize("value", ["many", "-5", "0", "1e9", "9" * 40])
    def test_a_wrong_limit_is_no_fault_of_a_photo(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str):
        Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
        monkeypatch.setenv("HANDREID_MAX_PIXELS", value)
        with pytest.raises(
            DataError, match=r"HANDREID_MAX_PIXELS is .*; set it to the pixel count of the largest photo"
        ) as error:
            open_upright(tmp_path / "a.png", FULL)
        assert not isinstance(error.value, PhotoError)

    @pytest.mark.parametrize("kind", ["png rgba", "png palette", "png grey 16", "tif rgba"])
    def test_a_large_one_is_reduced_without_its_hidden_colours(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
    ):
        path = cut_out(tmp_path, kind)
        whole = open_upright(path, FULL)
        monkeypatch.setattr(decoding, "LARGE", 100)
        monkeypatch.setattr(decoding, "_STRIP", 56 * 7)
        assert np.array_equal(np.asarray(open_upright(path, FULL)), np.asarray(whole))
        small = open_upright(path, (14, 10))
        assert small.size == (14, 10)
        assert np.array_equal(np.asarray(small), np.asarray(whole.reduce(4)))
        assert open_upright(path, (15, 10)).size == (19, 14)

    @pytest.mark.parametrize("number", TURNS)
    def test_strips_are_the_photo(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int):
        Image.fromarray(noise()).save(tmp_path / "a.png", exif=turned(number))
        whole = rgb(tmp_path / "a.png")
        monkeypatch.setattr(decoding, "LARGE", 100)
        monkeypatch.setattr(decoding, "_STRIP", 300)
        with opened(tmp_path / "a.png") as photo:
            strips = [np.asarray(strip) for strip in photo.strips()]
            assert photo.size == whole.shape[1::-1]
        assert len(strips) > 5
        assert np.array_equal(np.concatenate(strips), whole)
        assert np.array_equal(rgb(tmp_path / "a.png"), whole)

    def test_large_ones_are_decoded_one_at_a_time(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        Image.fromarray(noise()).save(tmp_path / "a.png")
        Image.fromarray(noise(16, 16)).save(tmp_path / "small.png")
        monkeypatch.setattr(decoding, "LARGE", 1000)
        now, most = {"a.png": 0, "small.png": 0}, {"a.png": 0, "small.png": 0}
        lock, look = threading.Lock(), Look.rgb

        def slowly(self: Look, image: Image.Image) -> Image.Image:
            name = "a.png" if image.width > 16 else "small.png"
            with lock:
                now[name] += 1
                most[name] = max(most[name], now[name])
            time.sleep(0.02)
            with lock:
                now[name] -= 1
            return look(self, image)

        monkeypatch.setattr(Look, "rgb", slowly)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda name: open_upright(tmp_path / name, (8, 8)), ["a.png", "small.png"] * 8))
        assert most["a.png"] == 1
        assert most["small.png"] > 1


class TestErrors:
    @pytest.mark.parametrize(
        "error",
        [
            struct.error("short"),
            RuntimeError("x"),
            TypeError("x"),
            KeyError(3),
            IndexError(),
            zlib.error("x"),
            EOFError(),
            MemoryError(),
            RecursionError("x"),
            Image.DecompressionBombError("x"),
            Image.DecompressionBombWarning("x"),
            AssertionError(),
            AttributeError("x"),
            ZeroDivisionError(),
            UnicodeDecodeError("utf-8", b"", 0, 1, "x"),
            OverflowError("x"),
            OSError("x"),
            SyntaxError("x"),
            NotImplementedError(),
            UserWarning("x"),
        ],
        ids=lambda error: type(error).__name__,
    )
    @pytest.mark.parametrize("place", ["load", "draft", "open"])
    def test_whatever_goes_wrong_names_the_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, place: str
    ):
        Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg")

        def wrong(*_: object, **__: object) -> None:
            raise error

        where = {"load": "PIL.ImageFile.ImageFile.load", "open": "PIL.Image.open"}
        monkeypatch.setattr(where.get(place, "PIL.JpegImagePlugin.JpegImageFile.draft"), wrong)
        with pytest.raises(PhotoError, match=r"a\.jpg cannot be read as an image \(.+\); run `handreid data check`"):
            open_upright(tmp_path / "a.jpg", FULL)

    def test_ctrl_c_is_no_fault_of_the_photo(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg")

        def stopped(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("PIL.ImageFile.ImageFile.load", stopped)
        with pytest.raises(KeyboardInterrupt):
            open_upright(tmp_path / "a.jpg", FULL)

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
    def test_a_pipe_is_not_waited_for(self, tmp_path: Path):
        os.mkfifo(tmp_path / "a.jpg")
        with pytest.raises(PhotoError, match=r"a\.jpg .*it is a pipe or a device, not a file"):
            open_upright(tmp_path / "a.jpg", FULL)

    def test_what_is_no_file(self, tmp_path: Path):
        (tmp_path / "a.jpg").mkdir()
        (tmp_path / "b.jpg").symlink_to("b.jpg")
        (tmp_path / "c.jpg").touch()
        for name, told in {"a.jpg": "it is a folder", "b.jpg": "symbolic links", "c.jpg": "the file is empty"}.items():
            with pytest.raises(PhotoError, match=f"{name} .*{told}"):
                open_upright(tmp_path / name, FULL)
        with pytest.raises(PhotoError, match=r"1\.jpg is missing"):
            open_upright(tmp_path / "c.jpg" / "1.jpg", FULL)
        with pytest.raises(PhotoError, match="File name too long"):
            open_upright(tmp_path / ("a" * 300 + ".jpg"), FULL)

    def test_warnings_of_pillow_name_no_file_and_are_left_out(self, tmp_path: Path):
        Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\x09\0")
        palette = Image.new("P", (8, 8))
        palette.save(tmp_path / "b.png", transparency=bytes([0, 128]))
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            open_upright(tmp_path / "a.jpg", FULL)
            open_upright(tmp_path / "b.png", FULL)
            warnings.warn("of somebody else", UserWarning, stacklevel=1)
        assert [str(warning.message) for warning in heard] == ["of somebody else"]


def save_one(path: Path, kind: str, seed: int) -> None:
    photo = Image.fromarray(noise(24, 32, seed=seed))
    match kind:
        case "jpeg":
            photo.save(path, "JPEG", exif=turned(6), icc_profile=profiles.rgb(profiles.DISPLAY_P3))
        case "progressive":
            photo.save(path, "JPEG", progressive=True)
        case "cmyk":
            photo.convert("CMYK").save(path, "JPEG")
        case "mpo":
            photo.save(path, "MPO", save_all=True, append_images=[photo])
        case "palette":
            photo.quantize(32).save(path, "PNG", transparency=bytes([0, 99]))
        case "16 bits":
            Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257).save(path, "PNG")
        case "rgba":
            photo.putalpha(99)
            photo.save(path, "PNG", exif=turned(8))
        case "raw" | "tiff_lzw" | "jpeg2000" | "tiff_adobe_deflate" | "packbits" | "jpeg in tiff":
            photo.save(path, "TIFF", compression="jpeg" if kind == "jpeg in tiff" else kind, exif=turned(5))
        case _:
            photo.save(path, kind)


MUTATIONS: dict[str, Callable[[bytes, np.random.Generator], bytes]] = {
    "flip": lambda whole, rng: bytes(
        byte ^ (int(rng.integers(1, 256)) if rng.random() < 0.01 else 0) for byte in whole
    ),
    "head": lambda whole, rng: bytes(
        byte ^ (int(rng.integers(1, 256)) if place < 400 and rng.random() < 0.03 else 0)
        for place, byte in enumerate(whole)
    ),
    "cut": lambda whole, rng: whole[: int(rng.integers(1, len(whole)))],
    "hole": lambda whole, rng: whole[: (at := int(rng.integers(len(whole))))] + whole[at + int(rng.integers(1, 60)) :],
    "extra": lambda whole, rng: whole[: (at := int(rng.integers(len(whole))))] + rng.bytes(20) + whole[at:],
    "large": lambda whole, rng: whole[: (at := int(rng.integers(len(whole))))] + b"\xff\xff\xff\x7f" + whole[at + 4 :],
}


@pytest.mark.parametrize(
    "kind",
    [
        "jpeg",
        "progressive",
        "cmyk",
        "mpo",
        "PNG",
        "palette",
        "16 bits",
        "rgba",
        "WEBP",
        "BMP",
        "GIF",
        "AVIF",
        "raw",
        "tiff_lzw",
        "tiff_adobe_deflate",
        "packbits",
        "jpeg in tiff",
    ],
)
def test_hundreds_of_broken_files_decode_or_are_named(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HANDREID_MAX_PIXELS", "4_000_000")  # a size that came out huge costs seconds
    path, rng = tmp_path / "a.jpg", np.random.default_rng([ord(letter) for letter in kind])
    save_one(path, kind, 0)
    whole, refused = path.read_bytes(), list[str]()
    for _ in range(12):
        for mutate in MUTATIONS.values():
            path.write_bytes(mutate(whole, rng))
            try:
                assert open_upright(path, (8, 8)).mode == "RGB"
            except PhotoError as error:
                refused.append(str(error))
    assert len(refused) > 5
    assert all(str(path) in message for message in refused)
