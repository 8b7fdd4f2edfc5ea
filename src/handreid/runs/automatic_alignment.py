"""`model.preprocess.align: auto`, decided when a run meets its photos."""

from handreid.data.manifest import Manifest
from handreid.recipe import Recipe


def decide_alignment(recipe: Recipe, manifest: Manifest) -> tuple[Recipe, list[str]]:
    """The recipe with `auto` replaced by `hand` if the manifest has landmarks, else by `none`, and a note on it.

    A run keeps what was decided in its recipe and its model, so photos without landmarks are an error later on.
    """
    if recipe.model.preprocess.align != "auto":
        return recipe, []
    table = manifest.table
    known = len(table) - table["landmarks"].null_count() if "landmarks" in table.columns else 0
    if known:
        note = f"hands are aligned: {known:,} of {len(table):,} photos have landmarks (model.preprocess.align: auto)"
    else:
        note = "hands are not aligned: no photo has landmarks, which `handreid data landmarks` finds (align: auto)"
    preprocess = recipe.model.preprocess.model_copy(update={"align": "hand" if known else "none"})
    model = recipe.model.model_copy(update={"preprocess": preprocess})
    return recipe.model_copy(update={"model": model}), [note]
