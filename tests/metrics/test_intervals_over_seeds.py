"""Several training seeds: scores and differences over subjects and seeds, against a loop over the resamples."""

import numpy as np
import pytest

from handreid.errors import DataError
from handreid.metrics.intervals import differences, interval_of, intervals, verdict
from handreid.metrics.separation import compare_separation, separation_over_seeds

RESAMPLES = 40


def made(seeds: int, subjects: int = 9, spread: float = 0.2, seed: int = 0):
    """Values of a row for each seed, in two draws, with a query that none can answer; and whose they are."""
    random = np.random.default_rng(seed)
    subject = np.repeat(np.arange(subjects), random.integers(1, 6, subjects))
    draw = random.integers(0, 2, len(subject))
    draw[0] = 0  # else the numbers of the draws would change
    chance = np.clip(random.normal(0.6, spread, (seeds, subjects)), 0, 1)[:, subject]
    values = (random.random((seeds, len(subject))) < chance).astype(float)
    values[:, 3] = np.nan
    return values, subject, draw


def by_loop(values, subject, draw, extremes):
    """Low and high end: in every resample the mean over the drawn seeds of what their queries weigh together."""
    seeds, people = len(values), len(set(subject))
    random = np.random.Generator(np.random.PCG64(0))
    weights, pseudo = random.standard_exponential((RESAMPLES, people)), random.standard_gamma(0.5, (RESAMPLES, 1))
    drawn = np.random.default_rng([0, 1]).multinomial(max(1, seeds - 1), [1 / seeds] * seeds, size=RESAMPLES)
    answered = ~np.isnan(values[0])
    ends = []
    for extreme, point in zip(extremes, (0.025, 0.975), strict=True):
        scores = []
        for resample in range(RESAMPLES):
            of_seeds = []
            for number, row in enumerate(values):
                of_draws = []
                for this in (0, 1):
                    total = share = 0.0
                    here = [query for query in range(len(row)) if draw[query] == this and answered[query]]
                    for query in here:
                        total += weights[resample, subject[query]] * row[query]
                        share += weights[resample, subject[query]]
                    added = pseudo[resample, 0] * len(here) / len(set(subject[answered]))
                    of_draws.append((total + added * extreme) / (share + added))
                of_seeds += [np.mean(of_draws)] * drawn[resample, number]
            scores.append(np.mean(of_seeds))
        ends.append(np.quantile(scores, point))
    return ends


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_scores_and_differences_are_those_of_a_loop(seeds: int):
    ours, subject, draw = made(seeds)
    found = intervals({"score": ours}, subject, draw, resamples=RESAMPLES)["score"]
    means = [[np.nanmean(row[draw == this]) for this in (0, 1)] for row in ours]
    assert found.value == pytest.approx(np.mean(means))
    assert (found.low, found.high) == pytest.approx(by_loop(ours, subject, draw, (0, 1)))

    theirs = np.where(np.isnan(ours), np.nan, np.random.default_rng(9).random(ours.shape))
    gain = ours - theirs
    compared = differences({"score": ours}, {"score": theirs}, subject, draw, resamples=RESAMPLES)["score"]
    widest = max(abs(np.nanmean(gain.mean(axis=0)[subject == who])) for who in set(subject))
    assert compared.value == pytest.approx(
        np.mean([[np.nanmean(row[draw == this]) for this in (0, 1)] for row in gain])
    )
    assert (compared.low, compared.high) == pytest.approx(by_loop(gain, subject, draw, (-widest, widest)))


def test_one_seed_is_what_a_single_run_was_to_the_digit():
    values, subject, draw = made(2)
    one, other = values
    assert intervals({"a": one[None]}, subject, draw) == intervals({"a": one}, subject, draw)
    row = differences({"a": one[None]}, {"a": other[None]}, subject, draw)
    assert row == differences({"a": one}, {"a": other}, subject, draw)
    assert interval_of([lambda w: w @ np.arange(4.0)], 4) == interval_of(lambda w: w @ np.arange(4.0), 4)


def test_equal_seeds_say_no_more_and_different_ones_less_than_subjects_alone():
    values, subject, draw = made(1)
    alone = intervals({"a": values[0]}, subject, draw)["a"]
    equal = intervals({"a": np.repeat(values, 5, axis=0)}, subject, draw)["a"]
    assert (equal.value, equal.low, equal.high) == pytest.approx((alone.value, alone.low, alone.high))
    apart = np.array([np.full(90, 0.2), np.full(90, 0.4), np.full(90, 0.9)])  # subjects are alike, seeds are not
    wide = intervals({"a": apart}, np.repeat(np.arange(30), 3))["a"]
    assert wide.low < 0.25
    assert wide.high > 0.85
    # of three seeds two are drawn: the variance of their mean is that of a mean of three, the sample's divided by 3
    scores = interval_of([lambda w, v=v: np.full(len(w), v) for v in (0.2, 0.4, 0.9)], 30, confidence=0.5)
    assert (scores.value, scores.low, scores.high) == pytest.approx((0.5, 0.3, 0.65))


def test_a_gain_of_one_seed_alone_is_within_noise_and_one_of_all_is_better():
    subject = np.repeat(np.arange(40), 4)
    before = np.random.default_rng(1).random((3, 160)) * 0.5
    lucky, steady = before.copy(), before + 0.1
    lucky[0] += 0.3
    told = differences({"lucky": lucky, "steady": steady}, {"lucky": before, "steady": before}, subject)
    assert verdict(told["lucky"]) == "within noise"
    assert verdict(told["steady"]) == "better"
    alone = differences({"lucky": lucky[0]}, {"lucky": before[0]}, subject)
    assert verdict(alone["lucky"]) == "better"  # what a single seed would have said


def test_one_run_is_compared_with_every_seed():
    values, subject, draw = made(4)
    once = values[:1]
    found = differences({"a": values}, {"a": once}, subject, draw)
    assert found == differences({"a": values}, {"a": np.repeat(once, 4, axis=0)}, subject, draw)


def test_what_cannot_be_paired_is_refused():
    values, subject, draw = made(3)
    with pytest.raises(DataError, match="a: 3 seeds against 2"):
        differences({"a": values}, {"a": values[:2]}, subject, draw)
    holes = values.copy()
    holes[1, 5] = np.nan
    with pytest.raises(DataError, match="one seed has a value for a query and another has none"):
        intervals({"a": holes}, subject, draw)
    holes[1, 5] = 2
    with pytest.raises(DataError, match=r"the value of query 5 \(counted from 0\) is 2.0"):
        intervals({"a": holes}, subject, draw)


def test_separation_is_the_mean_of_the_seeds():
    random = np.random.default_rng(0)

    def sums(scale: float) -> dict[str, list]:
        inter = random.random(12) + 2
        own = {"name": [f"p{n}" for n in range(12)], "photos": [3] * 12, "accompanied": [3] * 12}
        return {**own, "intra": list(scale * inter), "inter": list(inter), "silhouette": [0.3 * scale] * 12}

    ours, theirs = [sums(0.5), sums(0.7)], [sums(1.0), sums(1.1)]
    found = separation_over_seeds(ours, resamples=50)
    assert found["ratio"].value == pytest.approx(0.6)
    assert (found["ratio"].low, found["ratio"].high) == pytest.approx((0.5, 0.7))  # one of the two is drawn
    told = compare_separation(ours, theirs, resamples=50)["ratio"]
    assert (told.value, told.low, told.high, told.verdict) == pytest.approx((-0.45, -0.5, -0.4, "better"))
    assert compare_separation(ours[:1], theirs[:1]) == compare_separation(ours[0], theirs[0])
    with pytest.raises(DataError, match="2 seeds against 3"):
        compare_separation(ours, [*theirs, sums(1.0)])
