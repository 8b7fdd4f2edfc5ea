"""Palms on a picture, and the square around the hand of each: the first of MediaPipe's two hand models.

Decoding follows MediaPipe's `hand_detector_graph.cc` (Apache-2.0): anchors of a single-shot detector, overlapping boxes
averaged by score, and a square turned so that the middle finger points up.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float32, Float64

from handreid.landmarks.region import Square

SIDE = 192  # pixels of the model's input
_LAYERS = ((24, 2), (12, 6))  # cells across, anchors in each
_LOWEST = 0.5  # score of a palm
_OVERLAP = 0.3  # intersection over union from which two boxes are one palm
_WRIST, _MIDDLE = 0, 2  # of the seven points of a palm
_LARGER, _AHEAD = 2.6, 0.5  # the hand's square against the palm's box: side, and shift towards the fingers


@dataclass(frozen=True, eq=False)
class Palm:
    """A palm: box (left, top, right, bottom) and points, in shares of the model's input."""

    score: float
    box: Float64[np.ndarray, "4"]
    points: Float64[np.ndarray, "7 2"]

    def hand(self, seen: Square) -> Square:
        """The square around the whole hand on the picture, of which the model saw the square `seen`."""
        wrist, middle = self.points[_WRIST], self.points[_MIDDLE]
        towards = middle - wrist
        turn = float(np.arctan2(towards[0], -towards[1]))
        width, height = self.box[2:] - self.box[:2]
        centre = (self.box[:2] + self.box[2:]) / 2 + _AHEAD * height * np.array([np.sin(turn), -np.cos(turn)])
        x, y = seen.points(centre[None])[0].tolist()
        return Square((x, y), float(max(width, height)) * _LARGER * seen.side, seen.turn + turn)


def decode(raw: Float32[np.ndarray, "anchors 18"], scores: Float32[np.ndarray, " anchors"]) -> list[Palm]:
    """Palms from the model's two outputs, the most certain first."""
    sure = 1 / (1 + np.exp(-np.clip(scores.astype(np.float64), -100, 100)))
    rows = np.flatnonzero(sure >= _LOWEST)
    pairs = raw[rows].astype(np.float64).reshape(-1, 9, 2) / SIDE
    centre, half = pairs[:, 0] + _anchors()[rows], pairs[:, 1] / 2
    boxes = np.concatenate([centre - half, centre + half], axis=1)
    points = pairs[:, 2:] + _anchors()[rows][:, None]
    return _merged(sure[rows], boxes, points)


def _merged(
    scores: Float64[np.ndarray, " palms"],
    boxes: Float64[np.ndarray, "palms 4"],
    points: Float64[np.ndarray, "palms 7 2"],
) -> list[Palm]:
    """Every box with those that overlap it as one palm: their mean, weighted by score."""
    palms = []
    rest = np.argsort(-scores, kind="stable")
    while rest.size:
        together = _overlap(boxes[rest[0]], boxes[rest]) > _OVERLAP
        together[0] = True
        group = rest[together]
        weights = scores[group] / scores[group].sum()
        box, point = (np.tensordot(weights, values[group], 1) for values in (boxes, points))
        palms.append(Palm(float(scores[rest[0]]), box, point))
        rest = rest[~together]
    return palms


def _overlap(box: Float64[np.ndarray, "4"], boxes: Float64[np.ndarray, "boxes 4"]) -> Float64[np.ndarray, " boxes"]:
    """Intersection over union of a box with each."""
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    common = np.clip(sides, 0, None).prod(axis=1)
    union = np.prod(box[2:] - box[:2]) + (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) - common
    share: Float64[np.ndarray, " boxes"] = common / np.maximum(union, 1e-12)
    return share


@cache
def _anchors() -> Float64[np.ndarray, "anchors 2"]:
    """Centre of each anchor, in shares of the input."""
    layers = []
    for cells, each in _LAYERS:
        centres = (np.arange(cells) + 0.5) / cells
        grid = np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2)
        layers.append(np.repeat(grid, each, axis=0))
    return np.concatenate(layers)
