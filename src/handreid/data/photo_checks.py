"""One photo looked at closely: what is wrong with its file, and with its picture, that decoding passes over.

* libjpeg goes on where a JPEG's data is cut short or makes no sense, and fills the rest with mid-grey; Pillow drops its
  warnings. simplejpeg has the same libjpeg report them.
* A PNG's parts carry checksums, most of which Pillow does not compare.
* What was cut short once and saved again is sound as a file: then the grey at its end still tells.
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
        """As libjpeg fills what is missing."""
        return all(abs(level - 128) <= _SAVED for level in self.colour)


@dataclass(frozen=True)
class Looked:
    """What one photo is; texts are empty where there is nothing to say."""

    file: str = ""  # both hashes as in `photo_hashes.py`
    pixels: str = ""
    unreadable: str = ""
    damage: str = ""
    tail: Tail | None = None
    flat: bool = False
    profile: str = ""  # why its colour profile is not used


def look(path: Path) -> Looked:
    """Decodes the photo at full size. Raises nothing for what is wrong with it."""
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
            if photo.turn is not None:  # the end of a file is at another side of what people see
                for strip in replace(photo, turn=None).strips():
                    rows.add(strip)
            kind, profile = photo.image.format, photo.look.profile_trouble
        with naming(path):
            damage = _damage(path.read_bytes(), kind or "")
    except UnreadableError as error:
        return Looked(file, unreadable=error.reason)
    except PhotoError as error:  # gone meanwhile
        return Looked(file, unreadable=str(error))
    return Looked(file, digest.hexdigest(), damage=damage, tail=rows.tail(), flat=rows.flat(), profile=profile)


@dataclass
class _Rows:
    """What has to be known of a photo's rows, in the order of its file, without keeping them."""

    left: list[UInt8[np.ndarray, "rows 3"]] = field(default_factory=list)  # their first pixels
    even: list[Bool[np.ndarray, " rows"]] = field(default_factory=list)  # whether all others are alike, and not white
    ranges: list[np.ndarray] = field(default_factory=list)  # lowest and highest of each channel

    def add(self, strip: Image.Image) -> None:
        rows = np.asarray(strip)
        first = rows[:, :1]
        some = rows[:, :: max(1, strip.width // 8)]  # few rows are left to be compared as a whole
        even = _alike(some, first).all(1) & _alike(rows[:, -1], first[:, 0]) & (first.min((1, 2)) < WHITE)
        even[even] = _alike(rows[even], first[even]).all(1)
        self.left.append(first[:, 0].copy())
        self.even.append(even)
        self.ranges.append(np.array(strip.getextrema()))

    def flat(self) -> bool:
        ranges = np.stack(self.ranges)
        lowest, highest = ranges[:, :, 0].min(0), ranges[:, :, 1].max(0)
        return bool((highest - lowest).max() <= FLAT)

    def tail(self) -> Tail | None:
        """None as well where the photo is flat, where the colour is white (a table over-exposed), or where it is that
        of a plain background, which is on the left edge above too.
        """
        left = np.concatenate(self.left)
        colour = left[-1]
        other = np.flatnonzero(~(np.concatenate(self.even) & _alike(left, colour)))
        if not other.size or len(left) - 1 - other[-1] < TAIL:
            return None
        above = left[: max(TAIL, other[-1] + 1 - _BLURRED)]
        if _alike(above, colour).mean() > BACKGROUND:
            return None
        red, green, blue = colour.tolist()
        return Tail(int(len(left) - 1 - other[-1]), (red, green, blue))


def _alike(some: UInt8[np.ndarray, "..."], others: UInt8[np.ndarray, "..."]) -> Bool[np.ndarray, "..."]:
    """Whether colours, their channels last, are the same but for what saving again as JPEG or WebP does to one."""
    near: Bool[np.ndarray, ...] = (np.maximum(some, others) - np.minimum(some, others) <= _SAVED).all(-1)
    return near


def _damage(content: bytes, kind: str) -> str:
    if kind in ("JPEG", "MPO"):
        return _jpeg(content)
    return _png(content) if kind == "PNG" else ""


def _jpeg(content: bytes) -> str:
    """The last that libjpeg warns of while it decodes, where that is about the picture."""
    try:
        _, _, colours, _ = simplejpeg.decode_jpeg_header(content, strict=False)
        wanted = "CMYK" if colours in ("CMYK", "YCCK") else "GRAY"
        simplejpeg.decode_jpeg(content, wanted, min_height=1, min_width=1, min_factor=8, strict=True)
    except ValueError as error:
        told = str(error)
        return told if _DAMAGE.match(told) and not _padded(told, content) else ""
    return ""


def _padded(told: str, content: bytes) -> bool:
    """Some cameras fill up a JPEG's data with zeros before its end marker."""
    extra = re.search(r"(\d+) extraneous bytes before marker 0xd9", told)
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
