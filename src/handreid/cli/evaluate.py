"""`handreid evaluate`: a run on test identities, as one table or as a cross-condition matrix."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from handreid.cli import early, output, tables
from handreid.cli.options import Cameras, Json, Label, MatrixBy, Protocol, Track, View, begin, resumable, trackers

if TYPE_CHECKING:
    from handreid.evaluation.matrix import By
    from handreid.runs.results import Matrix


def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    data: Annotated[
        list[Path] | None,
        typer.Option(
            "--data", help="Manifest of the photos; with --matrix dataset, once per data set.", metavar="MANIFEST"
        ),
    ] = None,
    protocol: Annotated[Protocol | None, typer.Option(help="Evaluation protocol, instead of the recipe's.")] = None,
    view: Annotated[View | None, typer.Option(help="Use only photos of this view.")] = None,
    label: Annotated[Label | None, typer.Option(help="What counts as one identity.")] = None,
    cameras: Annotated[
        Cameras | None,
        typer.Option(help="cross: ignore gallery photos of the query's identity and camera, as Market-1501 does."),
    ] = None,
    flip_tta: Annotated[
        bool | None, typer.Option(help="Add the mirrored photo's feature (flip test-time augmentation).")
    ] = None,
    rerank: Annotated[
        list[str] | None,
        typer.Option(
            help="Also report re-ranking: k1=20,k2=6,lambda=0.3 (k-reciprocal), expansion=5 (average query "
            "expansion), gallery-expansion=5 (expansion of the gallery); may be repeated.",
            metavar="HOW",
        ),
    ] = None,
    matrix: Annotated[
        MatrixBy | None,
        typer.Option(
            help="Evaluate every pair of query kind and gallery kind, such as dorsal queries in a palmar gallery."
        ),
    ] = None,
    track: Track = None,
    json: Json = False,
) -> None:
    """Score a run on test identities: rank-k, mAPs and other metrics, with intervals, per view and pooled."""
    from handreid.errors import RunError
    from handreid.recipe import read_rerank

    ways = list(dict.fromkeys(map(read_rerank, rerank))) if rerank else None
    backends = trackers(track)
    early.run(run, finished=True, writes=True)
    early.manifests(data or ())
    if matrix:
        refused = {"--view": view, "--label": label, "--rerank": rerank, "--track": track}
        evaluate_matrix(
            run,
            matrix.value,
            data or [],
            protocol and protocol.value,
            cameras and cameras.value,
            flip_tta,
            refused,
            as_json=json,
        )
        return
    if data and len(data) > 1:
        raise RunError(f"{len(data)} manifests are given; give one, or use --matrix dataset to evaluate on several")
    choices = {"protocol": protocol, "view": view, "label": label, "cameras": cameras}
    changes = {name: choice.value for name, choice in choices.items() if choice}
    progress = begin()
    from handreid.evaluation.evaluate import evaluate as evaluate_run
    from handreid.runs.folder import open_run

    with resumable(f"handreid evaluate {run}"):
        path, evaluation = evaluate_run(
            open_run(run),
            data=data[0] if data else None,
            changes=changes,
            flip_tta=flip_tta,
            rerank=ways,
            track=backends,
            progress=progress,
        )
    if json:
        output.as_json(evaluation.model_dump(mode="json"))
        return
    tables.print_evaluation(evaluation)
    output.echo(f"written to {path}")


def evaluate_matrix(
    run: Path,
    by: "By",
    data: Sequence[Path],
    protocol: str | None,
    cameras: str | None,
    flip_tta: bool | None,
    refused: Mapping[str, object],
    *,
    as_json: bool,
) -> None:
    """`refused` are options that do not work with a matrix, by name. Raises RunError if one of them is given."""
    from handreid.errors import RunError

    conflicts = [name for name, value in refused.items() if value]
    if conflicts:
        raise RunError(
            f"--matrix cannot be combined with {' and '.join(conflicts)}: it uses all views and no re-ranking"
        )
    progress = begin()
    from handreid.evaluation.matrix import matrix_of
    from handreid.runs.folder import open_run

    with resumable(f"handreid evaluate {run} --matrix {by}"):
        path, matrix = matrix_of(
            open_run(run), by, data=data, protocol=protocol, cameras=cameras, flip_tta=flip_tta, progress=progress
        )
    if as_json:
        output.as_json(matrix.model_dump(mode="json"))
        return
    print_matrix(matrix)
    output.echo(f"written to {path} and {path.with_suffix('.md')}")


def print_matrix(content: "Matrix") -> None:
    from handreid.evaluation.tables import matrix
    from handreid.metric_table import title

    output.echo(matrix.describe_training(content))
    output.echo(matrix.describe_test(content))
    output.table(f"{content.recipe} by {content.by}", matrix.KIND_COLUMNS, matrix.kind_rows(content.kinds))
    for metric in matrix.SHOWN:
        _print_grid(title(metric), *matrix.grid(content.cells, metric))
    _print_grid("queries / subjects, in gallery photos", *matrix.size_grid(content.cells))
    shared = content.shared
    if shared and shared.cells:
        rows = matrix.shared_rows(shared.kinds)
        output.table("the same people in every gallery", matrix.SHARED_COLUMNS, rows, fold=(" [",))
    if shared:
        output.echo(matrix.describe_shared(content))
    for remark in matrix.remarks(content):
        output.echo(f"note: {remark}")
    output.echo(matrix.describe_numbers(content))


def _print_grid(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a grid with two lines per cell: five columns of twenty characters are wider than a terminal."""
    output.table(title, columns, rows, fold=(" [", " in "))


def add_to(app: typer.Typer) -> None:
    app.command()(evaluate)
