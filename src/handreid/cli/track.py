"""`handreid track`: runs that are there, sent to experiment trackers."""

from pathlib import Path
from typing import Annotated

import typer

from handreid.cli import early, output
from handreid.cli.options import begin, resumable, trackers


def track(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
    to: Annotated[
        list[str] | None,
        typer.Option(
            "--to",
            help="Trackers: mlflow, tensorboard, wandb, or with a place like mlflow=http://localhost:5000; several by "
            "comma or once each. Without it, those that the run has been told to, else its recipe's.",
            metavar="TRACKER",
        ),
    ] = None,
) -> None:
    """Send runs to experiment trackers: all of a run that was not tracked, or what a tracker has missed."""
    told = trackers(to)
    for run in runs:
        early.run(run)
    progress = begin()
    from handreid.runs.folder import open_run
    from handreid.tracking.client import send

    with resumable("the same command"):
        names = send([open_run(run) for run in runs], told, progress)
    output.echo(f"{len(runs)} {'run' if len(runs) == 1 else 'runs'} sent to {', '.join(names)}")


def add_to(app: typer.Typer) -> None:
    app.command()(track)
