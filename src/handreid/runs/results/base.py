"""What every result file is made of: numbers with intervals, differences, counts, and the protocol."""

from collections.abc import Callable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_serializer

Verdict = Literal["better", "worse", "within noise"]


class Result(BaseModel):
    """A part of a result file. Unknown keys are refused."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    @model_serializer(mode="wrap")
    def _without_absent_fields(self, write: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        fields = type(self).model_fields
        absent = {name for name, field in fields.items() if not field.is_required() and field.default is None}
        written = write(self)
        return {name: value for name, value in written.items() if value is not None or name not in absent}


class Number(Result):
    """A number with its 95 % interval over subjects. Undefined values are None, with the reason in `why`."""

    value: float | None
    low: float | None
    high: float | None
    why: str | None = None


class Metric(Number):
    """A number that is always defined."""

    value: float
    low: float
    high: float


class Difference(Result):
    """A run's value minus the reference's. The verdict follows from the interval and whether lower is better."""

    value: float
    low: float
    high: float
    verdict: Verdict
    confidence: float | None = None


class Protocol(Result):
    name: str
    label: str
    view: str
    cameras: str = "ignore"


class Counts(Result):
    """`queries` per draw: one number, or a list where draws differ. `unanswerable` queries are of all draws."""

    queries: int | list[int]
    subjects: int
    unanswerable: int | None = None

    @property
    def most_queries(self) -> int:
        """Queries per draw; of the largest draw, where draws differ."""
        return self.queries if isinstance(self.queries, int) else max(self.queries)


class Summary(Result):
    """Metrics and counts of a subset of the queries."""

    metrics: dict[str, Metric]
    counts: Counts


class LeftOut(Result):
    why: str
    subjects: int
    photos: int
    copies: int
    names: list[str]
    dataset: str | None = None
