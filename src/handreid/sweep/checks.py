"""Checks before the first trial: all errors of a sweep at once, and that validation uses no test identities."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handreid.errors import HandreidError, RecipeError
from handreid.progress import Progress
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
    """What all trials share: the photos with their split, and what sweep.json records of them."""

    material: RunDataset
    facts: dict[str, Any]


def load_inputs(design: Design, data: Path | None, progress: Progress | None = None) -> SweepInputs:
    """The photos of a sweep. Raises ProtocolError when validation would use test identities, and other errors of the
    recipe's data.
    """
    material = load_dataset(design.recipe_of(one_at_a_time(design.sweep)[0]), data, progress=progress)
    check_validation_unseen(material)
    names = ("manifest", "manifest_hash", "split_hash", "notes", "rendered")
    return SweepInputs(material, {name: material.facts[name] for name in names if name in material.facts})


def check_settings(design: Design) -> None:
    """Raises one RecipeError that lists every value, and every combination of a grid, that gives no valid recipe or one
    without validation.

    For random settings those that will be drawn are checked; for TPE, which chooses later, each value once.
    """
    sweep = design.sweep
    tried: list[Setting] = one_at_a_time(sweep)
    if sweep.search == "grid":
        tried += list(grid(sweep))
    elif sweep.search == "random":
        tried += [drawn for number in range(sweep.settings) if (drawn := propose(sweep, number, [])) is not None]
    complaints: dict[str, str] = {}  # complaint: the first setting that gave it
    for setting in tried:
        try:
            recipe = design.recipe_of(setting)
            check_validated(recipe)
        except RecipeError as error:
            for line in str(error).splitlines():
                complaints.setdefault(line, describe_settings(setting))
    if complaints:
        lines = [f"{line} (with {where})" for line, where in complaints.items()]
        raise RecipeError("\n".join([f"sweep {sweep.name} cannot start:", *lines]))


def check_validated(recipe: Recipe) -> None:
    if not recipe.validated:
        raise RecipeError(f"recipe {recipe.name}: it has no fine_tune stage, so there is no validation to choose by")


def idle_scheduler(design: Design) -> str | None:
    """Why the scheduler cannot stop any trial (none is validated between its grace and its end); None if it can."""
    scheduler = design.sweep.scheduler
    recipes = [design.recipe_of(setting) for setting in one_at_a_time(design.sweep)] if scheduler else []
    if scheduler is None or any(_seen_early(recipe, scheduler.grace) for recipe in recipes):
        return None
    number, stage = recipes[0].validated[-1]
    return (
        f"the scheduler cannot stop any trial: none is validated after its grace of {scheduler.grace} epochs and "
        f"before its end ({epochs_of(recipes[0])} epochs, validated every {stage.validate_every}); set "
        "scheduler.grace or "
        f"stages.{number}.validate_every lower"
    )


def _seen_early(recipe: Recipe, grace: int) -> bool:
    """Whether the last fine-tuning, whose metric the scheduler sees, is validated between the grace and its end."""
    _, stage = recipe.validated[-1]
    before = epochs_of(recipe) - stage.epochs
    return any(before + epoch >= grace for epoch in range(stage.validate_every, stage.epochs, stage.validate_every))


def check_builds(design: Design, data: Path, material: RunDataset, out: Path, *, elsewhere: bool = False) -> None:
    """Builds each distinct recipe of `one_at_a_time` once. Raises all errors that training would raise, as one.

    `elsewhere` says that trials are on a cluster, whose GPUs are not known here.
    """
    gpu = False if design.sweep.gpus == 0 else True if elsewhere else None
    lines, checked = [], set()
    error_kind: type[HandreidError] = RecipeError
    for setting in one_at_a_time(design.sweep):
        recipe = design.recipe_of(setting)
        if dump_recipe(recipe) in checked:
            continue
        checked.add(dump_recipe(recipe))
        try:
            check_recipe(recipe, data, gpu=gpu)
            resolve_start(recipe, material, out)
        except HandreidError as error:
            error_kind = type(error)
            lines.append(f"{error} (with {describe_settings(setting)})")
    if lines:
        raise error_kind("\n".join([f"sweep {design.sweep.name} cannot start:", *dict.fromkeys(lines)]))


def resolve_start(recipe: Recipe, material: RunDataset, out: Path) -> str | None:
    """The folder of the run in `init_from`, which may lie beside the sweep's folder or anywhere; None without one.

    Raises HandreidError when that run is missing or unfinished, or was trained on test subjects.
    """
    parent = parent_of(recipe, out)
    if parent is None:
        return None
    check_parent(parent, material)
    return str(parent.folder.absolute())


def describe_settings(setting: Setting) -> str:
    return ", ".join(f"{name} {format_value(value)}" for name, value in setting.items())
