"""`handreid compare`: runs beside each other."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from handreid.cli import output
from handreid.cli.experiments import begin, resumable

if TYPE_CHECKING:
    from handreid.report.comparison import Comparison


class Metric(StrEnum):
    rank1 = "rank1"
    rank5 = "rank5"
    rank10 = "rank10"
    map = "map"
    map_trapezoid = "map_trapezoid"
    mrr = "mrr"
    minp = "minp"


class To(StrEnum):
    first = "first"
    best = "best"


class Format(StrEnum):
    terminal = "terminal"
    markdown = "markdown"
    csv = "csv"
    json = "json"


RunFolders = Annotated[
    list[Path], typer.Argument(help="Run folders; a folder that holds runs, such as a ladder's, stands for all of them.")
]
By = Annotated[Metric, typer.Option(help="Metric whose differences are shown.")]
Against = Annotated[
    To, typer.Option(help="Compare with the first run, or with the best one, as the test itself has it.")
]
Different = Annotated[
    bool,
    typer.Option("--different", help="Show runs that were tested on different draws, without differences between them."),
]


def compare(
    runs: RunFolders,
    by: By = Metric.rank1,
    to: Against = To.first,
    different: Different = False,
    format_: Annotated[
        Format | None, typer.Option("--format", help="How to write; what the suffix of --out says, else terminal.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="File to write: .md, .csv, .json or .txt.")] = None,
) -> None:
    """Put runs beside each other: what was changed, metrics, paired differences with a verdict, cost."""
    progress = begin()
    from handreid.errors import RunError
    from handreid.report.comparison import compare_runs, run_folders
    from handreid.report.files import check_place

    if out:
        check_place(out, tuple(_SUFFIXES))
    chosen = format_ or (_SUFFIXES[out.suffix] if out else Format.terminal)
    folders = run_folders(runs)
    if len(folders) < 2:
        raise RunError(f"{folders[0]} alone: give two runs or more, or a folder that holds them")
    with resumable("the same command"):
        comparison = compare_runs(folders, by=by.value, to=to.value, different=different, progress=progress)
    if out is None and chosen is Format.terminal:
        print_comparison(comparison)
        return
    text = _text(comparison, chosen)
    if out is None:
        typer.echo(text, nl=False)
        return
    from handreid.report.files import write_whole

    write_whole(out, lambda part: part.write_text(text, encoding="utf-8"))
    typer.echo(f"written to {out}")


def print_comparison(comparison: "Comparison") -> None:
    from handreid.report.comparison_text import captions, tables

    for table in tables(comparison):
        output.table(table.title, table.columns, table.rows, words=table.words)
    for line in captions(comparison):
        typer.echo(line)


def _text(comparison: "Comparison", chosen: Format) -> str:
    from handreid.report import comparison_text as of

    match chosen:
        case Format.markdown:
            return of.markdown(comparison)
        case Format.csv:
            return of.csv(comparison)
        case Format.json:
            return of.as_json(comparison)
        case Format.terminal:
            with output.captured(100) as written:
                print_comparison(comparison)
            return written.getvalue()


_SUFFIXES = {".md": Format.markdown, ".csv": Format.csv, ".json": Format.json, ".txt": Format.terminal}


def add_to(app: typer.Typer) -> None:
    app.command()(compare)
