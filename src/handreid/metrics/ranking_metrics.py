"""Metrics of a ranking for every query, in [0, 1], NaN for a query without a right answer.

Means over the queries are mAP, MRR, mINP, rank-k and so on. `PER_QUERY` has them by name; a new metric is a function
here and a line there and in `metric_table.py`.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from jaxtyping import Float, Int

from handreid.errors import DataError
from handreid.metric_table import metrics_of
from handreid.metrics.ranking import Ranking


def first_rank(ranking: Ranking) -> Float[np.ndarray, " query"]:
    return _ends(ranking, ranking.offsets[:-1])


def hit(ranking: Ranking, k: int) -> Float[np.ndarray, " query"]:
    """1 where a right answer is among the first k, else 0. Its mean is rank-k, a point of the CMC."""
    best_rank = first_rank(ranking)
    return np.where(np.isnan(best_rank), np.nan, best_rank <= k)


def reciprocal_rank(ranking: Ranking) -> Float[np.ndarray, " query"]:
    return 1 / first_rank(ranking)


def average_precision(ranking: Ranking) -> Float[np.ndarray, " query"]:
    """Standard: the mean, over the right answers, of the precision at each (as scikit-learn, except for ties)."""
    return _mean_of_matches(ranking, (_hits_before(ranking) + 1) / ranking.ranks)


def average_precision_trapezoid(ranking: Ranking) -> Float[np.ndarray, " query"]:
    """As in the hand papers and Oxford5k: the mean of the precisions just before and at each right answer.

    With one right answer at rank r: 1 if r is 1, else 1 / (2 r). Then its mean over queries is (rank-1 + MRR) / 2.
    """
    hits_before = _hits_before(ranking)
    photos_before = ranking.ranks - 1
    old = np.divide(hits_before, photos_before, out=np.ones(len(photos_before)), where=photos_before > 0)
    return _mean_of_matches(ranking, (old + (hits_before + 1) / ranking.ranks) / 2)


def inverse_negative_penalty(ranking: Ranking) -> Float[np.ndarray, " query"]:
    """Right answers over the rank of the hardest one; its mean is mINP (Ye et al., TPAMI 2021, eq. 5)."""
    penalty: Float[np.ndarray, " query"] = ranking.matches / _ends(ranking, ranking.offsets[1:] - 1)
    return penalty


def r_precision(ranking: Ranking) -> Float[np.ndarray, " query"]:
    """Share of right answers among the first R, R being how many the query has (TREC's R-precision)."""
    return _mean_of_matches(ranking, (ranking.ranks <= _matches_of_each(ranking)).astype(np.float64))


def map_at_r(ranking: Ranking) -> Float[np.ndarray, " query"]:
    """Sum of the precisions at the right answers among the first R, over R (Musgrave et al., ECCV 2020, section 3.2).

    Unlike the standard average precision it does not depend on ranks after R.
    """
    precision = (_hits_before(ranking) + 1) / ranking.ranks
    return _mean_of_matches(ranking, np.where(ranking.ranks <= _matches_of_each(ranking), precision, 0.0))


def identity_hit(ranking: Ranking, k: int) -> Float[np.ndarray, " query"]:
    """1 where the query's identity is among the first k different ones, else 0. With k = 1 it is `hit`.

    Raises `DataError` for a ranking that was stored without `identity_ranks`.
    """
    if ranking.identity_ranks is None:
        raise DataError("this ranking holds no ranks over identities: compute it again")
    return np.where(ranking.matches > 0, (ranking.identity_ranks <= k).astype(np.float64), np.nan)


PerQuery = Callable[[Ranking], Float[np.ndarray, " query"]]
PER_QUERY: dict[str, PerQuery] = {
    "rank1": partial(hit, k=1),
    "rank5": partial(hit, k=5),
    "rank10": partial(hit, k=10),
    "map": average_precision,
    "map_trapezoid": average_precision_trapezoid,
    "mrr": reciprocal_rank,
    "minp": inverse_negative_penalty,
    "r_precision": r_precision,
    "map_at_r": map_at_r,
    "identity_rank1": partial(identity_hit, k=1),
    "identity_rank5": partial(identity_hit, k=5),
    "identity_rank10": partial(identity_hit, k=10),
}


def metrics(ranking: Ranking) -> dict[str, Float[np.ndarray, " query"]]:
    """Every metric of rankings in the table (`metric_table.py`) for every query, in [0, 1], NaN where the query has
    no right answer. Those over identities are left out where the ranking has no `identity_ranks`.
    """
    names = [
        name
        for name in metrics_of("ranking")
        if ranking.identity_ranks is not None or not name.startswith("identity_rank")
    ]
    return {name: PER_QUERY[name](ranking) for name in names}


def cmc(ranking: Ranking, max_rank: int) -> Float[np.ndarray, " max_rank"]:
    """Share of answerable queries with a right answer among the first 1, 2, ... max_rank; NaN if there are none."""
    best_ranks = first_rank(ranking)
    best_ranks = best_ranks[~np.isnan(best_ranks)].astype(np.int64)
    if len(best_ranks) == 0:
        return np.full(max_rank, np.nan)
    counts = np.bincount(np.minimum(best_ranks, max_rank + 1), minlength=max_rank + 2)
    return np.cumsum(counts[1:-1]) / len(best_ranks)


def _hits_before(ranking: Ranking) -> Int[np.ndarray, " matches"]:
    """For each right answer, how many right answers of the same query come before it."""
    before: Int[np.ndarray, " matches"] = np.arange(len(ranking.ranks)) - np.repeat(
        ranking.offsets[:-1], ranking.matches
    )
    return before


def _matches_of_each(ranking: Ranking) -> Int[np.ndarray, " matches"]:
    """For each right answer, how many right answers its query has."""
    of_each: Int[np.ndarray, " matches"] = np.repeat(ranking.matches, ranking.matches)
    return of_each


def _mean_of_matches(ranking: Ranking, values: Float[np.ndarray, " matches"]) -> Float[np.ndarray, " query"]:
    matches = ranking.matches
    owner = np.repeat(np.arange(len(matches)), matches)
    sums = np.bincount(owner, weights=values, minlength=len(matches))
    means = np.full(len(matches), np.nan)
    np.divide(sums, matches, out=means, where=matches > 0)
    return means


def _ends(ranking: Ranking, positions: Int[np.ndarray, " query"]) -> Float[np.ndarray, " query"]:
    """`ranks[positions[i]]` for query i; NaN for queries without a right answer, whose position is meaningless."""
    answerable = ranking.matches > 0
    ends = np.full(len(positions), np.nan)
    ends[answerable] = ranking.ranks[positions[answerable]]
    return ends
