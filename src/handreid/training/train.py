"""A recipe and a manifest to a finished run folder, from wherever an earlier attempt was stopped."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from handreid.errors import DataError, OutputError, RunError
from handreid.files import BEGINNING, check_folder_writable, locked, remove_stale
from handreid.models.embedder import Embedder
from handreid.models.text import TextEncoder
from handreid.progress import Progress, Silent, Watch
from handreid.recipe import Recipe, Tracker
from handreid.training.build import build_embedder, build_towers
from handreid.training.conditions import seen_combinations
from handreid.training.gates import before_run
from handreid.training.job import Job, LongGate
from handreid.training.material import Material, not_as_prepared, photos_hash, photos_of, read_material
from handreid.training.prototypes import introduce
from handreid.training.runs import Run, check_free, check_same, note_finished, open_run, start_run
from handreid.training.staging import check_stages, run_stage
from handreid.training.starting import begin_with, check_strangers, parent_of, start_facts
from handreid.training.tracking.memory import trackers_of
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
    the short ones before each stage. The run is tracked as `track` says, else the recipe; a `sender` that several runs
    share is closed by whoever made it. Raises RunError when `out` holds something and `resume` is not given, when it
    was started otherwise, or another process trains there, and GateError when a check fails.
    """
    progress = progress or Silent()
    began = open_run(out) if resume and Run(out).begun else None
    own = began.recipe if began else recipe
    if own is None:
        raise RunError(
            f"{out} is not a run that could be resumed, nothing has begun there: give a recipe and its photos to start "
            f"it (handreid train RECIPE --data MANIFEST --out {out})"
        )
    trackers = trackers_of(track, recipe or own, began)
    check_installed(trackers)
    if began is not None and began.finished:
        _same_material(began, recipe, data, None, progress)
        with follow(began, trackers, sender, progress):
            return began
    with contextlib.ExitStack() as held:
        if began is not None:
            held.enter_context(_alone(out, progress))
        else:
            check_folder_writable(out)
        parent = parent_of(own, out)
        if began is not None:
            material = _same_material(began, recipe, data, parent, progress)
        else:
            material = read_material(own, data)
            check_free(out, own)
        notes = [*material.split.notes, *(check_strangers(parent, material) if parent else [])]
        embedder, text = _untrained(own, material)  # before the folder: what cannot be built leaves nothing behind
        if parent:
            notes.append(begin_with(embedder, parent))
        if began is None:
            check_stages(own, embedder, text, material)
            before_run(own, embedder, text, material)
            photos = photos_of(own, material, progress)
            facts = material.facts | {"photos_hash": photos_hash(photos)} | start_facts(parent)
            held.enter_context(_alone(out, progress))
            run = start_run(out, own, facts)
        else:
            run = began
        for note in notes:
            progress.say(f"note: {note}")
        with follow(run, trackers, sender, progress) as told:
            job = Job(run, own, embedder, text, material, progress, (*told, *watch), tuple(gates))
            for number in range(len(own.stages)):
                run_stage(job, number, reuse=reuse)
            embedder.save(run.model, before=lambda model: note_finished(run, model))
    return run


def check(recipe: Recipe, data: Path | None) -> None:
    """Raises what `train` would before it begins, but for what `start` names: that may have to be trained first."""
    material = read_material(recipe, data)
    embedder, text = _untrained(recipe, material)
    check_stages(recipe, embedder, text, material)
    before_run(recipe, embedder, text, material)


@contextlib.contextmanager
def _alone(folder: Path, progress: Progress) -> Iterator[None]:
    """Nobody else trains in the folder, which is made if need be; what a killed process left half-written goes."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made: {error.strerror}; choose another --out") from None
    with locked(folder, "trains in it") as held:
        if not held:
            progress.say(f"note: {folder} is on a disk that knows no locks: let no other process train in it")
        for place in (folder, *folder.glob("stages/*/")):
            remove_stale(place, everyone=True)
        if Run(folder).begun:
            (folder / BEGINNING).unlink(missing_ok=True)
        yield


def _same_material(
    run: Run, recipe: Recipe | None, data: Path | None, parent: Run | None, progress: Progress
) -> Material:
    """What the run was started on. Raises RunError when that, or the recipe, is another now, down to a photo's bytes.

    Of a finished run, photos that are gone are not missed.
    """
    own = recipe or run.recipe
    material = read_material(own, data or Path(run.facts["manifest"]))
    check_same(run, recipe, material.facts | ({} if run.finished else start_facts(parent)))
    try:
        photos = photos_of(own, material, progress)
    except DataError:
        if run.finished:
            return material
        raise
    if photos_hash(photos) != run.facts["photos_hash"]:
        known = not_as_prepared(material, photos)
        such = f", {len(known)} of them are not as they were prepared (such as {known[0]})" if known else ""
        raise RunError(
            f"{run.folder} was started on other photos: the bytes of those that train or validate have changed since "
            f"({len(photos)} photos{such}); put them back as they were, or train anew into another folder; "
            f"`handreid data check {material.path}` looks what is wrong with them"
        )
    return material


def _untrained(recipe: Recipe, material: Material) -> tuple[Embedder, TextEncoder]:
    towers = build_towers(recipe)
    embedder = build_embedder(recipe, towers, seen_combinations(recipe, material))
    introduce(embedder, recipe, material)
    return embedder, towers.text
