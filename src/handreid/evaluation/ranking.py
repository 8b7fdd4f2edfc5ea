"""At which rank does the gallery hold the right answers?

* Only the ranks of the right answers are found, by counting the wrong photos that are at least as similar; the gallery
  is never sorted in full.
* A tie counts against us: a wrong photo as similar as the right one ranks before it, so that a collapsed model, for
  which all photos are alike, gets the worst ranks and not the best.
* Ties have to be exact for that. Unit features are rounded to multiples of 2**-26, finer than the float32 they come
  from; their dot products then fit a float64 without rounding, whatever the block, the order of the gallery or the
  BLAS, and equal photos have equal similarity to the last bit.
* Labels are compared and nothing else: a distractor is a photo whose label no query has. Photos to be ignored
  altogether (the "junk" of Market-1501) are left out by the caller.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from handreid.errors import DataError

_SORTING = 128  # sorting a number takes about as long as comparing 128
_CELLS = 2**23  # similarities in memory at a time, of 8 bytes each
_UNIT = 2.0**26  # squared it is 2**52: any sum of products of two unit features stays below 2**53


@dataclass(frozen=True, eq=False)
class Ranking:
    """Ranks of the right answers of query i, best first, counted from 1: `ranks[offsets[i]:offsets[i + 1]]`.

    A query without a right answer in the gallery has none. It is left out of every mean (its metrics are NaN) and
    counted in `unanswerable`.
    """

    ranks: Int[np.ndarray, " matches"]
    offsets: Int[np.ndarray, " query_plus_1"]

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
    start: Int[np.ndarray, " query"]
    stop: Int[np.ndarray, " query"]
    query_cameras: Int[np.ndarray, " query"] | None
    gallery_cameras: Int[np.ndarray, " gallery"] | None  # in the order of the shelves


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
    nothing else. Raises `DataError` for a feature that is zero or not finite, and for labels or cameras that don't fit.
    """
    _check_lengths(len(query), len(gallery), query_labels, gallery_labels, query_cameras, gallery_cameras)
    shelves = _shelve(query_labels, gallery_labels, query_cameras, gallery_cameras)
    sought = exact_units(query, "query")
    shelved = exact_units(gallery, "gallery")[shelves.order].T
    blocks = _blocks(len(query), len(gallery), block)
    return _rank((sought[some] @ shelved for some in blocks), shelves)


def rank_from_similarity(
    similarity: Float[np.ndarray, "query gallery"],
    query_labels: Int[np.ndarray, " query"],
    gallery_labels: Int[np.ndarray, " gallery"],
    *,
    query_cameras: Int[np.ndarray, " query"] | None = None,
    gallery_cameras: Int[np.ndarray, " gallery"] | None = None,
    block: int | None = None,
) -> Ranking:
    """The same from similarities that are given (more is more alike: negate a distance); they are compared as they are.

    Raises `DataError` for a similarity that is not finite, and for labels or cameras that don't fit.
    """
    queries, gallery = similarity.shape
    _check_lengths(queries, gallery, query_labels, gallery_labels, query_cameras, gallery_cameras)
    return rank_from_blocks(
        (similarity[some] for some in _blocks(queries, gallery, block)),
        query_labels,
        gallery_labels,
        query_cameras=query_cameras,
        gallery_cameras=gallery_cameras,
    )


def rank_from_blocks(
    blocks: Iterable[Float[np.ndarray, "block gallery"]],
    query_labels: Int[np.ndarray, " query"],
    gallery_labels: Int[np.ndarray, " gallery"],
    *,
    query_cameras: Int[np.ndarray, " query"] | None = None,
    gallery_cameras: Int[np.ndarray, " gallery"] | None = None,
) -> Ranking:
    """The same from similarities that come some queries at a time, in the order of the queries, never all at once."""
    _check_lengths(len(query_labels), len(gallery_labels), query_labels, gallery_labels, query_cameras, gallery_cameras)
    shelves = _shelve(query_labels, gallery_labels, query_cameras, gallery_cameras)
    return _rank(_shelved(blocks, shelves), shelves)


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


def metrics(ranking: Ranking) -> dict[str, Float[np.ndarray, " query"]]:
    """Every metric for every query, in [0, 1], NaN where the query has no right answer; means are the caller's."""
    return {
        "rank1": hit(ranking, 1),
        "rank5": hit(ranking, 5),
        "rank10": hit(ranking, 10),
        "map": average_precision(ranking),
        "map_trapezoid": average_precision_trapezoid(ranking),
        "mrr": reciprocal_rank(ranking),
        "minp": inverse_negative_penalty(ranking),
    }


def cmc(ranking: Ranking, max_rank: int) -> Float[np.ndarray, " max_rank"]:
    """Share of the answerable queries with a right answer among the first 1, 2, ... max_rank; NaN if there are none."""
    first = first_rank(ranking)
    first = first[~np.isnan(first)].astype(np.int64)
    if len(first) == 0:
        return np.full(max_rank, np.nan)
    counts = np.bincount(np.minimum(first, max_rank + 1), minlength=max_rank + 2)
    return np.cumsum(counts[1:-1]) / len(first)


def _blocks(queries: int, gallery: int, block: int | None) -> list[slice]:
    size = block or max(1, _CELLS // max(1, gallery))
    return [slice(start, start + size) for start in range(0, queries, size)]


def _shelved(
    blocks: Iterable[Float[np.ndarray, "block gallery"]], shelves: _Shelves
) -> Iterator[Float[np.ndarray, "block gallery"]]:
    first = 0
    for block in blocks:
        yield _finite(block, first)[:, shelves.order]
        first += len(block)
    if first != len(shelves.start):
        raise DataError(f"similarities of {first} queries for {len(shelves.start)} query labels: give one for each")


def _rank(blocks: Iterable[Float[np.ndarray, "block gallery"]], shelves: _Shelves) -> Ranking:
    """`blocks` hold the queries in order and the gallery in the order of the shelves; they are written over."""
    found = [np.empty(0, np.int64)]
    for block in blocks:
        for similarity in block:
            query = len(found) - 1
            own = slice(shelves.start[query], shelves.stop[query])
            right = similarity[own].copy()
            if shelves.query_cameras is not None and shelves.gallery_cameras is not None:
                right = right[shelves.gallery_cameras[own] != shelves.query_cameras[query]]
            similarity[own] = -np.inf  # what is left are the wrong photos
            found.append(_count_ranks(right, similarity))
    offsets = np.cumsum([len(ranks) for ranks in found])
    return Ranking(np.concatenate(found), offsets)


def _count_ranks(right: Float[np.ndarray, " right"], wrong: Float[np.ndarray, " gallery"]) -> Int[np.ndarray, " right"]:
    if len(right) == 0:
        return np.empty(0, np.int64)
    right = np.sort(right)
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
    return _Shelves(order, start, stop, query_cameras, cameras)


def exact_units(
    features: Float[np.ndarray, "photo dim"], name: str, unit: float = _UNIT
) -> Float[np.ndarray, "photo dim"]:
    """Unit features times `unit`, rounded to whole numbers, as float64. `name` is what an error calls the photos.

    Raises `DataError` for a feature that is zero or not finite.
    """
    units = np.array(features, dtype=np.float64, order="C")
    largest = np.abs(units).max(axis=1, initial=0.0)
    bad = np.flatnonzero(~np.isfinite(largest) | (largest == 0))
    if len(bad):
        what = "all zero" if largest[bad[0]] == 0 else "not finite"
        raise DataError(
            f"the feature of {name} photo {bad[0]} (counted from 0) is {what}, one of {len(bad)} that cannot be "
            "compared: check the photo, and the model's weights and precision"
        )
    units /= largest[:, None]  # squares of the largest and smallest floats would not fit
    units *= unit / np.sqrt(np.square(units).sum(axis=1, keepdims=True))
    return np.rint(units, out=units)


def _finite(similarity: Float[np.ndarray, "block gallery"], first: int) -> Float[np.ndarray, "block gallery"]:
    if not np.isfinite(similarity).all():
        row, column = np.argwhere(~np.isfinite(similarity))[0]
        raise DataError(
            f"the similarity of query {first + row} and gallery photo {column} (counted from 0) is "
            f"{similarity[row, column]}: it cannot be ranked; check the features that it was made from"
        )
    return similarity


def _check_lengths(
    queries: int,
    gallery: int,
    query_labels: Int[np.ndarray, " query_labels"],
    gallery_labels: Int[np.ndarray, " gallery_labels"],
    query_cameras: Int[np.ndarray, " query_cameras"] | None,
    gallery_cameras: Int[np.ndarray, " gallery_cameras"] | None,
) -> None:
    if (query_cameras is None) != (gallery_cameras is None):
        missing = "query" if query_cameras is None else "gallery"
        raise DataError(f"the {missing} photos have no cameras, the others do: give both, or neither to ignore cameras")
    for name, given, photos in (
        ("query labels", query_labels, queries),
        ("gallery labels", gallery_labels, gallery),
        ("query cameras", query_cameras, queries),
        ("gallery cameras", gallery_cameras, gallery),
    ):
        if given is not None and len(given) != photos:
            raise DataError(f"{len(given)} {name} for {photos} photos: give one for each photo, in the same order")


def _hits_before(ranking: Ranking) -> Int[np.ndarray, " matches"]:
    """For each right answer, how many of the same query come before it."""
    before: Int[np.ndarray, " matches"] = np.arange(len(ranking.ranks)) - np.repeat(
        ranking.offsets[:-1], ranking.matches
    )
    return before


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
