"""Options, arguments and helpers that several commands share."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from handreid.cli import output
from handreid.progress import Progress, default_progress

if TYPE_CHECKING:
    from handreid.recipe import Tracker


class Protocol(StrEnum):
    auto = "auto"
    hands11k = "hands11k"
    hd = "hd"
    disjoint = "disjoint"
    prepared = "prepared"


class View(StrEnum):
    every = "all"
    dorsal_right = "dorsal-right"
    dorsal_left = "dorsal-left"
    palmar_right = "palmar-right"
    palmar_left = "palmar-left"


class Cameras(StrEnum):
    ignore = "ignore"
    cross = "cross"


class Label(StrEnum):
    auto = "auto"
    subject = "subject"
    hand = "hand"
    view = "view"


class MatrixBy(StrEnum):
    view = "view"
    side = "side"
    dataset = "dataset"


class LongCheck(StrEnum):
    overfit = "overfit"


Data = Annotated[Path | None, typer.Option("--data", help="Manifest of the photos.", metavar="MANIFEST")]


ManifestFile = Annotated[Path, typer.Argument(help="Manifest, .parquet or .csv.", metavar="MANIFEST")]
Landmarker = Annotated[
    Path | None,
    typer.Option(
        "--landmarker",
        help="MediaPipe's hand_landmarker.task; by default $HANDREID_LANDMARKER, or downloaded once.",
        metavar="FILE",
    ),
]


Out = Annotated[Path, typer.Option("--out", help="Folder to write.")]


Set = Annotated[
    list[str] | None, typer.Option("--set", help="Change the recipe: path.to.key=value.", metavar="KEY=VALUE")
]


Track = Annotated[
    list[str] | None,
    typer.Option(
        "--track",
        help="Log the run to trackers: mlflow, tensorboard, wandb, or with an address, like "
        "mlflow=http://localhost:5000. Repeat it, or separate trackers by commas; none turns tracking off.",
        metavar="TRACKER",
    ),
]


LongChecks = Annotated[
    list[LongCheck] | None,
    typer.Option(
        "--check", help="Run a slower check as well: overfit trains until the model has memorised a few photos."
    ),
]


Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def begin() -> Progress:
    """The progress of a command. On a terminal it says that torch is being loaded, which takes seconds."""
    progress = default_progress()
    if sys.stderr.isatty():
        progress.say("loading torch ...")
    return progress


def trackers(track: Sequence[str] | None) -> "tuple[Tracker, ...] | None":
    """The trackers of --track; None without it. Raises RecipeError, and RunError for one that is not installed."""
    from handreid.recipe import read_trackers
    from handreid.tracking.locations import check_installed

    if not track:
        return None
    parsed = read_trackers(track)
    check_installed(parsed)
    return parsed


@contextlib.contextmanager
def resumable(command: str, begun: Callable[[], bool] | None = None) -> Iterator[None]:
    """Says how to continue after Ctrl-C: with `command`, or with the same command while `begun` is not true yet."""
    try:
        yield
    except KeyboardInterrupt:
        output.echo(f"stopped; to continue: {command if begun is None or begun() else 'the same command'}", err=True)
        raise typer.Exit(130) from None


RunFolder = Annotated[Path, typer.Argument(help="Run folder.")]


FlipTta = Annotated[bool | None, typer.Option(help="Add the mirrored photo's feature (flip test-time augmentation).")]
