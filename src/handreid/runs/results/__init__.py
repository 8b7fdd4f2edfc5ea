"""The files that evaluations write: evaluation.json, evaluation-matrix-*.json and ladder.json, as frozen values.

Each file has a format number. A file of another version or program raises one RunError that says what to do. Fields
whose default is None are left out of the file when they are None.
"""

from handreid.runs.results.base import Counts, Difference, LeftOut, Metric, Number, Protocol, Result, Summary, Verdict
from handreid.runs.results.evaluation import (
    EVALUATION_FORMAT,
    AlignedCounts,
    AlignmentResult,
    DrawResult,
    Evaluation,
    EvaluationCounts,
    Hashes,
    Ranking,
    read_evaluation,
)
from handreid.runs.results.ladder import LADDER_FORMAT, Ladder, LadderRung, read_ladder
from handreid.runs.results.matrix import (
    MATRIX_FORMAT,
    CellCounts,
    Matrix,
    MatrixCell,
    MatrixHashes,
    MatrixKind,
    SharedCell,
    SharedKind,
    SharedMatrix,
    TestedOn,
    TrainedOn,
    read_matrix,
)
from handreid.runs.results.sections import (
    InferenceModes,
    ModeCost,
    ModeResult,
    PromptResult,
    Reranked,
    SectionResult,
    Separation,
    SeparationCounts,
)

__all__ = [
    "EVALUATION_FORMAT",
    "LADDER_FORMAT",
    "MATRIX_FORMAT",
    "AlignedCounts",
    "AlignmentResult",
    "CellCounts",
    "Counts",
    "Difference",
    "DrawResult",
    "Evaluation",
    "EvaluationCounts",
    "Hashes",
    "InferenceModes",
    "Ladder",
    "LadderRung",
    "LeftOut",
    "Matrix",
    "MatrixCell",
    "MatrixHashes",
    "MatrixKind",
    "Metric",
    "ModeCost",
    "ModeResult",
    "Number",
    "PromptResult",
    "Protocol",
    "Ranking",
    "Reranked",
    "Result",
    "SectionResult",
    "Separation",
    "SeparationCounts",
    "SharedCell",
    "SharedKind",
    "SharedMatrix",
    "Summary",
    "TestedOn",
    "TrainedOn",
    "Verdict",
    "read_evaluation",
    "read_ladder",
    "read_matrix",
]
