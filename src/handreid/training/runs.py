"""The run folder: all there is to know of a run, in files a person can read.

    recipe.yaml         the complete recipe, defaults written out
    run.json            versions, hardware, seeds, content hashes of manifest, split and draws
    metrics.jsonl       one line per epoch: losses term by term, learning rates, gradient norm, validation
    stages/0-.../       last.ckpt (to resume from), best.safetensors (by validation)
    model.safetensors   the finished embedder
    evaluation.json     metrics with intervals, counts, hashes, the rank of every query
    evaluation-embeddings.safetensors   the embeddings that it rests on (see `kept_embeddings`)

Every file is written beside and moved into place. A run without model.safetensors is unfinished and can be resumed.
"""

import contextlib
import json
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from handreid.errors import RunError
from handreid.files import first_difference, read_json, write_json, write_text
from handreid.recipe import Recipe, dump_recipe, load_recipe

_PACKAGES = ("handreid", "torch", "torchvision", "open_clip_torch", "lightning", "numpy", "pillow", "polars")


@dataclass(frozen=True)
class Run:
    folder: Path

    @property
    def model(self) -> Path:
        return self.folder / "model.safetensors"

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
    def finished(self) -> bool:
        return self.model.exists()

    def stage(self, number: int, kind: str) -> Path:
        return self.folder / "stages" / f"{number}-{kind}"

    @property
    def recipe(self) -> Recipe:
        return load_recipe(self.folder / "recipe.yaml")

    @property
    def facts(self) -> dict[str, Any]:
        return read_json(self.folder / "run.json")


def open_run(folder: Path) -> Run:
    """A run folder that exists. Raises RunError when it is none."""
    if not (folder / "run.json").is_file():
        raise RunError(f"{folder} is not a run folder (it has no run.json); train one with `handreid train`")
    return Run(folder)


def check_finished(run: Run) -> None:
    """Raises RunError when there is no finished model yet."""
    if not run.finished:
        raise RunError(f"{run.folder} is not finished; go on with `handreid train --resume --out {run.folder}`")


def check_free(folder: Path) -> None:
    """Raises RunError when the folder already holds something."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"{folder} already holds something; choose another --out, or --resume if it is this run")


def start_run(folder: Path, recipe: Recipe, facts: Mapping[str, Any]) -> Run:
    """A fresh run folder. Raises RunError when the folder already holds something."""
    check_free(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "recipe.yaml", dump_recipe(recipe))
    write_json(folder / "run.json", {"started": _now(), **environment(), "seed": recipe.seed, **facts})
    return Run(folder)


def check_same(run: Run, recipe: Recipe | None, facts: Mapping[str, Any]) -> None:
    """Raises RunError when the run was started with another recipe or other data: it could not end the same."""
    if recipe is not None and dump_recipe(recipe.experiment) != dump_recipe(run.recipe.experiment):
        was, now = (one.experiment.model_dump(mode="json") for one in (run.recipe, recipe))
        raise RunError(f"{run.folder} was started with another recipe ({first_difference(was, now)})")
    for name in ("manifest_hash", "split_hash", "draws_hash"):
        if run.facts.get(name) != facts[name]:
            raise RunError(
                f"{run.folder} was started on other data: its {name} is {run.facts.get(name)}, now it is {facts[name]}"
            )
    if not run.finished and run.facts.get("start_hash") != facts.get("start_hash"):
        raise RunError(f"{run.folder} began with {run.facts.get('start')} as it was then; that run is another now")


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


def read_metrics(run: Run) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, but for one that was being written when the run was killed."""
    found: list[dict[str, Any]] = []
    if run.metrics.exists():
        for line in run.metrics.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                found.append(json.loads(line))
    return found


def truncate_metrics(run: Run, stage: int, epochs: int) -> None:
    """Drops the lines of epochs that a resumed stage will run again, and a half-written last line."""
    if run.metrics.exists():
        kept = [entry for entry in read_metrics(run) if (entry["stage"], entry["epoch"]) <= (stage, epochs)]
        write_text(run.metrics, "".join(json.dumps(entry) + "\n" for entry in kept))


def append_metrics(run: Run, entry: Mapping[str, Any]) -> None:
    with run.metrics.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
