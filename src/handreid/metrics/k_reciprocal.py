"""Re-ranking by k-reciprocal neighbours: photos are similar if they share their nearest neighbours.

Zhong, Zheng, Cao and Li, "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017.

* All queries of a draw are processed together: they are each other's neighbours. So the result of a query depends on
  the other queries, unlike everything else in an evaluation.
* N(p, k) are the photos of query and gallery no farther from p than the k-th nearest, p itself not counted. The paper
  does not mention ties; here all photos tied with the k-th are included, so that equal photos get equal results, and
  neither the order of the photos nor the size of a block changes a bit.
* The paper does not say how the distance d is scaled. Here, as in the authors' code, it is the squared Euclidean one
  between unit features, divided by the largest that p has to any photo (0 if that is 0).
* k / 2 is rounded, halves to the even number; the k2 nearest of the query expansion include p itself. The paper
  specifies neither; both are as in the authors' code.
* The authors' code, from which most published numbers come, differs from the paper twice: R(q, k/2) joins if *more*
  than two thirds of it agree, not at least two thirds; and each V is divided by its sum. `formula` selects one.
* Only the rows of the result are dense, a block of queries at a time; everything else is sparse.
* Distances d between photos are exact, so equal photos get equal results to the last bit. The re-ranked distance d* is
  a quotient of sums of float64 and is not exact: two photos that tie by the equations may differ in its last digits, in
  either direction. So ranks are computed with a tolerance, within which a wrong photo ranks before the right one.
* The tolerance follows from the arithmetic. With u = 2**-53, rounding changes e^-d by at most 5 u of its
  value, and a sum of n positive terms by n u. A weight of V is divided by a sum over m photos (in `code`) and averaged
  over t; sums of weights go over M photos. So these sums are right to e = (m + t + M + 13) u of their value, their
  quotient, which is at most 1, to 4 e + 4 u, and d* to 4 e + 12 u. Two distances that should be equal differ by twice
  that at most, (m + t + M + 16) * 2**-50: about 1e-13, a millionth of the precision of distances of float32 features.
* With cameras, photos of the query's identity and camera are left out when ranks are computed, not before: they are
  neighbours like any other photo, as in torchreid and fast-reid, whose re-ranking uses all photos of query and gallery.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from handreid.metrics.arrays import block_size, check_features, check_labels
from handreid.metrics.neighbours import Points, as_distance, nearest, points_of
from handreid.metrics.ranking import Ranking, rank_from_blocks

Formula = Literal["paper", "code"]
_CELLS = 2**21  # distances, and shared neighbours, in memory at a time


@dataclass(frozen=True, eq=False)
class Encoding:
    """V of the paper (eq. 7, expanded by eq. 11), a sparse row per distinct photo; `sums` are those of its rows."""

    points: Points
    vectors: csr_array
    sums: Float[np.ndarray, " point"]
    farthest: Float[np.ndarray, " point"]
    terms: int  # m + t + M of the module's docstring: lengths of the longest sums behind a distance

    def tolerance(self, original: float) -> float:
        """The largest difference of two distances d* that are equal by the equations."""
        return 0.0 if original == 1 else (self.terms + 16) * 2.0**-50  # the original distance alone has exact ties


def rerank_matches(
    query: Float[np.ndarray, "query dim"],
    gallery: Float[np.ndarray, "gallery dim"],
    query_labels: Int[np.ndarray, " query"],
    gallery_labels: Int[np.ndarray, " gallery"],
    *,
    query_cameras: Int[np.ndarray, " query"] | None = None,
    gallery_cameras: Int[np.ndarray, " gallery"] | None = None,
    k1: int = 20,
    k2: int = 6,
    original: float = 0.3,
    formula: Formula = "paper",
    block: int | None = None,
) -> Ranking:
    """`rank_matches` by the re-ranked distance, ties up to rounding against us; see `rerank`."""
    check_features(query, gallery)
    check_labels(len(query), len(gallery), query_labels, gallery_labels, query_cameras, gallery_cameras)
    encoding = encode(points_of(query, gallery), k1, k2, formula)
    blocks = rerank_blocks(encoding, len(query), original, block)
    return rank_from_blocks(
        (np.negative(distance, out=distance) for distance in blocks),
        query_labels,
        gallery_labels,
        query_cameras=query_cameras,
        gallery_cameras=gallery_cameras,
        tolerance=encoding.tolerance(original),
    )


def rerank(
    query: Float[np.ndarray, "query dim"],
    gallery: Float[np.ndarray, "gallery dim"],
    *,
    k1: int = 20,
    k2: int = 6,
    original: float = 0.3,
    formula: Formula = "paper",
    block: int | None = None,
) -> Iterator[Float[np.ndarray, "block gallery"]]:
    """d* = (1 - original) d_J + original d (eq. 12), in [0, 1], for a block of queries at a time, in their order.

    `original` is the paper's lambda: the weight of the original distance d. k1 may exceed the number of photos: then
    all of them are neighbours. `block` is the number of queries at a time (default: as many as fit 16 MiB); it does not
    change the result. Raises `DataError` for features that are zero, not finite or of two widths, or a block under 1.
    """
    check_features(query, gallery)
    encoding = encode(points_of(query, gallery), k1, k2, formula)
    return rerank_blocks(encoding, len(query), original, block)


def encode(points: Points, k1: int, k2: int, formula: Formula) -> Encoding:
    near = nearest(points, max(k1 + 1, k2))
    wide, narrow = _reciprocal(near.first(k1 + 1)), _reciprocal(near.first(round(k1 / 2) + 1))
    sets = _expanded(wide, narrow, points.copies, formula)
    vectors = _weighted(sets, points, near.farthest)
    if formula == "code":
        vectors = _divided(vectors, vectors @ points.copies)
    around = near.first(k2)
    around.data = points.copies[around.indices]
    vectors = _divided(around @ vectors, around.sum(axis=1))
    vectors.sort_indices()
    terms = sum(int(np.diff(matrix.indptr).max(initial=0)) for matrix in (sets, around, vectors))
    return Encoding(points, vectors, vectors @ points.copies, near.farthest, terms)


def _reciprocal(near: csr_array) -> csr_array:
    """R(p, k), eq. 2: the photos near p that have p among their own nearest."""
    return csr_array(near.multiply(near.T))


def _expanded(wide: csr_array, narrow: csr_array, copies: Int[np.ndarray, " point"], formula: Formula) -> csr_array:
    """R*(p, k), eq. 3: R(p, k) and every R(q, k/2) of a q in R(p, k) that shares two thirds of its photos with it."""
    photos = wide.copy()
    photos.data = copies[wide.indices]
    shared = csr_array((photos @ narrow.T).multiply(wide)).tocoo()
    needed = 2 * (narrow @ copies)[shared.col]
    agree = 3 * shared.data >= needed if formula == "paper" else 3 * shared.data > needed
    joining = csr_array((np.ones(agree.sum(), np.int64), (shared.row[agree], shared.col[agree])), shape=wide.shape)
    together = csr_array(wide + joining @ narrow)
    together.sort_indices()
    return together


def _weighted(sets: csr_array, points: Points, farthest: Float[np.ndarray, " point"]) -> csr_array:
    """V, eq. 7: e^-d for the photos in R*(p, k), 0 for all others."""
    rows = np.repeat(np.arange(sets.shape[0]), np.diff(sets.indptr))
    distance = points.paired_distances(rows, sets.indices)
    return csr_array((np.exp(-_scaled(distance, farthest[rows])), sets.indices, sets.indptr), shape=sets.shape)


def _scaled(distance: np.ndarray, largest: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = np.divide(distance, largest, out=np.zeros_like(distance), where=largest > 0)
    return scaled


def _divided(matrix: csr_array, by: Float[np.ndarray, " point"] | Int[np.ndarray, " point"]) -> csr_array:
    data = matrix.data / np.repeat(by, np.diff(matrix.indptr))
    return csr_array((data, matrix.indices, matrix.indptr), shape=matrix.shape)


def rerank_blocks(
    encoding: Encoding, queries: int, original: float, block: int | None = None
) -> Iterator[Float[np.ndarray, "block gallery"]]:
    """d* of `rerank` for an encoding, a block of queries at a time. `block` is checked now, distances are lazy."""
    return _of_size(encoding, queries, original, block_size(block, _CELLS, len(encoding.points.inverse) - queries))


def _of_size(
    encoding: Encoding, queries: int, original: float, size: int
) -> Iterator[Float[np.ndarray, "block gallery"]]:
    points = encoding.points
    sought, gallery = points.inverse[:queries], points.inverse[queries:]
    searched = points.right[gallery].T
    holders = csr_array(encoding.vectors[gallery].T)  # of each point, the gallery photos that have it in their V
    for start in range(0, queries, size):
        rows = sought[start : start + size]
        parts = [_jaccard(encoding, rows[part], gallery, holders) for part in _parts(encoding, rows, holders)]
        distance = _scaled(as_distance(points.left[rows] @ searched), encoding.farthest[rows, None])
        yield (1 - original) * np.concatenate(parts) + original * distance


def _parts(encoding: Encoding, rows: Int[np.ndarray, " row"], holders: csr_array) -> list[slice]:
    """Queries in parts whose shared neighbours fit `_CELLS`, at least one query in each."""
    vectors = encoding.vectors[rows]
    held = np.concatenate([[0], np.cumsum(np.diff(holders.indptr)[vectors.indices])])
    part = held[vectors.indptr[1:]] // _CELLS
    cuts = [0, *(np.flatnonzero(np.diff(part)) + 1).tolist(), len(rows)]
    return [slice(start, stop) for start, stop in pairwise(cuts)]


def _jaccard(
    encoding: Encoding, rows: Int[np.ndarray, " row"], gallery: Int[np.ndarray, " gallery"], holders: csr_array
) -> Float[np.ndarray, "row gallery"]:
    """d_J, eq. 10: 1 - (sum of the smaller weights) / (sum of the larger ones), summed where both have any."""
    vectors = encoding.vectors[rows]
    photos = holders[vectors.indices]  # a row for each point of each query
    times = np.diff(photos.indptr)
    smaller = np.minimum(np.repeat(vectors.data, times), photos.data)
    smaller *= np.repeat(encoding.points.copies[vectors.indices], times)
    owner = np.repeat(np.repeat(np.arange(len(rows)), np.diff(vectors.indptr)), times)
    shape = (len(rows), len(gallery))
    cells = np.bincount(owner * shape[1] + photos.indices, weights=smaller, minlength=shape[0] * shape[1])
    shared = cells.reshape(shape)
    larger = encoding.sums[rows, None] + encoding.sums[None, gallery] - shared
    distance: Float[np.ndarray, "row gallery"] = 1 - shared / larger
    return distance
