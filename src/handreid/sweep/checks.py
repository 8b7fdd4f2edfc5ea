"""What is wrong with a sweep, all of it, before its first trial; above all whether it would look at test identities."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handreid.errors import HandreidError, RecipeError
from handreid.recipe import Recipe, dump_recipe
from handreid.recipe.load_sweep import Design
from handreid.runs.dataset import RunDataset, load_dataset
from handreid.runs.leakage import check_parent, check_validation_unseen
from handreid.runs.lineage import parent_of
from handreid.sweep.results import epochs_of
from handreid.sweep.search import Setting, grid, one_at_a_time, propose
from handreid.sweep.trials import format_value
from handreid.training.train import check_recipe


@dataclass(frozen=True)
class SweepInputs:
    """What all trials stand on: the photos, and the run that they begin with where the recipe names one."""

    material: RunDataset
    facts: dict[str, Any]


def load_inputs(design: Design, data: Path | None) -> SweepInputs:
    """The photos of a sweep. Raises what is wrong with the recipe's data, or ProtocolError when validating trials
    would look at test identities.
    """
    material = load_dataset(design.recipe_of(one_at_a_time(design.sweep)[0]), data)
    check_validation_unseen(material)
    kept = ("manifest", "manifest_hash", "split_hash", "notes")
    return SweepInputs(material, {name: material.facts[name] for name in kept})


def check_settings(design: Design) -> None:
    """Raises one RecipeError for every value, and every combination of a grid, that is no recipe or is not validated.

    For random settings those that will be drawn are checked; for TPE, which chooses later, each value once.
    """
    sweep = design.sweep
    tried: list[Setting] = one_at_a_time(sweep)
    if sweep.search == "grid":
        tried += list(grid(sweep))
    elif sweep.search == "random":
        tried += [one for number in range(sweep.settings) if (one := propose(sweep, number, [])) is not None]
    found: dict[str, str] = {}  # complaint: the first setting that gave it
    for setting in tried:
        try:
            recipe = design.recipe_of(setting)
            check_validated(recipe)
        except RecipeError as error:
            for line in str(error).splitlines():
                found.setdefault(line, describe_settings(setting))
    if found:
        lines = [f"{line} (with {where})" for line, where in found.items()]
        raise RecipeError("\n".join([f"sweep {sweep.name} cannot start:", *lines]))


def check_validated(recipe: Recipe) -> None:
    if not recipe.validated:
        raise RecipeError(f"recipe {recipe.name}: it has no fine_tune stage, so there is no validation to choose by")


def idle_scheduler(design: Design) -> str | None:
    """Why the scheduler will end no trial, if it will not: none is validated between its grace and its end."""
    asked = design.sweep.scheduler
    recipes = [design.recipe_of(setting) for setting in one_at_a_time(design.sweep)] if asked else []
    if asked is None or any(_seen_early(recipe, asked.grace) for recipe in recipes):
        return None
    number, stage = recipes[0].validated[-1]
    return (
        f"the scheduler cannot stop any trial: none is validated after its grace of {asked.grace} epochs and before "
        f"its end ({epochs_of(recipes[0])} epochs, validated every {stage.validate_every}); set scheduler.grace or "
        f"stages.{number}.validate_every lower"
    )


def _seen_early(recipe: Recipe, grace: int) -> bool:
    """Whether its last fine-tuning, which is what a scheduler is told of, is validated in time to be ended."""
    _, stage = recipe.validated[-1]
    before = epochs_of(recipe) - stage.epochs
    return any(before + epoch >= grace for epoch in range(stage.validate_every, stage.epochs, stage.validate_every))


def check_builds(design: Design, data: Path, material: RunDataset, out: Path, *, elsewhere: bool = False) -> None:
    """Builds what every value asks for, once each. Raises the errors that its training would, all in one.

    `elsewhere` says that trials are on a cluster, whose GPUs are not known here.
    """
    gpu = False if design.sweep.gpus == 0 else True if elsewhere else None
    lines, seen = [], set()
    last: type[HandreidError] = RecipeError
    for setting in one_at_a_time(design.sweep):
        recipe = design.recipe_of(setting)
        if dump_recipe(recipe) in seen:
            continue
        seen.add(dump_recipe(recipe))
        try:
            check_recipe(recipe, data, gpu=gpu)
            resolve_start(recipe, material, out)
        except HandreidError as error:
            last = type(error)
            lines.append(f"{error} (with {describe_settings(setting)})")
    if lines:
        raise last("\n".join([f"sweep {design.sweep.name} cannot start:", *dict.fromkeys(lines)]))


def resolve_start(recipe: Recipe, material: RunDataset, out: Path) -> str | None:
    """The folder of the run that a recipe starts with, which lies beside the sweep's folder, or anywhere.

    Raises what begins wrong: a run that is missing or unfinished, or was trained on people who are tested.
    """
    parent = parent_of(recipe, out)
    if parent is None:
        return None
    check_parent(parent, material)
    return str(parent.folder.absolute())


def describe_settings(setting: Setting) -> str:
    return ", ".join(f"{name} {format_value(value)}" for name, value in setting.items())
