"""The run folder: everything about a run, in readable files.

    recipe.yaml         the complete recipe, defaults written out
    run.json            versions, hardware, seeds, content hashes of manifest, split, draws, photos, and of these files
    metrics.jsonl       one line per epoch: losses term by term, learning rates, gradient norm, validation
    stages/0-.../       last.ckpt (to resume from), best.safetensors (by validation)
    model.safetensors   the finished embedder
    evaluation.json     metrics with intervals, counts, hashes, the rank of every query
    evaluation-embeddings.safetensors   the embeddings that it was computed from (see `evaluation.embedding_cache`)

* Every file is written under a temporary name and moved into place. A run without model.safetensors is unfinished and
  can be resumed.
* Changes of a file are detected when it is opened: JSON files and each line of metrics.jsonl hold a checksum; hashes
  of weights and recipe are in run.json (or in the stage's stage.json).
"""

import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from handreid.errors import RunError
from handreid.files import (
    TOWERS,
    beginning,
    check_folder_writable,
    file_hash,
    first_difference,
    is_folder,
    is_free,
    write_json,
    write_text,
)
from handreid.recipe import Recipe, dump_recipe, parse_recipe
from handreid.recipe.load import text_of
from handreid.runs.records import RUN_FORMAT, read_run

_PACKAGES = ("handreid", "torch", "torchvision", "open_clip_torch", "lightning", "numpy", "pillow", "polars")
_RECORD = "run.json"  # the last file that is written when a run begins


@dataclass(frozen=True)
class Run:
    folder: Path

    @property
    def model(self) -> Path:
        return self.folder / "model.safetensors"

    @property
    def text(self) -> Path:
        """The text tower, if the run or one of its parents has trained it."""
        return self.folder / "text.safetensors"

    @property
    def towers(self) -> Path:
        """Both towers in open_clip's names, if a stage of the run gives them to other recipes."""
        return self.folder / TOWERS

    @property
    def evaluation(self) -> Path:
        return self.folder / "evaluation.json"

    @property
    def embeddings(self) -> Path:
        return self.folder / "evaluation-embeddings.safetensors"

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def begun(self) -> bool:
        return (self.folder / _RECORD).is_file()

    @property
    def finished(self) -> bool:
        return self.model.exists()

    def stage(self, number: int, kind: str) -> Path:
        return self.folder / "stages" / f"{number}-{kind}"

    @property
    def recipe(self) -> Recipe:
        """The run's recipe. Raises RunError if the file was changed since the run started."""
        path = self.folder / "recipe.yaml"
        check_noted(
            path,
            noted=self.facts["files"].get(path.name),
            advice="put it back, or train the changed recipe into another folder",
        )
        return _parsed(*text_of(path)).model_copy(deep=True)

    @property
    def facts(self) -> dict[str, Any]:
        return read_run(self.folder)


@lru_cache(maxsize=32)
def _parsed(text: str, where: str) -> Recipe:
    """The checked recipe, for those who ask a run many times; its dictionaries must not be changed."""
    return parse_recipe(text, where)


def open_run(folder: Path) -> Run:
    """The run in an existing folder. Raises RunError if it is no run folder."""
    run = Run(folder)
    if not run.begun:
        raise RunError(f"{folder} is not a run folder (it has no run.json); train one with `handreid train`")
    return run


def check_finished(run: Run) -> None:
    """Raises RunError when there is no finished model yet."""
    if not run.finished:
        raise RunError(f"{run.folder} is not finished; continue with `handreid train --resume --out {run.folder}`")


def finished_model(run: Run) -> Path:
    """The file of the finished model, compared with its hash. Raises RunError."""
    check_finished(run)
    advice = f"copy it again, or remove it and make it again: handreid train --resume --out {run.folder}"
    check_noted(run.model, noted=run.facts["files"].get(run.model.name), advice=advice)
    return run.model


def check_noted(path: Path, *, noted: str | Sequence[str] | None, advice: str) -> None:
    """Compares a file's hash with the noted ones, once per process. Raises RunError, which ends with `advice`."""
    accepted = [noted] if isinstance(noted, str) else list(noted or ())
    try:
        digest = file_hash(path)
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror}); {advice}") from None
    if not accepted:
        raise RunError(f"{path} was not written by this run: the run has no hash of it; {advice}")
    if digest not in accepted:
        raise RunError(
            f"{path} was changed, damaged or only partly copied: its hash is {digest[:16]}, was "
            f"{' or '.join(accepted_digest[:16] for accepted_digest in accepted)}; {advice}"
        )


def check_free(folder: Path, recipe: Recipe | None = None) -> None:
    """Raises RunError if the folder is not empty. What a killed start of this recipe left counts as empty."""
    if is_free(folder, _RECORD) or (recipe is not None and _holds_only(folder, recipe)):
        return
    raise RunError(f"{folder} is not empty; choose another --out, or use --resume to continue the run in it")


def check_place(folder: Path, recipe: Recipe) -> None:
    """Raises RunError if the folder is not empty, and OutputError if no run could be written there.

    A folder that is not empty is not changed.
    """
    if is_folder(folder):
        check_free(folder, recipe)
    check_folder_writable(folder)


def start_run(folder: Path, recipe: Recipe, facts: Mapping[str, Any]) -> Run:
    """A new run folder. Raises RunError if the folder is not empty."""
    check_free(folder, recipe)
    folder.mkdir(parents=True, exist_ok=True)
    with beginning(folder):
        path = folder / "recipe.yaml"
        write_text(path, dump_recipe(recipe))
        began = {"format": RUN_FORMAT, "started": now(), **environment(), "seed": recipe.seed}
        write_json(folder / _RECORD, {**began, **facts, "files": {path.name: file_hash(path)}})
    return Run(folder)


def note_finished(run: Run, model: Path, beside: Sequence[Path] = ()) -> None:
    """Writes the hashes of the finished model, before it is moved into place, of the weights `beside` it, and of
    metrics.jsonl to run.json.
    """
    facts = run.facts
    files = facts["files"] | {run.model.name: file_hash(model)}
    files |= {path.name: file_hash(path) for path in beside}
    if run.metrics.exists():
        files[run.metrics.name] = file_hash(run.metrics)
    write_json(run.folder / _RECORD, {**facts, "finished": now(), "files": files})


def check_same(run: Run, recipe: Recipe | None, facts: Mapping[str, Any]) -> None:
    """Raises RunError if the run was started with another recipe or other data, as resuming could not reproduce it."""
    recorded_recipe = run.recipe
    if recipe is not None and dump_recipe(recipe.experiment) != dump_recipe(recorded_recipe.experiment):
        before, after = (
            experiment_recipe.experiment.model_dump(mode="json") for experiment_recipe in (recorded_recipe, recipe)
        )
        raise RunError(f"{run.folder} was started with another recipe ({first_difference(before, after)})")
    run_facts = run.facts
    for name in ("manifest_hash", "split_hash", "draws_hash"):
        if run_facts.get(name) != facts[name]:
            raise RunError(
                f"{run.folder} was started on other data: its {name} is {run_facts.get(name)}, now it is {facts[name]}"
            )
    if not run.finished and run_facts.get("init_from_hash") != facts.get("init_from_hash"):
        raise RunError(f"{run.folder} started from {run_facts.get('init_from')}, which has changed since")


def environment() -> dict[str, Any]:
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else (platform.processor() or platform.machine())
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: version(name) for name in _PACKAGES},
        "device": device,
        "threads": torch.get_num_threads(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _holds_only(folder: Path, recipe: Recipe) -> bool:
    """Whether the folder holds only this recipe, as a version without the mark of `beginning` left it."""
    names = {entry.name for entry in folder.iterdir() if not entry.name.startswith(".")} if folder.is_dir() else set()
    try:
        return names == {"recipe.yaml"} and (folder / "recipe.yaml").read_bytes() == dump_recipe(recipe).encode()
    except OSError:
        return False
