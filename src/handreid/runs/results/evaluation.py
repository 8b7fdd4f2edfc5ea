"""evaluation.json."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SerializeAsAny

from handreid.files import read_json
from handreid.runs.records import checked
from handreid.runs.results.base import Counts, LeftOut, Metric, Number, Protocol, Result, Summary
from handreid.runs.results.sections import InferenceModes, PromptResult, Reranked, SectionResult, Separation

EVALUATION_FORMAT: Literal[2] = 2


class EvaluationCounts(Counts):
    gallery: int
    identities: int
    draws: int
    dim: int


class DrawResult(Result):
    """Queries as positions in `photos`, and for each the ranks of all right answers, from 1, best first."""

    query: list[int]
    ranks: list[list[int]]
    identity_ranks: list[int] | None = None


class Ranking(Result):
    """The ranking of all queries. These fields are at the top level of evaluation.json."""

    metrics: dict[str, Metric]
    counts: EvaluationCounts
    photos: list[str]
    subjects: list[str | None]
    draws: list[DrawResult]


class Hashes(Result):
    manifest: str
    split: str
    draws: str
    model: str


class AlignedCounts(Result):
    """Photos whose hand was aligned, and photos without a hand that were taken as they are."""

    aligned: int
    as_is: int


class AlignmentResult(Result):
    """How the model aligns hands, and photos of all draws, each once as gallery and once as query."""

    kind: Literal["upright", "hand"]
    gallery: AlignedCounts
    query: AlignedCounts


class SideCounts(Result):
    """Photos of left hands, which were mirrored, of right ones, and of hands whose side is unknown, taken as they are.
    Of `predicted` of them a landmarker gave the side.
    """

    mirrored: int
    right: int
    unknown: int
    predicted: int


class ChiralityResult(Result):
    """Photos of all draws, each once as gallery and once as query, by a model that mirrors left hands."""

    gallery: SideCounts
    query: SideCounts


class Evaluation(Result):
    """evaluation.json, and files of the same kind by another protocol."""

    format: Literal[2]
    recipe: str
    protocol: Protocol
    metrics: dict[str, Metric]
    counts: EvaluationCounts
    views: dict[str, Summary]
    separation: Separation | None = None
    hashes: Hashes
    flip_tta: bool
    notes: list[str]
    environment: dict[str, Any] = Field(default_factory=dict)
    reranked: list[Reranked] | None = None
    inference: InferenceModes | None = None
    alignment: AlignmentResult | None = None
    chirality: ChiralityResult | None = None
    prompts: list[PromptResult] | None = None
    sections: dict[str, SerializeAsAny[SectionResult]] = Field(default_factory=dict)
    photos: list[str]
    subjects: list[str | None]
    draws: list[DrawResult]
    left_out: list[LeftOut] = Field(default_factory=list)

    @property
    def number_sections(self) -> dict[str, SectionResult]:
        """Every section that declares numbers, by name, for tables, pages and trackers."""
        return ({} if self.separation is None else {"separation": self.separation}) | self.sections

    def groups(self) -> Iterator[tuple[str, Mapping[str, Number]]]:
        """All numbers of the file, grouped by part: all queries (""), a section, a view, a re-ranking, a prompt."""
        yield "", self.metrics
        for name, section in self.number_sections.items():
            yield name, section.numbers
        for view, part in self.views.items():
            yield view, part.metrics
        for way in self.reranked or ():
            yield way.name, way.metrics
        for number, prompt in enumerate(self.prompts or ()):
            yield f"prompts/{'all' if prompt.template is None else number}", prompt.accuracy


def read_evaluation(path: Path) -> Evaluation:
    """evaluation.json, or another file that `evaluate` wrote. Raises RunError."""
    return checked(path, read_json(path), Evaluation, "evaluate the run again")
