"""`handreid embed`: embeddings of photos, as a table."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from handreid.cli import early, output
from handreid.cli.options import Data, FlipTta, RunFolder, begin, resumable


class Part(StrEnum):
    every = "all"
    train = "train"
    validation = "validation"
    test = "test"
    unlabelled = "unlabelled"


def embed(
    run: RunFolder,
    out: Annotated[Path, typer.Option("--out", help="Table to write, .parquet; an existing one is replaced.")],
    data: Data = None,
    split: Annotated[
        Part,
        typer.Option(help="Only photos that the run trains on, validates on or tests, or those without a subject."),
    ] = Part.every,
    flip_tta: FlipTta = None,
) -> None:
    """Write the embeddings of photos as a table, with the manifest's columns, identity and role in the run."""
    from handreid.files import check_writable

    early.run(run, finished=True)
    early.manifests([data])
    check_writable(out, (".parquet",))
    progress = begin()
    from handreid.evaluation.embed import embed as embed_run
    from handreid.runs.folder import open_run

    with resumable("the same command"):
        table = embed_run(open_run(run), out, data=data, part=split.value, flip_tta=flip_tta, progress=progress)
    roles = ", ".join(f"{count:,} {role}" for role, count in sorted(table["role"].value_counts().iter_rows()))
    output.echo(f"{out}: {len(table):,} photos ({roles}), embeddings of {len(table['embedding'][0])} numbers")


def add_to(app: typer.Typer) -> None:
    app.command()(embed)
