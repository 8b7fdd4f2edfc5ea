"""A map laid over its photo.

* The photo is what the model saw, squashed, cropped or padded as it was, only with more pixels: so every part of a map
  lies where it belongs. It becomes grey below a map, so that colour means the map and nothing else.
* How much is told twice, by colour and by how much it covers: where a map has little to say, the hand shows. Colours
  are safe for the colour-blind: viridis, perceptually uniform; blue over nothing to orange where values have signs.
* Values are drawn between cells' middles (bicubic), never outside of what the cells say. A line is where half of the
  largest value is.
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
    """The photo in grey below the map; `alpha` is how much of it the largest value covers.

    `scale` is the value of the strongest colour, the largest of the map where None: give one for maps that are
    compared. Of a map that is not `signed`, negative values are drawn as 0.
    """
    largest = float(np.abs(values).max()) if scale is None else scale
    shown = enlarged(values / (largest or 1.0), photo.size).clip(-1 if signed else 0, 1)
    grey = np.asarray(photo.convert("L"), float)[..., None] / 255
    pale = grey + _PALE * (1 - grey)
    opacity = alpha * np.abs(shown)[..., None]
    mixed = (1 - opacity) * pale + opacity * colours(shown, signed=signed)
    if line and values.max() > 0:
        mixed[_edge(shown >= 0.5)] = 0.1
    return Image.fromarray((mixed * 255).round().astype(np.uint8))


def enlarged(values: Float[np.ndarray, "rows cols"], size: tuple[int, int]) -> Float[np.ndarray, "height width"]:
    """To width and height in pixels, cells' middles in their places, within the range of the cells."""
    smooth = Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(smooth, float).clip(values.min(), values.max())


def colours(values: Float[np.ndarray, "height width"], *, signed: bool = False) -> Rgb:
    """Of values from 0 to 1, or from -1 to 1 where they have signs."""
    from matplotlib import colormaps
    from matplotlib.colors import LinearSegmentedColormap

    if not signed:
        one: Rgb = colormaps["viridis"](values.clip(0, 1))[..., :3]
        return one
    below, above = (LinearSegmentedColormap.from_list("side", side) for side in (_NEGATIVE, _POSITIVE))
    strength = np.abs(values)
    both: Rgb = np.where((values < 0)[..., None], below(strength)[..., :3], above(strength)[..., :3])
    return both


def _edge(inside: np.ndarray) -> np.ndarray:
    """Two pixels wide, within the area."""
    kept = inside.copy()
    for axis in (0, 1):
        for step in (1, -1, 2, -2):
            kept &= np.roll(np.pad(inside, 2, mode="edge"), step, axis)[2:-2, 2:-2]
    edge: np.ndarray = inside & ~kept
    return edge
