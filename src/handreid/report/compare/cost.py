"""The cost of a run, from its folder; None where the folder does not say it.

* Seconds are those of the epochs, without validation. Photos per second are of the last stage: stages that learn
  prompts work on cached features, so their speed says nothing about the image tower.
* Memory is the peak over all epochs: of the GPU if there is one, else of the process.
"""

from dataclasses import dataclass
from typing import Any

from handreid.runs.epoch_metrics import read_metrics
from handreid.runs.folder import Run
from handreid.runs.records import read_parameters


@dataclass(frozen=True)
class Cost:
    """`peak_memory` in bytes; `learning` counts parameters that are trained in any stage, `parameters` all of them."""

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
    last_stage = max((entry["stage"] for entry in entries), default=None)
    timed = [entry for entry in entries if entry["stage"] == last_stage and entry.get("seconds")]
    photos = sum(entry["photos_per_second"] * entry["seconds"] for entry in timed)
    return photos / sum(entry["seconds"] for entry in timed) if timed else None


def _parameters(run: Run) -> tuple[int | None, int | None]:
    """Trained and total parameters; a part that is trained in several stages counts once."""
    stages = run.recipe.stages
    if not stages:
        return 0, None
    folders = [run.stage(number, stage.kind) for number, stage in enumerate(stages)]
    if not all((folder / "parameters.json").exists() for folder in folders):
        return None, None
    counted = [read_parameters(folder) for folder in folders]
    learning: dict[str, int] = {}
    for stage_counts in counted:
        for part, count in stage_counts["learning"].items():
            learning[part] = max(count, learning.get(part, 0))
    return sum(learning.values()), max(stage_counts["in_all"] for stage_counts in counted)
