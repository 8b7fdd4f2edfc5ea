"""A hand of points, without a photo: fingers up, thumb on the left, as the back of a right hand."""

import numpy as np

from handreid.landmarks import HandLandmarks


def hand(*, scale: float = 100.0, turn: float = 0.0, at: tuple[float, float] = (300.0, 400.0)) -> HandLandmarks:
    """The wrist at `at`, the middle finger's knuckle `scale` away, turned clockwise by `turn` radians from upright."""
    rows = [(0.0, 0.0), (-0.3, -0.2), (-0.55, -0.45), (-0.7, -0.7), (-0.8, -0.9)]
    for x, y, reach in ((-0.26, -1.0, 0.8), (0.0, -1.0, 0.95), (0.23, -0.92, 0.85), (0.43, -0.78, 0.65)):
        rows += [(x * (1 + share / 3), y - reach * share) for share in (0.0, 0.5, 0.75, 1.0)]
    cos, sin = np.cos(turn), np.sin(turn)
    return HandLandmarks(scale * np.array(rows) @ np.array([[cos, sin], [-sin, cos]]) + at, handedness="right")


def mirrored(found: HandLandmarks, width: float) -> HandLandmarks:
    return HandLandmarks(found.points * [-1, 1] + [width, 0])
