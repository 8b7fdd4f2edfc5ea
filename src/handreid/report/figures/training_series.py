"""The numbers of metrics.jsonl as named lines in panels, by stage.

* Terms of the loss are before their weights, as they are logged; `loss` is the weighted sum that was minimised.
* Groups of parameters with the same rates throughout are one line. With more than four such lines (a rate per layer),
  only the highest and the lowest are named.
* The epoch that a stage ends with is determined as in the stage: the first with the highest validation mAP, or the
  last.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from handreid.errors import RunError
from handreid.recipe.stage_base import StageValue
from handreid.runs.epoch_metrics import read_metrics
from handreid.runs.folder import Run

_WORKING = (
    "stage",
    "epoch",
    "step",
    "seconds",
    "photos_per_second",
    "peak_memory",
    "precision",
    "gradient_norm",
    "loss",
)
_FEATURES = "features_"  # of pre-training: their spread, effective rank, and how often the right one is nearest
_SHOWN = {"validation_rank1": "rank-1", "validation_map": "mAP", "prompts_rank1": "own text nearest"}


@dataclass(frozen=True, eq=False)
class Series:
    """One line: epochs from 1, and values."""

    name: str
    epochs: Int[np.ndarray, " point"]
    values: Float[np.ndarray, " point"]
    named: bool = True


@dataclass(frozen=True, eq=False)
class Panel:
    """Lines on one axis. `unit` is `%` if values are fractions in [0, 1]."""

    name: str
    unit: str
    series: list[Series]


@dataclass(frozen=True, eq=False)
class StageSeries:
    """`kept` is the epoch whose weights the stage ends with; None if there is no such epoch."""

    number: int
    kind: str
    epochs: int  # of the recipe; a stage that stopped early or is still running has fewer points
    kept: int | None
    panels: list[Panel]


def training_series(run: Run) -> list[StageSeries]:
    """The series of each stage that has epochs. Raises RunError if metrics.jsonl has none at all."""
    entries = read_metrics(run)
    if not entries:
        why = "its recipe has no stages" if not run.recipe.stages else "no epoch of it has ended"
        raise RunError(f"{run.folder} has no epochs in metrics.jsonl: {why}")
    stages = []
    for number, stage in enumerate(run.recipe.stages):
        stage_entries = [entry for entry in entries if entry["stage"] == number]
        if stage_entries:
            stages.append(
                StageSeries(number, stage.kind, stage.epochs, _kept_epoch(stage, stage_entries), _panels(stage_entries))
            )
    return stages


def _panels(entries: Sequence[Mapping[str, Any]]) -> list[Panel]:
    names = list(dict.fromkeys(key for entry in entries for key in entry))
    rates = [name for name in names if name.startswith("lr, ")]
    checks = [name for name in names if name in _SHOWN]
    terms = [
        name
        for name in names
        if name not in (*_WORKING, *rates) and not name.startswith(("validation_", "prompts_", _FEATURES))
    ]  # fmt: skip
    panels = [
        Panel("loss", "", [_series(entries, "loss", "loss")]),
        Panel("terms", "", [_series(entries, name, label) for name, label in _term_labels(terms).items()]),
        Panel("learning rate", "", _rates(entries, rates)),
        Panel("gradient norm", "", [_series(entries, "gradient_norm", "before clipping")]),
        *_feature_panels(entries, [name for name in names if name.startswith(_FEATURES)]),
        Panel("validation", "%", [_series(entries, name, _SHOWN[name]) for name in checks]),
    ]
    panels = [Panel(panel.name, panel.unit, [line for line in panel.series if len(line.epochs)]) for panel in panels]
    return [panel for panel in panels if panel.series]


def _feature_panels(entries: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[Panel]:
    """Spread and accuracies, which are fractions, and effective ranks; temperatures are only in metrics.jsonl."""
    of_pairs = re.compile(r"^image_text_(?=photos|captions)")  # the margin has no room for more
    shown = {name: of_pairs.sub("", name.removeprefix(_FEATURES)).replace("_", " ") for name in names}
    shares = [name for name in names if name.endswith(("_spread", "_accuracy"))]
    ranks = [name for name in names if name.endswith("_effective_rank")]
    return [
        Panel("features", "%", [_series(entries, name, shown[name]) for name in shares]),
        Panel(
            "effective rank",
            "",
            [_series(entries, name, shown[name].removesuffix(" effective rank")) for name in ranks],
        ),
    ]


def _series(entries: Iterable[Mapping[str, Any]], key: str, name: str) -> Series:
    points = [(entry["epoch"], entry[key]) for entry in entries if entry.get(key) is not None]
    epochs, values = zip(*points, strict=True) if points else ((), ())
    return Series(name, np.array(epochs, np.int64), np.array(values, np.float64))


def _term_labels(terms: Sequence[str]) -> dict[str, str]:
    """Labels of loss terms: their kind, with the position in the recipe if the kind occurs twice."""
    kinds = {name: re.sub(r"^\d+_", "", name) for name in terms}
    return {name: kind if list(kinds.values()).count(kind) == 1 else name for name, kind in kinds.items()}


def _rates(entries: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[Series]:
    """One line for all parameter groups with the same learning rates."""
    groups_by_rates: dict[tuple[tuple[int, float], ...], list[str]] = {}
    for name in names:
        groups_by_rates.setdefault(tuple((e["epoch"], e[name]) for e in entries if name in e), []).append(name)
    lines = [
        Series(
            _group_name(groups),
            np.array([e for e, _ in points], np.int64),
            np.array([r for _, r in points], np.float64),
        )
        for points, groups in groups_by_rates.items()
    ]
    lines.sort(key=lambda line: -float(line.values.max(initial=0)))
    few = len(lines) <= 4
    return [
        Series(line.name, line.epochs, line.values, named=few or place in (0, len(lines) - 1))
        for place, line in enumerate(lines)
    ]


def _group_name(groups: Sequence[str]) -> str:
    parts = [name.removeprefix("lr, ").removesuffix(", not decayed").removesuffix(", decayed") for name in groups]
    unlike = list(dict.fromkeys(re.sub(r"^\d+_", "", part) for part in parts))
    return ", ".join(unlike) if len(unlike) <= 3 else f"{unlike[0]} to {unlike[-1]}"


def _kept_epoch(stage: StageValue, entries: Sequence[Mapping[str, Any]]) -> int | None:
    if stage.validated_weights is None:
        return None
    if stage.validated_weights == "last":
        return int(entries[-1]["epoch"])
    checked = [entry for entry in entries if "validation_map" in entry]
    return int(max(checked, key=lambda entry: entry["validation_map"])["epoch"]) if checked else None
