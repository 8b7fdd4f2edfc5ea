"""The marks on a hand's skin as data: lines, spots, and groups of lines that are painted in one go.

A mark lives in the frame of one part: the palm (the hand's own frame) or a digit (x across it, y along the bones from
the knuckle), so it moves and shortens with the pose.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float32, Float64

from handreid.data.rendered.anatomy import Point

PALM = 5  # the part after the five digits
NEIGHBOURS = 0.6  # cm along a digit within which lines are painted together
Column = Float32[np.ndarray, "lines 1 1"]


@dataclass(frozen=True)
class Stroke:
    """A curved line. `bend`, `skew` and `wave` are sideways offsets as shares of the chord; `width` is a Gaussian's cm.

    `dark` is log-darkness, `relief` cm of height, `melanin` and `blood` shares added to the skin's own.
    """

    part: int
    start: Point
    end: Point
    width: float
    bend: float = 0.0
    skew: float = 0.0
    wave: float = 0.0
    phase: float = 0.0
    dark: float = 0.0
    relief: float = 0.0
    melanin: float = 0.0
    blood: float = 0.0

    def around(self) -> list[Point]:
        """Four points whose box holds the line, its width apart."""
        (x0, y0), (x1, y1) = self.start, self.end
        dx, dy = x1 - x0, y1 - y0
        x, y, out = (x0 + x1) / 2, (y0 + y1) / 2, abs(self.bend) + 0.1 * abs(self.skew) + self.wave
        return [self.start, self.end, (x - dy * out, y + dx * out), (x + dy * out, y - dx * out)]


@dataclass(frozen=True)
class Spot:
    part: int
    centre: Point
    radii: Point
    dark: float = 0.0
    relief: float = 0.0
    melanin: float = 0.0
    blood: float = 0.0

    def around(self) -> list[Point]:
        (x, y), (rx, ry) = self.centre, self.radii
        return [(x + sx * rx, y + sy * ry) for sx in (-1.75, 1.75) for sy in (-1.75, 1.75)]


class Bundle:
    """Lines near each other, as columns of coefficients.

    In a line's own frame t goes from 0 at its start to 1 at its end, and n is the distance from its chord in cm.
    """

    def __init__(self, strokes: list[Stroke]) -> None:
        start, end = np.array([s.start for s in strokes]), np.array([s.end for s in strokes])
        chord = end - start
        length = np.hypot(chord[:, 0], chord[:, 1])
        unit = chord / length[:, None]
        self.t = _columns(unit[:, 0] / length, unit[:, 1] / length, -(unit * start).sum(axis=1) / length)
        self.n = _columns(-unit[:, 1], unit[:, 0], unit[:, 1] * start[:, 0] - unit[:, 0] * start[:, 1])
        bend = np.array([s.bend for s in strokes])
        wave = np.array([s.wave for s in strokes])
        skew = np.array([s.skew for s in strokes])
        phase = np.array([s.phase for s in strokes])
        self.bend, self.skew, self.slope = _columns(4 * bend * length, skew * length, 4 * bend)
        self.wave, self.phase = _columns(wave * length, phase)
        self.wavy = bool(wave.any())
        self.widths = np.array([s.width for s in strokes])
        self.gains = {name: np.array([getattr(s, name) for s in strokes]) for name in FIELDS}
        self.corners = np.array([p for s in strokes for p in s.around()])


FIELDS = ("dark", "relief", "melanin", "blood")


def _columns(*values: Float64[np.ndarray, " lines"]) -> tuple[Column, ...]:
    return tuple(v.astype(np.float32).reshape(-1, 1, 1) for v in values)


@dataclass(frozen=True)
class Surface:
    """One aspect of one hand."""

    strokes: tuple[Stroke, ...]
    spots: tuple[Spot, ...]
    moles: tuple[Spot, ...]
    scar: Stroke | None

    @cached_property
    def bundles(self) -> dict[int, list[Bundle]]:
        """By part."""
        parts: dict[int, list[list[Stroke]]] = {}
        lines = (*self.strokes, *([self.scar] if self.scar else []))
        for stroke in sorted(lines, key=_height):
            groups = parts.setdefault(stroke.part, [])
            if (
                groups
                and stroke.part != PALM
                and math.dist((_height(groups[-1][-1]),), (_height(stroke),)) < NEIGHBOURS
            ):
                groups[-1].append(stroke)
            else:
                groups.append([stroke])
        return {part: [Bundle(group) for group in groups] for part, groups in parts.items()}

    @cached_property
    def blots(self) -> dict[int, list[Spot]]:
        """By part: spots of either kind."""
        parts: dict[int, list[Spot]] = {}
        for spot in (*self.spots, *self.moles):
            parts.setdefault(spot.part, []).append(spot)
        return parts


def _height(stroke: Stroke) -> float:
    return (stroke.start[1] + stroke.end[1]) / 2
