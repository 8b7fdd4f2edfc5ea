"""A trial's result, from its run folder: the validation metric, the epoch it is from, and the epochs trained."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handreid.recipe import Recipe
from handreid.runs.epoch_metrics import read_metrics
from handreid.runs.folder import Run
from handreid.runs.records import read_curve
from handreid.training.epoch_callback import MONITOR


@dataclass(frozen=True)
class Outcome:
    """The metric of the weights that a run ends with, or would end with now; None before anything was validated."""

    value: float | None
    epoch: int | None  # of fine-tuning, over all stages, that gave these weights; None when they lie between two
    done: int
    epochs: int
    seconds: float


def outcome(folder: Path, recipe: Recipe, metric: str) -> Outcome:
    run = Run(folder)
    entries = read_metrics(run)
    reached = list(series(entries, recipe, metric))
    done = max((_epoch(recipe, entry) for entry in entries), default=0)
    seconds = sum((entry["seconds"] for entry in entries), 0.0)
    value, epoch = (reached[-1].value, reached[-1].of) if reached else (None, None)
    number, stage = recipe.validated[-1]
    tuned = run.stage(number, stage.kind)
    if (tuned / "wise_ft.json").exists():
        value, epoch = _taken(read_curve(tuned), metric), None
    return Outcome(value, epoch, done, epochs_of(recipe), seconds)


@dataclass(frozen=True)
class Reached:
    """After so many epochs: the metric of the weights that would be kept, and the epoch that gave them."""

    epoch: int
    value: float
    of: int


def series(entries: list[dict[str, Any]], recipe: Recipe, metric: str) -> Iterator[Reached]:
    """One entry per validation of the last fine-tuning. The weights kept are those with the best mAP, whatever the
    sweep's metric is.
    """
    number, stage = recipe.validated[-1]
    best: tuple[float, float, int] | None = None  # mAP, metric, epoch
    for entry in entries:
        if entry["stage"] != number or metric not in entry:
            continue
        monitored, epoch = entry[f"validation_{MONITOR}"], _epoch(recipe, entry)
        if best is None or stage.validated_weights == "last" or monitored > best[0]:
            best = (monitored, entry[metric], epoch)
        yield Reached(epoch, best[1], best[2])


def epochs_of(recipe: Recipe) -> int:
    """Epochs of fine-tuning, over all stages; epochs of prompt learning do not count."""
    return sum(stage.epochs for _, stage in recipe.validated)


def _epoch(recipe: Recipe, entry: Mapping[str, Any]) -> int:
    """Epochs of fine-tuning up to that of a line of metrics.jsonl."""
    before = sum(stage.epochs for number, stage in recipe.validated if number < entry["stage"])
    epoch = entry["epoch"] if recipe.stages[entry["stage"]].validated_weights else 0
    return before + int(epoch)


def _taken(curve: Mapping[str, Any], metric: str) -> float:
    """The metric at the interpolation weight (alpha) that WiSE-FT chose."""
    name = metric.removeprefix("validation_")
    return next(float(point[name]) for point in curve["points"] if point["alpha"] == curve["best"])
