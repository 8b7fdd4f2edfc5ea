"""Objectives that are not handreid's own: whose code a run imports, and how it goes on with them.

Somebody else's run folder must not have code imported. So a run that is resumed takes such objectives from the recipe
that is given, never from the folder; with them come the objects that were given from Python.
"""

from handreid.errors import RunError
from handreid.messages import listed
from handreid.progress import Progress
from handreid.recipe import Recipe
from handreid.recipe.custom_term import CustomTerm
from handreid.runs.folder import Run


def recipe_to_resume(run: Run, given: Recipe | None) -> Recipe:
    """The run's recipe with the stages of the given one, which must be the same (`check_same` sees to that).

    Raises RunError where an unfinished run has objectives that are not handreid's own and no recipe is given.
    """
    own = run.recipe
    custom = custom_terms(own)
    if not custom or run.finished:
        return own
    if given is None:
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
    return own.model_copy(update={"stages": given.stages})


def note_imports(recipe: Recipe, progress: Progress) -> None:
    """Says which modules will be imported that are not handreid's own."""
    modules = dict.fromkeys(term.kind.partition(":")[0] for term in custom_terms(recipe) if term.fingerprint is None)
    if modules:
        progress.say(f"note: this recipe imports {listed(modules)}, and runs the code in it")


def custom_terms(recipe: Recipe) -> list[CustomTerm]:
    """Of all stages."""
    return [term for _, stage in recipe.fine_tunes for term in stage.objectives if isinstance(term, CustomTerm)]
