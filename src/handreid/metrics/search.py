"""Identification: the most similar gallery photos of each query, best first, with their scores.

* Scores are exact (see `arrays`), so equal photos tie to the last bit. Ties come in the order of the gallery; with
  `query_labels` a photo of another identity comes before one of the query's own, as everywhere in handreid.
* Arrays, lists and torch tensors are accepted.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from handreid.errors import DataError
from handreid.metrics.arrays import UNIT, block_size, check_features, exact_unit_vectors
from handreid.metrics.inputs import as_features, as_labels, joint_numbers
from handreid.metrics.k_reciprocal import encode, rerank_blocks
from handreid.metrics.neighbours import points_of
from handreid.metrics.query_expansion import expand, expand_gallery
from handreid.recipe.rerank import KReciprocal, QueryExpansion, Rerank

_CELLS = 2**22  # scores in memory at a time, of 8 bytes each


@dataclass(frozen=True, eq=False)
class Matches:
    """The best matches of each query, best first. All arrays are of shape (queries, k), k at most the gallery's size.

    `indices` are positions in the gallery, from 0. `scores` are cosines in [-1, 1] (`rank`), or those of `rerank`;
    higher is more similar. `labels` are those of the gallery photos, None where none were given.
    """

    indices: Int[np.ndarray, "query k"]
    scores: Float[np.ndarray, "query k"]
    labels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.indices)


def rank(
    query: object,
    gallery: object,
    k: int | None = 10,
    *,
    labels: object = None,
    query_labels: object = None,
    by: Literal["photo", "label"] = "photo",
) -> Matches:
    """The `k` gallery photos (None: all) with the largest cosine to each query.

    `query` is (queries, dim), or (dim,) for a single one; `gallery` is (photos, dim). Both are real numbers of any type
    and need not be normalised. `labels` are the identities of the gallery photos, texts or whole numbers; by `label`
    each identity comes once, by its most similar photo. `query_labels` is used for ties only (see the module).
    Raises DataError for features that are empty, zero, not finite or of two widths, labels that do not fit, or a k
    under 1.
    """
    queries, photos = _features(query, gallery)
    people = _People.of(len(queries), len(photos), labels, query_labels)
    sought, units = exact_unit_vectors(queries, "query"), exact_unit_vectors(photos, "gallery").T
    size = block_size(None, _CELLS, len(photos))
    blocks = (sought[start : start + size] @ units / UNIT**2 for start in range(0, len(sought), size))
    return _best(blocks, k, people, by)


def rerank(
    query: object,
    gallery: object,
    k: int | None = 10,
    *,
    how: Rerank | None = None,
    labels: object = None,
    query_labels: object = None,
    by: Literal["photo", "label"] = "photo",
) -> Matches:
    """As `rank`, with re-ranking. `how` is from `handreid.recipe`:

    * `KReciprocal()`, the default: scores are 1 - d* in [0, 1] (Zhong et al. 2017, eq. 12). All queries are processed
      together, so that a result depends on the other queries.
    * `QueryExpansion()`, `GalleryExpansion()`: scores are cosines after averaging the queries, or the gallery photos.

    Raises DataError as `rank` does.
    """
    queries, photos = _features(query, gallery)
    way = how or KReciprocal()
    if not isinstance(way, KReciprocal):
        if isinstance(way, QueryExpansion):
            queries = expand(queries, photos, neighbours=way.neighbours, alpha=way.alpha)
        else:
            photos = expand_gallery(photos, neighbours=way.neighbours, alpha=way.alpha)
        return rank(queries, photos, k, labels=labels, query_labels=query_labels, by=by)
    people = _People.of(len(queries), len(photos), labels, query_labels)
    encoding = encode(points_of(queries, photos), way.k1, way.k2, way.formula)
    blocks = (1 - distances for distances in rerank_blocks(encoding, len(queries), way.lambda_))
    return _best(blocks, k, people, by, encoding.tolerance(way.lambda_))


@dataclass(frozen=True, eq=False)
class _People:
    """Identities where labels were given. `numbers` (gallery) and `query` are integers, equal where the labels are."""

    labels: np.ndarray | None
    numbers: Int[np.ndarray, " gallery"] | None
    query: Int[np.ndarray, " query"] | None

    @classmethod
    def of(cls, queries: int, photos: int, labels: object, query_labels: object) -> "_People":
        if labels is None:
            if query_labels is not None:
                raise DataError("query_labels are given and labels are not: give both")
            return cls(None, None, None)
        gallery_names = as_labels(labels, "labels", photos)
        query_names = gallery_names[:0] if query_labels is None else as_labels(query_labels, "query_labels", queries)
        if query_labels is None:
            return cls(gallery_names, joint_numbers(gallery_names, gallery_names, "labels")[1], None)
        query, numbers = joint_numbers(query_names, gallery_names, "labels")
        return cls(gallery_names, numbers, query)

    def same_identity(self, query: int) -> Bool[np.ndarray, " gallery"]:
        """True for gallery photos of the query's identity; all False where the queries have no labels."""
        assert self.numbers is not None  # noqa: S101 - for the type checker
        return self.numbers == self.query[query] if self.query is not None else np.zeros(len(self.numbers), np.bool_)


def _features(query: object, gallery: object) -> tuple[np.ndarray, np.ndarray]:
    queries, photos = as_features(query, "query"), as_features(gallery, "gallery")
    check_features(queries, photos)
    return queries, photos


def _best(
    blocks: Iterable[Float[np.ndarray, "block gallery"]],
    k: int | None,
    people: _People,
    by: Literal["photo", "label"],
    tolerance: float = 0.0,
) -> Matches:
    """The k best of each row. Photos of the query's identity rank behind others with a score lower by `tolerance`."""
    if k is not None and (isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1):
        raise DataError(f"k is {k!r}; give how many photos to name for each query, 1 or more, or None for all")
    if by not in ("photo", "label"):
        raise DataError(f"by is {by!r}; give 'photo', or 'label' for each identity once")
    if by == "label" and people.labels is None:
        raise DataError("by='label' needs labels: who is on each gallery photo")
    indices, scores = [], []
    for number, row in enumerate(row for block in blocks for row in block):
        same = people.same_identity(number) if people.numbers is not None else np.zeros(len(row), np.bool_)
        places = _order(np.where(same, row - tolerance, row), same, None if by == "label" else k)
        if by == "label":
            assert people.numbers is not None  # noqa: S101 - for the type checker
            first_places = np.unique(people.numbers[places], return_index=True)[1]
            places = places[np.sort(first_places)[:k]]
        indices.append(places)
        scores.append(row[places])
    ranked = np.array(indices, np.int64)
    return Matches(ranked, np.array(scores), None if people.labels is None else people.labels[ranked])


def _order(
    scores: Float[np.ndarray, " gallery"], same: Bool[np.ndarray, " gallery"], k: int | None
) -> Int[np.ndarray, " first"]:
    """Positions of the k largest scores; equal scores: those that are not `same` first, then by position."""
    candidates = np.arange(len(scores))
    if k is not None and k < len(scores):
        least = np.partition(scores, len(scores) - k)[len(scores) - k]
        candidates = np.flatnonzero(scores >= least)
    order: Int[np.ndarray, " first"] = candidates[np.lexsort((same[candidates], -scores[candidates]))][:k]
    return order
