"""`handreid figure strip`: queries with the first answers of the gallery."""

from pathlib import Path
from typing import Annotated

import typer

from handreid.cli import early, output
from handreid.cli.options import RunFolder, begin, resumable


def strip(
    run: RunFolder,
    out: Annotated[
        Path,
        typer.Option("--out", help="File to write: .png, .svg or .pdf. Its caption is written beside it, as .txt."),
    ],
    query: Annotated[
        list[str] | None,
        typer.Option(
            help="Path of a query photo in the manifest or the end of it, instead of the default choice; repeatable."
        ),
    ] = None,
    each: Annotated[int, typer.Option(help="How many queries to show of each: worst, median and random.", min=1)] = 3,
    draw: Annotated[int, typer.Option(help="Number of the test draw, counted from 0.", min=0)] = 0,
    seed: Annotated[int, typer.Option(help="Random seed of the random queries.")] = 0,
) -> None:
    """Worst, median and random queries with their first ten answers, right and wrong ones marked."""
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
