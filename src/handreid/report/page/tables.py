"""The comparison as the page's tables and charts of dots."""

from collections.abc import Mapping, Sequence
from typing import Any

from handreid.evaluation.tables import ladder
from handreid.metric_table import title
from handreid.report.compare.runs import Comparison
from handreid.report.compare.tables import captions, cost_table
from handreid.report.page.interval_chart import dots
from handreid.runs.results import Number, Reranked

_SHOWN = ("rank1", "rank5", "map", "minp")
_BOUNDED = ("rank1", "map")  # the metrics shown with intervals; intervals of all would crowd the table


def results(comparison: Comparison, displayed: str) -> dict[str, Any]:
    """A row per run with metrics, difference and cost, and below it a row for each of its re-rankings."""
    compared = len(comparison.runs) > 1
    keys = [*_SHOWN, *ladder.tell_more([run.evaluation for run in comparison.runs])]
    columns = [title(key) for key in keys]
    if compared:
        columns.append(f"{title(comparison.by)} against {comparison.reference}")
    costs = cost_table(comparison)
    caption, *remarks = captions(comparison)
    rows = []
    for number, run in enumerate(comparison.runs):
        rows.append(
            {
                "name": run.name,
                "shown": compared and run.name == displayed,
                "again": False,
                "metrics": _metrics(run.evaluation.metrics, keys),
                "reference": compared and run.name == comparison.reference,
                "against": run.against.get(comparison.by),
                "costs": costs.rows[number][1:] if costs.rows else [],
            }
        )
        again = run.evaluation.reranked or ()
        rows += [_reranked(reranked, comparison.by, len(costs.columns) - 1, keys) for reranked in again]
    return {
        "columns": columns,
        "costs": costs.columns[1:],
        "compared": compared,
        "rows": rows,
        "caption": sentence(caption),
        "remark": " ".join(sentence(text) for text in remarks if not text.startswith("note: ")),
    }


def _reranked(reranked: Reranked, by: str, costs: int, keys: Sequence[str]) -> dict[str, Any]:
    return {
        "name": f"+ {reranked.name}",
        "shown": False,
        "again": True,
        "metrics": _metrics(reranked.metrics, keys),
        "reference": False,
        "against": reranked.against.get(by),
        "costs": [""] * costs,
    }


def _metrics(metrics: Mapping[str, Number], keys: Sequence[str]) -> list[Number]:
    return [metrics[key] if key in _BOUNDED else Number(value=metrics[key].value, low=None, high=None) for key in keys]


def sentence(text: str) -> str:
    text = text.strip().rstrip(".")
    return text[:1].upper() + text[1:] + "."


def chart(comparison: Comparison) -> dict[str, Any] | None:
    """Rank-1 and mAP of every run, with intervals."""
    rows = [
        (run.name, [run.evaluation.metrics[key] for key in _BOUNDED], run.against.get(comparison.by))
        for run in comparison.runs
    ]
    content = dots(rows, least=0.0)
    if content is None:
        return None
    caption = "Percent, with 95 % intervals over subjects."
    if len(comparison.runs) > 1:
        by = title(comparison.by)
        caption += f" The verdict below a name compares its {by}, query by query, with that of {comparison.reference}."
    return {**content, "names": [title(key) for key in _BOUNDED], "caption": caption}


def separations(comparison: Comparison) -> dict[str, Any] | None:
    """Separation metrics of each run; None if no evaluation has them."""
    runs = [(run.name, run.evaluation.separation) for run in comparison.runs if run.evaluation.separation is not None]
    if not runs:
        return None
    return {
        **_section(comparison, "separation"),
        "key": "Distance within an identity / to the nearest other one: lower is better, under 1 is separable",
        "chart": dots([(name, [space.numbers["ratio"]], None) for name, space in runs], scale=1.0, digits=3),
    }


def sections(comparison: Comparison) -> list[dict[str, Any]]:
    """The numbers of every other section that declares some, formatted as the table of metrics says."""
    names = ladder.section_names([run.evaluation for run in comparison.runs])
    return [_section(comparison, name) for name in names if name != "separation"]


def _section(comparison: Comparison, name: str) -> dict[str, Any]:
    having = [run for run in comparison.runs if name in run.evaluation.number_sections]
    caption = ladder.section_caption([run.evaluation for run in having], name)
    return {
        "id": name.replace("_", "-"),
        "title": ladder.section_title(name).capitalize(),
        "caption": sentence(caption) if caption else "",
        "columns": ladder.section_columns(name),
        "rows": [
            {"name": run.name, "cells": ladder.section_cells(name, run.evaluation.number_sections[name].numbers)}
            for run in having
        ],
    }
