"""Several systems against one reference: simultaneous confidence intervals of the differences.

* Each further comparison is another chance to call a system better that is not. Here all intervals of a metric are
  widened together, so that all of them hold at once with the requested confidence; a verdict is derived from its
  interval, so the two always agree.
* How much wider is estimated from the resamples (Beran, Journal of the American Statistical Association 83, 1988): each
  comparison gets the same confidence c, the smallest for which, in 95 % of the resamples, all differences at once lie
  between their quantiles at (1 - c) / 2 and (1 + c) / 2. Comparisons with one reference are correlated, so c is below
  Bonferroni's 1 - 0.05 / k, which holds for any k comparisons; c is limited to it.
* If the reference was chosen by its score, any pair could have been compared: the family is then all pairs, so the
  intervals of those with the reference still hold.
* Each metric is a family of its own: rank-1 and mAP measure the same question in two ways.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from jaxtyping import Float, Int

from handreid.metrics.intervals import Interval, bootstrap_scores, differences

Scores = Mapping[str, Float[np.ndarray, " query"]]


def simultaneous_differences(
    systems: Sequence[Scores],
    reference: int,
    subjects: Int[np.ndarray, " query"],
    draws: Int[np.ndarray, " query"] | None = None,
    *,
    reference_chosen: bool = False,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> list[dict[str, Interval]]:
    """Each system minus `systems[reference]`, per metric; the reference's own entry is empty.

    Values, subjects and draws as for `differences`, of two systems or more. `reference_chosen`: the reference was
    chosen by these scores. Each interval's own `confidence` is at least the requested simultaneous one. Raises
    DataError as `differences` does.
    """
    options = {"resamples": resamples, "seed": seed}
    pairs = list(combinations(range(len(systems)), 2)) if reference_chosen else _with(reference, len(systems))
    drawn = [bootstrap_scores(system, subjects, draws, **options) for system in systems] if len(pairs) > 1 else []
    each = {
        name: shared_confidence(np.stack([drawn[a][name] - drawn[b][name] for a, b in pairs], axis=1), confidence)
        if drawn
        else confidence
        for name in systems[reference]
    }
    return [
        {}
        if number == reference
        else differences(system, systems[reference], subjects, draws, confidence=each, **options)
        for number, system in enumerate(systems)
    ]


def shared_confidence(differing: Float[np.ndarray, "resample comparison"], confidence: float) -> float:
    """The confidence each comparison needs so that all hold at once with `confidence`; at most Bonferroni's."""
    places = (_ranks(differing) + 0.5) / len(differing)
    furthest = np.abs(2 * places - 1).max(axis=1)  # a resample lies within all intervals of at least this confidence
    together = float(np.quantile(furthest, confidence))
    return float(np.clip(together, confidence, 1 - (1 - confidence) / differing.shape[1]))


def _with(reference: int, count: int) -> list[tuple[int, int]]:
    return [(number, reference) for number in range(count) if number != reference]


def _ranks(values: Float[np.ndarray, "resample comparison"]) -> Float[np.ndarray, "resample comparison"]:
    """Ranks from 0, per column; equal values share their mean rank, as those of equal systems do."""
    ranks = np.empty(values.shape)
    for number, column in enumerate(values.T):
        ordered = np.sort(column)
        ranks[:, number] = (np.searchsorted(ordered, column) + np.searchsorted(ordered, column, "right") - 1) / 2
    return ranks
