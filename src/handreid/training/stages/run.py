"""Runs the stages of a run one after another, each from the handover of the one before.

* A finished stage has a `stage.json` with a key: a hash of its part of the recipe, the photos, the split, and all its
  initial weights. The weights include the effect of earlier stages, of another run's encoder or a weights file, so
  equal keys mean equal stages.
* If another run beside this one has finished a stage with the same key, it is not run again: its files are copied. They
  are compared with the hashes in its `stage.json` before and after; a stage with changed files is not used, with a
  note.
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
from handreid.training.trainer import discard_from, fit, prepare_resume

_RECORDS = ("parameters.json", "checks.json", "wise_ft.json")  # records of a stage beside its weights


def check_stages(recipe: Recipe, embedder: Embedder, text: TextEncoder, material: RunDataset) -> None:
    """Raises what building any of the stages would, before there is a folder and before the first is trained."""
    for number in range(len(recipe.stages)):
        stage_of(recipe, number).check(Handover(embedder, text), material)


def run_stage(job: Job, number: int, *, reuse: bool = True) -> Handover:
    """Completes a stage, by training the rest or copying it from another run; the handover to the next stage."""
    folder, stage = job.folder(number), stage_of(job.recipe, number)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "stage.json").exists():
        key = _key(job, stage)
        source = _from_elsewhere(job, number, key) if reuse else None
        if source is None:
            _work(job, stage)
        facts = {"finished": now()} if source is None else {"taken_from": str(source.folder)}
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
    """Copies the stage from a run beside this one that has finished it with this key; that run, or None."""
    kind = job.recipe.stages[number].kind
    for source in _finished_elsewhere(job, key):
        try:
            _take_over(job, number, source)
        except RunError as error:
            discard_from(job, number)
            job.progress.say(
                f"note: stage {number} ({kind}) is trained again, as that of {source.folder} cannot be used: {error}"
            )
        else:
            job.progress.say(f"stage {number} ({kind}) was copied from {source.folder}, which trained the same")
            return source
    return None


def _finished_elsewhere(job: Job, key: str) -> Iterator[Run]:
    """Runs with such a stage, sorted by folder name; those with an unreadable stage.json are skipped with a note."""
    for path in sorted(job.run.folder.absolute().parent.glob("*/stages/*/stage.json")):
        try:
            other_key = read_json(path).get("key")
        except RunError as error:
            job.progress.say(f"note: a stage of a run beside this one is ignored: {error}")
            continue
        if other_key == key:
            yield Run(path.parents[2])


def _take_over(job: Job, number: int, source: Run) -> None:
    """Copies a stage's files and lines of metrics. Raises RunError when they were changed or damaged."""
    source_folder, folder = source.stage(number, job.recipe.stages[number].kind), job.folder(number)
    lines = [entry for entry in read_metrics(source) if entry["stage"] == number]
    stage = read_stage(source_folder)
    files: dict[str, str] = stage["files"]
    if len(lines) != stage["epochs"]:
        raise RunError(f"{source.metrics} has {len(lines)} lines of it, but it had {stage['epochs']} epochs")
    records = {name: read_json(source_folder / name) for name in _RECORDS if (source_folder / name).exists()}
    discard_from(job, number)
    for name in files:
        if name != "last.ckpt":
            _copy(source_folder / name, folder / name, files)
    for name, content in records.items():
        write_json(folder / name, content)
    for entry in lines:
        append_metrics(job.run, entry)


def _copy(source: Path, target: Path, noted: Mapping[str, str]) -> None:
    advice = "train that run again, or move it away"
    check_noted(source, noted=noted[source.name], advice=advice)
    write_atomic(target, lambda part: shutil.copyfile(source, part), durable=True, before=noting(target))
    check_noted(target, noted=noted[source.name], advice=advice)
