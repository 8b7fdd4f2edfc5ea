"""ladder.json."""

from pathlib import Path
from typing import Literal

from pydantic import SerializeAsAny

from handreid.files import read_json
from handreid.runs.records import FileName, checked
from handreid.runs.results.base import Difference, Metric, Protocol, Result, Summary
from handreid.runs.results.evaluation import Evaluation, EvaluationCounts, Hashes
from handreid.runs.results.sections import PromptResult, Reranked, SectionResult, Separation

LADDER_FORMAT: Literal[3] = 3
SEEDS_FORMAT: Literal[4] = 4  # of a ladder over several training seeds


class LadderRung(Result):
    """The part of a rung's evaluation in ladder.json; `below` is the difference to the rung below, by metric."""

    recipe: FileName
    protocol: Protocol | None = None
    metrics: dict[str, Metric] | None = None
    counts: EvaluationCounts | None = None
    views: dict[str, Summary] | None = None
    separation: Separation | None = None
    hashes: Hashes | None = None
    prompts: list[PromptResult] | None = None
    reranked: list[Reranked] | None = None
    sections: dict[str, SerializeAsAny[SectionResult]] | None = None
    below: dict[str, Difference] | None

    @classmethod
    def of(cls, evaluation: Evaluation, below: dict[str, Difference] | None) -> "LadderRung":
        """The rung of an evaluation, without the ranks of its queries."""
        fields = {name: getattr(evaluation, name) for name in LadderRung.model_fields if name != "below"}
        ways = evaluation.reranked
        plain = None if ways is None else [way.model_copy(update={"ranks": None}) for way in ways]
        return cls.model_construct(**fields | {"reranked": plain, "below": below})

    @property
    def runs(self) -> list[str]:
        """The folders of its runs in that of the ladder."""
        return [self.recipe]


class SeedResult(Result):
    """A run of a rung: its training seed, its folder in that of the ladder, its model's hash, and its metrics."""

    seed: int
    run: FileName
    model: str
    metrics: dict[str, float]


class SeedRung(LadderRung):
    """A rung with a run for each training seed, or a single run if no seed changes it.

    With several, all numbers are means over the seeds, with intervals over subjects and seeds; `hashes.model` is the
    first seed's, and what has values of one run only (views, prompts) is in their evaluations.
    """

    protocol: Protocol
    metrics: dict[str, Metric]
    counts: EvaluationCounts
    hashes: Hashes
    seeds: list[SeedResult]

    @property
    def number_sections(self) -> dict[str, SectionResult]:
        """As of an evaluation."""
        return ({} if self.separation is None else {"separation": self.separation}) | (self.sections or {})

    @property
    def runs(self) -> list[str]:
        return [result.run for result in self.seeds]


class Ladder(Result):
    """ladder.json."""

    format: Literal[3]
    rungs: list[LadderRung]


class SeedLadder(Result):
    """ladder.json of a ladder over several training seeds; `seeds` is how many."""

    format: Literal[4]
    seeds: int
    rungs: list[SeedRung]


def read_ladder(folder: Path) -> Ladder | SeedLadder:
    """ladder.json. Raises RunError."""
    path, advice = folder / "ladder.json", "give the command of the ladder again, which writes it again"
    content = read_json(path)
    if content.get("format") == SEEDS_FORMAT:
        return checked(path, content, SeedLadder, advice)
    return checked(path, content, Ladder, advice)
