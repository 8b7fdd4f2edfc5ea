"""Cumulative match characteristic: how many queries have a right answer among the first k.

* Counted as rank-k is: the mean over the draws of each draw's share; queries without a right answer are left out.
* Curves carry their names at their ends, where one reads them. Up to three have their interval as a band; the
  bands of more would hide each other.
* Colours that come a second time are dashed, a third time dotted: nothing is told by colour alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from handreid.evaluation.compare import read_scores
from handreid.files import check_writable
from handreid.metrics.intervals import intervals
from handreid.report.compare.runs import Comparison
from handreid.report.figures import style
from handreid.report.figures.captions import caption_of_figure
from handreid.runs.results import Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BANDS = 3
_DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1.2)))
_WIDTH, _TALL = 9.5, 6.0  # inches


@dataclass(frozen=True, eq=False)
class Cmc:
    """Shares in [0, 1] at ranks 1 to `up_to`, with 95 % intervals over subjects, each by itself."""

    ranks: Int[np.ndarray, " rank"]
    value: Float[np.ndarray, " rank"]
    low: Float[np.ndarray, " rank"]
    high: Float[np.ndarray, " rank"]


def cmc_points(evaluation: Evaluation, up_to: int = 20, *, resamples: int = 2000) -> Cmc:
    """The curve of an evaluation.json, up to a rank or to the size of the gallery."""
    scores = read_scores(evaluation)
    first = np.array([of[0] if of else np.nan for of in scores.ranks])
    people = np.unique([evaluation.subjects[row] for row in scores.rows], return_inverse=True)[1]
    ranks = np.arange(1, min(up_to, evaluation.counts.gallery) + 1)
    found = {str(k): np.where(np.isnan(first), np.nan, (first <= k).astype(float)) for k in ranks}
    bounds = intervals(found, people, scores.draws, resamples=resamples).values()
    value, low, high = np.array([(one.value, one.low, one.high) for one in bounds]).T
    return Cmc(ranks, value, low, high)


def cmc_figure(comparison: Comparison, out: Path, *, up_to: int = 20, command: str = "") -> list[Path]:
    """The files written: `out` (.png, .svg or .pdf), and its caption as .txt beside it."""
    check_writable(out, style.FORMATS)
    runs = comparison.runs
    curves = [cmc_points(run.evaluation, up_to) for run in runs]
    subtitle = ["Queries with a right answer among the first k"]
    if len(runs) <= _BANDS:
        subtitle[0] += "; bands are 95 % intervals over subjects"
    height = max(_TALL, 1.9 + 0.21 * len(runs))
    figure = style.new_figure("Cumulative match characteristic", subtitle, width=_WIDTH, height=height)
    named = min(0.4, 0.1 + 0.0082 * max(len(run.name) for run in runs))
    bottom = 0.62 / height
    axes = figure.add_axes((0.075, bottom, 0.9 - named, style.top_of(subtitle, height) - bottom - 0.02))
    for number, curve in enumerate(curves):
        _draw(axes, number, curve, band=len(runs) <= _BANDS)
    _finish(axes, curves)
    _label(axes, [run.name for run in runs], curves, height)
    return style.save(figure, out, caption_of_figure(_what(comparison, curves), comparison, command, differences=False))


def _look(number: int) -> dict[str, Any]:
    count = len(style.CATEGORIES)
    return {"color": style.CATEGORIES[number % count], "ls": _DASHES[number // count % len(_DASHES)]}


def _draw(axes: "Axes", number: int, curve: Cmc, *, band: bool) -> None:
    look = _look(number)
    axes.plot(curve.ranks, 100 * curve.value, lw=1.8, marker="o", ms=3.2, zorder=3, **look)
    if band:
        axes.fill_between(
            curve.ranks, 100 * curve.low, 100 * curve.high, color=look["color"], alpha=0.13, lw=0, zorder=1
        )


def _finish(axes: "Axes", curves: Sequence[Cmc]) -> None:
    from matplotlib.ticker import MaxNLocator

    last = max(int(curve.ranks[-1]) for curve in curves)
    lowest = 100 * min(curve.low[0] if len(curves) <= _BANDS else curve.value[0] for curve in curves)
    highest = 100 * max(curve.high[-1] if len(curves) <= _BANDS else curve.value[-1] for curve in curves)
    pad = 0.04 * max(highest - lowest, 2)
    axes.set_ylim(max(lowest - pad, 0), min(highest + pad, 100.6))
    axes.set_xlim(1 - 0.02 * last, last + 0.02 * last)
    axes.set_xticks([1, *range(5, last + 1, 5)] if last >= 10 else range(1, last + 1))
    axes.yaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10], integer=True))
    axes.set_xlabel("rank k", color=style.QUIET, size=10)
    axes.set_ylabel("rank-k, %", color=style.QUIET, size=10)
    axes.tick_params(length=0, labelsize=9, labelcolor=style.QUIET)
    axes.grid(color=style.HAIR, lw=0.6)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _label(axes: "Axes", names: Sequence[str], curves: Sequence[Cmc], height: float) -> None:
    """A name at the end of every curve, moved apart where ends meet, with a line that leads to it."""
    low, high = axes.get_ylim()
    box = axes.get_position().height * height  # inches
    ends = np.array([(100 * curve.value[-1] - low) / (high - low) * box for curve in curves])
    starts = [curve.value[0] for curve in curves]
    order = sorted(range(len(names)), key=lambda n: (ends[n], starts[n]))
    places = confidence_band(ends[order], 0.2, box)
    for place, number in zip(places, order, strict=True):
        curve, look = curves[number], _look(number)
        end = (curve.ranks[-1], 100 * curve.value[-1])
        at: Any = {"xy": end, "xycoords": "data", "textcoords": ("axes fraction", "axes fraction"), "va": "center"}
        axes.annotate(
            "",
            xytext=(1.045, place / box),
            arrowprops={"arrowstyle": "-", "color": look["color"], "lw": 0.8, "alpha": 0.7},
            **at,
        )
        axes.text(
            1.05, place / box, names[number], transform=axes.transAxes, va="center", size=9.5, color=look["color"],
            weight="bold",
        )  # fmt: skip


def confidence_band(wanted: Float[np.ndarray, " label"], apart: float, room: float) -> Float[np.ndarray, " label"]:
    """Places near the wanted ones, which ascend, at least `apart` (less if the room is too small), in 0 to `room`.

    Least squares: labels that meet become a block around the mean of what its members want.
    """
    count = len(wanted)
    apart = min(apart, room / max(count - 1, 1))
    shifted = wanted - apart * np.arange(count)  # now they need only ascend
    blocks: list[list[float]] = []  # mean, members
    for value in shifted:
        blocks.append([float(value), 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (mean, many), (other, more) = blocks.pop(), blocks.pop()
            blocks.append([(mean * many + other * more) / (many + more), many + more])
    ascending = np.concatenate([np.full(int(members), mean) for mean, members in blocks])
    placed: Float[np.ndarray, " label"] = np.clip(ascending, 0, room - apart * (count - 1)) + apart * np.arange(count)
    return placed


def _what(comparison: Comparison, curves: Sequence[Cmc]) -> str:
    told = []
    for run, curve in zip(comparison.runs, curves, strict=True):
        points = [f"{100 * curve.value[k - 1]:.1f} at {k}" for k in (1, 5, 10, 20) if k <= len(curve.ranks)]
        told.append(f"{run.name} {', '.join(points)}")
    return (
        f"Cumulative match characteristic: percent of queries with a right answer among the first k: {'; '.join(told)}"
    )
