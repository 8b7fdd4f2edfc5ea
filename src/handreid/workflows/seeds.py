"""The runs of a ladder's rungs over several training seeds.

* Only `seed` changes: the split, the draws and the validation subjects are of `data.seed`, so that all runs have the
  same queries and the same test subjects.
* The run of a rung's own seed is in the folder RUNG, as in a ladder of one seed. That of another seed is a recipe of
  its own, RUNG-seed-N in a folder of that name, as in a sweep. All are folders of the ladder, so `init_from`, copied
  stages and trackers work as in any ladder, and seeds can be added later.
* A rung that starts from another run starts from that run's seed of the same place: its second seed from the second.
* A rung that no seed changes, such as a pretrained model without training, is run once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from handreid.errors import RecipeError, RunError
from handreid.files import TOWERS, found_file
from handreid.recipe import Recipe
from handreid.recipe.load import check_names
from handreid.runs.folder import Run
from handreid.runs.results import SeedLadder, read_ladder

_PLAIN_HEADS = ("linear", "bnneck")  # without random parameters


@dataclass(frozen=True)
class PlannedRung:
    """A rung, the recipes of its runs, its own first, and what to tell the user."""

    recipe: Recipe
    runs: tuple[Recipe, ...]
    note: str | None = None


def plan_rungs(recipes: Sequence[Recipe], out: Path, seeds: int) -> list[PlannedRung]:
    """Every rung with its runs. Raises RunError for fewer than one seed, if `out` holds a ladder over more of them, for
    two runs of one name, and if a run that a rung starts from was trained with only some of the seeds.
    """
    if seeds < 1:
        raise RunError(f"{seeds} seeds: a rung is trained with one or more")
    _check_not_fewer(out, seeds)
    planned: dict[str, PlannedRung] = {}
    for recipe in recipes:
        planned.setdefault(recipe.name, _planned(recipe, seeds, planned, out))
    check_names([*recipes, *(run for rung in planned.values() for run in rung.runs[1:])])
    return list(planned.values())


def _check_not_fewer(out: Path, seeds: int) -> None:
    try:
        ladder = read_ladder(out)
    except RunError:  # none yet, or of another version: it is written again
        return
    if isinstance(ladder, SeedLadder) and ladder.seeds > seeds:
        raise RunError(
            f"{out} holds a ladder over {ladder.seeds} seeds, and --seeds is {seeds}: give --seeds {ladder.seeds}, or "
            "choose another --out"
        )


def _planned(recipe: Recipe, seeds: int, earlier: Mapping[str, PlannedRung], out: Path) -> PlannedRung:
    if seeds == 1:
        return PlannedRung(recipe, (recipe,))
    starts = {key: _start(name, seeds, earlier, out) for key, name in _names_of_starts(recipe).items()}
    fixed = not (
        recipe.stages
        or recipe.model.backbone.weights == "none"
        or recipe.model.head.kind not in _PLAIN_HEADS
        or any(len(set(start.names)) > 1 for start in starts.values())
    )
    if fixed:
        return PlannedRung(recipe, (recipe,))
    alone = " and ".join(start.names[0] for start in starts.values() if start.trained_once)
    note = f"all seeds of {recipe.name} start from the one run {alone}, so what depends on its seed is not counted"
    further = (
        _with_seed(recipe, recipe.seed + place, {key: start.names[place] for key, start in starts.items()})
        for place in range(1, seeds)
    )
    return PlannedRung(recipe, (recipe, *further), note if alone else None)


@dataclass(frozen=True)
class _Start:
    """The run that each seed of a rung starts from, as the recipe names it; `trained_once` if all from the same."""

    names: list[str]
    trained_once: bool = False


def _names_of_starts(recipe: Recipe) -> dict[str, str]:
    """The runs that a recipe starts from, by the key that names them."""
    text = recipe.model.backbone.weights
    weights = Path(text).parent if Path(text).name == TOWERS else Path(text)
    run = found_file(f"{weights}/run.json")
    named = {} if recipe.init_from is None else {"init_from": recipe.init_from}
    return named | ({} if run is None else {"weights": str(run.parent)})


def _start(name: str, seeds: int, earlier: Mapping[str, PlannedRung], out: Path) -> _Start:
    """Of a rung of this ladder, its runs; of another run, those beside it that end in -seed-N."""
    places = [folder.absolute() for folder in (out / name, Path(name))]  # as `init_from` is looked up
    for folder in places:
        if folder.name in earlier and folder.parent.resolve() == out.resolve():
            runs = earlier[folder.name].runs
            return _Start([_sibling(name, run.name) for run in runs] if len(runs) > 1 else [name] * seeds)
    found = next((Run(folder) for folder in places if Run(folder).begun), None)
    if found is None:
        return _Start([name] * seeds)  # training says what is wrong
    others = [f"{found.folder.name}-seed-{found.facts['seed'] + place}" for place in range(1, seeds)]
    missing = [other for other in others if not Run(found.folder.with_name(other)).begun]
    if len(missing) == len(others):
        return _Start([name] * seeds, bool(found.recipe.stages))
    if missing:
        raise RunError(
            f"{name} has runs of other seeds beside it, but not of all {seeds}: there is no {missing[0]}; train it "
            f"with --seeds {seeds} first, or as an earlier rung of this ladder"
        )
    return _Start([name, *(_sibling(name, other) for other in others)])


def _sibling(name: str, other: str) -> str:
    return str(Path(name).with_name(other))


def _with_seed(recipe: Recipe, seed: int, starts: Mapping[str, str]) -> Recipe:
    """The recipe with another seed, and the runs it starts from. Raises RecipeError if its name or seed is wrong."""
    try:
        named = Recipe(name=f"{recipe.name}-seed-{seed}", seed=seed)  # checked, as copies are not
    except RecipeError as error:
        raise RecipeError(f"rung {recipe.name} cannot be run with seed {seed}: {error}") from None
    changes: dict[str, object] = {"name": named.name, "seed": named.seed}
    if "init_from" in starts:
        changes["init_from"] = starts["init_from"]
    if "weights" in starts:
        backbone = recipe.model.backbone.model_copy(update={"weights": starts["weights"]})
        changes["model"] = recipe.model.model_copy(update={"backbone": backbone})
    return recipe.model_copy(update=changes)
