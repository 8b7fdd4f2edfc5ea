"""Squares on a picture that a model reads: around a palm's hand, around found points, around the whole picture."""

from dataclasses import dataclass

import numpy as np

from handreid.landmarks.align import Transform, inverse
from handreid.landmarks.hand import Points

_STEADY = (0, 1, 2, 3, 5, 6, 9, 10, 13, 14, 17, 18)  # points that move little when fingers bend
_LARGER, _AHEAD = 2.0, 0.1  # the square against the box of these points: side, and shift towards the fingers


@dataclass(frozen=True)
class Square:
    """A square on a picture: centre and side in pixels, and the direction of its upper side, radians clockwise."""

    centre: tuple[float, float]
    side: float
    turn: float

    def points(self, shares: Points) -> Points:
        """From shares of the square, (0, 0) its upper left corner, to pixels of the picture."""
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        turned: Points = (shares - 0.5) * self.side @ np.array([[cos, sin], [-sin, cos]]) + self.centre
        return turned

    def transform(self, side: int) -> Transform:
        """From pixels of the picture to pixels of a model's input of this side."""
        corner, right, down = self.points(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
        return inverse(np.column_stack([(right - corner) / side, (down - corner) / side, corner]))


def around_picture(width: int, height: int, margin: float, quarter_turns: int) -> Square:
    """The whole picture in a square, with `margin` (a share of the longer side) on every side, turned clockwise."""
    side = max(width, height) * (1 + 2 * margin)
    return Square((width / 2, height / 2), side, quarter_turns * np.pi / 2)


def around_points(points: Points) -> Square:
    """The square around a hand whose points were found roughly, as in MediaPipe's `hand_landmarks_to_rect`."""
    knuckles = (points[9] + (points[5] + points[13]) / 2) / 2
    towards = knuckles - points[0]
    turn = float(np.arctan2(towards[0], -towards[1]))
    cos, sin = np.cos(turn), np.sin(turn)
    upright = np.array([[cos, sin], [-sin, cos]])
    box = points[list(_STEADY)] @ upright.T
    low, high = box.min(axis=0), box.max(axis=0)
    width, height = (high - low).tolist()
    x, y = (((low + high) / 2 - [0, _AHEAD * height]) @ upright).tolist()
    return Square((x, y), max(width, height) * _LARGER, turn)
