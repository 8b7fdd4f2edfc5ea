"""A recipe and a manifest to a finished run folder, from wherever an earlier attempt was stopped."""

from collections.abc import Sequence
from pathlib import Path

from handreid.errors import RunError
from handreid.models.embedder import Embedder
from handreid.models.text import TextEncoder
from handreid.progress import Progress, Silent, Watch
from handreid.recipe import Recipe, Tracker
from handreid.training.build import build_embedder, build_towers
from handreid.training.conditions import seen_combinations
from handreid.training.exposure import RECORD, Role, exposure_of, exposures_of, write_record
from handreid.training.gates import before_run
from handreid.training.job import Job, LongGate
from handreid.training.leakage import check_parent
from handreid.training.material import Material, read_material
from handreid.training.own_weights import check_weights, weights_facts
from handreid.training.precision import check_precision, precisions
from handreid.training.prototypes import introduce
from handreid.training.runs import Run, check_free, check_same, open_run, start_run
from handreid.training.staging import check_stages, run_stage
from handreid.training.starting import begin_with, parent_of, start_facts
from handreid.training.tracking.memory import note_untold, trackers_of
from handreid.training.tracking.places import check_installed
from handreid.training.tracking.sender import Sender, follow


def train(
    recipe: Recipe | None,
    data: Path | None,
    out: Path,
    *,
    resume: bool = False,
    reuse: bool = True,
    progress: Progress | None = None,
    watch: Sequence[Watch] = (),
    track: Sequence[Tracker] | None = None,
    sender: Sender | None = None,
    gates: Sequence[LongGate] = (),
) -> Run:
    """The run, finished. With `resume` an unfinished run goes on and ends with the weights it would have had.

    With `reuse`, a stage that a run beside `out` has finished, with the same recipe, photos and weights to begin with,
    is copied from there. `watch` is told of every epoch that is trained here. `gates` are long checks to be made beside
    the short ones before each stage. The run is tracked as `track` says, else the recipe that is given, never as a
    folder that is there says; a `sender` that several runs share is closed by whoever made it. Raises RunError when
    `out` holds something and `resume` is not given, or when it was started otherwise, and GateError when a check fails.
    """
    progress = progress or Silent()
    going_on = resume and (out / "run.json").is_file()
    own = open_run(out).recipe if going_on else recipe
    if own is None:
        raise RunError(f"{out} is not a run that could be resumed; give a recipe to start one")
    trackers = trackers_of(track, recipe)
    check_installed(trackers)
    finished = going_on and open_run(out).finished
    if not finished:
        check_precision(own)
    parent = None if finished else parent_of(own, out)
    if going_on:
        run = open_run(out)
        note_untold(run, track, trackers, progress)
        material = read_material(recipe or own, data or Path(run.facts["manifest"]))
        check_same(run, recipe, material.facts | ({} if finished else start_facts(parent)))
        check_weights(run, own)
        if finished:
            with follow(run, trackers, sender, progress):
                return run
    else:
        material = read_material(own, data)
        check_free(out)
    notes = [*material.split.notes, *(check_parent(parent, material, progress) if parent else [])]
    embedder, text = _untrained(own, material)  # before the folder: what cannot be had or built leaves nothing behind
    if parent:
        notes.append(begin_with(embedder, parent))
    if not going_on:
        check_stages(own, embedder, text, material)
        before_run(own, embedder, text, material)
        precision = {"precision": precisions(own)}
        run = start_run(out, own, material.facts | start_facts(parent) | weights_facts(own) | precision)
    _record_exposure(run, own, material, parent, progress)
    for note in notes:
        progress.say(f"note: {note}")
    with follow(run, trackers, sender, progress) as told:
        job = Job(run, own, embedder, text, material, progress, (*told, *watch), tuple(gates))
        for number in range(len(own.stages)):
            run_stage(job, number, reuse=reuse)
        embedder.save(run.model)
    return run


def check(recipe: Recipe, data: Path | None, *, gpu: bool | None = None) -> None:
    """Raises what `train` would before it begins, but for what `start` names: that may have to be trained first.

    `gpu` says whether it will train on one, for recipes that train elsewhere; None is as it is here.
    """
    check_precision(recipe, gpu=gpu)
    material = read_material(recipe, data)
    embedder, text = _untrained(recipe, material)
    check_stages(recipe, embedder, text, material)
    before_run(recipe, embedder, text, material)


def _record_exposure(run: Run, recipe: Recipe, material: Material, parent: Run | None, progress: Progress) -> None:
    """Writes down whom the run's weights will know, and whom those that it begins with know, unless that is done."""
    if (run.folder / RECORD).exists():
        return
    name = run.folder.absolute().name
    rows: dict[int, Role] | None = None if recipe.stages else {}
    own = exposure_of(material, run=name, recipe=recipe.name, rows=rows, progress=progress)
    write_record(run, [own, *(exposures_of(parent, [material.path], progress)[0] if parent else [])])


def _untrained(recipe: Recipe, material: Material) -> tuple[Embedder, TextEncoder]:
    towers = build_towers(recipe)
    embedder = build_embedder(recipe, towers, seen_combinations(recipe, material))
    introduce(embedder, recipe, material)
    return embedder, towers.text
