"""What the page's script draws: match curves and training curves, as plain numbers."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from handreid.report.compare.runs import Compared, Comparison
from handreid.report.figures import style
from handreid.report.figures.cmc import cmc_points
from handreid.report.figures.training_series import Panel, StageSeries, training_series
from handreid.report.page.data_card import Trained
from handreid.runs.epoch_metrics import read_metrics
from handreid.runs.folder import Run

_RANKS = 20
_MANY = 8  # with more curves all are grey but those that the page speaks of
_BANDS = 3  # with more curves, bands of intervals cover each other
_DASHES = ("solid", "dash", "dot", "dashdot")
_SYMBOLS = ("circle", "square", "triangle-up", "diamond", "cross", "x")
# what is drawn together, by the names of training_series
_PANELS = {
    "Loss, and its terms": ("loss", "terms"),
    "Learning rate": ("learning rate",),
    "Gradient norm, before clipping": ("gradient norm",),
    "Validation, %": ("validation",),
}


def cmc(comparison: Comparison, shown: str) -> tuple[list[dict[str, Any]], str]:
    """A curve per run, and what they are. Of many runs, those that the page speaks of have colours."""
    runs = comparison.runs
    spoken = [
        run.name for run in runs if len(runs) <= _MANY or run.name in (shown, comparison.reference, runs[-1].name)
    ]
    curves = [_curve(run, spoken.index(run.name) if run.name in spoken else None, len(runs)) for run in runs]
    bands = "; bands are 95 % intervals over subjects at each rank" if len(runs) <= _BANDS else ""
    grey = f" Of the {len(runs)} runs, {', '.join(spoken)} are in colour." if len(runs) > _MANY else ""
    return curves, f"Share of the queries with a right answer among the first k, mean over the draws{bands}.{grey}"


def _curve(run: Compared, place: int | None, runs: int) -> dict[str, Any]:
    found = cmc_points(run.evaluation, _RANKS, resamples=2000 if runs <= _BANDS else 2)
    bounds = {"low": _percent(found.low), "high": _percent(found.high)} if runs <= _BANDS else {}
    quiet = place is None
    place = place or 0
    return {
        "name": run.name,
        "x": found.ranks.tolist(),
        "y": _percent(found.value),
        "quiet": quiet,
        "colour": style.UNKNOWN if quiet else style.CATEGORIES[place % len(style.CATEGORIES)],
        "dash": "solid" if quiet else _DASHES[place % len(_DASHES)],
        "symbol": _SYMBOLS[place % len(_SYMBOLS)],
        **bounds,
    }


def _percent(shares: Any) -> list[float]:
    return [round(100 * float(share), 2) for share in shares]


def training(runs: Sequence[Trained], shown: str) -> dict[str, Any] | None:
    """Curves of every run that was trained, for the script, and what the template has to know of them."""
    found = {}
    for run in runs:
        if read_metrics(Run(run.folder)):
            found[run.name] = _panels(training_series(Run(run.folder)))
    if not found:
        return None
    return {
        "data": found,
        "names": list(found),
        "shown": shown if shown in found else list(found)[-1],
        "panels": max(map(len, found.values())),
        "caption": "Means over each epoch. Terms are shown before their weights; a dotted line separates consecutive "
        "stages. The solid line in the validation panel is the epoch whose weights were kept.",
    }


def _panels(stages: Sequence[StageSeries]) -> list[dict[str, Any]]:
    """A panel over all stages for each kind of number; epochs are counted on from one stage to the next."""
    lengths = [max(int(line.epochs.max()) for panel in stage.panels for line in panel.series) for stage in stages]
    starts = np.cumsum([0, *lengths])
    found = []
    for title, names in _PANELS.items():
        parts = [
            (stage, int(start), panel)
            for stage, start in zip(stages, starts, strict=False)
            for panel in stage.panels
            if panel.name in names
        ]
        series = [
            {
                "name": f"{line.name} (stage {stage.number})"
                if panel.name == "terms" and len(stages) > 1
                else line.name,
                "x": [int(epoch) + start for epoch in line.epochs],
                "y": [_shown(value, panel) for value in line.values],
                "named": line.named,
            }
            for stage, start, panel in parts
            for line in panel.series
        ]
        kept = [start + stage.kept for stage, start, panel in parts if stage.kept and panel.name == "validation"]
        between = [float(start) + 0.5 for start in starts[1:-1]]
        if series:
            log = "learning rate" in names
            found.append({"title": title, "log": log, "stages": between, "kept": kept, "series": _joined(series)})
    return found


def _shown(value: float, panel: Panel) -> float | None:
    """A schedule that ends at a rate of 0 has no last point: its axis is logarithmic."""
    if panel.name == "learning rate" and value <= 0:
        return None
    return float(f"{value * (100 if panel.unit == '%' else 1):.6g}")


def _joined(series: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A line that goes on in the next stage under the same name is one line, lifted between."""
    lines: dict[str, dict[str, Any]] = {}
    for one in series:
        if one["name"] in lines:
            before = lines[one["name"]]
            before["x"] += [None, *one["x"]]
            before["y"] += [None, *one["y"]]
        else:
            lines[one["name"]] = one
    return list(lines.values())
