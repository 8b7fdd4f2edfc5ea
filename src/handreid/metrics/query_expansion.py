"""Query expansion, on both sides: search again with the mean of the query and its nearest gallery photos, or in a
gallery where each photo is the mean of itself and its nearest.

* Of the query: Chum, Philbin, Sivic, Isard and Zisserman, "Total Recall", ICCV 2007; with weights Radenovic, Tolias and
  Chum, "Fine-tuning CNN Image Retrieval with No Human Annotation", TPAMI 2018 (alpha-QE).
* Of the gallery: Arandjelovic and Zisserman, "Three things everyone should know to improve object retrieval", CVPR 2012
  (database-side feature augmentation); Gordo et al., "End-to-end Learning of Deep Visual Representations for Image
  Retrieval", IJCV 2017. Gordo et al. weigh by rank, which is undefined for ties; here by cosine, as for queries.
* There is no spatial verification, which Chum et al. have: the n nearest are used as they are.
* Unlike re-ranking, a result does not depend on the other queries.
* The n nearest are all photos no farther than the n-th, ties included. A gallery photo is not its own neighbour.
* With cameras, photos of the query's identity and camera are left out when ranks are computed, not before, as in
  fast-reid's query expansion: the identity of a gallery photo is not known when it is averaged.
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
_CELLS = 2**21  # distances in memory at once


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
    """`rank_matches` with expanded queries (`expand`) or an expanded gallery (`expand_gallery`)."""
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
    """For each query the normalised sum of itself and its nearest gallery photos, each times cosine ** alpha.

    All features are normalised first. With alpha 0 it is the plain mean; otherwise a photo with a cosine of 0 or less
    has weight 0. A query whose sum is zero stays unchanged. `block` bounds the memory and does not change the result.
    Raises `DataError` for features that are zero, not finite or of two widths, or a block under 1.
    """
    check_features(query, gallery)
    sought, searched = exact_unit_vectors(query, "query", _UNIT), exact_unit_vectors(gallery, "gallery", _UNIT)
    return _summed(sought, sought, searched, neighbours, alpha, block)


def expand_gallery(
    gallery: Float[np.ndarray, "gallery dim"], *, neighbours: int, alpha: float = 0.0, block: int | None = None
) -> Float[np.ndarray, "gallery dim"]:
    """For each gallery photo the normalised sum of itself and its nearest others; otherwise as `expand`."""
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
    """The normalised sum of `begun` and the weighted nearest. `itself`: both sides are the same photos, and each is
    summed together with its nearest others in one fixed order, so that equal photos stay equal to the last bit.
    """
    left, right = factors(sought)[0], factors(searched)[1].T
    size = block_size(block, _CELLS, len(searched))
    parts = [np.empty((0, sought.shape[1]))]
    for start in range(0, len(sought), size):
        distance = as_distance(left[start : start + size] @ right)
        self_index = np.arange(start, start + len(distance)) if itself else None
        parts.append(_weights(distance, neighbours, alpha, self_index) @ searched)
    sums = begun + np.concatenate(parts)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    np.divide(sums, lengths, out=sums, where=lengths > 1)
    return np.where(lengths > 1, sums, sought / _UNIT)  # a length under 1 is rounding error only


def _weights(
    distance: Float[np.ndarray, "block gallery"],
    neighbours: int,
    alpha: float,
    self_index: Int[np.ndarray, " block"] | None,
) -> csr_array:
    """`self_index` is the column of each row's own photo: it has weight 1, and is not among the nearest."""
    rows, candidates = np.arange(len(distance)), distance
    if self_index is not None:
        candidates = distance.copy()
        candidates[rows, self_index] = np.inf
    count = min(neighbours, distance.shape[1] - (self_index is not None))
    near = np.zeros(distance.shape, np.bool_)
    if count > 0:
        near = candidates <= np.partition(candidates, count - 1, axis=1)[:, count - 1, None]
    if self_index is not None:
        near[rows, self_index] = True
    row, column = np.nonzero(near)
    cosine = np.maximum(1 - distance[row, column] / 2, 0)
    return csr_array((cosine**alpha, (row, column)), shape=distance.shape)
