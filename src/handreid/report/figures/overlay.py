"""A saliency map drawn over its photo.

* The photo is the model's input (squashed, cropped or padded the same way) at a higher resolution, so that the map's
  cells are where they belong. It is grey, so that colour only shows the map.
* A value is shown by colour and by opacity: where it is small, the photo is visible. The colours suit colour-blind
  readers: viridis, perceptually uniform; for signed values blue (negative) and orange (positive).
* Values between the centres of cells are interpolated (bicubic) and clipped to the range of the cells. The line is at
  half of the largest value.
"""

import numpy as np
from jaxtyping import Float
from PIL import Image

Rgb = Float[np.ndarray, "height width 3"]
_NEGATIVE, _POSITIVE = ("#4575b4", "#08306b"), ("#f4a259", "#a63603")  # from weak to strong
_PALE = 0.25  # how far the grey photo is lightened


def overlay(
    photo: Image.Image,
    values: Float[np.ndarray, "rows cols"],
    *,
    alpha: float = 0.75,
    scale: float | None = None,
    signed: bool = False,
    line: bool = True,
) -> Image.Image:
    """The photo in grey below the map; `alpha` is the opacity of the largest value.

    `scale` is the value of the strongest colour, by default the map's largest; pass one for maps that are compared. If
    the map is not `signed`, negative values are drawn as 0.
    """
    largest = float(np.abs(values).max()) if scale is None else scale
    strengths = enlarged(values / (largest or 1.0), photo.size).clip(-1 if signed else 0, 1)
    grey = np.asarray(photo.convert("L"), float)[..., None] / 255
    pale = grey + _PALE * (1 - grey)
    opacity = alpha * np.abs(strengths)[..., None]
    mixed = (1 - opacity) * pale + opacity * colours(strengths, signed=signed)
    if line and values.max() > 0:
        mixed[_edge(strengths >= 0.5)] = 0.1
    return Image.fromarray((mixed * 255).round().astype(np.uint8))


def enlarged(values: Float[np.ndarray, "rows cols"], size: tuple[int, int]) -> Float[np.ndarray, "height width"]:
    """The map enlarged to (width, height) in pixels, clipped to the range of the cells."""
    smooth = Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(smooth, float).clip(values.min(), values.max())


def colours(values: Float[np.ndarray, "height width"], *, signed: bool = False) -> Rgb:
    """Colours of values from 0 to 1, or from -1 to 1 if `signed`."""
    from matplotlib import colormaps
    from matplotlib.colors import LinearSegmentedColormap

    if not signed:
        sequential: Rgb = colormaps["viridis"](values.clip(0, 1))[..., :3]
        return sequential
    below, above = (LinearSegmentedColormap.from_list("side", side) for side in (_NEGATIVE, _POSITIVE))
    strength = np.abs(values)
    diverging: Rgb = np.where((values < 0)[..., None], below(strength)[..., :3], above(strength)[..., :3])
    return diverging


def _edge(inside: np.ndarray) -> np.ndarray:
    """The border of an area, two pixels wide, inside it."""
    interior = inside.copy()
    for axis in (0, 1):
        for step in (1, -1, 2, -2):
            interior &= np.roll(np.pad(inside, 2, mode="edge"), step, axis)[2:-2, 2:-2]
    edge: np.ndarray = inside & ~interior
    return edge
