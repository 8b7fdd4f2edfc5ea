"""`handreid figure strip`: queries with the first answers of the gallery."""

from pathlib import Path
from typing import Annotated

import typer

from handreid.cli import early, output
from handreid.cli.options import RunFolder, begin, resumable


def strip(
    run: RunFolder,
    out: Annotated[Path, typer.Option("--out", help="File to write: .png, .svg or .pdf; its caption goes beside it.")],
    query: Annotated[
        list[str] | None,
        typer.Option(help="A query photo, by its path in the manifest or the end of it, instead of chosen ones."),
    ] = None,
    each: Annotated[int, typer.Option(help="How many of the worst, median and random queries.", min=1)] = 3,
    draw: Annotated[int, typer.Option(help="Test draw, from 0.", min=0)] = 0,
    seed: Annotated[int, typer.Option(help="Of the random queries.")] = 0,
) -> None:
    """Queries with their ten first answers, right and wrong marked: the worst, the median and random ones."""
    early.run(run)
    early.picture(out)
    progress = begin()
    from handreid.report.figures.ranking_strip import write_strips
    from handreid.runs.folder import open_run

    with resumable("the same command"):
        written = write_strips(
            open_run(run), out, queries=query or (), each=each, draw=draw, seed=seed, progress=progress
        )
    output.echo(f"written to {' and '.join(map(str, written))}")


def add_to(figures: typer.Typer) -> None:
    figures.command()(strip)
