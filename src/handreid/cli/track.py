"""`handreid track`: finished runs, logged to experiment trackers."""

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
            help="Trackers: mlflow, tensorboard, wandb, or with an address, like mlflow=http://localhost:5000; repeat "
            "it, or separate them by commas. By default those that the run was logged to before, or its recipe's.",
            metavar="TRACKER",
        ),
    ] = None,
) -> None:
    """Log finished runs to experiment trackers; of a run that was logged before, only what is missing is sent."""
    backends = trackers(to)
    for run in runs:
        early.run(run)
    progress = begin()
    from handreid.runs.folder import open_run
    from handreid.tracking.client import send

    with resumable("the same command"):
        names = send([open_run(run) for run in runs], backends, progress)
    output.echo(f"{len(runs)} {'run' if len(runs) == 1 else 'runs'} sent to {', '.join(names)}")


def add_to(app: typer.Typer) -> None:
    app.command()(track)
