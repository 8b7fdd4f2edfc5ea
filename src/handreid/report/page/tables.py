"""The comparison as the page's tables and charts of dots."""

from collections.abc import Mapping, Sequence
from typing import Any

from handreid.evaluation.compare import Rung
from handreid.evaluation.tables import ladder
from handreid.metrics.separation import LOWER_IS_BETTER
from handreid.recipe.metrics import METRICS
from handreid.report.compare.runs import Comparison
from handreid.report.compare.tables import captions, cost_table
from handreid.report.page.interval_chart import Metric, dots

_SHOWN = ("rank1", "rank5", "map", "minp")
_BOUNDED = ("rank1", "map")  # intervals of all would hide the table's numbers


def results(comparison: Comparison, shown: str) -> dict[str, Any]:
    """Metrics of every run, those of its re-ranking below it, what it gained, and what it cost."""
    compared = len(comparison.runs) > 1
    keys = [*_SHOWN, *ladder.tell_more([run.evaluation for run in comparison.runs])]
    columns = [METRICS[key] for key in keys]
    if compared:
        columns.append(f"{METRICS[comparison.by]} against {comparison.reference}")
    costs = cost_table(comparison)
    caption, *remarks = captions(comparison)
    rows = []
    for number, run in enumerate(comparison.runs):
        rows.append(
            {
                "name": run.name,
                "shown": compared and run.name == shown,
                "again": False,
                "metrics": _metrics(run.evaluation["metrics"], keys),
                "reference": compared and run.name == comparison.reference,
                "against": run.against.get(comparison.by),
                "costs": costs.rows[number][1:] if costs.rows else [],
            }
        )
        again = run.evaluation.get("reranked", [])
        rows += [_reranked(of, comparison.by, len(costs.columns) - 1, keys) for of in again]
    return {
        "columns": columns,
        "costs": costs.columns[1:],
        "compared": compared,
        "rows": rows,
        "caption": sentence(caption),
        "remark": " ".join(sentence(text) for text in remarks if not text.startswith("note: ")),
    }


def _reranked(of: Mapping[str, Any], by: str, costs: int, keys: Sequence[str]) -> dict[str, Any]:
    return {
        "name": f"+ {of['name']}",
        "shown": False,
        "again": True,
        "metrics": _metrics(of["metrics"], keys),
        "reference": False,
        "against": of["against"].get(by),
        "costs": [""] * costs,
    }


def _metrics(found: Mapping[str, Any], keys: Sequence[str]) -> list[Metric]:
    return [found[key] if key in _BOUNDED else {**found[key], "low": None} for key in keys]


def sentence(text: str) -> str:
    text = text.strip().rstrip(".")
    return text[:1].upper() + text[1:] + "."


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
        by = METRICS[comparison.by]
        said += f" The words below a name compare its {by}, query by query, with that of {comparison.reference}."
    return {**found, "names": ["rank-1", "mAP"], "caption": said}


def spaces(comparison: Comparison) -> dict[str, Any] | None:
    """The numbers of each run's space; None where no evaluation has them."""
    runs = [run for run in comparison.runs if "space" in run.evaluation]
    if not runs:
        return None
    numbers = [run.evaluation["space"]["numbers"] for run in runs]
    return {
        "caption": sentence(ladder.space_caption(Rung("", dict(runs[-1].evaluation), None))),
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
