"""The parts of a run folder that are sent to trackers: numbers and settings, never names of people or photos."""

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

# keys sent of evaluation.json; all others may name people or photos
_EVALUATION_KEYS = (
    "recipe",
    "protocol",
    "metrics",
    "counts",
    "views",
    "separation",
    "hashes",
    "flip_tta",
    "reranked",
    "prompts",
)
_OPTIONAL_KEYS = ("inference", "environment")
# keys sent of evaluation-matrix-*.json
_MATRIX_KEYS = ("recipe", "by", "trained_on", "tested_on", "cells", "kinds", "shared", "flip_tta", "hashes")
_NAMES = ("subjects", "photos", "ranks", "identity_ranks", "draws", "notes")
_GROUPS = (("validation_", "validation/"), ("prompts_", "prompts/"), ("lr, ", "lr/"))


def settings(run: Run) -> dict[str, Any]:
    """The recipe, key by key, and under `run.` versions, hardware, hashes and the command of the run."""
    recipe = run.recipe
    keys = recipe.experiment.model_dump(mode="json")
    del keys["tracking"], keys["checks"]
    facts = {name: value for name, value in run.facts.items() if name not in ("notes", "files")}  # notes name people
    facts |= {"folder": str(run.folder), "command": " ".join(facts.get("command", []))}
    return flat(keys) | {f"run.{name}": value for name, value in flat(facts).items()}


def title(run: Run, recipe: Recipe) -> str:
    """The recipe's name, and the folder's if it differs."""
    return recipe.name if run.folder.name == recipe.name else f"{recipe.name}, {run.folder.name}"


def epochs(run: Run, recipe: Recipe, sent: Epoch, until: Epoch) -> Iterator[tuple[Epoch, int, dict[str, float]]]:
    """For each epoch after `sent` up to `until`: (stage, epoch), its number within the whole run, its metrics."""
    for entry in read_metrics(run):
        place = (entry["stage"], entry["epoch"])
        if sent < place <= until:
            yield place, step_of(recipe, place), epoch_payload(entry)


def step_of(recipe: Recipe, place: Epoch) -> int:
    """The epoch's number within the run, with all epochs of earlier stages; one that stopped early leaves a gap."""
    stage, epoch = place
    return sum(earlier.epochs for earlier in recipe.stages[: max(0, stage)]) + epoch


def epoch_payload(entry: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a line of metrics.jsonl by name; validation and learning rates in groups of their own.

    `step` counts steps of the optimizer; trackers would read it as the epoch's, so it is renamed.
    """
    numbers = {_grouped(name): float(value) for name, value in entry.items() if isinstance(value, int | float)}
    numbers["optimizer_steps"] = numbers.pop("step")
    return numbers


def evaluation_payload(path: Path) -> tuple[dict[str, float], dict[str, Any]]:
    """Numbers of an evaluation, each with the ends of its interval; and its content without people and photos.

    The file's type follows from its content: an evaluation, a matrix (numbers of its cells), or neither, of which only
    the reason for leaving it out is sent. Raises RunError for one that cannot be read.
    """
    content = read_json(path)
    group = path.stem.replace("evaluation", "test", 1)
    if {"metrics", "views"} <= content.keys():
        return _with_intervals(group, read_evaluation(path).groups()), _without_people(content, _EVALUATION_KEYS)
    if {"cells", "by"} <= content.keys():
        return _with_intervals(group, _cells(read_matrix(path))), _without_people(content, _MATRIX_KEYS)
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


def _without_people(content: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """Content without people and photos. Of `sections` only the numbers, as other entries may name people."""
    kept_content = {key: _drop_names(content[key]) for key in (*keys, *_OPTIONAL_KEYS) if key in content}
    sections = content.get("sections", {})
    return (
        kept_content | {"sections": {name: {"numbers": section["numbers"]} for name, section in sections.items()}}
        if sections
        else kept_content
    )


def _drop_names(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _drop_names(v) for k, v in value.items() if not (k in _NAMES and isinstance(v, dict | list))}
    return [_drop_names(item) for item in value] if isinstance(value, list) else value


def _with_intervals(group: str, parts: Iterable[tuple[str, Mapping[str, Number]]]) -> dict[str, float]:
    """Each number with the ends of its interval, prefixed by its group and part."""
    numbers: dict[str, float] = {}
    for part, metrics in parts:
        start = f"{group}/{'/'.join(map(_safe, part.split('/')))}/" if part else f"{group}/"
        for name, number in metrics.items():
            ends = {"": number.value, "_low": number.low, "_high": number.high}
            numbers |= {f"{start}{name}{ending}": end for ending, end in ends.items() if end is not None}
    return numbers


def _cells(matrix: Matrix) -> Iterator[tuple[str, Mapping[str, Number]]]:
    """Metrics of each cell that is not blank, named such as `dorsal-right in palmar-left mirrored`: query, gallery."""
    for cell in matrix.cells:
        if cell.metrics is not None:
            name = f"{cell.query} in {cell.gallery}{' mirrored' if cell.mirrored else ''}"
            yield name.replace("/", " "), {metric: cell.metrics[metric] for metric in SHOWN if metric in cell.metrics}


def _safe(name: str) -> str:
    """With only the characters that every tracker allows in the name of a number."""
    return "".join(letter if letter.isalnum() or letter in "-_. " else " " for letter in name).replace("  ", " ")
