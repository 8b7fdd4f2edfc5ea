"""The comparison as the page's tables and charts of dots."""

from collections.abc import Mapping, Sequence
from typing import Any

from handreid.evaluation.compactness import LOWER_IS_BETTER
from handreid.report.comparison import Compared, Comparison
from handreid.report.cost import Cost
from handreid.report.page.dots import Metric, dots
from handreid.training import ladder
from handreid.training.reranked import remark

METRICS = {"rank-1": "rank1", "rank-5": "rank5", "mAP": "map", "mINP": "minp"}
_BOUNDED = ("rank1", "map")  # intervals of all would hide the table's numbers
NAMES = {"rank1": "rank-1", "rank5": "rank-5", "rank10": "rank-10", "map": "mAP", "minp": "mINP", "mrr": "MRR"}
NAMES |= {"map_trapezoid": "mAP trapezoid"}


def results(comparison: Comparison, shown: str) -> dict[str, Any]:
    """Metrics of every run, those of its re-ranking below it, what it gained, and what it cost."""
    compared = len(comparison.runs) > 1
    columns = list(METRICS)
    if compared:
        columns.append(f"{NAMES.get(comparison.by, comparison.by)} against {comparison.reference}")
    costs = _costs([run.cost for run in comparison.runs])
    rows = []
    for number, run in enumerate(comparison.runs):
        rows.append(
            {
                "name": run.name,
                "shown": compared and run.name == shown,
                "again": False,
                "metrics": _metrics(run.evaluation["metrics"]),
                "reference": compared and run.name == comparison.reference,
                "against": run.against.get(comparison.by),
                "costs": [column[number] for column in costs.values()],
            }
        )
        rows += [_reranked(of, comparison.by, len(costs)) for of in run.evaluation.get("reranked", [])]
    remarks = [comparison.corrected if compared else "", *_reranking(comparison.runs)]
    return {
        "columns": columns,
        "costs": list(costs),
        "compared": compared,
        "rows": rows,
        "caption": ladder.caption(ladder.Rung("", dict(comparison.runs[-1].evaluation), None)),
        "remark": " ".join(sentence(text) for text in remarks if text),
    }


def _reranked(of: Mapping[str, Any], by: str, costs: int) -> dict[str, Any]:
    return {
        "name": f"+ {of['name']}",
        "shown": False,
        "again": True,
        "metrics": _metrics(of["metrics"]),
        "reference": False,
        "against": of["against"].get(by),
        "costs": [""] * costs,
    }


def _metrics(found: Mapping[str, Any]) -> list[Metric]:
    return [found[key] if key in _BOUNDED else {**found[key], "low": None} for key in METRICS.values()]


def _reranking(runs: Sequence[Compared]) -> list[str]:
    if not any(run.evaluation.get("reranked") for run in runs):
        return []
    told = "rows with + rank the same embeddings anew and are compared with the same run without"
    return [told, *filter(None, dict.fromkeys(remark(run.evaluation) for run in runs))]


def sentence(text: str) -> str:
    text = text.strip().rstrip(".")
    return text[:1].upper() + text[1:] + "."


def _costs(costs: Sequence[Cost]) -> dict[str, list[str]]:
    """Columns that at least one run says something for."""
    columns = {
        "training": [_time(cost.seconds) for cost in costs],
        "photos/s": ["" if cost.photos_per_second is None else f"{cost.photos_per_second:,.0f}" for cost in costs],
        "peak memory": ["" if cost.peak_memory is None else f"{cost.peak_memory / 2**30:.1f} GiB" for cost in costs],
        "learning": ["" if cost.learning is None else _short(cost.learning) for cost in costs],
    }
    return {name: cells for name, cells in columns.items() if any(cells)}


def _time(seconds: float | None) -> str:
    if not seconds:
        return ""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _short(number: int) -> str:
    if number < 10_000:
        return f"{number:,}"
    return f"{number / 1e3:.0f} K" if number < 1e6 else f"{number / 1e6:.1f} M"


def changed(comparison: Comparison) -> dict[str, Any]:
    """Recipe keys in which the runs differ, a row each."""
    keys = list(dict.fromkeys(key for run in comparison.runs for key in run.changed))
    return {
        "names": [run.name for run in comparison.runs],
        "rows": [{"key": key, "values": [run.changed.get(key, "") for run in comparison.runs]} for key in keys],
    }


def chart(comparison: Comparison) -> dict[str, Any] | None:
    """Rank-1 and mAP of every run, with intervals."""
    rows = [
        (run.name, [run.evaluation["metrics"][key] for key in ("rank1", "map")], run.against.get(comparison.by))
        for run in comparison.runs
    ]
    found = dots(rows, least=0.0)
    if found is None:
        return None
    said = "Percent, with 95 % intervals over people."
    if len(comparison.runs) > 1:
        by = NAMES.get(comparison.by, comparison.by)
        said += f" The words below a name compare its {by}, query by query, with that of {comparison.reference}."
    return {**found, "names": ["rank-1", "mAP"], "caption": said}


def spaces(comparison: Comparison) -> dict[str, Any] | None:
    """The numbers of each run's space; None where no evaluation has them."""
    runs = [run for run in comparison.runs if "space" in run.evaluation]
    if not runs:
        return None
    numbers = [run.evaluation["space"]["numbers"] for run in runs]
    return {
        "caption": sentence(ladder.space_caption(ladder.Rung("", dict(runs[-1].evaluation), None))),
        "key": "Distance within an identity by that to the nearest other: lower is better, under 1 is separable",
        "chart": dots(
            [(run.name, [of["ratio"]], None) for run, of in zip(runs, numbers, strict=True)], scale=1.0, digits=3
        ),
        "columns": [f"{name} ({'lower' if LOWER_IS_BETTER[key] else 'higher'})" for key, name in ladder.SPACE.items()],
        "rows": [
            {"name": run.name, "cells": [of.get(key) for key in ladder.SPACE]}
            for run, of in zip(runs, numbers, strict=True)
        ],
    }
