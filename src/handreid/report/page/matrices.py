"""The cross-condition matrices in the runs' folders, as tables of the page."""

from collections.abc import Sequence
from typing import Any

from handreid.evaluation.matrix import read_matrices
from handreid.evaluation.tables.matrix import caption, cell_at, galleries, queries, query_name, remarks
from handreid.report.compare.runs import Compared
from handreid.runs.folder import Run
from handreid.runs.results import Matrix, MatrixCell


def tables(runs: Sequence[Compared]) -> list[dict[str, Any]]:
    """A table of rank-1 per cell, for each matrix of each run."""
    return [_table(run.name, matrix) for run in runs for matrix in read_matrices(Run(run.folder))]


def _table(name: str, matrix: Matrix) -> dict[str, Any]:
    cells = matrix.cells
    columns = galleries(cells)
    return {
        "title": f"{name}: rank-1 by {matrix.by}",
        "caption": caption(matrix),
        "columns": columns,
        "rows": [
            {
                "name": query_name(query),
                "cells": [_cell(cell_at(cells, gallery, query)) for gallery in columns],
            }
            for query in queries(cells)
        ],
        "notes": remarks(matrix),
    }


def _cell(cell: MatrixCell | None) -> dict[str, str] | None:
    if cell is None or not cell.metrics:
        return None
    rank1 = cell.metrics["rank1"]
    strength = round(45 * rank1.value)  # percent of the accent colour; at most 45, so that text stays readable
    return {
        "text": f"{100 * rank1.value:.1f}",
        "range": f"[{100 * rank1.low:.1f}, {100 * rank1.high:.1f}]",
        "kind": cell.kind,
        "colour": f"color-mix(in srgb, var(--accent) {strength}%, var(--surface))",
    }
