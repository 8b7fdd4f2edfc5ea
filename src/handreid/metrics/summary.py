"""All ranking metrics from two arrays of features and their labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from handreid.errors import DataError
from handreid.metrics.arrays import check_features
from handreid.metrics.inputs import as_features, as_labels, joint_numbers
from handreid.metrics.intervals import Interval, intervals
from handreid.metrics.ranking import rank_matches
from handreid.metrics.ranking_metrics import metrics as metrics_of


@dataclass(frozen=True, eq=False)
class Metrics:
    """`values` are means over the queries that have a right answer, in [0, 1], by name: `rank1`, `rank5`, `rank10`,
    `map`, `map_trapezoid`, `mrr`, `minp`, `r_precision`, `map_at_r`, `identity_rank1`, `identity_rank5`,
    `identity_rank10`. `intervals` are their 95 % intervals over subjects; None where no subjects were given.
    `per_query` are the values of each query, NaN for those without a right answer, of which there are `unanswerable`.
    """

    values: dict[str, float]
    intervals: dict[str, Interval] | None
    per_query: dict[str, Float[np.ndarray, " query"]]
    unanswerable: int

    def __getitem__(self, name: str) -> float:
        return self.values[name]


def metrics(
    query: object,
    gallery: object,
    query_labels: object,
    gallery_labels: object,
    *,
    cameras: tuple[object, object] | None = None,
    subjects: object = None,
    resamples: int = 10_000,
    seed: int = 0,
) -> Metrics:
    """Ranks the gallery for each query by cosine and computes every metric of the ranking.

    Features as for `rank`. Labels are texts or whole numbers, one for each photo. `cameras` are those of the queries
    and of the gallery: gallery photos of the query's label and camera are then left out (the rule of Market-1501).
    `subjects` are the persons of the queries, as labels may be finer (a hand, a view): subjects are resampled for the
    intervals, each with all of its queries. A tie ranks the wrong photo first. Raises DataError as `rank` does, for
    labels, cameras or subjects that do not fit, and where no query has a right answer.
    """
    queries, photos = as_features(query, "query"), as_features(gallery, "gallery")
    check_features(queries, photos)
    labels_of_queries = as_labels(query_labels, "query_labels", len(queries))
    numbers = joint_numbers(labels_of_queries, as_labels(gallery_labels, "gallery_labels", len(photos)), "labels")
    taken_by = _cameras(cameras, len(queries), len(photos))
    people = None if subjects is None else as_labels(subjects, "subjects", len(queries))
    ranking = rank_matches(queries, photos, *numbers, **taken_by)
    if ranking.unanswerable == len(queries):
        raise DataError(
            f"none of {len(queries)} queries has a right answer in the gallery: no label of theirs is there"
            + (", from another camera" if cameras is not None else "")
        )
    per_query = metrics_of(ranking)
    estimates = None
    if people is not None:
        numbered = joint_numbers(people, people, "subjects")[0]
        estimates = intervals(per_query, numbered, resamples=resamples, seed=seed)
    values = {name: float(np.nanmean(value)) for name, value in per_query.items()}
    return Metrics(values, estimates, per_query, ranking.unanswerable)


def _cameras(cameras: tuple[object, object] | None, queries: int, photos: int) -> dict[str, Any]:
    if cameras is None:
        return {}
    if not isinstance(cameras, Sequence) or len(cameras) != 2:
        raise DataError("cameras are a pair: those of the queries, and those of the gallery")
    of_query, of_gallery = (
        as_labels(values, f"cameras of the {name}", count)
        for values, name, count in zip(cameras, ("queries", "gallery"), (queries, photos), strict=True)
    )
    query, gallery = joint_numbers(of_query, of_gallery, "cameras")
    return {"query_cameras": query, "gallery_cameras": gallery}
