"""Custom objectives: which code a run imports, and how it is resumed with them.

A run folder from somebody else must not cause code to be imported. So a resumed run takes custom objectives from the
given recipe, never from the folder; objects that were passed from Python come with that recipe too.
"""

from handreid.errors import RunError
from handreid.messages import listed
from handreid.progress import Progress
from handreid.recipe import Recipe
from handreid.recipe.custom_term import CustomTerm
from handreid.runs.folder import Run


def recipe_to_resume(run: Run, recipe: Recipe | None) -> Recipe:
    """The run's recipe with the stages of `recipe`, which must be the same (checked by `check_same`).

    Raises RunError where an unfinished run has custom objectives and no recipe is given.
    """
    run_recipe = run.recipe
    custom = custom_terms(run_recipe)
    if not custom or run.finished:
        return run_recipe
    if recipe is None:
        kinds = listed(dict.fromkeys(term.kind for term in custom))
        objects = any(term.fingerprint for term in custom)
        command = f"handreid train {run.folder}/recipe.yaml --resume --out {run.folder}"
        how = (
            "from Python, with the same objects: handreid.train(recipe, data, out, resume=True)" if objects else command
        )
        raise RunError(
            f"{run.folder} trains with objectives that are not handreid's own ({kinds}), and a run folder is not asked "
            f"whose code to run. Give the recipe again: {how}"
        )
    return run_recipe.model_copy(update={"stages": recipe.stages})


def note_imports(recipe: Recipe, progress: Progress) -> None:
    """Notes which modules other than handreid's will be imported."""
    modules = dict.fromkeys(term.kind.partition(":")[0] for term in custom_terms(recipe) if term.fingerprint is None)
    if modules:
        progress.say(f"note: this recipe imports {listed(modules)}, and runs the code in it")


def custom_terms(recipe: Recipe) -> list[CustomTerm]:
    """The custom objectives of all stages."""
    return [term for _, stage in recipe.fine_tunes for term in stage.objectives if isinstance(term, CustomTerm)]
