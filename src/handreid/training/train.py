"""Trains a recipe on a manifest into a run folder; continues where an earlier attempt stopped."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from handreid.build import build_embedder, build_towers
from handreid.errors import DataError, OutputError, RunError
from handreid.files import BEGINNING, locked, remove_stale
from handreid.models.towers_file import save_towers
from handreid.progress import EpochListener, NullProgress, Progress
from handreid.recipe import Recipe, Tracker
from handreid.recipe.model import SentenceValue
from handreid.runs.automatic_alignment import decide_alignment
from handreid.runs.dataset import RunDataset, load_dataset, photos_hash, photos_of
from handreid.runs.exported_exposure import exposures_in
from handreid.runs.exposure import RECORD, Exposure, Role, changed_photos, exposure_of, exposures_of, write_record
from handreid.runs.folder import Run, check_place, check_same, note_finished, open_run, start_run
from handreid.runs.leakage import check_exported, check_parent
from handreid.runs.lineage import initialise_from, parent_of, parent_record
from handreid.runs.pretrained_weights import check_weights, exported_file, take_text, weights_facts, weights_run
from handreid.runs.rendered_photos import recorded_manifest
from handreid.runs.side_information import seen_combinations
from handreid.runs.unknown_words import unknown_words_note
from handreid.tracking.client import Sender, follow
from handreid.tracking.locations import check_installed
from handreid.tracking.state import note_untold, resolve_trackers
from handreid.training.checks import before_run
from handreid.training.context import Handover, Job, LongCheck
from handreid.training.custom_objectives import note_imports, recipe_to_resume
from handreid.training.precision import check_precision, precision_notes, precisions
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
    """The finished run. With `resume` an unfinished run continues and ends with the same weights as without the stop.

    With `reuse`, a stage that a run beside `out` has finished with the same recipe, photos and initial weights is
    copied from there. `watch` is called after every epoch trained here. `long_checks` are made in addition to the fast
    checks before each stage. The run is tracked by `track`, else by the given recipe's trackers, never by those of an
    existing folder; a shared `sender` is closed by its owner. Raises RunError when `out` is not empty and `resume` is
    not given, when it was started with something else, or another process trains there, and CheckError when a check
    fails.
    """
    progress = progress or NullProgress()
    existing = open_run(out) if resume and Run(out).begun else None
    run_recipe = recipe_to_resume(existing, recipe) if existing else recipe
    if run_recipe is None:
        raise RunError(
            f"{out} holds no run to resume: give a recipe and its photos to start "
            f"it (handreid train RECIPE --data MANIFEST --out {out})"
        )
    trackers = resolve_trackers(track, recipe)
    check_installed(trackers)
    if existing is not None:
        note_untold(existing, track, trackers, progress)
    if existing is not None and existing.finished:
        _resumed_material(existing, recipe, data, None, progress)
        with follow(existing, trackers, sender, progress):
            return existing
    check_precision(run_recipe)
    note_imports(run_recipe, progress)
    with contextlib.ExitStack() as stack:
        parent = parent_of(run_recipe, out)
        if existing is not None:
            stack.enter_context(_exclusive(out, progress))
            run, material = existing, _resumed_material(existing, recipe, data, parent, progress)
            handover, notes = _untrained(run_recipe, material, parent, progress)
        else:
            check_place(out, run_recipe)
            material = load_dataset(run_recipe, data, progress=progress)
            run_recipe, decided = decide_alignment(run_recipe, material.manifest)
            handover, notes = _untrained(run_recipe, material, parent, progress)
            if data is not None and recipe is not None and recipe.data.rendered and material.rendered is None:
                notes = [f"the photos of {data} are used, so those of data.rendered are not drawn", *notes]
            notes = [*decided, *notes]
            # before the folder is created, so that a failure leaves nothing behind
            check_stages(run_recipe, handover.embedder, handover.text, material)
            before_run(run_recipe, handover.embedder, handover.text, material)
            facts = _facts(run_recipe, material, parent, progress)
            stack.enter_context(_exclusive(out, progress))
            run = start_run(out, run_recipe, facts)
        _record_exposure(run, run_recipe, material, parent, progress)
        for note in [*notes, *precision_notes(run_recipe)]:
            progress.say(f"note: {note}")
        with follow(run, trackers, sender, progress) as listeners:
            job = Job(run, run_recipe, handover, material, progress, (*listeners, *watch), tuple(long_checks))
            for number in range(len(run_recipe.stages)):
                job = replace(job, handover=run_stage(job, number, reuse=reuse))
            _save(job)
    return run


def _save(job: Job) -> None:
    """Writes the finished model last: with it the run counts as finished."""
    run, handover = job.run, job.handover
    beside = []
    if handover.text_trained:
        handover.text.save(run.text)
        beside.append(run.text)
    if any(stage.gives_towers for stage in job.recipe.stages):
        backbone = handover.embedder.backbone
        save_towers(run.towers, backbone.visual, handover.text, backbone.config)
        beside.append(run.towers)
    handover.embedder.save(run.model, before=lambda model: note_finished(run, model, beside))


def check_recipe(
    recipe: Recipe, data: Path | None, *, gpu: bool | None = None, progress: Progress | None = None
) -> None:
    """Raises what `train` would raise before it starts, except for `init_from`, whose run may not be trained yet.

    `gpu`: whether it will train on one, for recipes that train on another machine; None: as on this one.
    """
    check_precision(recipe, gpu=gpu)
    material = load_dataset(recipe, data, progress=progress)
    recipe, _ = decide_alignment(recipe, material.manifest)
    handover, _ = _untrained(recipe, material)
    check_stages(recipe, handover.embedder, handover.text, material)
    before_run(recipe, handover.embedder, handover.text, material)


@contextlib.contextmanager
def _exclusive(folder: Path, progress: Progress) -> Iterator[None]:
    """Locks the folder for this process, creates it if needed, and removes partial files of a killed process."""
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
    """Data, weights, parent and precision of the run, for run.json."""
    photos = {"photos_hash": photos_hash(photos_of(recipe, material, progress))}
    precision = {"precision": precisions(recipe)}
    return material.facts | photos | parent_record(parent) | weights_facts(recipe) | precision


def _resumed_material(
    run: Run, recipe: Recipe | None, data: Path | None, parent: Run | None, progress: Progress
) -> RunDataset:
    """The data the run was started on. Raises RunError when it or the recipe has changed, down to a photo's bytes.

    For a finished run, missing photos are accepted.
    """
    used = recipe or run.recipe
    material = load_dataset(used, data or recorded_manifest(run.facts, progress))
    given = None if recipe is None else decide_alignment(recipe, material.manifest)[0]
    check_same(run, given, material.facts | ({} if run.finished else parent_record(parent)))
    check_weights(run, used)
    try:
        photos = photos_of(used, material, progress)
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
    """Writes which subjects the run's weights, and those of its parent, have seen; unless it is written already."""
    if (run.folder / RECORD).exists():
        return
    name = run.folder.absolute().name
    rows: dict[int, Role] | None = None if recipe.stages else {}
    exposure = exposure_of(material, run=name, recipe=recipe.name, rows=rows, progress=progress)
    earlier: list[Exposure] = []
    for before in (parent, weights_run(recipe)):
        found = exposures_of(before, [material.path], progress)[0] if before else []
        earlier += [other for other in found if other not in earlier]
    exported = exported_file(recipe)
    earlier += exposures_in(exported)[0] if exported else []
    write_record(run, [exposure, *earlier])


def _untrained(
    recipe: Recipe, material: RunDataset, parent: Run | None = None, progress: Progress | None = None
) -> tuple[Handover, list[str]]:
    """The model before training, and notes on data, parent and initial weights."""
    notes = [*material.split.notes, *(check_parent(parent, material, progress) if parent else [])]
    pretrained = weights_run(recipe)
    if pretrained:
        notes += check_parent(pretrained, material, progress, key="model.backbone.weights")
    exported = exported_file(recipe)
    notes += check_exported(exported, material) if exported else []
    towers = build_towers(recipe)
    trained = parent is not None and take_text(towers.text, parent)  # before a head reads sentences with it
    embedder = build_embedder(recipe, towers, seen_combinations(recipe, material))
    phrases = attach_prototypes(embedder, recipe, material)
    head = recipe.model.head
    if isinstance(head, SentenceValue):
        notes += unknown_words_note(towers.text, [*head.sentences, *phrases], "model.head")
    if parent:
        notes.append(initialise_from(embedder, parent))
    return Handover(embedder, towers.text, text_trained=trained), notes
