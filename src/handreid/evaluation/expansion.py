"""Average query expansion: search again with the mean of the query and what it found first.

Chum, Philbin, Sivic, Isard and Zisserman, "Total Recall", ICCV 2007; with weights Radenovic, Tolias and Chum,
"Fine-tuning CNN Image Retrieval with No Human Annotation", TPAMI 2018 (alpha-QE).

* No spatial verification, which Chum et al. have: the n nearest are taken as they are.
* Unlike re-ranking it looks at one query at a time: who else is searched for changes nothing.
* The n nearest are all photos no farther than the n-th: a tie at the edge is in.
"""

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from handreid.evaluation.neighbours import as_distance, factors
from handreid.evaluation.ranking import Ranking, exact_units, rank_matches

_UNIT = 2.0**25
_CELLS = 2**21  # distances in memory at a time


def expand_matches(
    query: Float[np.ndarray, "query dim"],
    gallery: Float[np.ndarray, "gallery dim"],
    query_labels: Int[np.ndarray, " query"],
    gallery_labels: Int[np.ndarray, " gallery"],
    *,
    neighbours: int,
    alpha: float = 0.0,
) -> Ranking:
    """`rank_matches` with expanded queries; see `expand`."""
    return rank_matches(
        expand(query, gallery, neighbours=neighbours, alpha=alpha), gallery, query_labels, gallery_labels
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
    Raises `DataError` for a feature that is zero or not finite.
    """
    sought, searched = exact_units(query, "query", _UNIT), exact_units(gallery, "gallery", _UNIT)
    left, right = factors(sought)[0], factors(searched)[1].T
    size = block or max(1, _CELLS // max(1, len(gallery)))
    parts = [slice(start, start + size) for start in range(0, len(query), size)]
    found = [_weights(as_distance(left[part] @ right), neighbours, alpha) @ searched for part in parts]
    sums = sought + np.concatenate([np.empty((0, query.shape[1])), *found])
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    np.divide(sums, lengths, out=sums, where=lengths > 1)
    return np.where(lengths > 1, sums, sought / _UNIT)  # of a length under 1 only rounding is left


def _weights(distance: Float[np.ndarray, "block gallery"], neighbours: int, alpha: float) -> csr_array:
    count = min(neighbours, distance.shape[1])
    if count == 0:
        return csr_array(distance.shape)
    near = distance <= np.partition(distance, count - 1, axis=1)[:, count - 1, None]
    row, column = np.nonzero(near)
    cosine = np.maximum(1 - distance[row, column] / 2, 0)
    return csr_array((cosine**alpha, (row, column)), shape=distance.shape)
