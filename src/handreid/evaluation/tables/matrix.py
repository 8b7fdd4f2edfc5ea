"""A matrix as tables, for the terminal, Markdown and figures.

Rows are queries, each followed by the same photos mirrored if requested; columns are galleries. A blank cell could not
be measured with these photos; the reason is listed below the table.
"""

from collections.abc import Sequence

from handreid.evaluation.tables.format import format_difference, format_number, markdown_table
from handreid.messages import markdown as as_markdown
from handreid.metric_table import title
from handreid.runs.results import Matrix, MatrixCell, MatrixKind, SharedKind

SHOWN = ("rank1", "map")
BLANK = "-"


def galleries(cells: Sequence[MatrixCell]) -> list[str]:
    return list(dict.fromkeys(cell.gallery for cell in cells))


def queries(cells: Sequence[MatrixCell]) -> list[tuple[str, bool]]:
    """Names of the rows, and whether mirrored: each mirrored one directly after its original."""
    present = {(cell.query, cell.mirrored) for cell in cells}
    names = dict.fromkeys(cell.query for cell in cells)
    return [(name, mirrored) for name in names for mirrored in (False, True) if (name, mirrored) in present]


def cell_at(cells: Sequence[MatrixCell], gallery: str, query: tuple[str, bool]) -> MatrixCell | None:
    """None where the matrix has no such cell, as for mirrored queries in galleries of their own condition."""
    return next((c for c in cells if (c.gallery, c.query, c.mirrored) == (gallery, *query)), None)


def query_name(query: tuple[str, bool]) -> str:
    return f"{query[0]}, mirrored" if query[1] else query[0]


def grid(cells: Sequence[MatrixCell], metric: str) -> tuple[list[str], list[list[str]]]:
    """Column heads and rows of text, percent with intervals."""
    columns = galleries(cells)
    rows = [
        [query_name(query), *(_text(cell_at(cells, gallery, query), metric) for gallery in columns)]
        for query in queries(cells)
    ]
    return ["query, by gallery", *columns], rows


def size_grid(cells: Sequence[MatrixCell]) -> tuple[list[str], list[list[str]]]:
    """Numbers of queries and their subjects, and of gallery photos, of each cell."""
    columns = galleries(cells)
    rows = [[query_name(query), *(_size(cell_at(cells, name, query)) for name in columns)] for query in queries(cells)]
    return ["query, by gallery", *columns], rows


KIND_COLUMNS = ("gallery and query", *map(title, SHOWN), "cells", "queries", "subjects")


def kind_rows(kinds: Sequence[MatrixKind]) -> list[list[str]]:
    """A row for each kind of cells."""
    return [
        [
            kind.kind + (", mirrored" if kind.mirrored else ""),
            *(format_number(metric, kind.metrics[metric]) for metric in SHOWN),
            str(kind.cells),
            f"{kind.counts.most_queries:,}",
            str(kind.counts.subjects),
        ]
        for kind in kinds
    ]


SHARED_COLUMNS = (
    "gallery and query",
    *map(title, SHOWN),
    *(f"{title(metric)} against the query's own kind" for metric in SHOWN),
)


def shared_rows(kinds: Sequence[SharedKind]) -> list[list[str]]:
    """Kinds over the same people, with differences to galleries of the queries' own condition."""
    lost = [kind.against_same for kind in kinds]
    return [
        [*row[:3], *(format_difference(metric, kind[metric]) if kind else "" for metric in SHOWN)]
        for row, kind in zip(kind_rows(kinds), lost, strict=True)
    ]


def stack_matrices(matrices: Sequence[Matrix], metric: str) -> tuple[list[str], list[list[str]]]:
    """Matrices of several runs as one table: a row per run (what it was trained on), a column per kind of cells.

    Runs trained on different subjects leave out different ones: where the draws differ, so do the people, and the
    numbers must not be subtracted.
    """
    kinds = list(dict.fromkeys((kind.kind, kind.mirrored) for matrix in matrices for kind in matrix.kinds))
    rows = []
    for matrix in matrices:
        texts = {(kind.kind, kind.mirrored): format_number(metric, kind.metrics[metric]) for kind in matrix.kinds}
        rows.append([describe_training(matrix), matrix.hashes.draws[:8], *(texts.get(key, "") for key in kinds)])
    return ["trained on", "draws", *(key + (", mirrored" if mirrored else "") for key, mirrored in kinds)], rows


def describe_training(matrix: Matrix) -> str:
    """The run's training data, in a line."""
    training = matrix.trained_on
    after = f", after {' and '.join(training.after)}" if training.after else ""
    if not training.photos:
        return f"{training.recipe}: not trained{after}"
    view = "all views" if training.view == "all" else training.view
    people = f"{training.subjects} subjects, {training.photos:,} photos"
    return f"{training.recipe}: trained on {training.dataset}, {view} ({people}), identity = {training.label}{after}"


def describe_test(matrix: Matrix) -> str:
    """The test data, in a line."""
    parts = []
    for test in matrix.tested_on:
        view = "" if test.view == "all" else f", {test.view}"
        parts.append(f"{test.name}, protocol {test.protocol}{view} ({test.subjects} subjects, {test.photos:,} photos)")
    return "tested on " + "; ".join(parts)


def describe_numbers(matrix: Matrix) -> str:
    """Unit, draws and hashes of the numbers, in a line."""
    draws = max((cell.counts.draws or 0 for cell in matrix.cells), default=0)
    hashes = matrix.hashes
    crossed = "cameras crossed, " if matrix.cameras == "cross" else ""
    return (
        f"{crossed}mean of {draws} draws, percent, 95 % intervals over subjects; manifest {hashes.manifest[:8]}, "
        f"draws {hashes.draws[:8]}"
    )


def caption(matrix: Matrix) -> str:
    """Training data, test data and numbers, in sentences."""
    return " ".join(map(_sentence, (describe_training(matrix), describe_test(matrix), describe_numbers(matrix))))


def remarks(matrix: Matrix) -> list[str]:
    """Subjects left out, reasons of blank cells, and notes."""
    out = [f"left out: {leak.subjects} subjects of {leak.dataset}, {leak.why}" for leak in matrix.left_out]
    blanks = dict.fromkeys(cell.blank for cell in matrix.cells if cell.blank)
    return [*out, *(f"blank: {reason}" for reason in blanks), *matrix.notes]


def describe_shared(matrix: Matrix) -> str:
    """The subjects of the matrix over the same people; empty where there is none."""
    shared = matrix.shared
    if shared is None:
        return ""
    if not shared.cells:
        return "no subject has photos of each, so there is no matrix over the same people"
    if shared.identities == shared.of:
        return f"all {shared.of} identities have photos of each, so all galleries hold the same people"
    return (
        f"only the {shared.identities} of {shared.of} identities with photos of each, in every gallery: "
        "these cells can be compared with each other, not with those above, whose galleries are larger"
    )


def markdown(matrix: Matrix) -> str:
    """The whole matrix as a page of Markdown tables."""
    heading = as_markdown(f"{matrix.recipe} by {matrix.by}")
    parts = [f"# {heading}", as_markdown(caption(matrix)), _table(KIND_COLUMNS, kind_rows(matrix.kinds))]
    for metric in SHOWN:
        parts += [f"## {title(metric)}", _table(*grid(matrix.cells, metric))]
    parts += ["## Queries / subjects, in gallery photos", _table(*size_grid(matrix.cells))]
    if matrix.shared is not None:
        parts += ["## The same people", as_markdown(_sentence(describe_shared(matrix)))]
        if matrix.shared.cells:
            parts.append(_table(SHARED_COLUMNS, shared_rows(matrix.shared.kinds)))
            for metric in SHOWN:
                parts += [f"### {title(metric)}", _table(*grid(matrix.shared.cells, metric))]
    parts.append("\n".join(f"- {as_markdown(remark)}" for remark in remarks(matrix)))
    return "\n\n".join(part for part in parts if part) + "\n"


def _text(cell: MatrixCell | None, metric: str) -> str:
    if cell is None:
        return ""
    return format_number(metric, cell.metrics[metric]) if cell.metrics else BLANK


def _size(cell: MatrixCell | None) -> str:
    if cell is None:
        return ""
    counts = cell.counts
    return f"{counts.most_queries:,} / {counts.subjects} in {counts.gallery}" if cell.metrics else BLANK


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(markdown_table(columns, rows))


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}."
