"""Transformations that points give: against their definition, and for every turn, scale and place."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handreid.errors import DataError
from handreid.landmarks import POINTS, HandLandmarks
from handreid.landmarks.align import (
    PLACES,
    RIGID,
    align_hand,
    apply,
    compose,
    inverse,
    resize,
    similarity,
    thumb_on_right,
    upright,
)
from tests.landmarks.hands import hand, mirrored

KNUCKLES = list(RIGID)
anywhere = given(
    scale=st.floats(5, 2000),
    turn=st.floats(-np.pi, np.pi),
    x=st.floats(-500, 3000),
    y=st.floats(-500, 3000),
)


def test_points_are_in_the_order_of_mediapipe():
    assert len(POINTS) == 21
    assert [POINTS[k] for k in RIGID] == ["wrist", "index_mcp", "middle_mcp", "ring_mcp", "little_mcp"]
    assert POINTS[4] == "thumb_tip"


def test_similarity_is_the_least_squares_fit():
    rng = np.random.default_rng(0)
    points, targets = rng.normal(size=(2, 5, 2)) * 40
    found = similarity(points, targets)
    # The definition as a linear system: x' = a x - b y + c, y' = b x + a y + d.
    rows = [row for x, y in points for row in ([x, -y, 1, 0], [y, x, 0, 1])]
    a, b, c, d = np.linalg.lstsq(np.array(rows), targets.ravel(), rcond=None)[0]
    assert np.allclose(found, [[a, -b, c], [b, a, d]])


@anywhere
def test_alignment_undoes_turn_scale_and_place(scale: float, turn: float, x: float, y: float):
    moved = hand(scale=scale, turn=turn, at=(x, y))
    aligned = apply(align_hand(moved, 224), moved.points)
    plain = hand()
    assert np.allclose(aligned, apply(align_hand(plain, 224), plain.points), atol=1e-5)
    misses = np.linalg.norm(aligned[KNUCKLES] - PLACES * 224, axis=1)
    assert misses.max() < 0.05 * 224


@anywhere
def test_upright_keeps_the_size_and_centres(scale: float, turn: float, x: float, y: float):
    moved = hand(scale=scale, turn=turn, at=(x, y))
    transform = upright(moved, 640, 480)
    assert np.allclose(transform[:, :2] @ transform[:, :2].T, np.eye(2))
    assert np.linalg.det(transform[:, :2]) > 0
    points = apply(transform, moved.points)
    assert np.allclose((points.min(axis=0) + points.max(axis=0)) / 2, [320, 240], atol=1e-6)
    wrist, knuckle = points[0], points[9]
    assert abs(wrist[0] - knuckle[0]) < 1e-6 * scale + 1e-6
    assert knuckle[1] < wrist[1]


@pytest.mark.parametrize("bad", range(5))
def test_one_bad_point_is_left_out(bad: int):
    right = hand(turn=0.7)
    points = right.points.copy()
    points[KNUCKLES[bad]] += [260.0, -140.0]
    clean, spoilt = (apply(align_hand(found, 224), right.points) for found in (right, HandLandmarks(points)))
    everything = similarity(points[KNUCKLES], PLACES * 224)
    moved = np.linalg.norm(clean - spoilt, axis=1).max()
    assert moved < 12  # what the remaining four points leave open
    assert np.linalg.norm(apply(everything, right.points) - clean, axis=1).max() > 3 * moved


def test_small_noise_leaves_no_point_out():
    points = hand().points.copy()
    points[5] += 3.0
    assert np.array_equal(align_hand(HandLandmarks(points), 224), similarity(points[KNUCKLES], PLACES * 224))


def test_a_mirrored_hand_is_not_mirrored_back():
    right, left = hand(turn=0.3), mirrored(hand(turn=0.3), 800)
    assert not thumb_on_right(right)
    assert thumb_on_right(left)
    transform = align_hand(left, 224)
    assert np.linalg.det(transform[:, :2]) > 0
    expected = apply(align_hand(right, 224), right.points) * [-1, 1] + [224, 0]
    assert np.allclose(apply(transform, left.points), expected)


def test_margin_leaves_room_on_every_side():
    found = hand()
    plain, inner = (apply(align_hand(found, 200, margin=margin), found.points) for margin in (0.0, 0.1))
    assert np.allclose(inner, 20 + 0.8 * plain)


def test_composition_and_inverse():
    first, then = align_hand(hand(turn=1.0), 224), resize((224, 224), (112, 448))
    points = hand().points
    both = compose(first, then)
    assert np.allclose(apply(both, points), apply(then, apply(first, points)))
    assert np.allclose(apply(inverse(both), apply(both, points)), points)


def test_a_squashed_photo_is_aligned_as_it_was_taken():
    """Points of the squashed file, widened by `pixel_aspect`, and the stretch composed with the alignment."""
    taken = hand(turn=0.5)
    widen = resize((180, 180), (240, 180))
    in_file = apply(inverse(widen), taken.points)
    through = compose(widen, align_hand(taken, 224))
    assert np.allclose(apply(through, in_file), apply(align_hand(taken, 224), taken.points))


def test_points_that_coincide_are_refused():
    with pytest.raises(DataError, match="coincide"):
        align_hand(HandLandmarks(np.full((21, 2), 7.0)), 224)
    with pytest.raises(DataError, match="coincide"):
        upright(HandLandmarks(np.full((21, 2), 7.0)), 10, 10)


@pytest.mark.parametrize("points", [np.full((21, 2), np.nan), np.full((21, 2), np.inf)])
def test_a_hand_has_finite_points(points: np.ndarray):
    with pytest.raises(DataError, match="not"):
        HandLandmarks(points)
