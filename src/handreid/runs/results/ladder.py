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
        fields = {name: getattr(evaluation, name) for name in cls.model_fields if name != "below"}
        ways = evaluation.reranked
        plain = None if ways is None else [way.model_copy(update={"ranks": None}) for way in ways]
        return cls.model_construct(**fields | {"reranked": plain, "below": below})


class Ladder(Result):
    """ladder.json."""

    format: Literal[3]
    rungs: list[LadderRung]


def read_ladder(folder: Path) -> Ladder:
    """ladder.json. Raises RunError."""
    return checked(
        folder / "ladder.json",
        read_json(folder / "ladder.json"),
        Ladder,
        "give the command of the ladder again, which writes it again",
    )
