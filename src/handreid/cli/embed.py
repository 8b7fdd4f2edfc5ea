"""`handreid embed`: embeddings of photos, as a table."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from handreid.cli import early, output
from handreid.cli.options import Data, FlipTta, Landmarker, begin, resumable
from handreid.errors import DataError

if TYPE_CHECKING:
    import polars as pl


class Part(StrEnum):
    every = "all"
    train = "train"
    validation = "validation"
    test = "test"
    unlabelled = "unlabelled"


def embed(
    run: Annotated[Path, typer.Argument(help="Run folder; `handreid` is the model in this package.")],
    out: Annotated[Path, typer.Option("--out", help="Table to write, .parquet; an existing one is replaced.")],
    photos: Annotated[
        list[Path] | None,
        typer.Argument(help="Photo files, and folders of photos, in place of a manifest.", show_default=False),
    ] = None,
    data: Data = None,
    split: Annotated[
        Part,
        typer.Option(help="Only photos that the run trains on, validates on or tests, or those without a subject."),
    ] = Part.every,
    flip_tta: FlipTta = None,
    landmarker: Landmarker = None,
) -> None:
    """Write the embeddings of photos as a table, with the manifest's columns, identity and role in the run.

    The photos are those of the run's manifest, of another one (--data), or PHOTOS. On PHOTOS a model that aligns or
    mirrors hands searches for them as `handreid data landmarks` does, which needs the extra `handreid[landmarks]`; the
    table then holds the landmarks.
    """
    from handreid.files import check_writable

    packaged = str(run) == "handreid"
    if not packaged:
        early.run(run, finished=True)
    elif split is not Part.every or not (photos or data):
        raise DataError(
            "handreid, the model in this package, has no photos and no splits of its own: give PHOTOS, or --data"
        )
    early.manifests([data])
    check_writable(out, (".parquet",))
    if photos:
        _check_files(photos, data, split)
    elif landmarker is not None:
        raise DataError("--landmarker is for photo files; a manifest's landmarks come from `handreid data landmarks`")
    progress = begin()
    from handreid.data.manifest import read
    from handreid.evaluation.embed import embed as embed_run
    from handreid.evaluation.embed_files import embed_files, embed_files_by_package
    from handreid.runs.folder import open_run

    with resumable("the same command"):
        if packaged:
            given = (photos or []) if data is None else read(data)
            table = embed_files_by_package(
                given, out, landmarker=landmarker, flip_tta=bool(flip_tta), progress=progress
            )
        elif photos:
            table = embed_files(open_run(run), photos, out, landmarker=landmarker, flip_tta=flip_tta, progress=progress)
        else:
            table = embed_run(open_run(run), out, data=data, part=split.value, flip_tta=flip_tta, progress=progress)
    output.echo(f"{out}: {len(table):,} photos{_roles(table)}, embeddings of {len(table['embedding'][0])} numbers")


def _check_files(photos: list[Path], data: Path | None, split: Part) -> None:
    """Raises DataError for options of manifests, and for photos that do not exist."""
    if data is not None or split != Part.every:
        raise DataError("photo files have no manifest: give either them, or --data and --split")
    for path in photos:
        if not path.exists():
            raise DataError(f"{path}: no such photo or folder")
        if path.suffix in (".parquet", ".csv") and not path.is_dir():
            raise DataError(f"{path} is a manifest, not a photo: give it as --data {path}")


def _roles(table: "pl.DataFrame") -> str:
    if "role" not in table.columns:
        return ""
    return f" ({', '.join(f'{count:,} {role}' for role, count in sorted(table['role'].value_counts().iter_rows()))})"


def add_to(app: typer.Typer) -> None:
    app.command()(embed)
