"""Reads a photo with its hand aligned: decoded scale, pixel aspect, mirroring, alignment and resize are one
transformation, and pixels are interpolated once.
"""

import math
from dataclasses import replace
from typing import Literal

import numpy as np
from PIL import Image

from handreid.data.decoding import naming, opened
from handreid.data.photo_file import PhotoFile
from handreid.errors import DataError
from handreid.landmarks.align import Size, Transform, align_hand, apply, compose, mirror_image, upright
from handreid.landmarks.align import resize as stretch
from handreid.landmarks.hand import HandLandmarks
from handreid.landmarks.warp import warp
from handreid.types import Alignment

Resize = Literal["squash", "crop", "pad"]
_SIDE = 1024  # of the square of `align_hand`, which is resized before any pixel is read


def read_aligned(
    photo: PhotoFile, alignment: Alignment, resize: Resize, size: tuple[int, int], *, mirror: bool = False
) -> Image.Image:
    """The photo's hand aligned, RGB, at `size` (width, height); with `mirror` the hand of its mirror image. Raises
    PhotoError, and DataError for a photo without a hand, or whose points coincide.
    """

    def to_input(full: tuple[int, int]) -> Transform:
        return _to_input(photo, full, alignment, resize, size, mirror=mirror)

    def at_least(full: tuple[int, int]) -> tuple[int, int]:
        # as for photos that are not aligned: twice as many pixels as the result shows of them
        scale = 2 * float(np.linalg.norm(to_input(full)[:, :2], 2))
        return min(full[0], math.ceil(scale * full[0])), min(full[1], math.ceil(scale * full[1]))

    with opened(photo.path, at_least) as decoded:
        full = decoded.full_size
        picture = decoded.reduced(at_least(full))
    transform = compose(stretch(picture.size, full), to_input(full))
    with naming(photo.path):
        return warp(picture, transform, size, fill=alignment.fill)


def _to_input(
    photo: PhotoFile,
    full: tuple[int, int],
    alignment: Alignment,
    resize: Resize,
    size: tuple[int, int],
    *,
    mirror: bool,
) -> Transform:
    """From pixels of the file at full size to those of the model's input."""
    if photo.hand is None:
        raise DataError(f"{photo.path} has no landmarks of a hand; run `handreid data landmarks` on its manifest")
    taken = (full[0] * photo.pixel_aspect, full[1])
    before, hand = stretch(full, taken), photo.hand
    if mirror:
        turned = mirror_image(taken[0])
        before, hand = compose(before, turned), replace(hand, points=apply(turned, hand.points))
    try:
        square, side = _aligned(hand, taken, alignment)
    except DataError as error:
        raise DataError(f"{photo.path}: {error}; correct its landmarks") from None
    return compose(compose(before, square), _resized(side, size, resize))


def _aligned(hand: HandLandmarks, taken: Size, alignment: Alignment) -> tuple[Transform, int]:
    """From pixels of the photo as it was taken to an aligned square, and that square's side in pixels."""
    if alignment.kind == "hand":
        return align_hand(hand, _SIDE, margin=alignment.margin), _SIDE
    # the longer side, as turning a photo by a quarter must not change what is seen
    side = max(1, round(max(taken) / (1 - 2 * alignment.margin)))
    return upright(hand, side, side), side


def _resized(side: int, size: tuple[int, int], resize: Resize) -> Transform:
    """From a square to the model's input of `size` (width, height), by the recipe's `resize`.

    `crop` fills the input and `pad` fits into it, both centred; around a fitted square more of the photo is seen.
    """
    if resize == "squash":
        return stretch((side, side), size)
    scale = (max(size) if resize == "crop" else min(size)) / side
    shift = (np.array(size) - scale * side) / 2
    return np.column_stack([scale * np.eye(2), shift])
