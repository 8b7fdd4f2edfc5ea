"""Where a hand lies, from its points, and the transformation that brings it to a fixed place.

* A `Transform` is 2 x 3 and maps a point (x, y, 1) of the picture to (x, y) of the aligned square, both in pixels from
  the upper left corner. It is composed with a resize before any pixel is read (`compose`, `resize`), so that the photo
  is interpolated once (`warp.warp`).
* Both alignments are similarities: turned, scaled, moved, never mirrored or sheared. Proportions are identity.
* Five points that hardly move against each other when fingers do: the wrist and four knuckles.
"""

import numpy as np
from jaxtyping import Float64

from handreid.errors import DataError
from handreid.landmarks.hand import HandLandmarks, Points

Transform = Float64[np.ndarray, "2 3"]
Size = tuple[int | float, int | float]  # width, height

RIGID = (0, 5, 9, 13, 17)
# Where they lie in a square of side 1, fingers up and thumb left: mean proportions of 60 photos of 11k Hands, placed so
# that nearly all spread hands are inside.
PLACES: Points = np.array([[0.52, 0.9], [0.424, 0.531], [0.52, 0.53], [0.604, 0.56], [0.678, 0.611]])
# Starts and ends of vectors: from the index finger towards the little one; from the wrist, and along each finger.
_ACROSS = ([5, 5, 9, 6, 6, 10], [17, 13, 17, 18, 14, 18])
_ALONG = ([0, 0, 5, 9, 13, 17], [9, 13, 6, 10, 14, 18])
_TOLERANCE = 0.15  # of the hand's size; by how much a point may miss its place before it is left out


def align_hand(hand: HandLandmarks, side: int, *, margin: float = 0.0, places: Points = PLACES) -> Transform:
    """The similarity that brings points 0, 5, 9, 13, 17 nearest to `places` in a square of `side` pixels.

    Least squares (Umeyama 1991, without reflection) over all five points; if one of them is far from where the others
    say it is, over the other four. `margin` (share of the side, 0 to 0.45) is left free around the square of `places`.
    Places are mirrored for a hand whose thumb is on the right when its fingers point up, so that no hand is mirrored.

    Raises DataError if the points coincide.
    """
    points = hand.points[list(RIGID)]
    targets = fixed_places(hand, places)
    targets = (margin + targets * (1 - 2 * margin)) * side
    return _robust(points, targets)


def fixed_places(hand: HandLandmarks, places: Points = PLACES) -> Points:
    """Where the five points of this hand belong in a square of side 1: `places`, mirrored if its thumb is on the right
    when its fingers point up.
    """
    return _mirrored(places) if thumb_on_right(hand) else places


def upright(hand: HandLandmarks, width: int, height: int) -> Transform:
    """Turns the hand so that the middle finger's knuckle is above the wrist, and centres it, keeping its size.

    `width` and `height` are those of the result in pixels of the picture. The centre is that of the box around all
    points of the turned hand. Raises DataError if wrist and knuckle coincide.
    """
    towards = hand.points[9] - hand.points[0]
    length = np.linalg.norm(towards)
    if length < 1e-6:
        raise DataError("the hand cannot be turned upright: its wrist and the middle finger's knuckle coincide")
    sin, cos = towards / length
    turn = np.array([[-cos, sin], [-sin, -cos]])  # brings `towards` to (0, -1): up
    turned = hand.points @ turn.T
    centre = (turned.min(axis=0) + turned.max(axis=0)) / 2
    return np.column_stack([turn, np.array([width, height]) / 2 - centre])


def thumb_on_right(hand: HandLandmarks) -> bool:
    """Whether the thumb is on the right when the fingers point up: the back of a left hand, or a right palm.

    Decided by a vote of pairs, one vector across the fingers and one along them, so that no single point decides.
    """
    across, along = (hand.points[ends] - hand.points[starts] for starts, ends in (_ACROSS, _ALONG))
    crossed = along[:, None, 0] * across[None, :, 1] - along[:, None, 1] * across[None, :, 0]
    return bool(np.sign(crossed).sum() < 0)


def similarity(points: Points, targets: Points) -> Transform:
    """The similarity without reflection that brings points nearest to targets, by least squares.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns" (1991), in the plane,
    where turn and scale are one complex number. Raises DataError for fewer than two points that differ.
    """
    here, there = points.mean(axis=0), targets.mean(axis=0)
    a, b = _complex(points - here), _complex(targets - there)
    spread = float((np.abs(a) ** 2).sum())
    if spread < 1e-9:
        raise DataError("a hand cannot be aligned: its wrist and knuckles coincide")
    factor = complex((np.conj(a) * b).sum()) / spread
    matrix = np.array([[factor.real, -factor.imag], [factor.imag, factor.real]])
    return np.column_stack([matrix, there - matrix @ here])


def compose(first: Transform, then: Transform) -> Transform:
    """One transformation in place of two: `first`, then `then`."""
    return np.column_stack([then[:, :2] @ first[:, :2], then[:, :2] @ first[:, 2] + then[:, 2]])


def inverse(transform: Transform) -> Transform:
    matrix = np.linalg.inv(transform[:, :2])
    return np.column_stack([matrix, -matrix @ transform[:, 2]])


def resize(before: Size, after: Size) -> Transform:
    """Stretches a picture of one (width, height) to another; undoes `pixel_aspect` too, as (a * width, height)."""
    return np.array([[after[0] / before[0], 0.0, 0.0], [0.0, after[1] / before[1], 0.0]])


def mirror_image(width: int | float) -> Transform:
    """Left and right exchanged in a picture of this width."""
    return np.array([[-1.0, 0.0, width], [0.0, 1.0, 0.0]])


def apply(transform: Transform, points: Points) -> Points:
    """The points transformed."""
    moved: Points = points @ transform[:, :2].T + transform[:, 2]
    return moved


def _robust(points: Points, targets: Points) -> Transform:
    """Least squares over all points, or without the one whose absence explains the others."""
    whole = similarity(points, targets)
    limit = _TOLERANCE * float(np.linalg.norm(targets[2] - targets[0]))
    if _misses(whole, points, targets).max() <= limit:
        return whole
    fits = []
    for left_out in range(len(points)):
        others = [k for k in range(len(points)) if k != left_out]
        if np.ptp(points[others], axis=0).max() > 1e-6:
            fit = similarity(points[others], targets[others])
            fits.append((_misses(fit, points[others], targets[others]).max(), left_out, fit))
    worst, _, best = min(fits, key=lambda fit: fit[:2])
    # Without an outlier no four points fit much better than five: a hand seen at a slant is fitted as a whole.
    return best if worst <= limit else whole


def _misses(transform: Transform, points: Points, targets: Points) -> Float64[np.ndarray, " points"]:
    distances: Float64[np.ndarray, " points"] = np.linalg.norm(apply(transform, points) - targets, axis=1)
    return distances


def _complex(points: Points) -> np.ndarray:
    return points[:, 0] + 1j * points[:, 1]


def _mirrored(places: Points) -> Points:
    mirrored: Points = places * [-1, 1] + [1, 0]
    return mirrored
