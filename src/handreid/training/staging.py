"""A run's stages, one after another, each from what the one before it left.

* A stage that is finished says so in `stage.json`, with a key: a hash of its part of the recipe, the photos and the
  split, and all weights that it begins with. These hold whatever earlier stages, another run's encoder or a weights
  file brought, so the same key is the same stage.
* A stage whose key another run beside this one has finished is not run again: its files are copied.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from torch import Tensor

from handreid import __version__
from handreid.evaluation.feature_cache import digest_of
from handreid.files import read_json, write_json
from handreid.models.embedder import Embedder
from handreid.models.text import TextEncoder
from handreid.recipe import FineTune, LearnPrompts, Recipe
from handreid.recipe.objectives import TextTerm
from handreid.training.fitting import check_fine_tune, fine_tune, take_fine_tuned
from handreid.training.job import Job
from handreid.training.material import Material
from handreid.training.prompting import check_learn_prompts, learn_prompts, learned
from handreid.training.runs import Run, append_metrics, read_metrics, truncate_metrics


def check_stages(recipe: Recipe, embedder: Embedder, text: TextEncoder, material: Material) -> None:
    """Raises what building any of the stages would: before there is a folder, and not after hours of the first."""
    for number, stage in enumerate(recipe.stages):
        match stage:
            case FineTune():
                check_fine_tune(recipe, number, embedder, material)
            case LearnPrompts():
                check_learn_prompts(recipe, number, text, material)


def run_stage(job: Job, number: int, *, reuse: bool = True) -> None:
    """Does what is left of a stage, unless it has been done, here or beside; the embedder ends with its weights."""
    folder = job.folder(number)
    folder.mkdir(parents=True, exist_ok=True)
    texts = _texts(job, number)
    if not (folder / "stage.json").exists():
        key = _key(job, number, texts)
        other = next(_finished_elsewhere(job.run, key), None) if reuse else None
        if other is None:
            _work(job, number, texts)
            facts: dict[str, Any] = {"finished": datetime.now(UTC).isoformat(timespec="seconds")}
        else:
            _take_over(job, number, other)
            facts = {"taken_from": str(other.folder)}
        write_json(folder / "stage.json", {"key": key, "number": number, **facts})
    _take(job, number)


def _work(job: Job, number: int, texts: Tensor | None) -> None:
    match job.recipe.stages[number]:
        case FineTune():
            fine_tune(job, number, texts)
        case LearnPrompts():
            learn_prompts(job, number)


def _take(job: Job, number: int) -> None:
    match job.recipe.stages[number]:
        case FineTune() as stage:
            take_fine_tuned(job.folder(number), stage, job.embedder)
        case LearnPrompts():
            learned(job.folder(number))  # nothing of the embedder changes, but what is there can be read


def _texts(job: Job, number: int) -> Tensor | None:
    """The texts that the latest stage of prompts before this one learned, if an objective of this one reads them."""
    stage = job.recipe.stages[number]
    if not isinstance(stage, FineTune) or not any(isinstance(term, TextTerm) for term in stage.objectives):
        return None
    latest = max(n for n, earlier in enumerate(job.recipe.stages[:number]) if isinstance(earlier, LearnPrompts))
    return learned(job.folder(latest)).texts


def _key(job: Job, number: int, texts: Tensor | None) -> str:
    recipe, split = job.recipe, job.material.split
    facts = {
        "handreid": __version__,
        "stage": recipe.stages[number].model_dump(mode="json"),
        "seed": job.seed(number),
        "photos": _photo_facts(job.material),
        "manifest": job.material.manifest.hash,
        "split": split.hash,
        "preprocessing": repr(job.embedder.preprocessing),
        "backbone": job.embedder.backbone.config,
    }
    digest = hashlib.sha256(json.dumps(facts, default=str, sort_keys=True).encode())
    if isinstance(recipe.stages[number], LearnPrompts):  # a head has no part in it
        digest.update(digest_of(job.embedder.backbone.state_dict()) + digest_of(job.text.state_dict()))
    else:
        weights = job.embedder.state_dict() | job.embedder.head.frozen()
        digest.update(json.dumps(job.embedder.config(), default=str).encode() + digest_of(weights))
    if texts is not None:
        digest.update(texts.numpy().tobytes())
    return digest.hexdigest()


def _photo_facts(material: Material) -> list[tuple[int, int]]:
    """Size and time of change of the photos that train and validate: one that was replaced is another."""
    paths = material.manifest.paths()
    rows = [*material.split.train.tolist(), *material.split.validation_rows.tolist()]
    return [(found.st_size, found.st_mtime_ns) for found in (paths[row].stat() for row in rows)]


def _finished_elsewhere(run: Run, key: str) -> Iterator[Run]:
    """Runs beside this one that have finished a stage with this key; the first folder by name comes first."""
    for path in sorted(run.folder.absolute().parent.glob("*/stages/*/stage.json")):
        if read_json(path).get("key") == key:
            yield Run(path.parents[2])


def _take_over(job: Job, number: int, other: Run) -> None:
    theirs, ours = other.stage(number, job.recipe.stages[number].kind), job.folder(number)
    for path in sorted(theirs.iterdir()):
        if path.name not in ("stage.json", "last.ckpt") and not path.name.startswith("."):
            shutil.copyfile(path, ours / path.name)
    truncate_metrics(job.run, number, 0)
    for entry in read_metrics(other):
        if entry["stage"] == number:
            append_metrics(job.run, entry)
    kind = job.recipe.stages[number].kind
    job.progress.say(f"stage {number} ({kind}) is as {other.folder} has done it: taken from there")
