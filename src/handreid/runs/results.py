"""What evaluations write: evaluation.json, evaluation-matrix-*.json and ladder.json as frozen values with a format.

Who reads one gets attributes. A file of another version, or that something else wrote, is one RunError that says what
to do. Fields that are None by default are left out of the file where they are None.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, SerializeAsAny, model_serializer

from handreid.files import read_json
from handreid.runs.records import FileName, checked

EVALUATION_FORMAT: Literal[2] = 2
MATRIX_FORMAT: Literal[2] = 2
LADDER_FORMAT: Literal[3] = 3
Verdict = Literal["better", "worse", "within noise"]


class Result(BaseModel):
    """A part of a file. Keys that are not known are refused."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    @model_serializer(mode="wrap")
    def _without_what_is_absent(self, write: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        fields = type(self).model_fields
        absent = {name for name, field in fields.items() if not field.is_required() and field.default is None}
        written = write(self)
        return {name: value for name, value in written.items() if value is not None or name not in absent}


class Number(Result):
    """A number with its 95 % interval over subjects; None where it is not defined, and then `why` says so."""

    value: float | None
    low: float | None
    high: float | None
    why: str | None = None


class Metric(Number):
    """A number that is always there."""

    value: float
    low: float
    high: float


class Difference(Result):
    """Ours minus theirs. The verdict is that of the interval, and knows whether lower is better."""

    value: float
    low: float
    high: float
    verdict: Verdict
    confidence: float | None = None


class SectionResult(Result):
    """What a section of an evaluation found: `numbers` by their names in the table of metrics (`metric_table.py`).

    A section may write more beside them in a class of its own; who only shows numbers needs no more than this. `about`
    is a line that stands below them.
    """

    model_config = ConfigDict(extra="allow")

    numbers: dict[str, Number]
    about: str | None = None

    @property
    def caption(self) -> str:
        """What the numbers are of, in a line."""
        return self.about or ""

    @property
    def remarks(self) -> list[str]:
        """Why numbers are not defined, or have no interval."""
        return sorted({one.why for one in self.numbers.values() if one.why is not None})


class SeparationCounts(Result):
    photos: int
    identities: int
    subjects: int
    alone: int


class Separation(SectionResult):
    """`subjects` has the names, and sums per subject in their order, from which spaces are compared."""

    model_config = ConfigDict(extra="forbid")

    distance: str
    numbers: dict[str, Number]
    counts: SeparationCounts
    subjects: dict[str, list[Any]]

    @property
    def caption(self) -> str:
        alone = f", {self.counts.alone} of them with one photo" if self.counts.alone else ""
        return (
            f"distances are Euclidean between embeddings of unit length, of {self.counts.photos} test photos of "
            f"{self.counts.identities} identities{alone}; lower or higher is better as the columns say; a ratio under "
            "1 is separable; 95 % intervals over subjects"
        )


class Protocol(Result):
    name: str
    label: str
    view: str
    cameras: str = "ignore"


class Counts(Result):
    """`queries` of a draw; of each, where draws differ. `unanswerable` ones of all draws."""

    queries: int | list[int]
    subjects: int
    unanswerable: int | None = None

    @property
    def most_queries(self) -> int:
        """Of a draw; the most, where draws differ."""
        return self.queries if isinstance(self.queries, int) else max(self.queries)


class EvaluationCounts(Counts):
    gallery: int
    identities: int
    draws: int
    dim: int


class DrawResult(Result):
    """Queries as positions in `photos`, and the ranks of all their right answers, best first, from 1."""

    query: list[int]
    ranks: list[list[int]]
    identity_ranks: list[int] | None = None


class Ranking(Result):
    """Of all queries. The fields stand at the top of evaluation.json."""

    metrics: dict[str, Metric]
    counts: EvaluationCounts
    photos: list[str]
    subjects: list[str | None]
    draws: list[DrawResult]


class Summary(Result):
    """Some queries: their metrics, and how many they are."""

    metrics: dict[str, Metric]
    counts: Counts


class Hashes(Result):
    manifest: str
    split: str
    draws: str
    model: str


class Reranked(Result):
    """One way of ranking anew; `against` is the gain on the plain ranking, `ranks` as in `Draw`, draw by draw."""

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
    """A head that composes sentences, tested in both ways; `difference` is composed minus fixed."""

    chosen: str
    composed: ModeResult
    fixed: ModeResult
    difference: dict[str, Difference]


class PromptResult(Result):
    """How well a template, or all of them averaged (None), name what the photos show."""

    template: str | None
    photos: int
    accuracy: dict[str, Metric]


class LeftOut(Result):
    why: str
    subjects: int
    photos: int
    copies: int
    names: list[str]
    dataset: str | None = None


class Evaluation(Result):
    """evaluation.json, and others of its kind by another protocol."""

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
    environment: dict[str, Any] = {}
    reranked: list[Reranked] | None = None
    inference: InferenceModes | None = None
    prompts: list[PromptResult] | None = None
    sections: dict[str, SerializeAsAny[SectionResult]] = {}
    photos: list[str]
    subjects: list[str | None]
    draws: list[DrawResult]
    left_out: list[LeftOut] = []

    @property
    def number_sections(self) -> dict[str, SectionResult]:
        """Every section that declares numbers, by its name: what tables, pages and trackers go through."""
        return ({} if self.separation is None else {"separation": self.separation}) | self.sections

    def groups(self) -> Iterator[tuple[str, Mapping[str, Number]]]:
        """All numbers of the file, by the part that they are of: all queries (""), a section, a view, a re-ranking."""
        yield "", self.metrics
        for name, section in self.number_sections.items():
            yield name, section.numbers
        for view, part in self.views.items():
            yield view, part.metrics
        for way in self.reranked or ():
            yield way.name, way.metrics
        for number, prompt in enumerate(self.prompts or ()):
            yield f"prompts/{'all' if prompt.template is None else number}", prompt.accuracy


class TrainedOn(Result):
    recipe: str
    dataset: str
    view: str
    protocol: str
    label: str
    subjects: int
    photos: int
    views: dict[str, int]
    after: list[str]
    manifest: str


class TestedOn(Result):
    __test__ = False  # no test, whatever pytest takes it for

    name: str
    protocol: str
    label: str
    view: str
    subjects: int
    photos: int
    manifest: str


class CellCounts(Counts):
    gallery: int
    draws: int | None = None


class MatrixCell(Result):
    """`metrics` are None where the cell is blank, and `blank` says why."""

    gallery: str
    query: str
    kind: str
    mirrored: bool
    metrics: dict[str, Metric] | None
    counts: CellCounts
    blank: str | None


class MatrixKind(Result):
    """All cells of a kind together."""

    kind: str
    mirrored: bool
    cells: int
    metrics: dict[str, Metric]
    counts: Counts


class SharedCell(MatrixCell):
    """`against_same` is the difference to the cell whose gallery is of the query's own condition."""

    against_same: dict[str, Difference] | None


class SharedKind(MatrixKind):
    against_same: dict[str, Difference] | None


class SharedMatrix(Result):
    """Over the same people: `identities` out of `of`."""

    identities: int
    of: int
    cells: list[SharedCell]
    kinds: list[SharedKind]


class MatrixHashes(Result):
    manifest: str
    draws: str
    model: str


class Matrix(Result):
    """evaluation-matrix-*.json."""

    format: Literal[2]
    recipe: str
    by: Literal["view", "side", "dataset"]
    trained_on: TrainedOn
    tested_on: list[TestedOn]
    cells: list[MatrixCell]
    kinds: list[MatrixKind]
    shared: SharedMatrix | None
    left_out: list[LeftOut]
    cameras: str
    flip_tta: bool
    notes: list[str]
    hashes: MatrixHashes
    environment: dict[str, Any]


class LadderRung(Result):
    """What a ladder keeps of a rung's evaluation; `below` is the difference to the rung below, by metric."""

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
        """Without the ranks of every query."""
        kept = {name: getattr(evaluation, name) for name in cls.model_fields if name != "below"}
        ways = evaluation.reranked
        plain = None if ways is None else [way.model_copy(update={"ranks": None}) for way in ways]
        return cls.model_construct(**kept | {"reranked": plain, "below": below})


class Ladder(Result):
    """ladder.json."""

    format: Literal[3]
    rungs: list[LadderRung]


def read_evaluation(path: Path) -> Evaluation:
    """evaluation.json, or another that `evaluate` wrote. Raises RunError."""
    return checked(path, read_json(path), Evaluation, "evaluate the run again")


def read_matrix(path: Path) -> Matrix:
    """A matrix that `matrix_of` wrote. Raises RunError."""
    return checked(path, read_json(path), Matrix, "`handreid evaluate --matrix` writes it anew")


def read_ladder(folder: Path) -> Ladder:
    """ladder.json. Raises RunError."""
    return checked(
        folder / "ladder.json",
        read_json(folder / "ladder.json"),
        Ladder,
        "give the command of the ladder again, which writes it anew",
    )
