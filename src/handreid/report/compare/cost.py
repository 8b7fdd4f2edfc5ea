"""What a run cost, from what its folder says; None where it does not say it.

* Seconds are those of the epochs, without validation, and photos a second those of the last stage: stages of prompts
  work on features that are there already and are no measure of a tower.
* Memory is the most that any epoch needed: of the GPU where there is one, else of the process.
"""

from dataclasses import dataclass
from typing import Any

from handreid.runs.epoch_metrics import read_metrics
from handreid.runs.folder import Run
from handreid.runs.records import read_parameters


@dataclass(frozen=True)
class Cost:
    """`peak_memory` in bytes; `learning` counts parameters that learn in any stage, `parameters` all that there are."""

    seconds: float | None
    photos_per_second: float | None
    peak_memory: int | None
    learning: int | None
    parameters: int | None
    device: str | None


def cost_of(run: Run) -> Cost:
    entries = read_metrics(run)
    seconds = [entry["seconds"] for entry in entries if "seconds" in entry]
    peaks = [entry["peak_memory"] for entry in entries if "peak_memory" in entry]
    return Cost(
        sum(seconds) if seconds else None,
        _photos_per_second(entries),
        max(peaks) if peaks else None,
        *_parameters(run),
        run.facts.get("device"),
    )


def _photos_per_second(entries: list[dict[str, Any]]) -> float | None:
    last = max((entry["stage"] for entry in entries), default=None)
    timed = [entry for entry in entries if entry["stage"] == last and entry.get("seconds")]
    photos = sum(entry["photos_per_second"] * entry["seconds"] for entry in timed)
    return photos / sum(entry["seconds"] for entry in timed) if timed else None


def _parameters(run: Run) -> tuple[int | None, int | None]:
    """A part that learns in several stages counts once."""
    stages = run.recipe.stages
    if not stages:
        return 0, None
    folders = [run.stage(number, stage.kind) for number, stage in enumerate(stages)]
    if not all((folder / "parameters.json").exists() for folder in folders):
        return None, None
    counted = [read_parameters(folder) for folder in folders]
    learning: dict[str, int] = {}
    for one in counted:
        for part, count in one["learning"].items():
            learning[part] = max(count, learning.get(part, 0))
    return sum(learning.values()), max(one["in_all"] for one in counted)
