"""`handreid recipes, train, evaluate`, and what other commands share with them."""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from handreid.cli import early, output, tables
from handreid.progress import Progress, for_people

if TYPE_CHECKING:
    from handreid.recipe import Tracker


class Protocol(StrEnum):
    auto = "auto"
    hands11k = "hands11k"
    hd = "hd"
    disjoint = "disjoint"
    prepared = "prepared"


class Aspect(StrEnum):
    every = "all"
    dorsal_right = "dorsal-right"
    dorsal_left = "dorsal-left"
    palmar_right = "palmar-right"
    palmar_left = "palmar-left"


class Cameras(StrEnum):
    ignore = "ignore"
    cross = "cross"


class Label(StrEnum):
    auto = "auto"
    subject = "subject"
    hand = "hand"
    aspect = "aspect"


class MatrixBy(StrEnum):
    aspect = "aspect"
    side = "side"
    dataset = "dataset"


class LongGate(StrEnum):
    overfit = "overfit"


Data = Annotated[Path | None, typer.Option("--data", help="Manifest of the photos.", metavar="MANIFEST")]
Out = Annotated[Path, typer.Option("--out", help="Folder to write.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="Change the recipe: path.to.key=value.", metavar="KEY=VALUE")
]
Track = Annotated[
    list[str] | None,
    typer.Option(
        "--track",
        help="Tell trackers of the run too: mlflow, tensorboard, wandb, or with a place, like "
        "mlflow=http://localhost:5000; several by comma or once each; none for none.",
        metavar="TRACKER",
    ),
]
Gates = Annotated[
    list[LongGate] | None,
    typer.Option("--gate", help="A check that takes longer: overfit learns a few photos by heart."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def recipes(json: Json = False) -> None:
    """List the built-in recipes, each in a line."""
    from handreid.recipe import builtin_names, load_recipe

    found = {name: load_recipe(name) for name in builtin_names()}
    if json:
        output.as_json({name: recipe.model_dump(mode="json") for name, recipe in found.items()})
        return
    output.table("built-in recipes", ("name", "about"), [(n, r.about) for n, r in found.items()], left=2)


def train(
    recipe: Annotated[str | None, typer.Argument(help="Built-in name or YAML file; not needed with --resume.")] = None,
    out: Out = Path("run"),
    data: Data = None,
    set_: Set = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    reuse: Annotated[
        bool,
        typer.Option(help="Take stages that a run beside this one has done, with the same recipe, photos and weights."),
    ] = True,
    track: Track = None,
    gate: Gates = None,
) -> None:
    """Train a recipe into a run folder. A run that is killed or stopped resumes to the same weights."""
    from handreid.errors import RecipeError
    from handreid.recipe import load_recipe
    from handreid.training.runs import Run

    if set_ and not recipe:
        raise RecipeError(f"--set {set_[0]} changes a recipe, but none is given; a run that is resumed keeps its own")
    chosen = load_recipe(recipe, set_ or ()) if recipe else None
    told = trackers(track)
    early.training(chosen, data, out, resume=resume)
    before = Run(out).finished
    progress = begin()
    from handreid.training.train import train as train_run

    with resumable(f"handreid train --resume --out {out}"):
        run = train_run(
            chosen,
            data,
            out,
            resume=resume,
            reuse=reuse,
            progress=progress,
            track=told,
            gates=[one.value for one in gate or ()],
        )
    output.echo(f"{run.model} {'was' if before else 'is'} ready; next: handreid evaluate {out}")


def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    data: Annotated[
        list[Path] | None,
        typer.Option("--data", help="Manifest of the photos; with --matrix dataset, once per set.", metavar="MANIFEST"),
    ] = None,
    protocol: Annotated[Protocol | None, typer.Option(help="Another protocol than the recipe's.")] = None,
    aspect: Annotated[Aspect | None, typer.Option(help="Search with photos of this view only.")] = None,
    label: Annotated[Label | None, typer.Option(help="What an identity is.")] = None,
    cameras: Annotated[
        Cameras | None,
        typer.Option(help="cross: leave gallery photos of the query's identity and camera out, as Market-1501 does."),
    ] = None,
    mirrored: Annotated[
        bool | None, typer.Option(help="Add the mirrored photo's feature (flip test-time augmentation).")
    ] = None,
    rerank: Annotated[
        list[str] | None,
        typer.Option(
            help="Rank anew as well: k1=20,k2=6,lambda=0.3 by k-reciprocal neighbours, expansion=5 by average query "
            "expansion, gallery-expansion=5 by that of the gallery; may be given again.",
            metavar="HOW",
        ),
    ] = None,
    matrix: Annotated[
        MatrixBy | None, typer.Option(help="Gallery photos of one kind, probes of another: every pair as a cell.")
    ] = None,
    track: Track = None,
    json: Json = False,
) -> None:
    """Score a run on test identities: rank-k, mAPs and other metrics, with intervals, per aspect and pooled."""
    from handreid.errors import RunError
    from handreid.recipe import read_rerank

    ways = list(dict.fromkeys(map(read_rerank, rerank))) if rerank else None
    told = trackers(track)
    early.run(run, finished=True, writes=True)
    early.manifests(data or ())
    if matrix:
        from handreid.cli.matrix import evaluate_matrix

        no = {"--aspect": aspect, "--label": label, "--rerank": rerank, "--track": track}
        evaluate_matrix(
            run,
            matrix.value,
            data or [],
            protocol and protocol.value,
            cameras and cameras.value,
            mirrored,
            no,
            as_json=json,
        )
        return
    if data and len(data) > 1:
        raise RunError(f"{len(data)} manifests are given; a run is evaluated on one, or on several by --matrix dataset")
    asked = {"protocol": protocol, "aspect": aspect, "label": label, "cameras": cameras}
    changes = {name: choice.value for name, choice in asked.items() if choice}
    progress = begin()
    from handreid.training.assess import evaluate as evaluate_run
    from handreid.training.runs import open_run

    with resumable(f"handreid evaluate {run}"):
        path, found = evaluate_run(
            open_run(run),
            data=data[0] if data else None,
            changes=changes,
            mirrored=mirrored,
            rerank=ways,
            track=told,
            progress=progress,
        )
    if json:
        output.as_json(found)
        return
    tables.print_evaluation(found)
    output.echo(f"written to {path}")


def add_to(app: typer.Typer) -> None:
    for command in (recipes, train, evaluate):
        app.command()(command)


def begin() -> Progress:
    """Tells a person who waits why: torch and Lightning take seconds to import."""
    progress = for_people()
    if sys.stderr.isatty():
        progress.say("loading torch ...")
    return progress


def trackers(track: Sequence[str] | None) -> "tuple[Tracker, ...] | None":
    """What --track says; None where it says nothing. Raises RecipeError, and RunError for one that is not installed."""
    from handreid.recipe import read_trackers
    from handreid.training.tracking.places import check_installed

    if not track:
        return None
    found = read_trackers(track)
    check_installed(found)
    return found


@contextlib.contextmanager
def resumable(command: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        output.echo(f"stopped; go on with: {command}", err=True)
        raise typer.Exit(130) from None
