"""Intervals of differences as results write them, each with its verdict."""

from collections.abc import Mapping

from handreid.metrics.intervals import Interval, verdict
from handreid.runs.results import Difference


def differences_of(found: Mapping[str, Interval], *, confidence: bool = False) -> dict[str, Difference]:
    """By metric. All are shares, of which more is better. With `confidence`, also that of each interval."""
    return {
        name: Difference(
            value=one.value,
            low=one.low,
            high=one.high,
            verdict=verdict(one),
            confidence=one.confidence if confidence else None,
        )
        for name, one in found.items()
    }
