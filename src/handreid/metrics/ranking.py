"""At which rank does the gallery hold the right answers?

* Only the ranks of the right answers are found, by counting the wrong photos that are at least as similar; the gallery
  is never sorted in full.
* A tie counts against us: a wrong photo as similar as the right one ranks before it, so that a collapsed model, for
  which all photos are alike, gets the worst ranks and not the best.
* Ties have to be exact for that: see `arrays` for how features are made so. Similarities that are given are compared as
  they are, or with a `tolerance`, for those that come out of sums of rounded numbers.
* Labels are compared and nothing else: a distractor is a photo whose label no query has. Photos to be ignored
  altogether (the "junk" of Market-1501) are left out by the caller.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from jaxtyping import Float, Int

from handreid.errors import DataError
from handreid.metric_table import metrics_of
from handreid.metrics.arrays import (
    block_size,
    check_features,
    check_finite,
    check_labels,
    check_matrix,
    exact_unit_vectors,
)

_SORTING = 128  # sorting a number takes about as long as comparing 128
_CELLS = 2**23  # similarities in memory at a time, of 8 bytes each


@dataclass(frozen=True, eq=False)
class Ranking:
    """Ranks of the right answers of query i, best first, counted from 1: `ranks[offsets[i]:offsets[i + 1]]`.

    A query without a right answer in the gallery has none. It is left out of every mean (its metrics are NaN) and
    counted in `unanswerable`.

    `identity_ranks` are the ranks of the query's identity where the list holds each identity once, by its most similar
    photo: 1 + the wrong identities with a photo at least as similar as the best right answer; 0 where there is none.
    They cannot be had from `ranks`, so a ranking that was written down without them has None.
    """

    ranks: Int[np.ndarray, " matches"]
    offsets: Int[np.ndarray, " query_plus_1"]
    identity_ranks: Int[np.ndarray, " query"] | None = None

    @property
    def matches(self) -> Int[np.ndarray, " query"]:
        """How many right answers each query has."""
        return np.diff(self.offsets)

    @property
    def unanswerable(self) -> int:
        return int(np.count_nonzero(self.matches == 0))


@dataclass(frozen=True, eq=False)
class _Shelves:
    """The gallery ordered by label, so that the photos of one person lie side by side; `start[i]:stop[i]` have
    the label of query i.
    """

    order: Int[np.ndarray, " gallery"]
    identity: Int[np.ndarray, " gallery"]  # numbered in the order of the shelves
    start: Int[np.ndarray, " query"]
    stop: Int[np.ndarray, " query"]
    query_cameras: Int[np.ndarray, " query"] | None
    gallery_cameras: Int[np.ndarray, " gallery"] | None  # in the order of the shelves

    @cached_property
    def each_once(self) -> bool:
        """No identity has two photos."""
        return len(self.identity) == 0 or int(self.identity[-1]) == len(self.identity) - 1


def rank_matches(
    query: Float[np.ndarray, "query dim"],
    gallery: Float[np.ndarray, "gallery dim"],
    query_labels: Int[np.ndarray, " query"],
    gallery_labels: Int[np.ndarray, " gallery"],
    *,
    query_cameras: Int[np.ndarray, " query"] | None = None,
    gallery_cameras: Int[np.ndarray, " gallery"] | None = None,
    block: int | None = None,
) -> Ranking:
    """Rank the gallery for each query by cosine similarity; features of any length are normalised here.

    With cameras, gallery photos of the query's label and camera are left out (the rule of Market-1501 and DukeMTMC).
    `block` queries are compared at a time (as many as fit 64 MiB if it is not given): it bounds the memory and changes
    nothing else. Raises `DataError` for features that are zero, not finite or of two widths, for labels or cameras that
    don't fit or are no whole numbers, and for a block under 1.
    """
    check_features(query, gallery)
    check_labels(len(query), len(gallery), query_labels, gallery_labels, query_cameras, gallery_cameras)
    blocks = _blocks(len(query), block_size(block, _CELLS, len(gallery)))
    shelves = _shelve(query_labels, gallery_labels, query_cameras, gallery_cameras)
    sought = exact_unit_vectors(query, "query")
    shelved = exact_unit_vectors(gallery, "gallery")[shelves.order].T
    return _rank((sought[some] @ shelved for some in blocks), shelves)


def rank_from_similarity(
    similarity: Float[np.ndarray, "query gallery"],
    query_labels: Int[np.ndarray, " query"],
    gallery_labels: Int[np.ndarray, " gallery"],
    *,
    query_cameras: Int[np.ndarray, " query"] | None = None,
    gallery_cameras: Int[np.ndarray, " gallery"] | None = None,
    block: int | None = None,
    tolerance: float = 0.0,
) -> Ranking:
    """The same from similarities that are given (more is more alike: negate a distance).

    A wrong photo less similar than the right one by `tolerance` or less ranks before it. Raises `DataError` for
    similarities that are not finite or no floating-point numbers, and as `rank_matches` does.
    """
    check_matrix(similarity)
    queries, gallery = similarity.shape
    check_labels(queries, gallery, query_labels, gallery_labels, query_cameras, gallery_cameras)
    return rank_from_blocks(
        (similarity[some] for some in _blocks(queries, block_size(block, _CELLS, gallery))),
        query_labels,
        gallery_labels,
        query_cameras=query_cameras,
        gallery_cameras=gallery_cameras,
        tolerance=tolerance,
    )


def rank_from_blocks(
    blocks: Iterable[Float[np.ndarray, "block gallery"]],
    query_labels: Int[np.ndarray, " query"],
    gallery_labels: Int[np.ndarray, " gallery"],
    *,
    query_cameras: Int[np.ndarray, " query"] | None = None,
    gallery_cameras: Int[np.ndarray, " gallery"] | None = None,
    tolerance: float = 0.0,
) -> Ranking:
    """The same from similarities that come some queries at a time, in the order of the queries, never all at once."""
    check_labels(len(query_labels), len(gallery_labels), query_labels, gallery_labels, query_cameras, gallery_cameras)
    if not 0 <= tolerance < np.inf:
        raise DataError(
            f"tolerance is {tolerance}; give the largest difference in similarity that counts as a tie, 0 or more"
        )
    shelves = _shelve(query_labels, gallery_labels, query_cameras, gallery_cameras)
    return _rank(_shelved(blocks, shelves), shelves, tolerance)


def first_rank(ranking: Ranking) -> Float[np.ndarray, " query"]:
    return _ends(ranking, ranking.offsets[:-1])


def hit(ranking: Ranking, k: int) -> Float[np.ndarray, " query"]:
    """1 where a right answer is among the first k, else 0. Its mean is rank-k, a point of the CMC."""
    first = first_rank(ranking)
    return np.where(np.isnan(first), np.nan, first <= k)


def reciprocal_rank(ranking: Ranking) -> Float[np.ndarray, " query"]:
    return 1 / first_rank(ranking)


def average_precision(ranking: Ranking) -> Float[np.ndarray, " query"]:
    """Standard: the mean, over the right answers, of the precision at each (scikit-learn's, but for ties)."""
    return _mean_of_matches(ranking, (_hits_before(ranking) + 1) / ranking.ranks)


def average_precision_trapezoid(ranking: Ranking) -> Float[np.ndarray, " query"]:
    """The hand papers' and Oxford5k's: the mean of the precisions just before and at each right answer.

    With one right answer at rank r: 1 if r is 1, else 1 / (2 r). Then its mean over queries is (rank-1 + MRR) / 2.
    """
    before = _hits_before(ranking)
    shown = ranking.ranks - 1
    old = np.divide(before, shown, out=np.ones(len(shown)), where=shown > 0)
    return _mean_of_matches(ranking, (old + (before + 1) / ranking.ranks) / 2)


def inverse_negative_penalty(ranking: Ranking) -> Float[np.ndarray, " query"]:
    """Right answers over the rank of the hardest one; its mean is mINP (Ye et al., TPAMI 2021, eq. 5)."""
    penalty: Float[np.ndarray, " query"] = ranking.matches / _ends(ranking, ranking.offsets[1:] - 1)
    return penalty


def r_precision(ranking: Ranking) -> Float[np.ndarray, " query"]:
    """Share of right answers among the first R, R being how many the query has (TREC's R-precision)."""
    return _mean_of_matches(ranking, (ranking.ranks <= _matches_of_each(ranking)).astype(np.float64))


def map_at_r(ranking: Ranking) -> Float[np.ndarray, " query"]:
    """Sum of the precisions at the right answers among the first R, over R (Musgrave et al., ECCV 2020, section 3.2).

    Unlike the standard average precision it knows nothing of what comes after the first R.
    """
    precision = (_hits_before(ranking) + 1) / ranking.ranks
    return _mean_of_matches(ranking, np.where(ranking.ranks <= _matches_of_each(ranking), precision, 0.0))


def identity_hit(ranking: Ranking, k: int) -> Float[np.ndarray, " query"]:
    """1 where the query's identity is among the first k different ones, else 0. With k = 1 it is `hit`.

    Raises `DataError` for a ranking that was written down without `identity_ranks`.
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
    no right answer; means are the caller's.

    Without those of identities for a ranking that does not know them.
    """
    names = [
        name
        for name in metrics_of("ranking")
        if ranking.identity_ranks is not None or not name.startswith("identity_rank")
    ]
    return {name: PER_QUERY[name](ranking) for name in names}


def cmc(ranking: Ranking, max_rank: int) -> Float[np.ndarray, " max_rank"]:
    """Share of the answerable queries with a right answer among the first 1, 2, ... max_rank; NaN if there are none."""
    first = first_rank(ranking)
    first = first[~np.isnan(first)].astype(np.int64)
    if len(first) == 0:
        return np.full(max_rank, np.nan)
    counts = np.bincount(np.minimum(first, max_rank + 1), minlength=max_rank + 2)
    return np.cumsum(counts[1:-1]) / len(first)


def _blocks(queries: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, queries, size)]


def _shelved(
    blocks: Iterable[Float[np.ndarray, "block gallery"]], shelves: _Shelves
) -> Iterator[Float[np.ndarray, "block gallery"]]:
    first = 0
    for block in blocks:
        check_matrix(block)
        if block.shape[1] != len(shelves.order):
            raise DataError(f"similarities of {block.shape[1]} gallery photos for {len(shelves.order)} gallery labels")
        if first + len(block) <= len(shelves.start):
            check_finite(block, first)
            yield block[:, shelves.order]
        first += len(block)
    if first != len(shelves.start):
        raise DataError(f"similarities of {first} queries for {len(shelves.start)} query labels: give one for each")


def _rank(blocks: Iterable[Float[np.ndarray, "block gallery"]], shelves: _Shelves, tolerance: float = 0.0) -> Ranking:
    """`blocks` hold the queries in order and the gallery in the order of the shelves; they are written over."""
    found = [np.empty(0, np.int64)]
    identities: list[int] = []
    for block in blocks:
        for similarity in block:
            query = len(identities)
            own = slice(shelves.start[query], shelves.stop[query])
            right = similarity[own].copy()
            if shelves.query_cameras is not None and shelves.gallery_cameras is not None:
                right = right[shelves.gallery_cameras[own] != shelves.query_cameras[query]]
            similarity[own] = -np.inf  # what is left are the wrong photos
            right = np.sort(right) - tolerance
            found.append(_count_ranks(right, similarity))
            identities.append(_identity_rank(found[-1], right, similarity, shelves))
    offsets = np.cumsum([len(ranks) for ranks in found])
    return Ranking(np.concatenate(found), offsets, np.array(identities, np.int64))


def _identity_rank(
    ranks: Int[np.ndarray, " right"],
    right: Float[np.ndarray, " right"],
    wrong: Float[np.ndarray, " gallery"],
    shelves: _Shelves,
) -> int:
    if len(ranks) == 0:
        return 0
    first = int(ranks[0])
    if first <= 2 or shelves.each_once:  # one wrong photo before is one wrong identity
        return first
    before = shelves.identity[np.flatnonzero(wrong >= right[-1])]
    return 2 + int(np.count_nonzero(before[1:] != before[:-1]))


def _count_ranks(right: Float[np.ndarray, " right"], wrong: Float[np.ndarray, " gallery"]) -> Int[np.ndarray, " right"]:
    """`right` ascends."""
    if len(right) == 0:
        return np.empty(0, np.int64)
    rivals = wrong >= right[0]  # the rest cannot come before any right answer
    if _SORTING * np.count_nonzero(rivals) < len(right) * len(wrong):
        sorted_rivals = np.sort(wrong[rivals])
        ahead = len(sorted_rivals) - np.searchsorted(sorted_rivals, right, side="left")
    else:
        ahead = np.array([np.count_nonzero(wrong >= one) for one in right])
    return ahead[::-1] + np.arange(1, len(right) + 1)


def _shelve(
    query_labels: Int[np.ndarray, " query"],
    gallery_labels: Int[np.ndarray, " gallery"],
    query_cameras: Int[np.ndarray, " query"] | None,
    gallery_cameras: Int[np.ndarray, " gallery"] | None,
) -> _Shelves:
    order = np.argsort(gallery_labels, kind="stable")
    labels = gallery_labels[order]
    start, stop = (np.searchsorted(labels, query_labels, side=side) for side in ("left", "right"))
    cameras = None if gallery_cameras is None else gallery_cameras[order]
    identity = np.cumsum(labels[1:] != labels[:-1], dtype=np.int64)
    return _Shelves(
        order, np.append(np.zeros(min(1, len(order)), np.int64), identity), start, stop, query_cameras, cameras
    )


def _hits_before(ranking: Ranking) -> Int[np.ndarray, " matches"]:
    """For each right answer, how many of the same query come before it."""
    before: Int[np.ndarray, " matches"] = np.arange(len(ranking.ranks)) - np.repeat(
        ranking.offsets[:-1], ranking.matches
    )
    return before


def _matches_of_each(ranking: Ranking) -> Int[np.ndarray, " matches"]:
    """For each right answer, how many its query has."""
    of_each: Int[np.ndarray, " matches"] = np.repeat(ranking.matches, ranking.matches)
    return of_each


def _mean_of_matches(ranking: Ranking, values: Float[np.ndarray, " matches"]) -> Float[np.ndarray, " query"]:
    matches = ranking.matches
    owner = np.repeat(np.arange(len(matches)), matches)
    sums = np.bincount(owner, weights=values, minlength=len(matches))
    means = np.full(len(matches), np.nan)
    np.divide(sums, matches, out=means, where=matches > 0)
    return means


def _ends(ranking: Ranking, at: Int[np.ndarray, " query"]) -> Float[np.ndarray, " query"]:
    """The rank at `at[i]` for query i; NaN for queries without a right answer, whose `at` points elsewhere."""
    answerable = ranking.matches > 0
    ends = np.full(len(at), np.nan)
    ends[answerable] = ranking.ranks[at[answerable]]
    return ends
