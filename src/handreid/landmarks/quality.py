"""How well a hand can be seen on a photo: measures of its points and its pixels, each in its unit, and one number.

* Pixels are read where the hand is (`_mask`), from a picture in which wrist and middle knuckle are at most `SCALE`
  apart: larger hands are made smaller, so that sharpness means the same for photos of any size; none is enlarged.
* Grey is luma (ITU-R BT.601), 0 to 255. Only pixels of the photo count, not what lies outside.
* docs/quality.md has the sources, how `quality_of` was chosen, and what it is worth.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64
from PIL import Image, ImageDraw
from scipy import ndimage

from handreid.landmarks.align import RIGID, Size, apply, compose, fixed_places, resize, similarity
from handreid.landmarks.hand import BONES, HandLandmarks, Points
from handreid.landmarks.warp import warp

SCALE = 96.0  # about the pixels of a hand that fills a model's input of 224 x 224
_DARK, _LIGHT = 25, 247  # grey levels to which a pixel is underexposed, from which overexposed: ISO/IEC 29794-5
_PALM = (0, 1, 5, 9, 13, 17)
_WIDTH = 0.14  # of the hand's size: of the strip along each finger, well inside it
_LEAST = 25  # pixels of the hand in the photo below which nothing is measured
_SMOOTHED = 9  # pixels that the blur effect averages
Grey = Float64[np.ndarray, "height width"]
Mask = Bool[np.ndarray, "height width"]


@dataclass(frozen=True)
class PixelQuality:
    """Measures inside the hand. `sharpness`: 1 minus the blur effect of Crete et al. (2007), 0 to 1. `brightness` and
    `contrast`: mean and standard deviation of grey, in grey levels. `underexposed`, `overexposed`: shares of pixels, 0
    to 1.
    """

    sharpness: float
    brightness: float
    contrast: float
    underexposed: float
    overexposed: float


@dataclass(frozen=True)
class HandQuality:
    """Measures of one hand. `size`: pixels from the wrist to the middle finger's knuckle. `inside`: how many of the 20
    points of the fingers lie inside the photo. `tilt`: degrees clockwise from fingers up, -180 to 180. `slant`: how far
    wrist and knuckles are from the places of a hand seen from above after the best similarity, root mean square, as a
    share of the hand's size. `pixels` is None where hardly any pixel of the hand is in the photo.
    """

    size: float
    inside: int
    tilt: float
    slant: float
    pixels: PixelQuality | None


def hand_quality(picture: Image.Image, hand: HandLandmarks, taken: Size) -> HandQuality:
    """Measures a hand. `picture` shows the whole photo, RGB, at any size; `hand` is in pixels of the photo as it was
    taken, whose width and height are `taken`.

    Raises DataError if wrist and knuckles coincide.
    """
    points = hand.points
    inside = ((points[1:] >= 0) & (points[1:] <= taken)).all(axis=1)
    across, up = points[9, 0] - points[0, 0], points[0, 1] - points[9, 1]
    return HandQuality(
        hand.size, int(inside.sum()), math.degrees(math.atan2(across, up)), _slant(hand), _pixels(picture, hand, taken)
    )


def _slant(hand: HandLandmarks) -> float:
    places = fixed_places(hand)
    misses = apply(similarity(hand.points[list(RIGID)], places), hand.points[list(RIGID)]) - places
    return float(np.sqrt(np.square(misses).sum(axis=1).mean()) / np.linalg.norm(places[2] - places[0]))


def _pixels(picture: Image.Image, hand: HandLandmarks, taken: Size) -> PixelQuality | None:
    seen = _around(picture, hand, taken)
    if seen is None or seen[1].sum() < _LEAST:
        return None
    grey, mask = seen
    values = grey[mask]
    return PixelQuality(
        1 - _blur_effect(grey, mask),
        float(values.mean()),
        float(values.std()),
        float((values <= _DARK).mean()),
        float((values >= _LIGHT).mean()),
    )


def _around(picture: Image.Image, hand: HandLandmarks, taken: Size) -> tuple[Grey, Mask] | None:
    """The part of the photo that shows the hand, and where the hand is in it; None if all of it is outside."""
    factor = min(1.0, SCALE / max(hand.size, 1e-6))
    room = _WIDTH * hand.size
    low = np.clip(hand.points.min(axis=0) - room, 0, taken)
    high = np.clip(hand.points.max(axis=0) + room, 0, taken)
    width, height = np.ceil((high - low) * factor).astype(int).tolist()
    if min(width, height) < 2:
        return None
    move = np.column_stack([factor * np.eye(2), -factor * low])
    seen = warp(picture, compose(resize(picture.size, taken), move), (width, height), fill="replicated")
    mask = _mask(apply(move, hand.points), _WIDTH * hand.size * factor, (width, height))
    return np.asarray(seen.convert("L"), np.float64), mask


def _mask(points: Points, thick: float, size: tuple[int, int]) -> Mask:
    """The hull of wrist and knuckles, and a strip along each finger; within the outline, so that no edge of the hand
    against its background is measured.
    """
    drawn = Image.new("1", size)
    draw = ImageDraw.Draw(drawn)
    draw.polygon([tuple(points[number]) for number in _PALM], fill=1)
    for start, end in BONES:
        draw.line([tuple(points[start]), tuple(points[end])], fill=1, width=max(1, round(thick)))
        draw.ellipse([*(points[end] - thick / 2), *(points[end] + thick / 2)], fill=1)
    return np.asarray(drawn)


def _blur_effect(grey: Grey, mask: Mask) -> float:
    """The share of the differences between neighbours that stays when the picture is blurred: little if it was sharp.

    Crete, Dolmiere, Ladret and Nicolas, "The blur effect: perception and estimation with a new no-reference perceptual
    blur metric" (2007), with their mean over 9 pixels; theirs is over a whole picture, ours over the mask. The larger
    of the two directions. It does not change with brightness or contrast.
    """
    shares = []
    for axis in (0, 1):
        blurred = ndimage.uniform_filter1d(grey, _SMOOTHED, axis=axis, mode="nearest")
        inside = np.delete(mask, 0, axis=axis)
        before = np.abs(np.diff(grey, axis=axis))[inside]
        after = np.abs(np.diff(blurred, axis=axis))[inside]
        lost = np.maximum(0, before - after).sum()
        shares.append(1 - lost / before.sum() if before.sum() > 0 else 1.0)
    return float(max(shares))
