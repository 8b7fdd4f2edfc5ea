"""`handreid report`: runs as one page."""

from pathlib import Path
from typing import Annotated

import typer

from handreid.cli import early, output
from handreid.cli.compare import Metric, Reference
from handreid.cli.options import begin, resumable


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Run folders, folders of runs such as a ladder's, or the folder of one sweep."),
    ],
    out: Annotated[Path, typer.Option("--out", help="Page to write, .html; an existing one is replaced.")] = Path(
        "report.html"
    ),
    by: Annotated[Metric, typer.Option(help="Metric of the comparison.")] = Metric.rank1,
    reference: Annotated[Reference, typer.Option(help="Reference run of the comparison.")] = Reference.first,
    show: Annotated[
        str | None,
        typer.Option(help="Run whose test photos are shown; by default the best one.", metavar="NAME"),
    ] = None,
    photos: Annotated[
        bool, typer.Option(help="Show photos of people; use --no-photos for a page that you publish.")
    ] = True,
    different: Annotated[
        bool,
        typer.Option(
            "--allow-different-draws",
            help="Also show runs that were tested on different draws, without differences between them.",
        ),
    ] = False,
    title: Annotated[str | None, typer.Option(help="Title of the page.")] = None,
) -> None:
    """Write a report of runs as one HTML page that opens offline: tables, curves, rankings, maps, provenance."""
    from handreid.files import check_writable

    check_writable(out, (".html",))
    of_sweep = len(runs) == 1 and (runs[0] / "sweep.json").is_file()
    if not of_sweep:
        early.runs(runs)
    progress = begin()
    from handreid.cli.sweep import write_page
    from handreid.report.page.write import write_report

    with resumable("the same command"):
        if of_sweep:
            path = write_page(runs[0], out)
        else:
            path = write_report(
                runs,
                out,
                by=by.value,
                reference=reference.value,
                show=show,
                photos=photos,
                different=different,
                title=title,
                progress=progress,
            )
    output.echo(f"written to {path} ({path.stat().st_size / 1e6:.1f} MB)")


def add_to(app: typer.Typer) -> None:
    app.command()(report)
