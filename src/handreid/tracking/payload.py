"""What of a run folder trackers are sent: numbers and settings, never names of people or of their photos."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from handreid.files import flat, read_json
from handreid.recipe import Recipe
from handreid.runs.epoch_metrics import read_metrics
from handreid.runs.folder import Run

Epoch = tuple[int, int]  # stage, and epoch in it, from 1
NOTHING: Epoch = (-1, 0)
EVERYTHING: Epoch = (10**9, 0)

# of evaluation.json; whatever else it holds may name people or photos
_TOLD = ("recipe", "protocol", "metrics", "counts", "aspects", "space", "hashes", "mirrored", "reranked", "prompts")
_TOLD_TOO = ("inference", "environment")
# of evaluation-matrix-*.json
_TOLD_OF_MATRIX = ("recipe", "by", "trained_on", "tested_on", "cells", "kinds", "shared", "mirrored", "hashes")
_OF_A_CELL = ("rank1", "map")
_NAMES = ("subjects", "photos", "ranks", "draws", "notes")
_GROUPS = (("validation_", "validation/"), ("prompts_", "prompts/"), ("lr, ", "lr/"))


def settings(run: Run) -> dict[str, Any]:
    """The recipe, key by key, and below `run.` what the run rests on: versions, hardware, hashes, its command."""
    recipe = run.recipe
    keys = recipe.experiment.model_dump(mode="json")
    del keys["tracking"], keys["gates"]
    facts = {name: value for name, value in run.facts.items() if name not in ("notes", "files")}  # notes name people
    facts |= {"folder": str(run.folder), "command": " ".join(facts.get("command", []))}
    return flat(keys) | {f"run.{name}": value for name, value in flat(facts).items()}


def title(run: Run, recipe: Recipe) -> str:
    """The recipe's name, and the folder's where it is another."""
    return recipe.name if run.folder.name == recipe.name else f"{recipe.name}, {run.folder.name}"


def epochs(run: Run, recipe: Recipe, sent: Epoch, until: Epoch) -> Iterator[tuple[Epoch, int, dict[str, float]]]:
    """Of each epoch after `sent` up to `until`: its place, its number within the whole run, its numbers by name."""
    for entry in read_metrics(run):
        place = (entry["stage"], entry["epoch"])
        if sent < place <= until:
            yield place, step_of(recipe, place), numbers(entry)


def step_of(recipe: Recipe, place: Epoch) -> int:
    """The epoch's number if all stages before had all of their epochs; one that stops early leaves a gap."""
    stage, epoch = place
    return sum(earlier.epochs for earlier in recipe.stages[: max(0, stage)]) + epoch


def numbers(entry: Mapping[str, Any]) -> dict[str, float]:
    """A line of metrics.jsonl, each number under its name; validation and learning rates in groups of their own.

    `step` is the optimizer's, which trackers would take for the epoch's, so it has a longer name.
    """
    named = {_grouped(name): float(value) for name, value in entry.items() if isinstance(value, int | float)}
    named["optimizer_steps"] = named.pop("step")
    return named


def tested(path: Path) -> tuple[dict[str, float], dict[str, Any]]:
    """What was measured of a run: numbers, each with the ends of its interval; the content without people and photos.

    A file is read as what it holds: an evaluation, a matrix with the numbers of its cells, or neither, of which nothing
    is told but why. Raises RunError for one that cannot be read.
    """
    content = read_json(path)
    group = path.stem.replace("evaluation", "test", 1)
    if {"metrics", "aspects"} <= content.keys():
        told = {key: _nameless(content[key]) for key in (*_TOLD, *_TOLD_TOO) if key in content}
        return {f"{group}/{name}": value for name, value in _measured(told)}, told
    if {"cells", "by"} <= content.keys():
        told = {key: _nameless(content[key]) for key in (*_TOLD_OF_MATRIX, "environment") if key in content}
        return {f"{group}/{name}": value for name, value in _crossed(told["cells"])}, told
    return {}, {"left_out": f"{path.name} is neither an evaluation nor a matrix of ours; its keys are not known here"}


def evaluations(run: Run) -> Sequence[Path]:
    return sorted(run.folder.glob("evaluation*.json"))


def as_file(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=1) + "\n"


def _grouped(name: str) -> str:
    for start, group in _GROUPS:
        if name.startswith(start):
            return group + name.removeprefix(start).replace(", ", " ")
    return name


def _nameless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _nameless(v) for k, v in value.items() if not (k in _NAMES and isinstance(v, dict | list))}
    return [_nameless(one) for one in value] if isinstance(value, list) else value


def _measured(told: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    parts = {"": told["metrics"], "space/": told.get("space", {}).get("numbers", {})}
    parts |= {f"{view}/": of["metrics"] for view, of in told["aspects"].items()}
    parts |= {f"{_safe(way['name'])}/": way["metrics"] for way in told.get("reranked", [])}
    parts |= {
        f"prompts/{'all' if one['template'] is None else number}/": one["accuracy"]
        for number, one in enumerate(told.get("prompts", []))
    }
    for group, metrics in parts.items():
        yield from _with_ends(group, metrics)


def _crossed(cells: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, float]]:
    """Of each cell that is not blank, such as `dorsal-right in palmar-left mirrored/rank1`: probe, then gallery."""
    for cell in cells:
        if cell["metrics"] is not None:
            name = f"{cell['probe']} in {cell['gallery']}{' mirrored' if cell['mirrored'] else ''}"
            metrics = {metric: cell["metrics"][metric] for metric in _OF_A_CELL if metric in cell["metrics"]}
            yield from _with_ends(f"{_safe(name)}/", metrics)


def _with_ends(group: str, metrics: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, float]]:
    for name, of in metrics.items():
        for ending, end in (("", "value"), ("_low", "low"), ("_high", "high")):
            if of.get(end) is not None:
                yield f"{group}{name}{ending}", of[end]


def _safe(name: str) -> str:
    """Only what every tracker allows in the name of a number."""
    return "".join(letter if letter.isalnum() or letter in "-_. " else " " for letter in name).replace("  ", " ")
