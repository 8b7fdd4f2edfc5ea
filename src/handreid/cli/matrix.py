"""`handreid evaluate --matrix` and `handreid figure matrix`: one run across aspects, sides and data sets."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from handreid.cli import early, output
from handreid.cli.experiments import MatrixBy, begin, resumable

if TYPE_CHECKING:
    from handreid.training.matrix import By


class Metric(StrEnum):
    rank1 = "rank1"
    map = "map"


def evaluate_matrix(
    run: Path,
    by: "By",
    data: Sequence[Path],
    protocol: str | None,
    cameras: str | None,
    mirrored: bool | None,
    refused: Mapping[str, object],
    *,
    as_json: bool,
) -> None:
    """`refused` are options that make no sense with a matrix, by their names. Raises RunError where one is given."""
    from handreid.errors import RunError

    given = [name for name, value in refused.items() if value]
    if given:
        raise RunError(f"--matrix crosses all views of every person, ranked plainly; leave {' and '.join(given)} out")
    progress = begin()
    from handreid.training.matrix import matrix_of
    from handreid.training.runs import open_run

    with resumable(f"handreid evaluate {run} --matrix {by}"):
        path, found = matrix_of(
            open_run(run), by, data=data, protocol=protocol, cameras=cameras, mirrored=mirrored, progress=progress
        )
    if as_json:
        output.as_json(found)
        return
    print_matrix(found)
    output.echo(f"written to {path} and {path.with_suffix('.md')}")


def print_matrix(found: dict[str, Any]) -> None:
    from handreid.training import matrix_tables as of

    output.echo(of.trained_words(found))
    output.echo(of.tested_words(found))
    output.table(f"{found['recipe']} by {found['by']}", of.KIND_COLUMNS, of.kind_rows(found["kinds"]))
    for metric, name in of.METRICS.items():
        _print_grid(name, *of.grid(found["cells"], metric))
    _print_grid("queries / subjects, in gallery photos", *of.size_grid(found["cells"]))
    shared = found["shared"]
    if shared and shared["cells"]:
        rows = of.shared_rows(shared["kinds"])
        output.table("the same people in every gallery", of.SHARED_COLUMNS, rows, fold=(" [",))
    if shared:
        output.echo(of.shared_words(found))
    for remark in of.remarks(found):
        output.echo(f"note: {remark}")
    output.echo(of.numbers_words(found))


def _print_grid(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """In two lines a cell: five columns of twenty signs are wider than a terminal."""
    output.table(title, columns, rows, fold=(" [", " in "))


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
    from handreid.report.heatmap import matrix_figure
    from handreid.training.matrix import written_matrix
    from handreid.training.runs import open_run

    found = written_matrix(open_run(run), matrix.value, file)
    written = matrix_figure(found, out, metric=metric.value, shared=shared)
    output.echo(f"written to {' and '.join(map(str, written))}")


def add_to(figures: typer.Typer) -> None:
    figures.command("matrix")(figure)
