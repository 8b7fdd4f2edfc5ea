"""What a figure of runs shows, as text: what, of how many, on which draws, how sure, and by which command."""

from handreid.evaluation.tables.format import format_difference
from handreid.metric_table import title
from handreid.report.compare.runs import Comparison
from handreid.report.compare.tables import captions


def caption_of_figure(what: str, comparison: Comparison, command: str, *, differences: bool = True) -> str:
    """Sentences that stand below the figure in a paper; lines that only concern tables are left out."""
    told = [what, *captions(comparison, tables=False, differences=differences)]
    if differences:
        told += [line for run in comparison.runs if (line := _gained(comparison, run.name))]
    if command:
        told.append(f"Made by: {command}")
    return "\n".join(line if line.endswith(".") else f"{line}." for line in told)


def _gained(comparison: Comparison, name: str) -> str:
    """The difference to the reference, in words for those who cannot see the marks."""
    gained = comparison[name].against
    parts = [
        f"{title(metric)} {format_difference(metric, gained[metric])}"
        for metric in ("rank1", "map")
        if metric in gained
    ]
    return f"{name} against {comparison.reference}: {', '.join(parts)}" if parts else ""
