"""`handreid figure landmarks`: photos with the points of their hand, upright and aligned."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from handreid.cli import early, output
from handreid.cli.options import Landmarker
from handreid.progress import default_progress


class Border(StrEnum):
    blank = "blank"
    mean = "mean"
    border = "border"
    reflected = "reflected"
    replicated = "replicated"


def landmarks(
    photos: Annotated[list[str], typer.Argument(help="Photos; with --data their paths in the manifest.")],
    out: Annotated[
        Path,
        typer.Option("--out", help="File to write: .png, .svg or .pdf. Its caption is written beside it, as .txt."),
    ],
    landmarker: Landmarker = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Manifest whose landmarks are drawn; none are searched.", metavar="MANIFEST"),
    ] = None,
    fill: Annotated[Border, typer.Option(help="What an aligned picture shows outside the photo.")] = Border.border,
) -> None:
    """Points of the hand on each photo, and the hand upright and aligned."""
    early.manifests([data])
    early.picture(out)
    if data is None:
        early.landmarker(landmarker)
    from handreid.data.manifest import read
    from handreid.landmarks.mediapipe import HandLandmarker
    from handreid.landmarks.model_file import landmarker_file
    from handreid.report.figures.landmarks import landmarks_figure

    manifest = read(data) if data is not None else None
    finder = None
    if manifest is None:
        finder = HandLandmarker(landmarker_file(landmarker))
    written = landmarks_figure(
        photos, out, landmarker=finder, manifest=manifest, fill=fill.value, progress=default_progress()
    )
    output.echo(f"written to {' and '.join(map(str, written))}")


def add_to(figures: typer.Typer) -> None:
    figures.command()(landmarks)
