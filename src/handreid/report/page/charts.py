"""Data of the page's match curves and training curves, for its script."""

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
_MANY = 8  # with more curves, only the runs that the page names are coloured
_BANDS = 3  # with more curves, there are no interval bands, which would overlap
_DASHES = ("solid", "dash", "dot", "dashdot")
_SYMBOLS = ("circle", "square", "triangle-up", "diamond", "cross", "x")
# panels, each with the names of `training_series` in it
_PANELS = {
    "Loss, and its terms": ("loss", "terms"),
    "Learning rate": ("learning rate",),
    "Gradient norm, before clipping": ("gradient norm",),
    "Features, %": ("features",),
    "Effective rank of the features": ("effective rank",),
    "Validation, %": ("validation",),
}


def cmc(comparison: Comparison, displayed: str) -> tuple[list[dict[str, Any]], str]:
    """A curve per run, and the caption. Of many runs, only those that the page names are coloured."""
    runs = comparison.runs
    spoken = [
        run.name for run in runs if len(runs) <= _MANY or run.name in (displayed, comparison.reference, runs[-1].name)
    ]
    curves = [_curve(run, spoken.index(run.name) if run.name in spoken else None, len(runs)) for run in runs]
    bands = "; bands are 95 % intervals over subjects at each rank" if len(runs) <= _BANDS else ""
    grey = f" Of the {len(runs)} runs, {', '.join(spoken)} are in colour." if len(runs) > _MANY else ""
    return curves, f"Share of the queries with a right answer among the first k, mean over the draws{bands}.{grey}"


def _curve(run: Compared, place: int | None, runs: int) -> dict[str, Any]:
    points = cmc_points(run.evaluation, _RANKS, resamples=2000 if runs <= _BANDS else 2)
    bounds = {"low": _percent(points.low), "high": _percent(points.high)} if runs <= _BANDS else {}
    quiet = place is None
    place = place or 0
    return {
        "name": run.name,
        "x": points.ranks.tolist(),
        "y": _percent(points.value),
        "quiet": quiet,
        "colour": style.UNKNOWN if quiet else style.CATEGORIES[place % len(style.CATEGORIES)],
        "dash": "solid" if quiet else _DASHES[place % len(_DASHES)],
        "symbol": _SYMBOLS[place % len(_SYMBOLS)],
        **bounds,
    }


def _percent(shares: Any) -> list[float]:
    return [round(100 * float(share), 2) for share in shares]


def training(runs: Sequence[Trained], displayed: str) -> dict[str, Any] | None:
    """Training curves of every trained run: data for the script, and content for the template. None without any."""
    by_run = {}
    for run in runs:
        if read_metrics(Run(run.folder)):
            by_run[run.name] = _panels(training_series(Run(run.folder)))
    if not by_run:
        return None
    return {
        "data": by_run,
        "names": list(by_run),
        "shown": displayed if displayed in by_run else list(by_run)[-1],
        "panels": max(map(len, by_run.values())),
        "caption": "Means over each epoch. Terms are shown before their weights; a dotted line separates consecutive "
        "stages. The solid line in the validation panel is the epoch whose weights were kept.",
    }


def _panels(stages: Sequence[StageSeries]) -> list[dict[str, Any]]:
    """A panel over all stages for each kind of number; epochs are counted across stages."""
    lengths = [max(int(line.epochs.max()) for panel in stage.panels for line in panel.series) for stage in stages]
    starts = np.cumsum([0, *lengths])
    panels = []
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
                "y": [_in_unit(value, panel) for value in line.values],
                "named": line.named,
            }
            for stage, start, panel in parts
            for line in panel.series
        ]
        kept_epochs = [start + stage.kept for stage, start, panel in parts if stage.kept and panel.name == "validation"]
        between = [float(start) + 0.5 for start in starts[1:-1]]
        if series:
            log = "learning rate" in names
            panels.append(
                {"title": title, "log": log, "stages": between, "kept": kept_epochs, "series": _joined(series)}
            )
    return panels


def _in_unit(value: float, panel: Panel) -> float | None:
    """The value in the panel's unit; None for a learning rate of 0, as that axis is logarithmic."""
    if panel.name == "learning rate" and value <= 0:
        return None
    return float(f"{value * (100 if panel.unit == '%' else 1):.6g}")


def _joined(series: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines of the same name in several stages as one line, with a gap between stages."""
    lines: dict[str, dict[str, Any]] = {}
    for line in series:
        if line["name"] in lines:
            before = lines[line["name"]]
            before["x"] += [None, *line["x"]]
            before["y"] += [None, *line["y"]]
        else:
            lines[line["name"]] = line
    return list(lines.values())
