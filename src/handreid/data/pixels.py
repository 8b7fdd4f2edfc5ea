"""Converts a loaded image of any mode to what a viewer shows: 8 bits, RGB, in sRGB, on white.

Only the modes listed here are read. More than 8 bits are scaled by the range that the file states, so that a photo of
16 bits looks like its copy of 8; float, 32 bits and signed numbers have no stated range, and are refused.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFile, TiffImagePlugin

from handreid.data.colour import Convert, ProfileError, conversion, plain

WHITE = (255, 255, 255)
_DEEP = ("I;16", "I;16B")
# the modes that are read, and their mode without transparency
_COLOURS = dict.fromkeys(("1", "L", "LA", "La", *_DEEP), "L")
_COLOURS |= dict.fromkeys(("P", "PA", "RGB", "RGBA", "RGBa", "YCbCr"), "RGB")
_COLOURS |= {"CMYK": "CMYK"}

Clear = int | tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Look:
    """How to convert the pixels of one image; the same for every part of it."""

    convert: Convert  # to sRGB
    profile_trouble: str  # why its colour profile is not used; empty where it is, or where there is none
    levels: UInt8[np.ndarray, " values"] | None  # for each value of more than 8 bits

    def rgb(self, image: Image.Image) -> Image.Image:
        """The image in RGB; no copy if nothing has to change."""
        if self.levels is not None:
            alpha, image = self._scaled(image, self.levels)
        elif image.has_transparency_data:
            rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
            alpha, image = rgba.getchannel("A"), rgba.convert(_COLOURS[image.mode])
        else:
            alpha, image = None, image if image.mode in ("L", "RGB", "CMYK") else image.convert(_COLOURS[image.mode])
        colours = self.convert(image)
        if alpha is None:
            return colours
        white = Image.new("RGB", colours.size, WHITE)
        white.paste(colours, mask=alpha)
        return white

    @staticmethod
    def _scaled(image: Image.Image, levels: np.ndarray) -> tuple[Image.Image | None, Image.Image]:
        values = np.asarray(image)
        clear = image.info.get("transparency")
        alpha = None if clear is None else Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8))
        return alpha, Image.fromarray(levels[values])


def clear_value(image: ImageFile.ImageFile) -> Clear | None:
    """The transparent colour of a PNG, scaled as its loaded pixels will be; None if it has none or needs no scaling.

    Call it before the image is loaded: Pillow scales pixels of 2, 4 and 3 x 16 bits, but not this colour.
    """
    clear = image.info.get("transparency")
    stored = image.tile[0].args if image.format == "PNG" and image.tile else None
    match stored, clear:
        case (("L;2" | "L;4"), int()):
            return clear * (85 if stored == "L;2" else 17)
        case "RGB;16B", tuple():
            return tuple(level >> 8 for level in clear)
    return None


def look_of(image: Image.Image) -> Look:
    """How to convert a loaded image. Raises ValueError if the range of its pixels is unknown."""
    levels = _levels(image)
    if image.mode not in _COLOURS:
        raise ValueError(
            f"the range of its pixels (mode {image.mode}) is unknown; save it with 8 or 16 bits per channel"
        )
    convert: Convert = plain
    trouble = ""
    if profile := image.info.get("icc_profile"):
        try:
            convert = conversion(profile, _COLOURS[image.mode])
        except ProfileError as error:
            trouble = str(error)
    return Look(convert, trouble, levels)


def _levels(image: Image.Image) -> UInt8[np.ndarray, " values"] | None:
    bits, negative = 16, False
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tags = image.tag_v2
        if 2 in tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,)):
            raise ValueError("its pixels are signed numbers; save it with 8 or 16 bits per channel")
        bits = tags.get(TiffImagePlugin.BITSPERSAMPLE, (16,))[0]
        negative = tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0  # Pillow leaves 16 bits as negatives
    if image.mode not in _DEEP:
        return None
    top = 2**bits - 1
    scaled = (np.arange(2**16).clip(0, top) * 255 + top // 2) // top
    levels: UInt8[np.ndarray, " values"] = (255 - scaled if negative else scaled).astype(np.uint8)
    return levels
