"""evaluation-matrix-*.json: galleries and queries by view, side or data set."""

from pathlib import Path
from typing import Any, Literal

from handreid.files import read_json
from handreid.runs.records import checked
from handreid.runs.results.base import Counts, Difference, LeftOut, Metric, Result

MATRIX_FORMAT: Literal[2] = 2


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
    __test__ = False  # pytest would take it for a test class

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
    """All cells of a kind, pooled."""

    kind: str
    mirrored: bool
    cells: int
    metrics: dict[str, Metric]
    counts: Counts


class SharedCell(MatrixCell):
    """`against_same` is the difference to the cell whose gallery has the condition of the query."""

    against_same: dict[str, Difference] | None


class SharedKind(MatrixKind):
    against_same: dict[str, Difference] | None


class SharedMatrix(Result):
    """The matrix over the same people in every cell: `identities` of `of` identities."""

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


def read_matrix(path: Path) -> Matrix:
    """A file that `matrix_of` wrote. Raises RunError."""
    return checked(path, read_json(path), Matrix, "`handreid evaluate --matrix` writes it again")
