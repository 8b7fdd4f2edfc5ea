"""The ladder as a figure: rank-1 and mAP of every run with their intervals, and whether each beats the reference.

* Each run is a row, so names are horizontal. The score is printed, the interval drawn.
* The verdict is a mark as well as a colour: a triangle up or down, an open circle within noise. It comes from the
  paired difference, which can exclude 0 even if the intervals of the two scores overlap.
* The light band is the reference's own interval.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from handreid.files import check_writable
from handreid.metric_table import title
from handreid.report.compare.runs import Compared, Comparison
from handreid.report.figures import style
from handreid.report.figures.captions import caption_of_figure
from handreid.runs.results import Difference, Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS = ("rank1", "map")
# mark, colour, whether it is filled
_VERDICTS: dict[str, tuple[str, str, bool]] = {
    "better": ("^", style.CATEGORIES[2], True),
    "worse": ("v", style.CATEGORIES[1], True),
    "within noise": ("o", style.QUIET, False),
    "reference": ("D", style.INK, True),
    "not compared": ("o", style.INK, True),
}
_ROW, _WIDTH = 0.36, 10.5  # inches
_DRAWN = 0.72  # share of a panel's width; to the right of it are numbers


def ladder_figure(comparison: Comparison, out: Path, *, command: str = "") -> list[Path]:
    """The files written: `out` (.png, .svg or .pdf), and its caption as .txt beside it. Runs go from top to bottom."""
    check_writable(out, style.FORMATS)
    runs = comparison.runs
    subtitle = _subtitle(comparison)
    below = 0.72  # inches for the axis and the legend
    height = 0.95 + 0.2295 * len(subtitle) + 0.3 + _ROW * (len(runs) + 0.4) + below
    figure = style.new_figure(
        "What each rung is worth" if len(runs) > 1 else runs[0].name, subtitle, width=_WIDTH, height=height
    )
    longest = max(len(run.name) for run in runs)
    left_edge = min(0.34, 0.055 + 0.0078 * longest)
    top, bottom = style.top_of(subtitle, height) - 0.26 / height, below / height
    gap, right = 0.03, 0.975
    width = (right - left_edge - gap * (len(PANELS) - 1)) / len(PANELS)
    for number, metric in enumerate(PANELS):
        axes = figure.add_axes((left_edge + number * (width + gap), bottom, width, top - bottom))
        _panel(axes, comparison, metric, names=number == 0)
    _legend(figure, comparison, height)
    return style.save(figure, out, caption_of_figure(_what(comparison), comparison, command))


def _panel(axes: "Axes", comparison: Comparison, metric: str, *, names: bool) -> None:
    runs = comparison.runs
    scores = [run.evaluation.metrics[metric] for run in runs]
    _scale(axes, scores, len(runs))
    reference = comparison[comparison.reference].evaluation.metrics[metric]
    if len(runs) > 1:
        axes.axvspan(100 * reference.low, 100 * reference.high, color=style.INK, alpha=0.05, lw=0, zorder=0)
        axes.axvline(100 * reference.value, color=style.QUIET, lw=0.8, ls=(0, (2, 3)), zorder=1)
    for row, (run, score) in enumerate(zip(runs, scores, strict=True)):
        _row(axes, row, score, _verdict(comparison, run, metric), run.against.get(metric))
    axes.set_yticks(range(len(runs)), [run.name for run in runs] if names else [])
    axes.tick_params(axis="y", length=0, labelsize=10.5, labelcolor=style.INK, pad=8)
    axes.tick_params(axis="x", length=0, labelsize=9, labelcolor=style.QUIET)
    axes.grid(axis="x", color=style.HAIR, lw=0.6)
    axes.set_axisbelow(True)
    axes.set_title(f"{title(metric)}, %", loc="left", size=11, weight="bold", color=style.INK, pad=6)
    if any(run.against for run in runs):
        axes.set_title("difference", loc="right", size=9, color=style.QUIET, pad=6)
    for side in ("left", "right", "top", "bottom"):
        axes.spines[side].set_visible(False)


def _scale(axes: "Axes", scores: Sequence[Metric], rows: int) -> None:
    """Sets limits and ticks of the axes, with room for numbers on the right that has no ticks."""
    low, high = 100 * min(score.low for score in scores), 100 * max(score.high for score in scores)
    room = max(high - low, 4.0)
    axes.set_xlim(low - 0.03 * room, low - 0.03 * room + 1.06 * room / _DRAWN)
    axes.set_ylim(rows - 0.3, -0.7)
    step = next(step for step in (1, 2, 5, 10, 20) if room / step <= 6)
    axes.set_xticks(range(math.ceil(low / step) * step, math.floor(min(high, 100)) + 1, step))


def _row(axes: "Axes", row: int, score: Metric, verdict: str, gained: Difference | None) -> None:
    value, low, high = (100 * end for end in (score.value, score.low, score.high))
    mark, colour, filled = _VERDICTS[verdict]
    face = colour if filled else "white"
    axes.plot([low, high], [row, row], color=colour, lw=2.6, alpha=0.45, solid_capstyle="round", zorder=2)
    axes.scatter([value], [row], s=62, marker=mark, facecolor=face, edgecolor=colour, linewidth=1.6, zorder=3)
    across = axes.get_yaxis_transform()
    printed: Any = {"transform": across, "va": "center_baseline", "ha": "right"}
    axes.text(0.85, row, f"{value:.1f}", size=10.5, weight="bold", color=style.INK, **printed)
    if gained:
        difference = f"{100 * gained.value:+.1f}".replace("-", "\u2212")
        axes.text(1, row, difference, size=9.5, color=colour, **printed)


def _verdict(comparison: Comparison, run: Compared, metric: str) -> str:
    if run.name == comparison.reference:
        return "reference" if len(comparison.runs) > 1 else "not compared"
    return run.against[metric].verdict if run.against else "not compared"


def _legend(figure: Any, comparison: Comparison, height: float) -> None:
    from matplotlib.lines import Line2D

    verdicts = {_verdict(comparison, run, metric) for run in comparison.runs for metric in PANELS}
    if verdicts == {"not compared"}:
        return
    words = {
        "better": "better",
        "worse": "worse",
        "within noise": "within noise",
        "reference": f"{comparison.reference}, the reference",
    }
    words["not compared"] = "not compared"
    marks = [
        Line2D(
            [], [], ls="", marker=mark, ms=7, mew=1.5, mec=colour, mfc=colour if filled else "white", label=words[name]
        )
        for name, (mark, colour, filled) in _VERDICTS.items()
        if name in verdicts
    ]
    corner = (0.33 / _WIDTH - 0.004, 0.14 / height)
    tight: Any = {"handletextpad": 0.2, "columnspacing": 1.6, "borderaxespad": 0, "frameon": False}
    look: Any = {"fontsize": 9.5, "labelcolor": style.QUIET, **tight}
    figure.legend(handles=marks, loc="lower left", bbox_to_anchor=corner, ncols=len(marks), **look)


def _subtitle(comparison: Comparison) -> list[str]:
    counts = comparison[comparison.reference].evaluation.counts
    counts_line = (
        f"{counts.most_queries:,} queries of {counts.subjects:,} subjects among {counts.gallery:,} gallery photos, "
        f"mean of {counts.draws} draws; bars are 95 % intervals over subjects"
    )
    if len(comparison.runs) < 2:
        return [counts_line]
    return [
        counts_line,
        f"Marks and differences: paired with {comparison.reference}, corrected for all runs of a column",
    ]


def _what(comparison: Comparison) -> str:
    return (
        f"Rank-1 and mAP in percent of {len(comparison.runs)} runs, from top to bottom "
        f"{', '.join(run.name for run in comparison.runs)}. Dots are scores, bars their 95 % intervals over subjects"
    )
