"""Which hand, and which side of it: what the thumb, the handedness and a classifier say together."""

from dataclasses import replace

import numpy as np
import pytest

from handreid.landmarks import HandLandmarks
from handreid.landmarks.view import ASPECTS, SIDES, contradicts, limited, view_probabilities
from tests.landmarks.hands import hand, mirrored

THUMB_LEFT = (("dorsal", "right"), ("palmar", "left"))
THUMB_RIGHT = (("dorsal", "left"), ("palmar", "right"))


def of(found: HandLandmarks, handedness: str | None = None, score: float | None = None) -> HandLandmarks:
    return replace(found, handedness=handedness, handedness_score=score)


def best(views: np.ndarray) -> tuple[str, str]:
    aspect, side = np.unravel_index(views.argmax(), views.shape)
    return ASPECTS[aspect], SIDES[side]


@pytest.mark.parametrize("turn", [0.0, 2.0, 4.0])
def test_one_of_side_and_aspect_gives_the_other(turn: float):
    left = of(hand(turn=turn))
    for found, possible in ((left, THUMB_LEFT), (mirrored(left, 600), THUMB_RIGHT)):
        for aspect, side in possible:
            for known in ({"aspect": aspect}, {"side": side}):
                views = view_probabilities(of(found), **known)
                assert best(views) == (aspect, side)
                assert views.max() == pytest.approx(0.997)
            assert not contradicts(found, side, aspect)
        for aspect, side in {*THUMB_LEFT, *THUMB_RIGHT} - {*possible}:
            assert contradicts(found, side, aspect)


def test_the_handedness_speaks_for_a_side_as_much_as_its_score():
    for handedness, view in (("right", ("dorsal", "right")), ("left", ("palmar", "left"))):
        views = view_probabilities(of(hand(), handedness, 0.9))
        assert best(views) == view
        assert views.max() == pytest.approx(0.9 * 0.997)
    assert view_probabilities(of(hand(), "left")).max() == pytest.approx(0.95 * 0.997)  # a landmarker without a score
    assert view_probabilities(of(hand())).max() == pytest.approx(0.997 / 2)
    # never quite certain, as a known view could not be told otherwise
    assert view_probabilities(of(hand(), "left", 1.0), aspect="dorsal").max() > 0.7


def test_what_is_known_is_never_doubted():
    surely_a_palm = of(hand(), "left", 0.98)
    assert best(view_probabilities(surely_a_palm)) == ("palmar", "left")
    assert best(view_probabilities(surely_a_palm, aspect="dorsal", dorsal=0.001)) == ("dorsal", "right")
    wrong_thumb = view_probabilities(surely_a_palm, side="left", aspect="dorsal")
    assert best(wrong_thumb) == ("dorsal", "left")
    assert wrong_thumb.max() == 1


@pytest.mark.parametrize(("handedness", "score"), [("right", 0.8), ("left", 0.7), (None, None)])
@pytest.mark.parametrize("dorsal", [0.1, 0.5, 0.95])
def test_evidence_is_multiplied(handedness: str | None, score: float | None, dorsal: float):
    """By Bayes' rule over the four views, all as likely before."""
    weights = {}
    for aspect in ASPECTS:
        for side in SIDES:
            weight = dorsal if aspect == "dorsal" else 1 - dorsal
            weight *= 0.5 if handedness is None else score if side == handedness else 1 - score
            weights[aspect, side] = weight * (0.997 if (aspect, side) in THUMB_LEFT else 0.003)
    views = view_probabilities(of(hand(), handedness, score), dorsal=dorsal)
    for (aspect, side), weight in weights.items():
        assert views[ASPECTS.index(aspect), SIDES.index(side)] == pytest.approx(weight / sum(weights.values()))


def test_a_classifier_counts_for_no_more_than_it_is_worth_on_these_photos():
    """Fingers up and the thumb on the left: who is said to be a right hand shows the back."""
    backs, palms = [of(hand(), "right", 0.95)] * 8, [of(hand(), "left", 0.95)] * 6
    asked = [*backs, *palms, of(hand(), "left", 0.6), of(hand())]
    good = np.array([50.0] * 8 + [-50.0] * 6 + [50.0, -0.5])
    logits, agrees = limited(good, asked)
    assert agrees.tolist() == [True] * 14
    assert logits[-2] == pytest.approx(np.log((9 / 10) / (1 / 8)))
    assert logits[8] == pytest.approx(np.log((1 / 10) / (7 / 8)))
    assert logits[-1] == -0.5  # within the limits it is as it was
    half = np.where(np.arange(16) < 4, -50.0, good)  # right on the palms, and on half of the backs
    for useless in (np.full(16, 50.0), np.full(16, -50.0), -good, half):  # always one answer, or wrong ones
        assert not limited(useless, asked)[0].any()
    assert not limited(good[6:], asked[6:])[0].any()  # 2 sure backs are too few
    assert limited(good[5:], asked[5:])[0].any()
    unsure, agrees = limited(good, [of(hand(), "left", 0.89)] * 16)
    assert (unsure.tolist(), len(agrees)) == ([0.0] * 16, 0)
