"""How a photo must be turned to be upright: reads the orientation tag of EXIF and no other.

Phones write tags of odd types and lengths, on which a reader of all tags fails; only orientation is needed here.
"""

import contextlib
import re
import struct

from PIL import Image

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = {_TURNS[number] for number in (5, 6, 7, 8)}  # width becomes height
_TURNED = ("TIFF", "HEIF")
_TAG, _NAME = 0x112, b"Exif\0\0"
_KINDS = {1: "B", 3: "H", 4: "I"}  # byte, short, long


def turn_of(image: Image.Image) -> Image.Transpose | None:
    """What turns a loaded image upright, by EXIF, else by XMP; None if it is upright or neither states it.

    Pillow turns the formats of `_TURNED` when it loads them.
    """
    if image.format in _TURNED:
        return None
    stated = _by_exif(image)
    return _TURNS.get(_by_xmp(image) if stated is None else stated)


def _by_exif(image: Image.Image) -> int | None:
    exif = image.info.get("exif")
    if exif is None and isinstance(text := image.info.get("Raw profile type exif"), str):  # ImageMagick's PNG
        with contextlib.suppress(ValueError):
            exif = bytes.fromhex("".join(text.split("\n")[3:]))
    if not isinstance(exif, bytes):
        return None
    while exif.startswith(_NAME):
        exif = exif.removeprefix(_NAME)
    with contextlib.suppress(struct.error):  # cut short
        return _in_block(exif)
    return None


def _in_block(exif: bytes) -> int | None:
    """Raises struct.error."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return None
    (start,) = struct.unpack_from(order + "I", exif, 4)
    (count,) = struct.unpack_from(order + "H", exif, start)
    for place in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, number = struct.unpack_from(order + "HHI", exif, place)
        if tag == _TAG and number and kind in _KINDS:
            return int(struct.unpack_from(order + _KINDS[kind], exif, place + 8)[0])
    return None


def _by_xmp(image: Image.Image) -> int:
    xmp = image.info.get("XML:com.adobe.xmp") or image.info.get("xmp")
    text = xmp.encode() if isinstance(xmp, str) else xmp if isinstance(xmp, bytes) else b""
    stated = re.search(rb'tiff:Orientation(?:="|>)([0-9])', text)
    return int(stated[1]) if stated else 1
