"""`handreid figure embedding`: test photos as points."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from handreid.cli import early, output
from handreid.cli.options import Data, FlipTta, RunFolder, begin, resumable


class Method(StrEnum):
    pca = "pca"
    tsne = "tsne"


def embedding(
    run: RunFolder,
    out: Annotated[
        Path,
        typer.Option("--out", help="Figure to write: .png, .svg or .pdf; an interactive .html is written beside it."),
    ],
    method: Annotated[
        Method, typer.Option(help="PCA, or t-SNE, which preserves neighbours but not distances.")
    ] = Method.tsne,
    colour: Annotated[
        str, typer.Option(help="identity, subject, view, side, skin, or another column with few values.")
    ] = "identity",
    identities: Annotated[
        int,
        typer.Option(
            help="Number to show, those with the most photos first, when coloured by identity or subject.", min=2
        ),
    ] = 20,
    data: Data = None,
    flip_tta: FlipTta = None,
    seed: Annotated[int, typer.Option(help="Random seed of t-SNE.")] = 0,
    photos: Annotated[
        bool, typer.Option("--photos/--no-photos", help="Show the photo under the pointer in the HTML.")
    ] = True,
) -> None:
    """Test photos as points in two dimensions, coloured by identity or another column."""
    early.run(run, finished=True)
    early.manifests([data])
    early.picture(out, (*early.PICTURE, ".html"))
    progress = begin()
    from handreid.report.figures.embedding_map import embedding_figure
    from handreid.runs.folder import open_run

    with resumable("the same command"):
        written = embedding_figure(
            open_run(run),
            out,
            method=method.value,
            colour=colour,
            identities=identities,
            data=data,
            flip_tta=flip_tta,
            seed=seed,
            photos=photos,
            progress=progress,
        )
    output.echo(f"written to {', '.join(map(str, written[:-1]))} and {written[-1]}")


def add_to(figures: typer.Typer) -> None:
    figures.command()(embedding)
