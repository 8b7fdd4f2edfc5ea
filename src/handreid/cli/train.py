"""`handreid recipes` and `handreid train`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from handreid.cli import early, output
from handreid.cli.options import Data, Json, LongChecks, Out, Set, Track, begin, resumable, trackers

if TYPE_CHECKING:
    from handreid.runs.folder import Run


def recipes(json: Json = False) -> None:
    """List the built-in recipes, each in a line."""
    from handreid.recipe import builtin_names, load_recipe

    builtin = {name: load_recipe(name) for name in builtin_names()}
    if json:
        output.as_json({name: recipe.model_dump(mode="json") for name, recipe in builtin.items()})
        return
    output.table("built-in recipes", ("name", "about"), [(n, r.about) for n, r in builtin.items()], left=2)


def train(
    recipe: Annotated[str | None, typer.Argument(help="Built-in name or YAML file; not needed with --resume.")] = None,
    out: Out = Path("run"),
    data: Data = None,
    set_: Set = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a run that was stopped.")] = False,
    reuse: Annotated[
        bool,
        typer.Option(help="Copy finished stages of a run beside this one with the same recipe, photos and weights."),
    ] = True,
    track: Track = None,
    check: LongChecks = None,
) -> None:
    """Train a recipe into a run folder. A run that was stopped or killed can be resumed to the same weights."""
    from handreid.errors import RecipeError
    from handreid.recipe import load_recipe
    from handreid.runs.folder import Run

    if set_ and not recipe:
        raise RecipeError(f"--set {set_[0]} changes a recipe, but no recipe is given; a resumed run keeps its own")
    loaded = load_recipe(recipe, set_ or ()) if recipe else None
    backends = trackers(track)
    early.training(loaded, data, out, resume=resume)
    before = Run(out).finished
    progress = begin()
    from handreid.training.train import train as train_run

    with resumable(f"handreid train --resume --out {out}", begun=lambda: Run(out).begun):
        run = train_run(
            loaded,
            data,
            out,
            resume=resume,
            reuse=reuse,
            progress=progress,
            track=backends,
            long_checks=[name.value for name in check or ()],
        )
    output.echo(f"{run.model} {'was' if before else 'is'} ready; next: {_next_step(run)}")


def _next_step(run: "Run") -> str:
    """Towers that were pre-trained last are there for other recipes: their own photos may have no subject to test.

    Those that are compared with sentences (`evaluate.prompts`) can be of use at once.
    """
    stages = run.recipe.stages
    if stages and stages[-1].gives_towers and run.recipe.evaluate.prompts is None:
        return f"handreid train RECIPE --data MANIFEST --set model.backbone.weights={run.folder}"
    return f"handreid evaluate {run.folder}"


def add_to(app: typer.Typer) -> None:
    for command in (recipes, train):
        app.command()(command)
