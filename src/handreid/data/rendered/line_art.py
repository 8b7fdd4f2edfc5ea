"""Draws marks onto the fields of a part: darkness, relief, melanin and blood."""

import numpy as np
from jaxtyping import Float32, Float64

from handreid.data.rendered.shape import Box, Grid, Part, boxes
from handreid.data.rendered.skin_marks import Bundle, Spot, Surface

Plane = Float32[np.ndarray, "height width"]


def ink(grid: Grid, part: Part, marks: Surface) -> None:
    bundles, blots = marks.bundles.get(part.index, []), marks.blots.get(part.index, [])
    if not bundles and not blots:
        return
    # a line thinner than a pixel is drawn a pixel wide and fainter, or it would flicker with the pose
    least = 0.75 / grid.pixels_per_cm
    corners = [bundle.corners for bundle in bundles] + [np.array(blot.around()) for blot in blots]
    margins = [2.2 * max(bundle.widths.max(), least) for bundle in bundles] + [0.0] * len(blots)
    regions = windows(grid, part, corners, np.array(margins))
    for bundle, box in zip(bundles, regions, strict=False):
        if box is not None:
            _lines(part, bundle, box, least)
    for blot, box in zip(blots, regions[len(bundles) :], strict=True):
        if box is not None:
            _blot(part, blot, box)


def windows(
    grid: Grid, part: Part, corners: list[Float64[np.ndarray, "_ 2"]], margins: Float64[np.ndarray, " groups"]
) -> list[Box | None]:
    """The pixels of the part's box around each group of points in its frame; margins in cm."""
    pixels = grid.pixels(part.places(np.concatenate(corners)))
    return boxes(pixels, [len(group) for group in corners], margins * grid.pixels_per_cm, part.box)


def _lines(part: Part, bundle: Bundle, box: Box, least: float) -> None:
    x, y = part.x[box], part.y[box]
    t = x * bundle.t[0]
    t += y * bundle.t[1]
    t += bundle.t[2]
    n = x * bundle.n[0]
    n += y * bundle.n[1]
    n += bundle.n[2]
    inside = t * (1 - t)
    turn = 1 - 2 * t
    n -= inside * (bundle.skew * turn + bundle.bend)
    if bundle.wavy:
        n -= np.sin(t * np.float32(11) + bundle.phase) * bundle.wave
    turn *= bundle.slope
    turn *= turn
    turn += 1
    widths = np.maximum(bundle.widths, least)
    n *= n
    n *= (-1 / widths**2).astype(np.float32).reshape(-1, 1, 1)
    n /= turn
    inside *= 9
    amount = np.exp(n)
    amount *= np.clip(inside, 0, 1, out=inside)
    for field, name in _fields(part):
        gains = bundle.gains[name]
        if gains.any():
            share = (gains * bundle.widths / widths).astype(np.float32)
            field[box] += np.add.reduce(amount * share.reshape(-1, 1, 1))


def _blot(part: Part, spot: Spot, box: Box) -> None:
    (cx, cy), (rx, ry) = spot.centre, spot.radii
    dx = part.x[box] * np.float32(1 / rx)
    dx -= np.float32(cx / rx)
    dy = part.y[box] * np.float32(1 / ry)
    dy -= np.float32(cy / ry)
    dx *= dx
    dy *= dy
    dx += dy
    # (1 - r^2/3)^2 up to r = sqrt(3): a Gaussian's shape that ends
    dx *= np.float32(-1 / 3)
    dx += 1
    np.maximum(dx, 0, out=dx)
    dx *= dx
    for field, name in _fields(part):
        gain = getattr(spot, name)
        if gain:
            field[box] += dx * np.float32(gain)


def _fields(part: Part) -> tuple[tuple[Plane, str], ...]:
    return (part.dark, "dark"), (part.relief, "relief"), (part.melanin, "melanin"), (part.blood, "blood")
