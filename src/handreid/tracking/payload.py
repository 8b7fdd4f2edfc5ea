"""What of a run folder trackers are sent: numbers and settings, never names of people or of their photos."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from handreid.files import flat, read_json
from handreid.recipe import Recipe
from handreid.runs.epoch_metrics import read_metrics
from handreid.runs.folder import Run
from handreid.runs.results import Matrix, Number, read_evaluation, read_matrix

Epoch = tuple[int, int]  # stage, and epoch in it, from 1
SHOWN = ("rank1", "map")  # of each cell of a matrix
NOTHING: Epoch = (-1, 0)
EVERYTHING: Epoch = (10**9, 0)

# of evaluation.json; whatever else it holds may name people or photos
_TOLD = ("recipe", "protocol", "metrics", "counts", "views", "separation", "hashes", "flip_tta", "reranked", "prompts")
_TOLD_TOO = ("inference", "environment")
# of evaluation-matrix-*.json
_TOLD_OF_MATRIX = ("recipe", "by", "trained_on", "tested_on", "cells", "kinds", "shared", "flip_tta", "hashes")
_NAMES = ("subjects", "photos", "ranks", "identity_ranks", "draws", "notes")
_GROUPS = (("validation_", "validation/"), ("prompts_", "prompts/"), ("lr, ", "lr/"))


def settings(run: Run) -> dict[str, Any]:
    """The recipe, key by key, and below `run.` what the run rests on: versions, hardware, hashes, its command."""
    recipe = run.recipe
    keys = recipe.experiment.model_dump(mode="json")
    del keys["tracking"], keys["checks"]
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
            yield place, step_of(recipe, place), epoch_payload(entry)


def step_of(recipe: Recipe, place: Epoch) -> int:
    """The epoch's number if all stages before had all of their epochs; one that stops early leaves a gap."""
    stage, epoch = place
    return sum(earlier.epochs for earlier in recipe.stages[: max(0, stage)]) + epoch


def epoch_payload(entry: Mapping[str, Any]) -> dict[str, float]:
    """A line of metrics.jsonl, each number under its name; validation and learning rates in groups of their own.

    `step` is the optimizer's, which trackers would take for the epoch's, so it has a longer name.
    """
    named = {_grouped(name): float(value) for name, value in entry.items() if isinstance(value, int | float)}
    named["optimizer_steps"] = named.pop("step")
    return named


def evaluation_payload(path: Path) -> tuple[dict[str, float], dict[str, Any]]:
    """What was measured of a run: numbers, each with the ends of its interval; the content without people and photos.

    A file is read as what it holds: an evaluation, a matrix with the numbers of its cells, or neither, of which nothing
    is told but why. Raises RunError for one that cannot be read.
    """
    content = read_json(path)
    group = path.stem.replace("evaluation", "test", 1)
    if {"metrics", "views"} <= content.keys():
        return _named(group, read_evaluation(path).groups()), _told(content, _TOLD)
    if {"cells", "by"} <= content.keys():
        return _named(group, _cells(read_matrix(path))), _told(content, _TOLD_OF_MATRIX)
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


def _told(content: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """Without people and photos. Of sections that are not known here only the numbers, as the rest may name some."""
    told = {key: _nameless(content[key]) for key in (*keys, *_TOLD_TOO) if key in content}
    sections = content.get("sections", {})
    return (
        told | {"sections": {name: {"numbers": of["numbers"]} for name, of in sections.items()}} if sections else told
    )


def _nameless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _nameless(v) for k, v in value.items() if not (k in _NAMES and isinstance(v, dict | list))}
    return [_nameless(one) for one in value] if isinstance(value, list) else value


def _named(group: str, parts: Iterable[tuple[str, Mapping[str, Number]]]) -> dict[str, float]:
    """Each number with the ends of its interval, by the part that it is of."""
    found: dict[str, float] = {}
    for part, metrics in parts:
        start = f"{group}/{'/'.join(map(_safe, part.split('/')))}/" if part else f"{group}/"
        for name, one in metrics.items():
            ends = {"": one.value, "_low": one.low, "_high": one.high}
            found |= {f"{start}{name}{ending}": end for ending, end in ends.items() if end is not None}
    return found


def _cells(matrix: Matrix) -> Iterator[tuple[str, Mapping[str, Number]]]:
    """Of each cell that is not blank, such as `dorsal-right in palmar-left mirrored/rank1`: query, then gallery."""
    for cell in matrix.cells:
        if cell.metrics is not None:
            name = f"{cell.query} in {cell.gallery}{' mirrored' if cell.mirrored else ''}"
            yield name.replace("/", " "), {metric: cell.metrics[metric] for metric in SHOWN if metric in cell.metrics}


def _safe(name: str) -> str:
    """Only what every tracker allows in the name of a number."""
    return "".join(letter if letter.isalnum() or letter in "-_. " else " " for letter in name).replace("  ", " ")
