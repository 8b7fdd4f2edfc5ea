"""Sections of evaluation.json."""

from typing import Any

from pydantic import ConfigDict

from handreid.runs.results.base import Difference, Metric, Number, Result


class SectionResult(Result):
    """The result of a section of an evaluation: `numbers` by their names in the table of metrics (`metric_table.py`).

    A section may write more, in a subclass; code that only shows numbers needs no more than this class. `about` is a
    line shown below the numbers.
    """

    model_config = ConfigDict(extra="allow")

    numbers: dict[str, Number]
    about: str | None = None

    @property
    def caption(self) -> str:
        """A line that says what the numbers are."""
        return self.about or ""

    @property
    def remarks(self) -> list[str]:
        """Reasons why numbers are undefined or have no interval."""
        return sorted({number.why for number in self.numbers.values() if number.why is not None})


class SeparationCounts(Result):
    photos: int
    identities: int
    subjects: int
    alone: int


class Separation(SectionResult):
    """`subjects` has the names, and sums per subject in the same order, from which two separations are compared."""

    model_config = ConfigDict(extra="forbid")

    distance: str
    numbers: dict[str, Number]
    counts: SeparationCounts
    subjects: dict[str, list[Any]]

    @property
    def caption(self) -> str:
        return self.caption_of("subjects")

    def caption_of(self, resampled: str) -> str:
        """`resampled` is what the intervals are over."""
        alone = f", {self.counts.alone} of them with one photo" if self.counts.alone else ""
        return (
            f"distances are Euclidean between embeddings of unit length, of {self.counts.photos} test photos of "
            f"{self.counts.identities} identities{alone}; lower or higher is better as the columns say; a ratio under "
            f"1 is separable; 95 % intervals over {resampled}"
        )


class Reranked(Result):
    """One re-ranking. `against` is its gain over the plain ranking; `ranks` as in `DrawResult`, one list per draw."""

    name: str
    how: dict[str, Any]
    metrics: dict[str, Metric]
    against: dict[str, Difference]
    views: dict[str, dict[str, Metric]]
    seconds: float
    ranks: list[list[list[int]]] | None = None
    identity_ranks: list[list[int]] | None = None


class ModeCost(Result):
    milliseconds_per_photo: float
    parameters: int


class ModeResult(Result):
    metrics: dict[str, Metric]
    cost: ModeCost


class InferenceModes(Result):
    """A head that composes sentences, tested with composed and fixed ones; `difference` is composed minus fixed."""

    chosen: str
    composed: ModeResult
    fixed: ModeResult
    difference: dict[str, Difference]


class PromptResult(Result):
    """Zero-shot accuracy of a template, or of all templates averaged (None)."""

    template: str | None
    photos: int
    accuracy: dict[str, Metric]
