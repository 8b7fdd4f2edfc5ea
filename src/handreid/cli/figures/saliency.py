"""`handreid figure attention` and `handreid figure match`: saliency maps of photos, and match maps of two photos."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from handreid.cli import early, output
from handreid.cli.options import Data, FlipTta, RunFolder, begin, resumable

Picture = Annotated[
    Path, typer.Option("--out", help="File to write: .png, .svg or .pdf. Its caption is written beside it, as .txt.")
]


class Method(StrEnum):
    auto = "auto"
    rollout = "rollout"
    grad_cam = "grad-cam"
    occlusion = "occlusion"


def attention(
    run: RunFolder,
    out: Picture,
    photos: Annotated[
        list[str] | None, typer.Option("--photos", help="Path of a photo in the manifest; may be repeated.")
    ] = None,
    count: Annotated[int, typer.Option(help="Number of test photos to choose if none is named.", min=1, max=48)] = 8,
    data: Data = None,
    method: Annotated[
        Method, typer.Option(help="auto: attention rollout for a ViT, Grad-CAM for a ResNet.")
    ] = Method.auto,
    seed: Annotated[int, typer.Option(help="Random seed of the choice of photos.")] = 0,
) -> None:
    """Maps, over each photo, of the parts that its embedding depends on."""
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
    query: Annotated[str, typer.Argument(help="Path of the query photo in the manifest.")],
    out: Picture,
    gallery: Annotated[
        str | None,
        typer.Argument(
            help="Photo to compare it with; by default the nearest in the gallery of the first draw, and the right "
            "one if that is another photo."
        ),
    ] = None,
    data: Data = None,
    flip_tta: FlipTta = None,
) -> None:
    """Maps of the parts that make two photos similar; if the nearest photo is wrong, the right one is shown too."""
    early.run(run, finished=True)
    early.manifests([data])
    early.picture(out)
    progress = begin()
    from handreid.report.figures.match_map import match_figure
    from handreid.runs.folder import open_run

    with resumable("the same command"):
        written = match_figure(open_run(run), out, query, gallery, data=data, flip_tta=flip_tta, progress=progress)
    output.echo(f"written to {' and '.join(map(str, written))}")


def add_to(figures: typer.Typer) -> None:
    for command in (attention, match):
        figures.command()(command)
