"""A matrix in rows and columns: for the terminal, for Markdown, and for a figure.

Rows are queries, and below each the same photos mirrored where that was asked; columns are galleries. A blank cell is
a question that the photos cannot answer, and its reason is said below.
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
    """Names, and whether they are mirrored: right below the same as they are."""
    there = {(cell.query, cell.mirrored) for cell in cells}
    names = dict.fromkeys(cell.query for cell in cells)
    return [(name, mirrored) for name in names for mirrored in (False, True) if (name, mirrored) in there]


def cell_at(cells: Sequence[MatrixCell], gallery: str, query: tuple[str, bool]) -> MatrixCell | None:
    """None where the matrix has no such cell: nobody mirrors a hand to find the same."""
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
    """Queries and subjects that search, and photos that are searched, of each cell."""
    columns = galleries(cells)
    rows = [[query_name(one), *(_size(cell_at(cells, name, one)) for name in columns)] for one in queries(cells)]
    return ["query, by gallery", *columns], rows


KIND_COLUMNS = ("gallery and query", *map(title, SHOWN), "cells", "queries", "subjects")


def kind_rows(kinds: Sequence[MatrixKind]) -> list[list[str]]:
    """All cells of a kind together."""
    return [
        [
            of.kind + (", mirrored" if of.mirrored else ""),
            *(format_number(metric, of.metrics[metric]) for metric in SHOWN),
            str(of.cells),
            f"{of.counts.most_queries:,}",
            str(of.counts.subjects),
        ]
        for of in kinds
    ]


SHARED_COLUMNS = (
    "gallery and query",
    *map(title, SHOWN),
    *(f"{title(metric)} against the query's own kind" for metric in SHOWN),
)


def shared_rows(kinds: Sequence[SharedKind]) -> list[list[str]]:
    """Kinds over the same people, and what each loses to a gallery of the queries' own condition."""
    lost = [of.against_same for of in kinds]
    return [
        [*row[:3], *(format_difference(metric, of[metric]) if of else "" for metric in SHOWN)]
        for row, of in zip(kind_rows(kinds), lost, strict=True)
    ]


def stack_matrices(matrices: Sequence[Matrix], metric: str) -> tuple[list[str], list[list[str]]]:
    """Several runs' matrices as one table, what each was trained on down, and what it is asked across.

    Runs that met other people leave others out: where the draws differ, so do the people, and the numbers can be read
    side by side but not subtracted.
    """
    kinds = list(dict.fromkeys((of.kind, of.mirrored) for found in matrices for of in found.kinds))
    rows = []
    for found in matrices:
        known = {(of.kind, of.mirrored): format_number(metric, of.metrics[metric]) for of in found.kinds}
        rows.append([describe_training(found), found.hashes.draws[:8], *(known.get(kind, "") for kind in kinds)])
    return ["trained on", "draws", *(kind + (", mirrored" if mirrored else "") for kind, mirrored in kinds)], rows


def describe_training(found: Matrix) -> str:
    """What the run learned from, in a line."""
    of = found.trained_on
    after = f", after {' and '.join(of.after)}" if of.after else ""
    if not of.photos:
        return f"{of.recipe}: not trained{after}"
    view = "all views" if of.view == "all" else of.view
    people = f"{of.subjects} subjects, {of.photos:,} photos"
    return f"{of.recipe}: trained on {of.dataset}, {view} ({people}), identity = {of.label}{after}"


def describe_test(found: Matrix) -> str:
    """On whom it is tested, in a line."""
    parts = []
    for of in found.tested_on:
        view = "" if of.view == "all" else f", {of.view}"
        parts.append(f"{of.name}, protocol {of.protocol}{view} ({of.subjects} subjects, {of.photos:,} photos)")
    return "tested on " + "; ".join(parts)


def describe_numbers(found: Matrix) -> str:
    """What the numbers are, and what they rest on, in a line."""
    draws = max((cell.counts.draws or 0 for cell in found.cells), default=0)
    hashes = found.hashes
    crossed = "cameras crossed, " if found.cameras == "cross" else ""
    return (
        f"{crossed}mean of {draws} draws, percent, 95 % intervals over subjects; manifest {hashes.manifest[:8]}, "
        f"draws {hashes.draws[:8]}"
    )


def caption(found: Matrix) -> str:
    """What the matrix is of, in sentences."""
    return " ".join(map(_sentence, (describe_training(found), describe_test(found), describe_numbers(found))))


def remarks(found: Matrix) -> list[str]:
    """Who was left out, why cells are blank, and what else is to be known."""
    out = [f"left out: {of.subjects} subjects of {of.dataset}, {of.why}" for of in found.left_out]
    blanks = dict.fromkeys(cell.blank for cell in found.cells if cell.blank)
    return [*out, *(f"blank: {reason}" for reason in blanks), *found.notes]


def describe_shared(found: Matrix) -> str:
    """Whom the second matrix is over; empty where there is none."""
    shared = found.shared
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


def markdown(found: Matrix) -> str:
    """The whole matrix as a page of Markdown tables."""
    heading = as_markdown(f"{found.recipe} by {found.by}")
    parts = [f"# {heading}", as_markdown(caption(found)), _table(KIND_COLUMNS, kind_rows(found.kinds))]
    for metric in SHOWN:
        parts += [f"## {title(metric)}", _table(*grid(found.cells, metric))]
    parts += ["## Queries / subjects, in gallery photos", _table(*size_grid(found.cells))]
    if found.shared is not None:
        parts += ["## The same people", as_markdown(_sentence(describe_shared(found)))]
        if found.shared.cells:
            parts.append(_table(SHARED_COLUMNS, shared_rows(found.shared.kinds)))
            for metric in SHOWN:
                parts += [f"### {title(metric)}", _table(*grid(found.shared.cells, metric))]
    parts.append("\n".join(f"- {as_markdown(remark)}" for remark in remarks(found)))
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
