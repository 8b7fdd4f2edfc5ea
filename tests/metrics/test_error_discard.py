"""Error-versus-discard curves against their definition, written as a loop."""

import numpy as np
import pytest

from handreid.errors import DataError
from handreid.metrics.error_discard import DiscardCurve, discard_curve, random_band

PEOPLE = np.repeat(np.arange(20), 5)
ALONE = np.arange(100)[:, None]
RNG = np.random.default_rng(0)
WRONG = (RNG.random(100) < 0.4).astype(float)


def curve(quality: np.ndarray, errors: np.ndarray = WRONG, photos: np.ndarray = ALONE) -> DiscardCurve:
    return discard_curve(errors, photos, quality, PEOPLE[: len(errors)], resamples=200)


def test_a_curve_is_the_error_of_what_is_left():
    quality = RNG.permutation(100).astype(float)
    found = curve(quality)
    for share, error in zip(found.shares, found.error, strict=True):
        left = WRONG[np.argsort(quality)][round(100 * share) :]
        assert error == pytest.approx(left.mean())
    steps = (found.error[1:] + found.error[:-1]) / 2
    assert found.area == pytest.approx(steps.mean())
    assert found.gain.value == pytest.approx(found.area - WRONG.mean())
    assert found.at(0.1) == pytest.approx(found.error[10])


def test_a_quality_that_knows_the_errors_is_the_best_and_its_opposite_misleads():
    found = curve(-WRONG)
    assert found.error == pytest.approx(found.best)
    assert found.verdict == "helps"
    assert curve(WRONG).verdict == "misleads"
    assert curve(RNG.random(100)).verdict == "within noise"


def test_equal_qualities_are_left_out_in_every_order():
    flat = curve(np.zeros(100))
    assert flat.error == pytest.approx(WRONG.mean())
    assert (flat.gain.low, flat.gain.high) == pytest.approx((0, 0), abs=1e-12)
    halves = np.repeat([0.0, 1.0], 50)
    low, high = WRONG[:50].mean(), WRONG[50:].mean()
    assert curve(halves).at(0.2) == pytest.approx((30 * low + 50 * high) / 80)


def test_a_pair_has_the_lower_quality_of_its_photos():
    quality = RNG.random(100)
    pairs = RNG.permutation(100)[:, None] + np.zeros((1, 2), int)
    pairs[:, 1] = RNG.permutation(100)
    assert curve(quality, photos=pairs).error == pytest.approx(curve(quality[pairs].min(axis=1)).error)


def test_no_answer_is_no_comparison_and_no_quality_is_the_worst():
    quality, errors = RNG.permutation(100).astype(float), WRONG.copy()
    errors[50:] = np.nan
    found = curve(quality, errors)
    assert found.comparisons == 50
    assert found.error[0] == pytest.approx(WRONG[:50].mean())
    unknown = np.where(quality < 10, np.nan, quality)
    left = WRONG[~np.isnan(unknown)].mean()
    assert curve(unknown).at(0.1) == pytest.approx(left)


def test_random_qualities_stay_in_their_band():
    band = random_band(WRONG, ALONE, orders=300)
    inside = []
    for seed in range(20):
        quality = np.random.default_rng(seed).random(100)
        error = discard_curve(WRONG, ALONE, quality, PEOPLE, resamples=2).error
        inside.append((error >= band[0] - 1e-9) & (error <= band[1] + 1e-9))
    assert 0.88 < np.mean(inside) < 0.995
    assert band[:, 0] == pytest.approx(WRONG.mean())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"errors": WRONG[:50]}, "50 errors, 100 rows of photos"),
        ({"errors": WRONG * 2}, "an error is 2.0, not in"),
        ({"errors": np.full(100, np.nan)}, "none of the comparisons has a right answer"),
        ({"quality": np.zeros(7)}, "photos are numbered 0 to 99, but there are 7 qualities"),
        ({"up_to": 1.0}, "up_to is 1.0"),
        ({"subjects": np.zeros(100, int)}, "1 subjects: an interval over subjects needs two"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change: dict, said: str):
    given = {"errors": WRONG, "photos": ALONE, "quality": np.zeros(100), "subjects": PEOPLE, "up_to": 0.3} | change
    with pytest.raises(DataError, match=said):
        discard_curve(**given, resamples=50)
