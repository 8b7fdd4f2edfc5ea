"""Which hand it is, and which side of it shows, from three kinds of evidence.

* The thumb's place ties the two together: with the fingers up it is on the right of a left hand's back and of a right
  hand's palm, and on the left of the two others. So one of side and aspect gives the other.
* The landmarker's handedness speaks for a side, and a classifier of pictures, if there is one, for an aspect.
* They are combined as independent evidence: the probabilities of the four views are multiplied, and divided by their
  sum. All views are equally likely before. What is known has probability 1.
* A classifier may be fit on other photos than those at hand, where it errs and is sure of it. So no answer of it counts
  for more than it was worth on those of the photos at hand of which the landmarker is sure (`limited`).
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64

from handreid.landmarks.align import thumb_on_right
from handreid.landmarks.hand import HandLandmarks

ASPECTS = ("dorsal", "palmar")
SIDES = ("left", "right")
Views = Float64[np.ndarray, "2 2"]
"""A probability for each of ASPECTS (rows) and SIDES (columns)."""

_THUMB_ON_RIGHT = np.eye(2, dtype=np.bool_)  # the back of a left hand, the palm of a right one
# Measured on people for fitting: 1,725 photos, 925 of 11k Hands and 800 rendered, in 5 of which the thumb's place does
# not fit side and aspect (docs/landmarks.md).
_THUMB = 0.997
# For a landmarker that states no score; MediaPipe's handedness is right on 99.8 % and 92.6 % of these photos.
_UNSTATED = 0.95
# Share of sure backs, and of sure palms, that a classifier must know to be heard. Probes knew 93 % or more of either on
# photos like those that they were fit on, and 65 % or less of one of them on others.
_HEARD = 0.8
_SURE = 0.9  # score of a handedness that a classifier is measured by: wrong on 2 of 1,294 of these photos


def view_probabilities(
    hand: HandLandmarks, *, side: str | None = None, aspect: str | None = None, dorsal: float = 0.5
) -> Views:
    """The probability of each view of a hand; `side` and `aspect` are what is known, `dorsal` is the probability that a
    classifier gives to the back, above 0 and below 1.

    The score of the handedness (0.5 to 1) is taken as the probability that it is right.
    """
    thumb = np.where(thumb_on_right(hand) == _THUMB_ON_RIGHT, _THUMB, 1 - _THUMB)
    sides = _known(side, SIDES) if side else _leaning(hand.handedness, _score(hand))
    aspects = _known(aspect, ASPECTS) if aspect else np.array([dorsal, 1 - dorsal])
    product = thumb * aspects[:, None] * sides[None, :]
    views: Views = product / product.sum()
    return views


def limited(
    logits: Float64[np.ndarray, " photo"], hands: Sequence[HandLandmarks]
) -> tuple[Float64[np.ndarray, " photo"], Bool[np.ndarray, " sure"]]:
    """A classifier's logits of the back (positive: back), limited by what its answers are worth on these photos; and on
    which of the photos of which the landmarker is sure they agree with it.

    The limits are the likelihood ratios of the answers "back" and "palm" on those photos, log P(answer | back) /
    P(answer | palm), each P by the rule of succession: (k + 1) / (n + 2). They are 0, so that the classifier says
    nothing, if it knows less than 80 % of the backs or of the palms by that rule; so with fewer than 3 of either.
    """
    sure = np.array([hand.handedness is not None and _score(hand) >= _SURE for hand in hands], np.bool_)
    back = np.array([view_probabilities(hand)[0].sum() > 0.5 for hand in hands], np.bool_)
    answers = logits > 0
    backs, palms = answers[sure & back], answers[sure & ~back]
    of_backs, of_palms = (float(answered.sum() + 1) / (len(answered) + 2) for answered in (backs, palms))
    heard = min(of_backs, 1 - of_palms) >= _HEARD
    limits = np.log([(1 - of_backs) / (1 - of_palms), of_backs / of_palms]) * heard
    return np.clip(logits, *limits), np.concatenate([backs, ~palms])


def contradicts(hand: HandLandmarks, side: str, aspect: str) -> bool:
    """Whether the thumb lies where it does not on this side and aspect."""
    return bool(_THUMB_ON_RIGHT[ASPECTS.index(aspect), SIDES.index(side)] != thumb_on_right(hand))


def _known(value: str, values: Sequence[str]) -> Float64[np.ndarray, " values"]:
    return np.array([float(value == other) for other in values])


def _score(hand: HandLandmarks) -> float:
    return _UNSTATED if hand.handedness_score is None else hand.handedness_score


def _leaning(handedness: str | None, score: float) -> Float64[np.ndarray, " values"]:
    """No side is quite excluded, as a score is rounded."""
    sure = 0.5 if handedness is None else min(max(score, 0.5), 0.9999)
    return np.array([sure if handedness == side else 1 - sure for side in SIDES])
