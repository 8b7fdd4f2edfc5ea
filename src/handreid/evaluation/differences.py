"""Intervals of differences as stored in results, each with its verdict."""

from collections.abc import Mapping

from handreid.metrics.intervals import Interval, verdict
from handreid.runs.results import Difference


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
