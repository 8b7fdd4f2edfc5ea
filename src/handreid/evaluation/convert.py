"""Values of `metrics/` as the results that are stored (`runs/results.py`)."""

from collections.abc import Mapping, Sequence

from handreid.metrics.intervals import Interval, verdict
from handreid.metrics.query_scores import ScoreSummary
from handreid.metrics.separation import SeparationMetrics, compare_separation
from handreid.runs.results import Counts, Difference, Metric, Number, Separation, SeparationCounts, Summary


def summary_of(summary: ScoreSummary) -> Summary:
    return Summary(
        metrics={name: Metric(value=i.value, low=i.low, high=i.high) for name, i in summary.metrics.items()},
        counts=Counts(queries=summary.queries, subjects=summary.subjects, unanswerable=summary.unanswerable),
    )


def separation_of(separation: SeparationMetrics) -> Separation:
    return Separation(
        distance="Euclidean between embeddings of unit length, 0 to 2",
        numbers={name: Number(**vars(number)) for name, number in separation.numbers.items()},
        counts=SeparationCounts(
            photos=separation.photos,
            identities=separation.identities,
            subjects=separation.subjects,
            alone=separation.alone,
        ),
        subjects=separation.per_subject,
    )


def differences_of(intervals: Mapping[str, Interval], *, confidence: bool = False) -> dict[str, Difference]:
    """By metric. All are shares, higher is better. With `confidence`, that of each interval is stored too."""
    return {
        name: Difference(
            value=interval.value,
            low=interval.low,
            high=interval.high,
            verdict=verdict(interval),
            confidence=interval.confidence if confidence else None,
        )
        for name, interval in intervals.items()
    }


def separation_differences(
    separations: Sequence[Separation | None], references: Sequence[Separation | None], resamples: int
) -> dict[str, Difference]:
    """Of one run, or of one for each training seed. Empty where the separation of any is missing, or two are of
    different photos.
    """
    systems, others = ([one.subjects for one in side if one is not None] for side in (separations, references))
    if len(systems) < len(separations) or len(others) < len(references):
        return {}
    if any(sums[key] != systems[0][key] for sums in (*systems, *others) for key in ("name", "photos")):
        return {}
    compared = compare_separation(systems, others, resamples=resamples)
    return {name: Difference(**vars(difference)) for name, difference in compared.items()}
