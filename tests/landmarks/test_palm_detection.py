"""Decoding of the first model's outputs, on outputs made by hand."""

import numpy as np
import pytest

from handreid.landmarks.palm_detection import SIDE, decode
from handreid.landmarks.region import Square, around_picture, around_points
from tests.landmarks.hands import hand


def outputs(palms: list[tuple[int, float, float, float]]) -> tuple[np.ndarray, np.ndarray]:
    """Raw outputs with a palm at each given anchor: box side (pixels of the input), turn (radians), raw score."""
    raw, scores = np.zeros((2016, 18), np.float32), np.full(2016, -50, np.float32)
    for anchor, side, turn, score in palms:
        raw[anchor, 2:4] = side
        raw[anchor, 8:10] = np.array([np.sin(turn), -np.cos(turn)]) * side  # the middle finger's knuckle
        scores[anchor] = score
    return raw, scores


def test_a_box_lies_at_its_anchor():
    # anchors 2 (24 y + x) and the next lie in one cell of 8 pixels; after 1152 come cells of 16 with six anchors
    (palm,) = decode(*outputs([(2 * (24 * 5 + 7), 48.0, 0.0, 3.0)]))
    centre = (palm.box[:2] + palm.box[2:]) / 2 * SIDE
    assert np.allclose(centre, [7.5 * 8, 5.5 * 8])
    assert np.allclose((palm.box[2:] - palm.box[:2]) * SIDE, 48)
    assert palm.score == pytest.approx(1 / (1 + np.exp(-3.0)))
    (palm,) = decode(*outputs([(1152 + 6 * (12 * 2 + 9) + 5, 48.0, 0.0, 3.0)]))
    assert np.allclose((palm.box[:2] + palm.box[2:]) / 2 * SIDE, [9.5 * 16, 2.5 * 16])


def test_boxes_that_overlap_are_one_palm_weighted_by_score():
    one, two = 2 * (24 * 5 + 7), 2 * (24 * 5 + 8)
    (palm,) = decode(*outputs([(one, 48.0, 0.0, 3.0), (two, 48.0, 0.0, 1.0)]))
    weights = 1 / (1 + np.exp([-3.0, -1.0]))
    x = np.average([7.5 * 8, 8.5 * 8], weights=weights)
    assert np.allclose((palm.box[0] + palm.box[2]) / 2 * SIDE, x)


def test_palms_apart_stay_apart_and_the_most_certain_is_first():
    first, second = decode(*outputs([(2 * (24 * 3 + 3), 30.0, 0.0, 0.5), (2 * (24 * 20 + 20), 30.0, 0.0, 2.0)]))
    assert first.score > second.score
    assert first.box[0] > second.box[0]


def test_a_weak_palm_is_none():
    assert decode(*outputs([(0, 30.0, 0.0, -0.1)])) == []


@pytest.mark.parametrize("turn", [0.0, 0.9, -2.5])
@pytest.mark.parametrize("quarter", [0, 1, 2, 3])
def test_the_hand_lies_ahead_of_the_palm(turn: float, quarter: int):
    seen = around_picture(640, 480, 0.1, quarter)
    (palm,) = decode(*outputs([(2 * (24 * 12 + 12), 40.0, turn, 3.0)]))
    square = palm.hand(seen)
    assert np.isclose(np.cos(square.turn - turn - quarter * np.pi / 2), 1)
    scale = seen.side / SIDE
    assert np.isclose(square.side, 2.6 * 40 * scale)
    middle = seen.points(((palm.box[:2] + palm.box[2:]) / 2)[None])[0]
    ahead = np.array(square.centre) - middle
    assert np.allclose(ahead, 0.5 * 40 * scale * np.array([np.sin(square.turn), -np.cos(square.turn)]))


def test_shares_of_a_square_and_its_transformation_agree():
    square = Square((300.0, 200.0), 120.0, 0.6)
    shares = np.random.default_rng(0).uniform(size=(8, 2))
    moved = square.points(shares) @ square.transform(224)[:, :2].T + square.transform(224)[:, 2]
    assert np.allclose(moved, shares * 224)
    assert np.allclose(square.points(np.array([[0.5, 0.5]])), [[300, 200]])


def test_the_square_around_points_turns_with_them_and_holds_them():
    for turn in (0.0, 1.2, 3.0, -0.8):
        found = hand(turn=turn)
        square = around_points(found.points)
        middle = around_points(hand().points).turn
        assert np.isclose(np.cos(square.turn - turn - middle), 1)
        inside = found.points @ square.transform(1)[:, :2].T + square.transform(1)[:, 2]
        assert inside.min() > 0
        assert inside.max() < 1
