"""`handreid embed` and `handreid figure`: where a run puts photos, as a table and as pictures."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from handreid.cli import early, output
from handreid.cli.experiments import Data, begin, resumable

figures = typer.Typer(help="Pictures of a run.", no_args_is_help=True)


class Part(StrEnum):
    every = "all"
    train = "train"
    validation = "validation"
    test = "test"
    unlabelled = "unlabelled"


class Method(StrEnum):
    pca = "pca"
    tsne = "tsne"


RunFolder = Annotated[Path, typer.Argument(help="Run folder.")]
Mirrored = Annotated[bool | None, typer.Option(help="Add the mirrored photo's feature (flip test-time augmentation).")]


def embed(
    run: RunFolder,
    out: Annotated[Path, typer.Option("--out", help="Table to write, .parquet; one that is there is replaced.")],
    data: Data = None,
    split: Annotated[
        Part, typer.Option(help="Only photos that the run trained on, validated or tests, or of nobody known.")
    ] = Part.every,
    mirrored: Mirrored = None,
) -> None:
    """Write where a run puts every photo: the manifest's columns, identity, role in the run, and the embedding."""
    from handreid.files import check_writable

    early.run(run, finished=True)
    early.manifests([data])
    check_writable(out, (".parquet",))
    progress = begin()
    from handreid.report.embeddings import embed as embed_run
    from handreid.training.runs import open_run

    with resumable("the same command"):
        table = embed_run(open_run(run), out, data=data, part=split.value, mirrored=mirrored, progress=progress)
    roles = ", ".join(f"{count:,} {role}" for role, count in sorted(table["role"].value_counts().iter_rows()))
    output.echo(f"{out}: {len(table):,} photos ({roles}), embeddings of {len(table['embedding'][0])} numbers")


@figures.command()
def embedding(
    run: RunFolder,
    out: Annotated[
        Path, typer.Option("--out", help="Picture to write: .png, .svg or .pdf; an .html to look into lies beside it.")
    ],
    method: Annotated[
        Method, typer.Option(help="PCA, or t-SNE, which keeps neighbours and not distances.")
    ] = Method.tsne,
    colour: Annotated[
        str, typer.Option(help="identity, subject, aspect, side, skin, or another column with few values.")
    ] = "identity",
    identities: Annotated[
        int,
        typer.Option(help="How many to show, those with the most photos, when coloured by identity or subject.", min=2),
    ] = 20,
    data: Data = None,
    mirrored: Mirrored = None,
    seed: Annotated[int, typer.Option(help="Of t-SNE: the same seed gives the same picture.")] = 0,
    photos: Annotated[
        bool, typer.Option("--photos/--no-photos", help="Whether the HTML shows the photo under the pointer.")
    ] = True,
) -> None:
    """Test photos as points, so that compact and separable identities can be seen."""
    early.run(run, finished=True)
    early.manifests([data])
    early.picture(out, (*early.PICTURE, ".html"))
    progress = begin()
    from handreid.report.space import embedding_figure
    from handreid.training.runs import open_run

    with resumable("the same command"):
        written = embedding_figure(
            open_run(run),
            out,
            method=method.value,
            colour=colour,
            identities=identities,
            data=data,
            mirrored=mirrored,
            seed=seed,
            photos=photos,
            progress=progress,
        )
    output.echo(f"written to {', '.join(map(str, written[:-1]))} and {written[-1]}")


def add_to(app: typer.Typer) -> None:
    app.command()(embed)
    app.add_typer(figures, name="figure")
