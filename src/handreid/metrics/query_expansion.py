"""Query expansion, on both sides: search again with the mean of the query and what it found first, or among gallery
photos that are each the mean of itself and its nearest.

* Of the query: Chum, Philbin, Sivic, Isard and Zisserman, "Total Recall", ICCV 2007; with weights Radenovic, Tolias and
  Chum, "Fine-tuning CNN Image Retrieval with No Human Annotation", TPAMI 2018 (alpha-QE).
* Of the gallery: Arandjelovic and Zisserman, "Three things everyone should know to improve object retrieval", CVPR 2012
  (database-side feature augmentation); Gordo et al., "End-to-end Learning of Deep Visual Representations for Image
  Retrieval", IJCV 2017. Gordo et al. weigh by place in the list, which ties leave open; here as for queries, by cosine.
* No spatial verification, which Chum et al. have: the n nearest are taken as they are.
* Unlike re-ranking they never look at other queries: who else is searched for changes nothing.
* The n nearest are all photos no farther than the n-th: a tie at the edge is in. A gallery photo is none of its own.
* With cameras, photos of the query's identity and camera are left out when ranks are taken, and not before, as in
  fast-reid's query expansion: who is on a gallery photo is not known when it is averaged.
"""

from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from handreid.metrics.arrays import block_size, check_features, check_labels, exact_unit_vectors
from handreid.metrics.neighbours import as_distance, factors
from handreid.metrics.ranking import Ranking, rank_matches

Side = Literal["query", "gallery"]
_UNIT = 2.0**25
_CELLS = 2**21  # distances in memory at a time


def expand_matches(
    query: Float[np.ndarray, "query dim"],
    gallery: Float[np.ndarray, "gallery dim"],
    query_labels: Int[np.ndarray, " query"],
    gallery_labels: Int[np.ndarray, " gallery"],
    *,
    query_cameras: Int[np.ndarray, " query"] | None = None,
    gallery_cameras: Int[np.ndarray, " gallery"] | None = None,
    neighbours: int,
    alpha: float = 0.0,
    side: Side = "query",
) -> Ranking:
    """`rank_matches` with expanded queries, see `expand`, or among an expanded gallery, see `expand_gallery`."""
    check_features(query, gallery)
    check_labels(len(query), len(gallery), query_labels, gallery_labels, query_cameras, gallery_cameras)
    if side == "query":
        query = expand(query, gallery, neighbours=neighbours, alpha=alpha)
    else:
        gallery = expand_gallery(gallery, neighbours=neighbours, alpha=alpha)
    return rank_matches(
        query, gallery, query_labels, gallery_labels, query_cameras=query_cameras, gallery_cameras=gallery_cameras
    )


def expand(
    query: Float[np.ndarray, "query dim"],
    gallery: Float[np.ndarray, "gallery dim"],
    *,
    neighbours: int,
    alpha: float = 0.0,
    block: int | None = None,
) -> Float[np.ndarray, "query dim"]:
    """Of each query the sum, of unit length, of itself and its nearest gallery photos, each times cosine ** alpha.

    All features are first made of unit length. With alpha 0 it is the plain mean; else a photo at a right angle or more
    counts for nothing. A query whose sum is zero stays as it is. `block` bounds the memory and changes nothing else.
    Raises `DataError` for features that are zero, not finite or of two widths, or a block under 1.
    """
    check_features(query, gallery)
    sought, searched = exact_unit_vectors(query, "query", _UNIT), exact_unit_vectors(gallery, "gallery", _UNIT)
    return _summed(sought, sought, searched, neighbours, alpha, block)


def expand_gallery(
    gallery: Float[np.ndarray, "gallery dim"], *, neighbours: int, alpha: float = 0.0, block: int | None = None
) -> Float[np.ndarray, "gallery dim"]:
    """Of each gallery photo the sum, of unit length, of itself and its nearest others; otherwise as `expand`."""
    check_features(gallery, gallery)
    units = exact_unit_vectors(gallery, "gallery", _UNIT)
    return _summed(np.zeros_like(units), units, units, neighbours, alpha, block, itself=True)


def _summed(
    begun: Float[np.ndarray, "query dim"],
    sought: Float[np.ndarray, "query dim"],
    searched: Float[np.ndarray, "gallery dim"],
    neighbours: int,
    alpha: float,
    block: int | None,
    *,
    itself: bool = False,
) -> Float[np.ndarray, "query dim"]:
    """What is `begun` and the weighted nearest, of unit length. `itself`: both sides are the same photos, and each is
    summed with its nearest others in one order, so that equal photos stay equal to the last bit.
    """
    left, right = factors(sought)[0], factors(searched)[1].T
    size = block_size(block, _CELLS, len(searched))
    found = [np.empty((0, sought.shape[1]))]
    for start in range(0, len(sought), size):
        distance = as_distance(left[start : start + size] @ right)
        own = np.arange(start, start + len(distance)) if itself else None
        found.append(_weights(distance, neighbours, alpha, own) @ searched)
    sums = begun + np.concatenate(found)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    np.divide(sums, lengths, out=sums, where=lengths > 1)
    return np.where(lengths > 1, sums, sought / _UNIT)  # of a length under 1 only rounding is left


def _weights(
    distance: Float[np.ndarray, "block gallery"], neighbours: int, alpha: float, own: Int[np.ndarray, " block"] | None
) -> csr_array:
    """`own` is where a row's own photo is: it counts 1, and is none of the nearest."""
    rows, others = np.arange(len(distance)), distance
    if own is not None:
        others = distance.copy()
        others[rows, own] = np.inf
    count = min(neighbours, distance.shape[1] - (own is not None))
    near = np.zeros(distance.shape, np.bool_)
    if count > 0:
        near = others <= np.partition(others, count - 1, axis=1)[:, count - 1, None]
    if own is not None:
        near[rows, own] = True
    row, column = np.nonzero(near)
    cosine = np.maximum(1 - distance[row, column] / 2, 0)
    return csr_array((cosine**alpha, (row, column)), shape=distance.shape)
