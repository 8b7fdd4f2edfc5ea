"""`handreid figure matrix`: one run across views, sides or data sets."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from handreid.cli import early, output
from handreid.cli.options import MatrixBy, begin


class Metric(StrEnum):
    rank1 = "rank1"
    map = "map"


def figure(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    out: Annotated[
        Path,
        typer.Option("--out", help="File to write: .png, .svg or .pdf. Its caption is written beside it, as .txt."),
    ],
    matrix: Annotated[MatrixBy, typer.Option(help="Which matrix of the run to draw.")] = MatrixBy.view,
    metric: Annotated[Metric, typer.Option(help="Metric to show in the cells.")] = Metric.rank1,
    shared: Annotated[
        bool,
        typer.Option(
            "--shared", help="Only subjects with photos of every kind, so that all galleries hold the same people."
        ),
    ] = False,
    file: Annotated[
        Path | None,
        typer.Option("--file", help="File of the matrix, if the run has several.", metavar="JSON"),
    ] = None,
) -> None:
    """A matrix that `evaluate --matrix` wrote as a heat map; every number with its interval."""
    early.run(run)
    early.picture(out)
    begin()
    from handreid.evaluation.matrix import written_matrix
    from handreid.report.figures.matrix import matrix_figure
    from handreid.runs.folder import open_run

    content = written_matrix(open_run(run), matrix.value, file)
    written = matrix_figure(content, out, metric=metric.value, shared=shared)
    output.echo(f"written to {' and '.join(map(str, written))}")


def add_to(figures: typer.Typer) -> None:
    figures.command("matrix")(figure)
