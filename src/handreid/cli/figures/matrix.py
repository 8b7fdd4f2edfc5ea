"""`handreid evaluate --matrix` and `handreid figure matrix`: one run across aspects, sides and data sets."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from handreid.cli import early, output
from handreid.cli.options import MatrixBy, begin

if TYPE_CHECKING:
    pass


class Metric(StrEnum):
    rank1 = "rank1"
    map = "map"


def figure(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    out: Annotated[Path, typer.Option("--out", help="File to write: .png, .svg or .pdf; its caption as .txt beside.")],
    matrix: Annotated[MatrixBy, typer.Option(help="Which of the run's matrices.")] = MatrixBy.aspect,
    metric: Annotated[Metric, typer.Option(help="Shown in the cells.")] = Metric.rank1,
    shared: Annotated[
        bool, typer.Option("--shared", help="Only people with photos of each, the same in every gallery.")
    ] = False,
    file: Annotated[
        Path | None,
        typer.Option("--file", help="A matrix of the run by its file, where there are several.", metavar="JSON"),
    ] = None,
) -> None:
    """A matrix as a heat map, from what `evaluate --matrix` wrote: every number with its interval."""
    early.run(run)
    early.picture(out)
    begin()
    from handreid.evaluation.matrix import written_matrix
    from handreid.report.figures.matrix import matrix_figure
    from handreid.runs.folder import open_run

    found = written_matrix(open_run(run), matrix.value, file)
    written = matrix_figure(found, out, metric=metric.value, shared=shared)
    output.echo(f"written to {' and '.join(map(str, written))}")


def add_to(figures: typer.Typer) -> None:
    figures.command("matrix")(figure)
