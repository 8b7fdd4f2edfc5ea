"""Finds damage of one photo, in its file and its picture, that decoding does not report.

* libjpeg continues where a JPEG's data is truncated or invalid, and fills the rest with mid-grey; Pillow drops its
  warnings. simplejpeg uses the same libjpeg and reports them.
* A PNG's parts carry checksums, most of which Pillow does not compare.
* A truncated photo that was saved again is intact as a file; the grey at its end still shows the damage.
"""

import re
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import simplejpeg
from jaxtyping import Bool, UInt8
from PIL import Image

from handreid.data.decoding import UnreadableError, naming, opened
from handreid.data.photo_hashes import digest_of
from handreid.errors import PhotoError
from handreid.files import file_hash

FLAT = 4  # levels between a photo's darkest and brightest, at most, where nothing can be seen on it
TAIL = 8  # rows of one colour at least
WHITE = 250  # the darkest channel of an over-exposed table, at least
BACKGROUND = 0.1  # of the left edge, at least, has the colour of a plain background
_SAVED = 2  # levels that saving again moves a plain colour
_BLURRED = 48  # rows above a tail that saving again may have mixed with it
_PNG = b"\x89PNG\r\n\x1a\n"
_DAMAGE = re.compile("Corrupt JPEG data|Premature end|Invalid JPEG file|Unsupported marker|Bogus|Inconsistent prog")


@dataclass(frozen=True)
class Tail:
    """Rows at a photo's end that are all of one colour."""

    rows: int
    colour: tuple[int, int, int]

    @property
    def grey(self) -> bool:
        """Whether this is the grey with which libjpeg fills missing data."""
        return all(abs(level - 128) <= _SAVED for level in self.colour)


@dataclass(frozen=True)
class Looked:
    """Result for one photo; texts are empty if there is no problem."""

    file: str = ""  # both hashes as in `photo_hashes.py`
    pixels: str = ""
    unreadable: str = ""
    damage: str = ""
    tail: Tail | None = None
    flat: bool = False
    profile: str = ""  # why its colour profile is not used


def look(path: Path) -> Looked:
    """Decodes the photo at full size. Problems are returned, not raised."""
    rows, file = _Rows(), ""
    try:
        with naming(path):
            file = file_hash(path)
        with opened(path) as photo:
            digest = digest_of(photo.size)
            for strip in photo.strips():
                digest.update(strip.tobytes())
                if photo.turn is None:
                    rows.add(strip)
            if photo.turn is not None:  # the end of the file is at another side of the upright photo
                for strip in replace(photo, turn=None).strips():
                    rows.add(strip)
            kind, profile = photo.image.format, photo.look.profile_trouble
        with naming(path):
            damage = _damage(path.read_bytes(), kind or "")
    except UnreadableError as error:
        return Looked(file, unreadable=error.reason)
    except PhotoError as error:  # deleted meanwhile
        return Looked(file, unreadable=str(error))
    return Looked(file, digest.hexdigest(), damage=damage, tail=rows.tail(), flat=rows.flat(), profile=profile)


@dataclass
class _Rows:
    """Facts about a photo's rows, in the order of its file, without keeping the pixels."""

    left: list[UInt8[np.ndarray, "rows 3"]] = field(default_factory=list)  # the first pixel of each row
    even: list[Bool[np.ndarray, " rows"]] = field(default_factory=list)  # whether a row has one colour, and not white
    ranges: list[np.ndarray] = field(default_factory=list)  # lowest and highest of each channel

    def add(self, strip: Image.Image) -> None:
        rows = np.asarray(strip)
        edge = rows[:, :1]
        sample = rows[:, :: max(1, strip.width // 8)]  # few rows are left to be compared as a whole
        even = _close(sample, edge).all(1) & _close(rows[:, -1], edge[:, 0]) & (edge.min((1, 2)) < WHITE)
        even[even] = _close(rows[even], edge[even]).all(1)
        self.left.append(edge[:, 0].copy())
        self.even.append(even)
        self.ranges.append(np.array(strip.getextrema()))

    def flat(self) -> bool:
        ranges = np.stack(self.ranges)
        lowest, highest = ranges[:, :, 0].min(0), ranges[:, :, 1].max(0)
        return bool((highest - lowest).max() <= FLAT)

    def tail(self) -> Tail | None:
        """Rows of one colour at the end; None if there are none, if the photo is flat, if the colour is white (an
        over-exposed table), or if it is that of a plain background, which is on the left edge above too.
        """
        left = np.concatenate(self.left)
        colour = left[-1]
        different = np.flatnonzero(~(np.concatenate(self.even) & _close(left, colour)))
        if not different.size or len(left) - 1 - different[-1] < TAIL:
            return None
        above = left[: max(TAIL, different[-1] + 1 - _BLURRED)]
        if _close(above, colour).mean() > BACKGROUND:
            return None
        red, green, blue = colour.tolist()
        return Tail(int(len(left) - 1 - different[-1]), (red, green, blue))


def _close(colours: UInt8[np.ndarray, "..."], reference: UInt8[np.ndarray, "..."]) -> Bool[np.ndarray, "..."]:
    """Whether colours, channels last, are the same up to what saving again as JPEG or WebP changes."""
    near: Bool[np.ndarray, ...] = (np.maximum(colours, reference) - np.minimum(colours, reference) <= _SAVED).all(-1)
    return near


def _damage(content: bytes, kind: str) -> str:
    if kind in ("JPEG", "MPO"):
        return _jpeg(content)
    return _png(content) if kind == "PNG" else ""


def _jpeg(content: bytes) -> str:
    """The last warning of libjpeg while it decodes, if it concerns the picture; else empty."""
    try:
        _, _, colours, _ = simplejpeg.decode_jpeg_header(content, strict=False)
        mode = "CMYK" if colours in ("CMYK", "YCCK") else "GRAY"
        simplejpeg.decode_jpeg(content, mode, min_height=1, min_width=1, min_factor=8, strict=True)
    except ValueError as error:
        message = str(error)
        return message if _DAMAGE.match(message) and not _padded(message, content) else ""
    return ""


def _padded(message: str, content: bytes) -> bool:
    """Some cameras fill up a JPEG's data with zeros before its end marker."""
    extra = re.search(r"(\d+) extraneous bytes before marker 0xd9", message)
    return extra is not None and bytes(int(extra[1])) + b"\xff\xd9" in content


def _png(content: bytes) -> str:
    place, view = len(_PNG), memoryview(content)
    while place + 12 <= len(view):
        size = int.from_bytes(view[place : place + 4])
        name, checksum = bytes(view[place + 4 : place + 8]), view[place + 8 + size : place + 12 + size]
        needed = name[:1].isupper()
        if needed and zlib.crc32(view[place + 4 : place + 8 + size]) != int.from_bytes(checksum):
            return f"its part {name.decode('ascii', 'replace')} and that part's checksum differ"
        if name == b"IEND":
            return ""
        place += 12 + size
    return "it ends before its end marker"
