"""Where every part of the hand lies in the picture, and its height.

A part (palm with arm, or a digit) is computed in its own box of pixels only: its frame's coordinates at every pixel, so
that marks can be painted in centimetres on skin, its distance to the outline (negative inside) and its height.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float32, Float64
from PIL import Image

from handreid.data.rendered.anatomy import Digit, Hand, Point
from handreid.data.rendered.pose import Limb, Points
from handreid.data.rendered.scene import Framing, Scene

Plane = Float32[np.ndarray, "height width"]
Box = tuple[slice, slice]
Piece = tuple[Point, Point, float, float]  # a capsule: two ends and their radii
PALM_HEIGHT, PALM_ROUNDING, PALM_BLEND = 1.0, 0.5, 0.33  # cm
DIGIT_HEIGHT = 0.86  # of its half width
TABLE = 512
BOX = Image.Resampling.BOX


@dataclass(frozen=True)
class Grid:
    """The picture's pixels in the hand's frame."""

    side: int  # pixels
    framing: Framing

    @property
    def pixels_per_cm(self) -> float:
        (a, b), (c, d) = self.framing.matrix
        return self.side * math.sqrt(abs(a * d - b * c))

    def pixels(self, points: Points) -> Points:
        """Rows and columns, whole numbers at pixel centres, of points in the hand's frame."""
        (a, b), (c, d) = self.framing.matrix
        x, y = points[:, 0], points[:, 1]
        ox, oy = self.framing.origin
        return np.stack([c * x + d * y + oy, a * x + b * y + ox], axis=1) * self.side - 0.5

    def box(self, points: Points, margin: float) -> Box | None:
        """The pixels around points in the hand's frame; None if the picture has none of them. Margin in cm."""
        margins = np.array([margin * self.pixels_per_cm])
        (box,) = boxes(self.pixels(points), [len(points)], margins, (slice(0, self.side), slice(0, self.side)))
        return box

    def coordinates(self, box: Box) -> tuple[Plane, Plane]:
        (a, b), (c, d) = self.framing.matrix
        det = a * d - b * c
        ox, oy = self.framing.origin
        rows = (np.arange(box[0].start, box[0].stop, dtype=np.float32) + 0.5) / self.side - oy
        cols = (np.arange(box[1].start, box[1].stop, dtype=np.float32) + 0.5) / self.side - ox
        x = (cols * (d / det))[None, :] - (rows * (b / det))[:, None]
        y = (rows * (a / det))[:, None] - (cols * (c / det))[None, :]
        return x.astype(np.float32, copy=False), y.astype(np.float32, copy=False)


def boxes(points: Points, counts: list[int], margins: Float64[np.ndarray, " groups"], within: Box) -> list[Box | None]:
    """For each group of `counts` points the pixels around it, from the corner of `within`; None if it has none."""
    corner = np.array([within[0].start, within[1].start])
    ends = np.array([within[0].stop, within[1].stop]) - corner
    starts = np.cumsum([0, *counts[:-1]])
    low = np.maximum((np.minimum.reduceat(points, starts) - corner - margins[:, None]).astype(int), 0)
    high = np.minimum((np.maximum.reduceat(points, starts) - corner + margins[:, None]).astype(int) + 2, ends)
    return [
        (slice(top, bottom), slice(left, right)) if top < bottom and left < right else None
        for (top, left), (bottom, right) in zip(low.tolist(), high.tolist(), strict=True)
    ]


@dataclass
class Part:
    """A part's box with its fields, that marks add to. `rim` is 0 in the middle and 1 at the outline."""

    index: int
    box: Box
    x: Plane
    y: Plane
    places: Callable[[Points], Points]  # from its frame to the hand's
    outline: Plane  # cm, negative inside
    height: Plane  # cm
    rim: Plane
    blend: Plane | None  # how much of it shows where it grows out of the palm
    dark: Plane
    relief: Plane
    melanin: Plane
    blood: Plane


def _part(
    index: int,
    box: Box,
    frame: tuple[Plane, Plane],
    places: Callable[[Points], Points],
    shape: tuple[Plane, Plane, Plane],
    blend: Plane | None,
) -> Part:
    dark, relief, melanin, blood = np.zeros((4, *frame[0].shape), np.float32)
    return Part(index, box, *frame, places, *shape, blend, dark, relief, melanin, blood)


def palm(grid: Grid, hand: Hand, scene: Scene) -> Part | None:
    pieces = _palm_pieces(hand, scene)
    box = grid.box(np.array([p for start, end, _, _ in pieces for p in (start, end)]), 3.5)
    if box is None:
        return None
    x, y = grid.coordinates(box)
    outline = _palm_outline(x, y, pieces)
    depth = np.maximum(-outline, 0)
    fall = np.exp(depth * np.float32(-1 / PALM_ROUNDING))
    height = PALM_HEIGHT * (1 - fall) - 2 * np.maximum(outline, 0)
    return _part(5, box, (x, y), lambda points: points, (outline, height, fall * fall * fall), None)


def _palm_outline(x: Plane, y: Plane, pieces: list[Piece]) -> Plane:
    """Smooth union of the pieces, worked out at every other pixel: it has no edges of its own."""
    rows, cols = x.shape
    across, down = (np.asarray(Image.fromarray(p).resize((cols // 2 + 1, rows // 2 + 1), BOX)) for p in (x, y))
    sharp = np.float32(-1 / PALM_BLEND)
    total = np.zeros_like(across)
    for start, end, start_radius, end_radius in pieces:
        total += np.exp(np.maximum(_cone(across, down, start, end, start_radius, end_radius), -4) * sharp)
    outline = np.log(total + np.float32(1e-30)) * np.float32(-PALM_BLEND)
    return np.asarray(Image.fromarray(outline).resize((cols, rows), Image.Resampling.BICUBIC))


def _palm_pieces(hand: Hand, scene: Scene) -> list[Piece]:
    """Tapered capsules: the metacarpals, the web between the fingers, both heels, and the forearm."""
    b, fingers, thumb = hand.breadth, hand.digits[1:], scene.limbs[0]
    far = (-30 * math.sin(scene.pose.wrist_bend), -30 * math.cos(scene.pose.wrist_bend))
    pieces = [((0.0, 0.4), far, hand.wrist * 0.97, hand.wrist * 1.7)]
    for i, digit in enumerate(fingers):
        carpal = ((i - 1.5) * 0.95 * b, 1.3 * b)
        pieces.append((carpal, digit.base, 1.25 * b, digit.radii[0] * 1.1))
    for left, right in itertools.pairwise(fingers):
        start = (left.base[0], left.base[1] + hand.web)
        end = (right.base[0], right.base[1] + hand.web * (0.6 if right is fingers[-1] else 1.0))
        pieces.append((start, end, 0.72, 0.7))
    pieces.append(((-0.1 * b, 3.0 * b), (0.0, 6.4 * b), 2.5 * b, 2.9 * b))
    knuckles = (
        (fingers[0].base[0] + 0.5, fingers[0].base[1] - 0.35),
        (fingers[-1].base[0] - 0.4, fingers[-1].base[1] - 0.2),
    )
    pieces.append((*knuckles, 1.2 * b, 1.05 * b))
    root, tip = hand.thumb_root, thumb.base
    middle = (root[0] + 0.55 * (tip[0] - root[0]), root[1] + 0.55 * (tip[1] - root[1]))
    index, little = hand.digits[1].base, hand.digits[4].base
    pieces.append((root, tip, 1.45 * b * (0.85 + 0.15 * hand.heel), thumb.digit.radii[0] * 1.05))
    pieces.append((middle, (index[0] + 0.35, index[1] - 2.3), 1.0 * b, 1.1 * b))
    pieces.append(((1.55 * b, 1.7 * b), (little[0] - 0.05, little[1] - 1.8), 1.45 * b, 1.25 * b))
    return pieces


def _cone(x: Plane, y: Plane, start: Point, end: Point, start_radius: float, end_radius: float) -> Plane:
    """Distance to a capsule whose radius goes from `start_radius` to `end_radius`."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    length2 = dx * dx + dy * dy
    px, py = x - np.float32(start[0]), y - np.float32(start[1])
    t = px * np.float32(dx / length2)
    t += py * np.float32(dy / length2)
    np.clip(t, 0, 1, out=t)
    px -= t * np.float32(dx)
    py -= t * np.float32(dy)
    px *= px
    py *= py
    px += py
    np.sqrt(px, out=px)
    t *= np.float32(end_radius - start_radius)
    px -= t
    px -= np.float32(start_radius)
    return px


def digit(grid: Grid, index: int, limb: Limb) -> Part | None:
    radius = max(limb.digit.radii)
    box = grid.box(limb.places(np.outer((0.0, 0.5, 1.0), (0.0, limb.true[-1]))), radius + 0.6)
    if box is None:
        return None
    x, y = grid.coordinates(box)
    ex, ey = limb.along
    x -= np.float32(limb.base[0])
    y -= np.float32(limb.base[1])
    a = x * np.float32(ex) + y * np.float32(ey)
    v = x * np.float32(ey) - y * np.float32(ex)
    v -= (a * a) * np.float32(limb.bow / limb.length**2)
    u = _unfolded(a, limb)
    table, tip = _profile(limb.digit), limb.digit.radii[-1]
    r = np.take(table, np.clip(u * np.float32(TABLE / limb.true[-1]), 0, TABLE - 1).astype(np.intp))
    end = limb.seen[-1] - tip * 0.92
    ends = np.maximum(a - np.float32(end), 0) * np.float32(1.06)
    ends += np.maximum(-a, 0)
    rho = np.sqrt(v * v + ends * ends)
    outline = rho - r
    ratio = rho / r
    dome = np.sqrt(np.maximum(1 - ratio * ratio, 0))
    height = DIGIT_HEIGHT * r * dome - 2 * np.maximum(outline, 0)
    rise = (u - 0.2) * np.float32(1 / 1.3)
    blend = np.clip(rise, 0, 1)
    blend *= blend * (3 - 2 * blend)
    height *= 0.55 + 0.45 * blend
    rim = ratio * ratio
    rim *= rim
    return _part(index, box, (v, u), limb.places, (outline, height, rim * rim), blend)


def _unfolded(a: Plane, limb: Limb) -> Plane:
    """From cm in the picture's plane to cm along the bones: piecewise linear, steeper where a bone is foreshortened."""
    rates = [
        (t1 - t0) / (s1 - s0)
        for t0, t1, s0, s1 in zip(limb.true[:-1], limb.true[1:], limb.seen[:-1], limb.seen[1:], strict=True)
    ]
    u = a * np.float32(rates[0])
    for joint, before, after in zip(limb.seen[1:-1], rates[:-1], rates[1:], strict=True):
        u += np.maximum(a - np.float32(joint), 0) * np.float32(after - before)
    return u


@lru_cache(maxsize=64)
def _profile(digit: Digit) -> Float32[np.ndarray, " table"]:
    """Half the width along the bones: joints thick, shafts slimmer."""
    ends = (0.0, *digit.joints)
    u = np.linspace(0, ends[-1], TABLE)
    r = np.interp(u, [*ends[:-1], ends[-1] - digit.radii[-1]], digit.radii)
    for start, end in itertools.pairwise((ends[1] * 0.45, *ends[1:])):
        t = np.clip((u - start) / (end - start), 0, 1)
        r *= 1 - digit.waist * (0.35 if end == ends[-1] else 1.0) * np.sin(math.pi * t) ** 2
    return r.astype(np.float32)
