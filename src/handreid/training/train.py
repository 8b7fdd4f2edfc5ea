"""A recipe and a manifest to a finished run folder, from wherever an earlier attempt was stopped."""

from pathlib import Path

from handreid.errors import RunError
from handreid.models.embedder import Embedder
from handreid.progress import Progress, Silent
from handreid.recipe import Recipe
from handreid.training.build import build_embedder, build_towers
from handreid.training.fitting import Job, check_stages, train_stage
from handreid.training.material import Material, read_material
from handreid.training.prototypes import introduce
from handreid.training.runs import Run, check_free, check_same, open_run, start_run


def train(
    recipe: Recipe | None, data: Path | None, out: Path, *, resume: bool = False, progress: Progress | None = None
) -> Run:
    """The run, finished. With `resume` an unfinished run goes on and ends with the weights it would have had.

    Raises RunError when `out` holds something and `resume` is not given, or when it was started otherwise.
    """
    progress = progress or Silent()
    if resume and (out / "run.json").is_file():
        run = open_run(out)
        material = read_material(recipe or run.recipe, data or Path(run.facts["manifest"]))
        check_same(run, recipe, material.facts)
        if run.finished:
            return run
        embedder = _untrained(run.recipe, material)
    elif recipe is not None:
        material = read_material(recipe, data)
        check_free(out)
        embedder = _untrained(recipe, material)  # before the folder: what cannot be had or built leaves nothing behind
        check_stages(recipe, embedder, material)
        run = start_run(out, recipe, material.facts)
    else:
        raise RunError(f"{out} is not a run that could be resumed; give a recipe to start one")
    for note in material.split.notes:
        progress.say(f"note: {note}")
    job = Job(run, run.recipe, embedder, material, progress)
    for number in range(len(run.recipe.stages)):
        train_stage(job, number)
    embedder.save(run.model)
    return run


def _untrained(recipe: Recipe, material: Material) -> Embedder:
    embedder = build_embedder(recipe, build_towers(recipe))
    introduce(embedder, recipe, material)
    return embedder
