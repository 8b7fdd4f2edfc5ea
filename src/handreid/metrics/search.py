"""Who is it? The gallery photos that are most like each query, best first, with their scores.

* Scores are exact (see `arrays`), so equal photos tie to the last bit. Ties come in the order of the gallery; with
  `query_labels` a photo of somebody else comes before one of the query's own identity, as everywhere in handreid.
* Arrays, lists and torch tensors are taken alike.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from handreid.errors import DataError
from handreid.metrics.arrays import UNIT, block_size, check_features, exact_unit_vectors
from handreid.metrics.given import as_features, as_labels, joint_numbers
from handreid.metrics.k_reciprocal import encode, rerank_blocks
from handreid.metrics.neighbours import points_of
from handreid.metrics.query_expansion import expand, expand_gallery
from handreid.recipe.rerank import KReciprocal, QueryExpansion, Rerank

_CELLS = 2**22  # scores in memory at a time, of 8 bytes each


@dataclass(frozen=True, eq=False)
class Matches:
    """What each query found, best first. All arrays are of shape (queries, k), k being no more than there are.

    `indices` are places in the gallery, from 0. `scores` are cosines in [-1, 1] (`rank`), or what `rerank` says; more
    is more alike. `labels` are those of the gallery photos, None where none were given.
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

    `query` is (queries, dim), or (dim,) for a single one; `gallery` is (photos, dim), in any type of real numbers and
    of any length: cosines are of the directions. `labels` says who is on each gallery photo, in texts or whole numbers;
    by `label` each of them comes once, by its most similar photo. `query_labels` decides ties alone (see the module).
    Raises DataError for features that are empty, zero, not finite or of two widths, labels that do not fit, or a k
    under 1.
    """
    asked, searched = _features(query, gallery)
    people = _People.of(len(asked), len(searched), labels, query_labels)
    sought, units = exact_unit_vectors(asked, "query"), exact_unit_vectors(searched, "gallery").T
    size = block_size(None, _CELLS, len(searched))
    blocks = (sought[first : first + size] @ units / UNIT**2 for first in range(0, len(sought), size))
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
    """As `rank`, by neighbours rather than by cosines alone. `how` is from `handreid.recipe`:

    * `KReciprocal()`, the default: scores are 1 - d* in [0, 1] (Zhong et al. 2017, eq. 12). All queries are looked at
      together, so that an answer depends on who else is searched for.
    * `QueryExpansion()`, `GalleryExpansion()`: scores are cosines of what queries, or gallery photos, are averaged to.

    Raises DataError as `rank` does.
    """
    asked, searched = _features(query, gallery)
    way = how or KReciprocal()
    if not isinstance(way, KReciprocal):
        if isinstance(way, QueryExpansion):
            asked = expand(asked, searched, neighbours=way.neighbours, alpha=way.alpha)
        else:
            searched = expand_gallery(searched, neighbours=way.neighbours, alpha=way.alpha)
        return rank(asked, searched, k, labels=labels, query_labels=query_labels, by=by)
    people = _People.of(len(asked), len(searched), labels, query_labels)
    encoding = encode(points_of(asked, searched), way.k1, way.k2, way.formula)
    blocks = (1 - one for one in rerank_blocks(encoding, len(asked), way.lambda_))
    return _best(blocks, k, people, by, encoding.tolerance(way.lambda_))


@dataclass(frozen=True, eq=False)
class _People:
    """Who is on the photos, where that is known. `numbers` are of the gallery, equal where the labels are."""

    labels: np.ndarray | None
    numbers: Int[np.ndarray, " gallery"] | None
    query: Int[np.ndarray, " query"] | None

    @classmethod
    def of(cls, queries: int, photos: int, labels: object, query_labels: object) -> "_People":
        if labels is None:
            if query_labels is not None:
                raise DataError("query_labels are given and labels are not: give both")
            return cls(None, None, None)
        known = as_labels(labels, "labels", photos)
        own = known[:0] if query_labels is None else as_labels(query_labels, "query_labels", queries)
        if query_labels is None:
            return cls(known, joint_numbers(known, known, "labels")[1], None)
        query, numbers = joint_numbers(own, known, "labels")
        return cls(known, numbers, query)

    def own(self, query: int) -> Bool[np.ndarray, " gallery"]:
        """Which gallery photos are of the query's identity, as far as that is known."""
        assert self.numbers is not None  # noqa: S101 - for the type checker
        return self.numbers == self.query[query] if self.query is not None else np.zeros(len(self.numbers), np.bool_)


def _features(query: object, gallery: object) -> tuple[np.ndarray, np.ndarray]:
    asked, searched = as_features(query, "query"), as_features(gallery, "gallery")
    check_features(asked, searched)
    return asked, searched


def _best(
    blocks: Iterable[Float[np.ndarray, "block gallery"]],
    k: int | None,
    people: _People,
    by: Literal["photo", "label"],
    tolerance: float = 0.0,
) -> Matches:
    """The best of each row of scores. A query's own photos give way to others that are less alike by `tolerance`."""
    if k is not None and (isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1):
        raise DataError(f"k is {k!r}; give how many photos to name for each query, 1 or more, or None for all")
    if by not in ("photo", "label"):
        raise DataError(f"by is {by!r}; give 'photo', or 'label' for each identity once")
    if by == "label" and people.labels is None:
        raise DataError("by='label' needs labels: who is on each gallery photo")
    indices, scores = [], []
    for number, row in enumerate(row for block in blocks for row in block):
        own = people.own(number) if people.numbers is not None else np.zeros(len(row), np.bool_)
        places = _order(np.where(own, row - tolerance, row), own, None if by == "label" else k)
        if by == "label":
            assert people.numbers is not None  # noqa: S101 - for the type checker
            first = np.unique(people.numbers[places], return_index=True)[1]
            places = places[np.sort(first)[:k]]
        indices.append(places)
        scores.append(row[places])
    found = np.array(indices, np.int64)
    return Matches(found, np.array(scores), None if people.labels is None else people.labels[found])


def _order(
    scores: Float[np.ndarray, " gallery"], own: Bool[np.ndarray, " gallery"], k: int | None
) -> Int[np.ndarray, " first"]:
    """Places of the k largest scores; of equal ones those that are not `own` first, then by place."""
    candidates = np.arange(len(scores))
    if k is not None and k < len(scores):
        least = np.partition(scores, len(scores) - k)[len(scores) - k]
        candidates = np.flatnonzero(scores >= least)
    order: Int[np.ndarray, " first"] = candidates[np.lexsort((own[candidates], -scores[candidates]))][:k]
    return order
