"""`handreid figure quality`: whether the quality of photos predicts a run's errors."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from handreid.cli import early, output
from handreid.cli.options import RunFolder, begin, resumable


def quality(
    run: RunFolder,
    data: Annotated[
        Path,
        typer.Option(
            "--data", help="Manifest of `handreid data quality`: the run's own photos, or others.", metavar="MANIFEST"
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", help="File to write: .png, .svg or .pdf. Its caption is written beside it, as .txt."),
    ],
    by: Annotated[
        list[str] | None,
        typer.Option(
            help="Column of numbers, more being better, or -COLUMN where less is; repeat it. By default quality and "
            "its parts.",
            metavar="COLUMN",
        ),
    ] = None,
    fmr: Annotated[
        float, typer.Option(help="False match rate at which the threshold is chosen.", min=1e-6, max=0.5)
    ] = 0.01,
    up_to: Annotated[float, typer.Option(help="Largest share left out.", min=0.01, max=0.9)] = 0.3,
) -> None:
    """Error-versus-discard curves: errors that are left if the photos of lowest quality are left out.

    Rank-1 errors of test queries, and false non-matches at a fixed false match rate, beside random discarding and the
    best possible order (ISO/IEC 29794-1). Subjects that the run has seen are left out.
    """  # fmt: skip
    early.run(run, finished=True)
    early.manifests([data])
    early.picture(out)
    progress = begin()
    from handreid.evaluation.error_discard import check_quality
    from handreid.landmarks.quality_rule import CHECKED
    from handreid.report.figures.error_discard import error_discard_figure, numbers
    from handreid.runs.folder import open_run

    opened = open_run(run)
    with resumable("the same command"):
        check = check_quality(opened, data, by or CHECKED, fmr=fmr, up_to=up_to, progress=progress)
        command = shlex.join(["handreid", *sys.argv[1:]])
        written = error_discard_figure(check, out, run=opened.folder.name, command=command)
    for kind, curves in (("rank-1 error", check.rank1), (f"FNMR at FMR {100 * fmr:g} %", check.non_match)):
        for line in numbers(curves):
            output.echo(f"{kind}, {line}")
    output.echo(f"written to {' and '.join(map(str, written))}")


def add_to(figures: typer.Typer) -> None:
    figures.command()(quality)
