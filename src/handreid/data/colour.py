"""Converts photos with a colour profile to sRGB, in which CLIP was trained. The conversion is built once per profile.

* A profile that changes no colour by more than `ALIKE` levels is taken for sRGB, and the photo's bytes stay as they
  are.
* Intent is relative colorimetric with black point compensation: white stays white, and a print's black becomes black.
"""

import io
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

ALIKE = 2  # levels of 255
Convert = Callable[[Image.Image], Image.Image]  # from mode L, RGB or CMYK to RGB
_FITS = {("RGB ", "RGB"), ("RGB ", "L"), ("GRAY", "L"), ("CMYK", "CMYK")}  # a profile's space, a photo's
_MODES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}


class ProfileError(ValueError):
    """A colour profile that cannot be used, and why; the photo can be read without it."""


def plain(photo: Image.Image) -> Image.Image:
    """RGB without a profile; a photo that is RGB is not copied."""
    return photo if photo.mode == "RGB" else photo.convert("RGB")


def conversion(profile: object, space: str) -> Convert:
    """To sRGB for photos that carry this profile; `space` is the photo's own: L, RGB or CMYK. Raises ProfileError."""
    if not isinstance(profile, bytes):
        raise ProfileError("it is not an ICC profile")
    profile_space, convert = _conversion(profile)
    if (profile_space, space) not in _FITS:
        raise ProfileError(f"it is for {profile_space.strip()}, but the photo is {space}")
    return convert


@lru_cache(maxsize=32)
def _conversion(profile: bytes) -> tuple[str, Convert]:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space
        if space not in _MODES:
            raise ProfileError(f"profiles of {space.strip() or 'unknown'} colours are not supported")
        flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
        transform = ImageCms.buildTransform(
            source, _srgb(), _MODES[space], "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC, flags
        )
    except (OSError, ImageCms.PyCMSError, ImportError) as error:  # Pillow may have been built without LittleCMS
        raise ProfileError(str(error).strip() or "it cannot be read") from None
    _check_white(transform, space)
    if space == "CMYK":
        return space, lambda photo: _apply(transform, photo)
    probe = _probe(space)
    after = _apply(transform, probe)
    if _difference(plain(probe), after) <= ALIKE:
        return space, plain
    if space == "GRAY":
        levels = list(after.getchannel("G").tobytes())  # one channel: grey stays grey
        return space, lambda photo: plain(photo.point(levels))
    return space, lambda photo: _apply(transform, plain(photo))


def _apply(transform: ImageCms.ImageCmsTransform, photo: Image.Image) -> Image.Image:
    """A transform may be used by several threads at once: LittleCMS allows it."""
    converted = ImageCms.applyTransform(photo, transform)
    if converted is None:
        raise ProfileError("it cannot be applied")  # pragma: no cover - only where it is applied in place
    return converted


def _check_white(transform: ImageCms.ImageCmsTransform, space: str) -> None:
    """Raises ProfileError. A damaged profile may be readable, and yet turn photos dark or into negatives."""
    white, black = (0, 255) if space == "CMYK" else (255, 0)
    ends = [Image.new(_MODES[space], (1, 1), (level,) * len(_MODES[space])) for level in (white, black)]
    light, dark = (np.asarray(_apply(transform, end), int).mean() for end in ends)
    if light - dark < 128:
        raise ProfileError("it maps white and black to the same colour")


def _probe(space: str) -> Image.Image:
    """Colours to compare: all greys, or 9 levels of each channel."""
    if space == "GRAY":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    return Image.fromarray(np.stack(np.meshgrid(levels, levels, levels), -1).reshape(27, 27, 3))


def _difference(photo: Image.Image, converted: Image.Image) -> int:
    return int(np.abs(np.asarray(photo, int) - np.asarray(converted, int)).max())


@lru_cache(maxsize=1)
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
