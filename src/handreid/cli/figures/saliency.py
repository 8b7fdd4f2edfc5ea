"""`handreid figure attention` and `handreid figure match`: which parts of a photo, and which parts of two."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from handreid.cli import early, output
from handreid.cli.options import Data, Mirrored, RunFolder, begin, resumable

Picture = Annotated[Path, typer.Option("--out", help="File to write, .png, .svg or .pdf; the caption goes to a .txt.")]


class Method(StrEnum):
    auto = "auto"
    rollout = "rollout"
    grad_cam = "grad-cam"
    occlusion = "occlusion"


def attention(
    run: RunFolder,
    out: Picture,
    photos: Annotated[
        list[str] | None, typer.Option("--photos", help="A photo by its path in the manifest; may be given again.")
    ] = None,
    count: Annotated[int, typer.Option(help="How many test photos to draw, where none is named.", min=1, max=48)] = 8,
    data: Data = None,
    method: Annotated[
        Method, typer.Option(help="auto is attention rollout for a ViT and Grad-CAM for a ResNet.")
    ] = Method.auto,
    seed: Annotated[int, typer.Option(help="Of the choice of photos.")] = 0,
) -> None:
    """Which parts of each photo its embedding is made of, laid over the photo."""
    early.run(run, finished=True)
    early.manifests([data])
    early.picture(out)
    progress = begin()
    from handreid.report.figures.saliency_map import attention_figure
    from handreid.runs.folder import open_run

    with resumable("the same command"):
        written = attention_figure(
            open_run(run),
            out,
            photos=photos or (),
            count=count,
            data=data,
            method=method.value,
            seed=seed,
            progress=progress,
        )
    output.echo(f"written to {' and '.join(map(str, written))}")


def match(
    run: RunFolder,
    query: Annotated[str, typer.Argument(help="Photo that is searched for, by its path in the manifest.")],
    out: Picture,
    gallery: Annotated[
        str | None,
        typer.Argument(
            help="Photo to compare it with; without, the nearest of the first draw's gallery, and the right "
            "one if that is another."
        ),
    ] = None,
    data: Data = None,
    mirrored: Mirrored = None,
) -> None:
    """Which parts of two photos made them alike; and if the nearest photo is a wrong one, beside it the right one."""
    early.run(run, finished=True)
    early.manifests([data])
    early.picture(out)
    progress = begin()
    from handreid.report.figures.match_map import match_figure
    from handreid.runs.folder import open_run

    with resumable("the same command"):
        written = match_figure(open_run(run), out, query, gallery, data=data, mirrored=mirrored, progress=progress)
    output.echo(f"written to {' and '.join(map(str, written))}")


def add_to(figures: typer.Typer) -> None:
    for command in (attention, match):
        figures.command()(command)
