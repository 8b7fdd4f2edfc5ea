"""Ranks of the right answers of each query in the gallery.

* Only the ranks of the right answers are computed, by counting the wrong photos that are at least as similar; the
  gallery is never sorted in full.
* In a tie the wrong photo ranks first, so that a collapsed model, for which all photos are equal, gets the worst ranks
  and not the best.
* This needs exact ties: `arrays` rounds features for that. Given similarities are compared as they are, or with a
  `tolerance` if they are sums of rounded numbers.
* Only labels are compared: a distractor is a photo whose label no query has. The caller leaves out photos that are to
  be ignored altogether (the "junk" of Market-1501).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from handreid.errors import DataError
from handreid.metrics.arrays import (
    block_size,
    check_features,
    check_finite,
    check_labels,
    check_matrix,
    exact_unit_vectors,
)

_SORTING = 128  # sorting a number takes about as long as comparing 128
_CELLS = 2**23  # similarities in memory at once, of 8 bytes each


@dataclass(frozen=True, eq=False)
class Ranking:
    """Ranks of the right answers of query i, best first, counted from 1: `ranks[offsets[i]:offsets[i + 1]]`.

    A query without a right answer in the gallery has no ranks. It is left out of every mean (its metrics are NaN) and
    counted in `unanswerable`.

    `identity_ranks` are the ranks of the query's identity in a list that has each identity once, by its most similar
    photo: 1 + the wrong identities with a photo at least as similar as the best right answer; 0 where there is none.
    They cannot be derived from `ranks`, so a ranking that was stored without them has None.
    """

    ranks: Int[np.ndarray, " matches"]
    offsets: Int[np.ndarray, " query_plus_1"]
    identity_ranks: Int[np.ndarray, " query"] | None = None

    @property
    def matches(self) -> Int[np.ndarray, " query"]:
        """Number of right answers of each query."""
        return np.diff(self.offsets)

    @property
    def unanswerable(self) -> int:
        return int(np.count_nonzero(self.matches == 0))


@dataclass(frozen=True, eq=False)
class _SortedGallery:
    """The gallery sorted by label, so that photos of a label are adjacent; `start[i]:stop[i]` have query i's label."""

    order: Int[np.ndarray, " gallery"]
    identity: Int[np.ndarray, " gallery"]  # numbers from 0, ascending
    start: Int[np.ndarray, " query"]
    stop: Int[np.ndarray, " query"]
    query_cameras: Int[np.ndarray, " query"] | None
    gallery_cameras: Int[np.ndarray, " gallery"] | None  # in the sorted order

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
    """Rank the gallery for each query by cosine similarity; features are normalised here.

    With cameras, gallery photos of the query's label and camera are left out (the rule of Market-1501 and DukeMTMC).
    `block` is the number of queries at a time (default: as many as fit 64 MiB): it bounds the memory and does not
    change the result. Raises `DataError` for features that are zero, not finite or of two widths, for labels or cameras
    that don't fit or are not whole numbers, and for a block under 1.
    """
    check_features(query, gallery)
    check_labels(len(query), len(gallery), query_labels, gallery_labels, query_cameras, gallery_cameras)
    blocks = _blocks(len(query), block_size(block, _CELLS, len(gallery)))
    sorted_gallery = _sort_gallery(query_labels, gallery_labels, query_cameras, gallery_cameras)
    sought = exact_unit_vectors(query, "query")
    searched = exact_unit_vectors(gallery, "gallery")[sorted_gallery.order].T
    return _rank((sought[rows] @ searched for rows in blocks), sorted_gallery)


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
    """As `rank_matches`, from given similarities (higher is more similar: negate a distance).

    A wrong photo less similar than the right one by `tolerance` or less ranks before it. Raises `DataError` for
    similarities that are not finite or not floating-point numbers, and as `rank_matches` does.
    """
    check_matrix(similarity)
    queries, gallery = similarity.shape
    check_labels(queries, gallery, query_labels, gallery_labels, query_cameras, gallery_cameras)
    return rank_from_blocks(
        (similarity[rows] for rows in _blocks(queries, block_size(block, _CELLS, gallery))),
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
    """As `rank_from_similarity`, from blocks of rows in the order of the queries, never all in memory at once."""
    check_labels(len(query_labels), len(gallery_labels), query_labels, gallery_labels, query_cameras, gallery_cameras)
    if not 0 <= tolerance < np.inf:
        raise DataError(
            f"tolerance is {tolerance}; give the largest difference in similarity that counts as a tie, 0 or more"
        )
    sorted_gallery = _sort_gallery(query_labels, gallery_labels, query_cameras, gallery_cameras)
    return _rank(_in_gallery_order(blocks, sorted_gallery), sorted_gallery, tolerance)


def _blocks(queries: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, queries, size)]


def _in_gallery_order(
    blocks: Iterable[Float[np.ndarray, "block gallery"]], sorted_gallery: _SortedGallery
) -> Iterator[Float[np.ndarray, "block gallery"]]:
    done = 0
    for block in blocks:
        check_matrix(block)
        if block.shape[1] != len(sorted_gallery.order):
            raise DataError(
                f"similarities of {block.shape[1]} gallery photos for {len(sorted_gallery.order)} gallery labels"
            )
        if done + len(block) <= len(sorted_gallery.start):
            check_finite(block, done)
            yield block[:, sorted_gallery.order]
        done += len(block)
    if done != len(sorted_gallery.start):
        raise DataError(
            f"similarities of {done} queries for {len(sorted_gallery.start)} query labels: give one for each"
        )


def _rank(
    blocks: Iterable[Float[np.ndarray, "block gallery"]], sorted_gallery: _SortedGallery, tolerance: float = 0.0
) -> Ranking:
    """Rows of `blocks` are the queries in order, columns the sorted gallery; blocks are overwritten."""
    ranks = [np.empty(0, np.int64)]
    identities: list[int] = []
    for block in blocks:
        for similarity in block:
            query = len(identities)
            same = slice(sorted_gallery.start[query], sorted_gallery.stop[query])
            right = similarity[same].copy()
            if sorted_gallery.query_cameras is not None and sorted_gallery.gallery_cameras is not None:
                right = right[sorted_gallery.gallery_cameras[same] != sorted_gallery.query_cameras[query]]
            similarity[same] = -np.inf  # leaves the wrong photos
            right = np.sort(right) - tolerance
            ranks.append(_count_ranks(right, similarity))
            identities.append(_identity_rank(ranks[-1], right, similarity, sorted_gallery))
    offsets = np.cumsum([len(matches) for matches in ranks])
    return Ranking(np.concatenate(ranks), offsets, np.array(identities, np.int64))


def _identity_rank(
    ranks: Int[np.ndarray, " right"],
    right: Float[np.ndarray, " right"],
    wrong: Float[np.ndarray, " gallery"],
    sorted_gallery: _SortedGallery,
) -> int:
    if len(ranks) == 0:
        return 0
    best_rank = int(ranks[0])
    if best_rank <= 2 or sorted_gallery.each_once:  # a single wrong photo before it is a single wrong identity
        return best_rank
    before = sorted_gallery.identity[np.flatnonzero(wrong >= right[-1])]
    return 2 + int(np.count_nonzero(before[1:] != before[:-1]))


def _count_ranks(right: Float[np.ndarray, " right"], wrong: Float[np.ndarray, " gallery"]) -> Int[np.ndarray, " right"]:
    """`right` is sorted, ascending."""
    if len(right) == 0:
        return np.empty(0, np.int64)
    rivals = wrong >= right[0]  # all others rank behind every right answer
    if _SORTING * np.count_nonzero(rivals) < len(right) * len(wrong):
        sorted_rivals = np.sort(wrong[rivals])
        ahead = len(sorted_rivals) - np.searchsorted(sorted_rivals, right, side="left")
    else:
        ahead = np.array([np.count_nonzero(wrong >= similarity) for similarity in right])
    return ahead[::-1] + np.arange(1, len(right) + 1)


def _sort_gallery(
    query_labels: Int[np.ndarray, " query"],
    gallery_labels: Int[np.ndarray, " gallery"],
    query_cameras: Int[np.ndarray, " query"] | None,
    gallery_cameras: Int[np.ndarray, " gallery"] | None,
) -> _SortedGallery:
    order = np.argsort(gallery_labels, kind="stable")
    labels = gallery_labels[order]
    start, stop = (np.searchsorted(labels, query_labels, side=side) for side in ("left", "right"))
    cameras = None if gallery_cameras is None else gallery_cameras[order]
    identity = np.cumsum(labels[1:] != labels[:-1], dtype=np.int64)
    return _SortedGallery(
        order, np.append(np.zeros(min(1, len(order)), np.int64), identity), start, stop, query_cameras, cameras
    )
