"""`handreid figure cmc, ladder, training`: curves of runs for papers, with captions as text."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from handreid.cli import early, output
from handreid.cli.compare import Against, Different, Reference, RunFolders
from handreid.cli.options import begin, resumable

if TYPE_CHECKING:
    from handreid.progress import Progress
    from handreid.report.compare.runs import Comparison

Figure = Annotated[
    Path, typer.Option("--out", help="File to write: .png, .svg or .pdf. Its caption is written beside it, as .txt.")
]


def cmc(
    runs: RunFolders,
    out: Figure,
    up_to: Annotated[int, typer.Option(help="Highest rank shown.", min=2)] = 20,
    different: Different = False,
) -> None:
    """CMC curves: the share of queries with a right answer among the first k, for every run."""
    early.runs(runs)
    early.picture(out)
    progress = begin()
    from handreid.report.figures.cmc import cmc_figure

    with resumable("the same command"):
        compared = _compared(runs, Reference.first, different, progress, resamples=100)  # no differences are shown
        _print_written(cmc_figure(compared, out, up_to=up_to, command=_command()))


def ladder(runs: RunFolders, out: Figure, reference: Against = Reference.first, different: Different = False) -> None:
    """Rank-1 and mAP of every run with intervals, and whether each beats the reference."""
    early.runs(runs)
    early.picture(out)
    progress = begin()
    from handreid.report.figures.ladder import ladder_figure

    with resumable("the same command"):
        _print_written(ladder_figure(_compared(runs, reference, different, progress), out, command=_command()))


def training(run: Annotated[Path, typer.Argument(help="Run folder; it may still be training.")], out: Figure) -> None:
    """Losses term by term, learning rates, gradient norm and validation, epoch by epoch."""
    early.run(run)
    early.picture(out)
    begin()
    from handreid.report.figures.training import training_figure
    from handreid.runs.folder import open_run

    with resumable("the same command"):
        _print_written(training_figure(open_run(run), out, command=_command()))


def add_to(figures: typer.Typer) -> None:
    for command in (cmc, ladder, training):
        figures.command()(command)


def _compared(
    runs: list[Path], reference: Reference, different: bool, progress: "Progress", *, resamples: int = 10_000
) -> "Comparison":
    from handreid.report.compare.runs import compare_runs
    from handreid.report.run_folders import run_folders

    return compare_runs(
        run_folders(runs), reference=reference.value, different=different, resamples=resamples, progress=progress
    )


def _command() -> str:
    """The command line, for the caption."""
    return shlex.join(["handreid", *sys.argv[1:]])


def _print_written(written: list[Path]) -> None:
    output.echo(f"written to {' and '.join(map(str, written))}")
