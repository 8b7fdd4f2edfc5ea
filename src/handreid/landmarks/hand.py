"""What a landmarker finds: hands of 21 points, in pixels of the picture that it was given."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64, UInt8

from handreid.errors import DataError

Side = Literal["left", "right"]
Picture = UInt8[np.ndarray, "height width 3"]
Points = Float64[np.ndarray, "points 2"]

# In the order of MediaPipe's hand model: mcp is the knuckle, pip and dip the joints after it.
POINTS = (
    "wrist",
    *(f"thumb_{joint}" for joint in ("cmc", "mcp", "ip", "tip")),
    *(
        f"{finger}_{joint}"
        for finger in ("index", "middle", "ring", "little")
        for joint in ("mcp", "pip", "dip", "tip")
    ),
)
BONES = tuple((0 if k % 4 == 1 else k - 1, k) for k in range(1, 21))
"""Pairs of points that are joined when a hand is drawn: from the wrist along each finger."""


@dataclass(frozen=True, eq=False)
class HandLandmarks:
    """One hand. `points` has a row for each name of `POINTS`: x to the right and y down from the picture's upper left
    corner, in pixels; the centre of the first pixel is (0.5, 0.5). Points may lie outside the picture.

    `score` (0 to 1) is the landmarker's confidence that this is a hand; 1 if it states none. `handedness` is the hand
    of the person, whichever side of it shows; None if unknown. `handedness_score` (0.5 to 1) is the confidence in it.

    Raises DataError for points of another shape, or that are not finite.
    """

    points: Float64[np.ndarray, "21 2"]
    score: float = 1.0
    handedness: Side | None = None
    handedness_score: float | None = None

    def __post_init__(self) -> None:
        points = np.asarray(self.points, np.float64)
        if points.shape != (len(POINTS), 2) or not np.isfinite(points).all():
            raise DataError(
                f"a hand has {len(POINTS)} points of x and y, all finite; an array of shape {points.shape} was given"
                + ("" if np.isfinite(points).all() else " with values that are not")
            )
        object.__setattr__(self, "points", points)

    @property
    def size(self) -> float:
        """Pixels from the wrist to the knuckle of the middle finger."""
        return float(np.linalg.norm(self.points[9] - self.points[0]))


@runtime_checkable
class Landmarker(Protocol):
    """A function from a picture, RGB with square pixels, to the hands on it, the most certain first."""

    def __call__(self, picture: Picture, /) -> Sequence[HandLandmarks]: ...
