"""`handreid compare`: a table of runs with differences."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from handreid.cli import output
from handreid.cli.options import begin, resumable
from handreid.metric_table import RANKING

if TYPE_CHECKING:
    from handreid.report.compare.runs import Comparison

    class Metric(StrEnum):
        rank1 = "rank1"
else:
    Metric = StrEnum("Metric", {name: name for name in RANKING})


class Reference(StrEnum):
    first = "first"
    best = "best"


class Format(StrEnum):
    terminal = "terminal"
    markdown = "markdown"
    csv = "csv"
    json = "json"


RunFolders = Annotated[
    list[Path],
    typer.Argument(help="Run folders, or folders of runs, such as a ladder's."),
]
By = Annotated[Metric, typer.Option(help="Metric to compare.")]
Against = Annotated[
    Reference, typer.Option(help="Compare with the first run, or with the one that scores best on the test.")
]
Different = Annotated[
    bool,
    typer.Option(
        "--allow-different-draws",
        help="Also show runs that were tested on different draws, without differences between them.",
    ),
]


def compare(
    runs: RunFolders,
    by: By = Metric.rank1,
    reference: Against = Reference.first,
    different: Different = False,
    format_: Annotated[
        Format | None,
        typer.Option(
            "--format", help="Output format; by default that of the suffix of --out, or a table on the terminal."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="File to write: .md, .csv or .json.")] = None,
) -> None:
    """Compare runs: recipe changes, metrics, paired differences with a verdict, cost."""
    from handreid.errors import RunError
    from handreid.files import check_writable, write_text
    from handreid.report.run_folders import run_folders

    if out:
        check_writable(out, [f".{suffix}" for suffix in _SUFFIXES])
    output_format = format_ or (_SUFFIXES[out.suffix.removeprefix(".")] if out else Format.terminal)
    if out and output_format is not _SUFFIXES[out.suffix.removeprefix(".")]:
        raise RunError(
            f"--format {output_format.value} does not match the suffix of {out.name}; omit --format, or rename the file"
        )
    folders = run_folders(runs)
    if len(folders) < 2:
        raise RunError(f"only one run is given ({folders[0]}); give two or more, or a folder of runs")
    progress = begin()
    from handreid.report.compare.runs import compare_runs

    with resumable("the same command"):
        comparison = compare_runs(
            folders, by=by.value, reference=reference.value, different=different, progress=progress
        )
    if output_format is Format.terminal:
        print_comparison(comparison)
    elif out:
        write_text(out, _text(comparison, output_format))
        output.echo(f"written to {out}")
    else:
        output.page(_text(comparison, output_format))


def print_comparison(comparison: "Comparison") -> None:
    from handreid.report.compare.tables import captions, tables

    for table in tables(comparison, narrow=True):
        output.table(table.title, table.columns, table.rows, words=table.words, whole=table.whole)
    for line in captions(comparison):
        output.echo(line)


def _text(comparison: "Comparison", output_format: Format) -> str:
    from handreid.report.compare import tables

    writers = {Format.markdown: tables.markdown, Format.csv: tables.csv, Format.json: tables.as_json}
    return writers[output_format](comparison)


_SUFFIXES = {"md": Format.markdown, "csv": Format.csv, "json": Format.json}


def add_to(app: typer.Typer) -> None:
    app.command()(compare)
