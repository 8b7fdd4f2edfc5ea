"""A run's stages, one after another, each from what the one before it left.

* A stage that is finished says so in `stage.json`, with a key: a hash of its part of the recipe, the photos and the
  split, and all weights that it begins with. These hold whatever earlier stages, another run's encoder or a weights
  file brought, so the same key is the same stage.
* A stage whose key another run beside this one has finished is not run again: its files are copied. They are compared
  with the hashes in its `stage.json` before and after; what is not as it was written there is left, with a note.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from handreid import __version__
from handreid.errors import RunError
from handreid.files import read_json, write_atomic, write_json
from handreid.models.embedder import Embedder
from handreid.models.text import TextEncoder
from handreid.recipe import Recipe
from handreid.runs.dataset import RunDataset, photos_of
from handreid.runs.epoch_metrics import append_metrics, read_metrics
from handreid.runs.folder import Run, check_noted, now
from handreid.runs.records import STAGE_FORMAT, read_stage
from handreid.runs.stage_weights import NOTES, hashes, noting
from handreid.training.checks import before_stage
from handreid.training.context import Handover, Job
from handreid.training.parameter_counts import write_parameter_counts
from handreid.training.stages.base import AnyStage
from handreid.training.stages.registry import stage_of
from handreid.training.trainer import begin_anew, fit, prepare_resume

_TOLD = ("parameters.json", "checks.json", "wise_ft.json")  # what a stage says beside its weights


def check_stages(recipe: Recipe, embedder: Embedder, text: TextEncoder, material: RunDataset) -> None:
    """Raises what building any of the stages would: before there is a folder, and not after hours of the first."""
    for number in range(len(recipe.stages)):
        stage_of(recipe, number).check(Handover(embedder, text), material)


def run_stage(job: Job, number: int, *, reuse: bool = True) -> Handover:
    """Does what is left of a stage, unless it has been done, here or beside; what it leaves to the next."""
    folder, stage = job.folder(number), stage_of(job.recipe, number)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "stage.json").exists():
        key = _key(job, stage)
        other = _from_elsewhere(job, number, key) if reuse else None
        if other is None:
            _work(job, stage)
        facts = {"finished": now()} if other is None else {"taken_from": str(other.folder)}
        epochs = sum(entry["stage"] == number for entry in read_metrics(job.run))
        about = {"format": STAGE_FORMAT, "key": key, "number": number, "epochs": epochs}
        write_json(folder / "stage.json", {**about, "files": hashes(folder), **facts})
        (folder / NOTES).unlink(missing_ok=True)
    return stage.load(folder, job.handover)


def _work(job: Job, stage: AnyStage) -> None:
    number = stage.number
    stage.begin(job)
    if prepare_resume(job, number):
        module = stage.module(job)
        write_parameter_counts(job.folder(number), *stage.counts(job, module), job.progress.say)
        before_stage(job, number, stage.probe(module))
        fit(job, number, module, stage.validation(job, module))
    stage.finish(job)


def _key(job: Job, stage: AnyStage) -> str:
    split = job.material.split
    facts = {
        "handreid": __version__,
        "stage": stage.settings.model_dump(mode="json"),
        "seed": job.seed(stage.number),
        "photos": sorted(photos_of(job.recipe, job.material, job.progress).items()),
        "manifest": job.material.manifest.hash,
        "split": split.hash,
        "preprocessing": repr(job.embedder.preprocessing),
        "backbone": job.embedder.backbone.config,
    }
    digest = hashlib.sha256(json.dumps(facts, default=str, sort_keys=True).encode())
    digest.update(stage.key(job.handover))
    return digest.hexdigest()


def _from_elsewhere(job: Job, number: int, key: str) -> Run | None:
    """The run beside this one that has finished a stage with this key, and from which it has been taken over."""
    kind = job.recipe.stages[number].kind
    for other in _finished_elsewhere(job, key):
        try:
            _take_over(job, number, other)
        except RunError as error:
            begin_anew(job, number)
            job.progress.say(
                f"note: stage {number} ({kind}) is trained again, as that of {other.folder} cannot be used: {error}"
            )
        else:
            job.progress.say(f"stage {number} ({kind}) was copied from {other.folder}, which trained the same")
            return other
    return None


def _finished_elsewhere(job: Job, key: str) -> Iterator[Run]:
    """The first folder by name comes first; one whose stage.json cannot be read is none of ours."""
    for path in sorted(job.run.folder.absolute().parent.glob("*/stages/*/stage.json")):
        try:
            found = read_json(path).get("key")
        except RunError as error:
            job.progress.say(f"note: a stage of a run beside this one is ignored: {error}")
            continue
        if found == key:
            yield Run(path.parents[2])


def _take_over(job: Job, number: int, other: Run) -> None:
    """Copies a stage's files and lines. Raises RunError when they are not as they were written."""
    theirs, ours = other.stage(number, job.recipe.stages[number].kind), job.folder(number)
    lines = [entry for entry in read_metrics(other) if entry["stage"] == number]
    stage = read_stage(theirs)
    files: dict[str, str] = stage["files"]
    if len(lines) != stage["epochs"]:
        raise RunError(f"{other.metrics} has {len(lines)} lines of it, but it had {stage['epochs']} epochs")
    told = {name: read_json(theirs / name) for name in _TOLD if (theirs / name).exists()}
    begin_anew(job, number)
    for name in files:
        if name != "last.ckpt":
            _copy(theirs / name, ours / name, files)
    for name, content in told.items():
        write_json(ours / name, content)
    for entry in lines:
        append_metrics(job.run, entry)


def _copy(theirs: Path, ours: Path, noted: Mapping[str, str]) -> None:
    advice = "train that run again, or move it away"
    check_noted(theirs, noted=noted[theirs.name], advice=advice)
    write_atomic(ours, lambda part: shutil.copyfile(theirs, part), durable=True, before=noting(ours))
    check_noted(ours, noted=noted[theirs.name], advice=advice)
