"""A recipe and a manifest to a finished run folder, from wherever an earlier attempt was stopped."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from handreid.build import build_embedder, build_towers
from handreid.errors import DataError, OutputError, RunError
from handreid.files import BEGINNING, locked, remove_stale
from handreid.progress import EpochListener, NullProgress, Progress
from handreid.recipe import Recipe, Tracker
from handreid.runs.dataset import RunDataset, load_dataset, photos_hash, photos_of
from handreid.runs.exposure import RECORD, Role, changed_photos, exposure_of, exposures_of, write_record
from handreid.runs.folder import Run, check_place, check_same, note_finished, open_run, start_run
from handreid.runs.leakage import check_parent
from handreid.runs.lineage import initialise_from, parent_of, parent_record
from handreid.runs.pretrained_weights import check_weights, take_text, weights_facts
from handreid.runs.side_information import seen_combinations
from handreid.tracking.client import Sender, follow
from handreid.tracking.locations import check_installed
from handreid.tracking.state import note_untold, resolve_trackers
from handreid.training.checks import before_run
from handreid.training.context import Handover, Job, LongCheck
from handreid.training.custom_objectives import note_imports, recipe_to_resume
from handreid.training.precision import check_precision, precisions
from handreid.training.prototype_attributes import attach_prototypes
from handreid.training.stages.run import check_stages, run_stage


def train(
    recipe: Recipe | None,
    data: Path | None,
    out: Path,
    *,
    resume: bool = False,
    reuse: bool = True,
    progress: Progress | None = None,
    watch: Sequence[EpochListener] = (),
    track: Sequence[Tracker] | None = None,
    sender: Sender | None = None,
    long_checks: Sequence[LongCheck] = (),
) -> Run:
    """The run, finished. With `resume` an unfinished run goes on and ends with the weights it would have had.

    With `reuse`, a stage that a run beside `out` has finished, with the same recipe, photos and weights to begin with,
    is copied from there. `watch` is told of every epoch that is trained here. `long_checks` are made beside the short
    checks before each stage. The run is tracked as `track` says, else the recipe that is given, never as a
    folder that is there says; a `sender` that several runs share is closed by whoever made it. Raises RunError when
    `out` holds something and `resume` is not given, when it was started otherwise, or another process trains there, and
    CheckError when a check fails.
    """
    progress = progress or NullProgress()
    began = open_run(out) if resume and Run(out).begun else None
    own = recipe_to_resume(began, recipe) if began else recipe
    if own is None:
        raise RunError(
            f"{out} holds no run to resume: give a recipe and its photos to start "
            f"it (handreid train RECIPE --data MANIFEST --out {out})"
        )
    trackers = resolve_trackers(track, recipe)
    check_installed(trackers)
    if began is not None:
        note_untold(began, track, trackers, progress)
    if began is not None and began.finished:
        _same_material(began, recipe, data, None, progress)
        with follow(began, trackers, sender, progress):
            return began
    check_precision(own)
    note_imports(own, progress)
    with contextlib.ExitStack() as held:
        parent = parent_of(own, out)
        if began is not None:
            held.enter_context(_alone(out, progress))
            run, material = began, _same_material(began, recipe, data, parent, progress)
            handover, notes = _untrained(own, material, parent, progress)
        else:
            check_place(out, own)
            material = load_dataset(own, data)
            handover, notes = _untrained(own, material, parent, progress)
            # before the folder: what cannot be had or built leaves nothing
            check_stages(own, handover.embedder, handover.text, material)
            before_run(own, handover.embedder, handover.text, material)
            facts = _facts(own, material, parent, progress)
            held.enter_context(_alone(out, progress))
            run = start_run(out, own, facts)
        _record_exposure(run, own, material, parent, progress)
        for note in notes:
            progress.say(f"note: {note}")
        with follow(run, trackers, sender, progress) as told:
            job = Job(run, own, handover, material, progress, (*told, *watch), tuple(long_checks))
            for number in range(len(own.stages)):
                job = replace(job, handover=run_stage(job, number, reuse=reuse))
            _save(job)
    return run


def _save(job: Job) -> None:
    """The finished model, which is written last: with it the run is finished."""
    run, left = job.run, job.handover
    text = run.text if left.text_trained else None
    if text is not None:
        left.text.save(text)
    left.embedder.save(run.model, before=lambda model: note_finished(run, model, text))


def check_recipe(recipe: Recipe, data: Path | None, *, gpu: bool | None = None) -> None:
    """Raises what `train` would before it begins, but for what `init_from` names: that may have to be trained first.

    `gpu` says whether it will train on one, for recipes that train elsewhere; None is as it is here.
    """
    check_precision(recipe, gpu=gpu)
    material = load_dataset(recipe, data)
    handover, _ = _untrained(recipe, material)
    check_stages(recipe, handover.embedder, handover.text, material)
    before_run(recipe, handover.embedder, handover.text, material)


@contextlib.contextmanager
def _alone(folder: Path, progress: Progress) -> Iterator[None]:
    """Nobody else trains in the folder, which is made if need be; what a killed process left half-written goes."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be created: {error.strerror}; choose another --out") from None
    with locked(folder, "trains in it") as held:
        if not held:
            progress.say(
                f"note: {folder} is on a disk without file locks: make sure that no other process trains in it"
            )
        for place in (folder, *folder.glob("stages/*/")):
            remove_stale(place, everyone=True)
        if Run(folder).begun:
            (folder / BEGINNING).unlink(missing_ok=True)
        yield


def _facts(recipe: Recipe, material: RunDataset, parent: Run | None, progress: Progress) -> dict[str, Any]:
    """What run.json says of what the run stands on."""
    photos = {"photos_hash": photos_hash(photos_of(recipe, material, progress))}
    precision = {"precision": precisions(recipe)}
    return material.facts | photos | parent_record(parent) | weights_facts(recipe) | precision


def _same_material(
    run: Run, recipe: Recipe | None, data: Path | None, parent: Run | None, progress: Progress
) -> RunDataset:
    """What the run was started on. Raises RunError when that, or the recipe, is another now, down to a photo's bytes.

    Of a finished run, photos that are gone are not missed.
    """
    own = recipe or run.recipe
    material = load_dataset(own, data or Path(run.facts["manifest"]))
    check_same(run, recipe, material.facts | ({} if run.finished else parent_record(parent)))
    check_weights(run, own)
    try:
        photos = photos_of(own, material, progress)
    except DataError:
        if run.finished:
            return material
        raise
    if photos_hash(photos) != run.facts["photos_hash"]:
        changed = changed_photos(run, photos)
        such = f", {len(changed)} of {len(photos)} (such as {changed[0]})" if changed else ""
        raise RunError(
            f"{run.folder} was started on other photos: files of training or validation photos have changed since"
            f"{such}; restore them, or train again into another folder; `handreid data check "
            f"{material.path}` checks them"
        )
    return material


def _record_exposure(run: Run, recipe: Recipe, material: RunDataset, parent: Run | None, progress: Progress) -> None:
    """Writes down whom the run's weights will know, and whom those that it begins with know, unless that is done."""
    if (run.folder / RECORD).exists():
        return
    name = run.folder.absolute().name
    rows: dict[int, Role] | None = None if recipe.stages else {}
    own = exposure_of(material, run=name, recipe=recipe.name, rows=rows, progress=progress)
    write_record(run, [own, *(exposures_of(parent, [material.path], progress)[0] if parent else [])])


def _untrained(
    recipe: Recipe, material: RunDataset, parent: Run | None = None, progress: Progress | None = None
) -> tuple[Handover, list[str]]:
    """The model as the run begins, and notes on what it begins with."""
    notes = [*material.split.notes, *(check_parent(parent, material, progress) if parent else [])]
    towers = build_towers(recipe)
    embedder = build_embedder(recipe, towers, seen_combinations(recipe, material))
    attach_prototypes(embedder, recipe, material)
    if parent:
        notes.append(initialise_from(embedder, parent))
    trained = parent is not None and take_text(towers.text, parent)
    return Handover(embedder, towers.text, text_trained=trained), notes
