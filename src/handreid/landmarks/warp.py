"""Reads an aligned square from a picture: one interpolation, whatever was composed before.

Where the square is larger than the picture, the border is filled as the caller says.
"""

import math
from typing import Literal, get_args

import numpy as np
from PIL import Image

from handreid.landmarks.align import Transform, apply, compose, inverse, resize

Fill = Literal["blank", "mean", "border", "reflected", "replicated"]
FILLS: tuple[Fill, ...] = get_args(Fill)
Colour = tuple[int, int, int]
WHITE: Colour = (255, 255, 255)
_FARTHEST = 4  # times the picture's size; farther out a reflected or replicated border is only continued as blank


def warp(
    picture: Image.Image, transform: Transform, size: tuple[int, int], *, fill: Fill | Colour = "blank"
) -> Image.Image:
    """The RGB picture transformed, as a picture of `size` (width, height).

    `blank` fills with white, `mean` with the mean colour of the picture, `border` with the median colour of its edge,
    `reflected` and `replicated` from its pixels; a colour fills with itself.
    Bilinear. If pixels get smaller than half, the picture is averaged over blocks of whole numbers of pixels first, so
    that none is skipped.
    """
    shrink = 1 / math.sqrt(max(abs(float(np.linalg.det(transform[:, :2]))), 1e-12))
    factor = min(max(1, int(shrink)), *picture.size)
    if factor > 1:
        small = picture.reduce(factor)
        # the last block may be narrower: blocks are `factor` wide, whatever the picture's size
        scale = resize((factor, factor), (1, 1))
        return _read(small, compose(inverse(scale), transform), size, fill)
    return _read(picture, transform, size, fill)


def _read(picture: Image.Image, transform: Transform, size: tuple[int, int], fill: Fill | Colour) -> Image.Image:
    if fill == "reflected" or fill == "replicated":
        picture, transform = _extended(picture, transform, size, fill)
    back = inverse(transform)
    colour = WHITE
    match fill:
        case "mean":
            colour = mean_colour(picture)
        case "border":
            colour = border_colour(picture)
        case (_, _, _):
            colour = fill
    return picture.transform(
        size, Image.Transform.AFFINE, tuple(back.ravel().tolist()), Image.Resampling.BILINEAR, fillcolor=colour
    )


def mean_colour(picture: Image.Image) -> Colour:
    """The mean of each channel over the picture, rounded."""
    red, green, blue = np.asarray(picture).reshape(-1, 3).mean(axis=0).round().astype(int).tolist()
    return red, green, blue


def border_colour(picture: Image.Image) -> Colour:
    """The median of each channel along the four edges."""
    pixels = np.asarray(picture)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    red, green, blue = np.median(border, axis=0).round().astype(int).tolist()
    return red, green, blue


def _extended(
    picture: Image.Image, transform: Transform, size: tuple[int, int], fill: Literal["reflected", "replicated"]
) -> tuple[Image.Image, Transform]:
    """The picture with a border wide enough for the result, and the transformation from it."""
    corners = np.array([[0, 0], [size[0], 0], [0, size[1]], size], np.float64)
    reach = apply(inverse(transform), corners)
    limits = _FARTHEST * np.array(picture.size)
    low = np.clip(np.ceil(1 - reach.min(axis=0)), 0, limits).astype(int)
    high = np.clip(np.ceil(reach.max(axis=0) + 1 - picture.size), 0, limits).astype(int)
    if not (low.any() or high.any()):
        return picture, transform
    widths = ((low[1], high[1]), (low[0], high[0]), (0, 0))
    pixels = np.pad(np.asarray(picture), widths, "symmetric" if fill == "reflected" else "edge")
    moved = np.column_stack([np.eye(2), -low.astype(np.float64)])
    return Image.fromarray(pixels), compose(moved, transform)
