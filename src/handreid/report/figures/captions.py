"""Captions of figures that compare runs: content, counts, draws, intervals, and the command."""

from handreid.evaluation.tables.format import format_difference
from handreid.metric_table import title
from handreid.report.compare.runs import Comparison
from handreid.report.compare.tables import captions


def caption_of_figure(what: str, comparison: Comparison, command: str, *, differences: bool = True) -> str:
    """The caption of a figure in a paper, without the lines that only concern tables."""
    lines = [what, *captions(comparison, tables=False, differences=differences)]
    if differences:
        lines += [line for run in comparison.runs if (line := _gained(comparison, run.name))]
    if command:
        lines.append(f"Made by: {command}")
    return "\n".join(line if line.endswith(".") else f"{line}." for line in lines)


def _gained(comparison: Comparison, name: str) -> str:
    """The difference to the reference as text, for readers who cannot see the marks."""
    gained = comparison[name].against
    parts = [
        f"{title(metric)} {format_difference(metric, gained[metric])}"
        for metric in ("rank1", "map")
        if metric in gained
    ]
    return f"{name} against {comparison.reference}: {', '.join(parts)}" if parts else ""
