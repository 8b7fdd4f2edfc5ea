"""Cumulative match characteristic: the share of queries with a right answer among the first k.

* It is computed as rank-k is: the mean over the draws of each draw's share, without queries that have no right answer.
* Names are at the ends of the curves. Up to three curves have their intervals as bands; more bands would overlap.
* If a colour is used a second time, its curve is dashed, a third time dotted, so that no curve is identified by colour
  alone.
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
    """Shares in [0, 1] at ranks 1 to `up_to`, with pointwise 95 % intervals over subjects."""

    ranks: Int[np.ndarray, " rank"]
    value: Float[np.ndarray, " rank"]
    low: Float[np.ndarray, " rank"]
    high: Float[np.ndarray, " rank"]


def cmc_points(evaluation: Evaluation, up_to: int = 20, *, resamples: int = 2000) -> Cmc:
    """The curve of an evaluation, up to rank `up_to` or the size of the gallery."""
    scores = read_scores(evaluation)
    best_ranks = np.array([answer_ranks[0] if answer_ranks else np.nan for answer_ranks in scores.ranks])
    people = np.unique([evaluation.subjects[row] for row in scores.rows], return_inverse=True)[1]
    ranks = np.arange(1, min(up_to, evaluation.counts.gallery) + 1)
    hits = {str(k): np.where(np.isnan(best_ranks), np.nan, (best_ranks <= k).astype(float)) for k in ranks}
    bounds = intervals(hits, people, scores.draws, resamples=resamples).values()
    value, low, high = np.array([(interval.value, interval.low, interval.high) for interval in bounds]).T
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
    name_width = min(0.4, 0.1 + 0.0082 * max(len(run.name) for run in runs))
    bottom = 0.62 / height
    axes = figure.add_axes((0.075, bottom, 0.9 - name_width, style.top_of(subtitle, height) - bottom - 0.02))
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

    last_rank = max(int(curve.ranks[-1]) for curve in curves)
    lowest = 100 * min(curve.low[0] if len(curves) <= _BANDS else curve.value[0] for curve in curves)
    highest = 100 * max(curve.high[-1] if len(curves) <= _BANDS else curve.value[-1] for curve in curves)
    pad = 0.04 * max(highest - lowest, 2)
    axes.set_ylim(max(lowest - pad, 0), min(highest + pad, 100.6))
    axes.set_xlim(1 - 0.02 * last_rank, last_rank + 0.02 * last_rank)
    axes.set_xticks([1, *range(5, last_rank + 1, 5)] if last_rank >= 10 else range(1, last_rank + 1))
    axes.yaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10], integer=True))
    axes.set_xlabel("rank k", color=style.QUIET, size=10)
    axes.set_ylabel("rank-k, %", color=style.QUIET, size=10)
    axes.tick_params(length=0, labelsize=9, labelcolor=style.QUIET)
    axes.grid(color=style.HAIR, lw=0.6)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _label(axes: "Axes", names: Sequence[str], curves: Sequence[Cmc], height: float) -> None:
    """Writes each curve's name at its end, moved apart where ends are close, with a line from the end to the name."""
    low, high = axes.get_ylim()
    box = axes.get_position().height * height  # inches
    ends = np.array([(100 * curve.value[-1] - low) / (high - low) * box for curve in curves])
    starts = [curve.value[0] for curve in curves]
    order = sorted(range(len(names)), key=lambda n: (ends[n], starts[n]))
    places = spread_labels(ends[order], 0.2, box)
    for place, number in zip(places, order, strict=True):
        curve, look = curves[number], _look(number)
        end = (curve.ranks[-1], 100 * curve.value[-1])
        anchor: Any = {"xy": end, "xycoords": "data", "textcoords": ("axes fraction", "axes fraction"), "va": "center"}
        axes.annotate(
            "",
            xytext=(1.045, place / box),
            arrowprops={"arrowstyle": "-", "color": look["color"], "lw": 0.8, "alpha": 0.7},
            **anchor,
        )
        axes.text(
            1.05, place / box, names[number], transform=axes.transAxes, va="center", size=9.5, color=look["color"],
            weight="bold",
        )  # fmt: skip


def spread_labels(positions: Float[np.ndarray, " label"], apart: float, room: float) -> Float[np.ndarray, " label"]:
    """Positions of labels in 0 to `room`, at least `apart` from each other, or less if the room is too small.

    They are near the given `positions`, which ascend, by least squares: labels that would overlap become a block,
    centred on the mean of their positions.
    """
    count = len(positions)
    apart = min(apart, room / max(count - 1, 1))
    shifted = positions - apart * np.arange(count)  # these only have to ascend
    blocks: list[list[float]] = []  # mean, members
    for value in shifted:
        blocks.append([float(value), 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (mean, many), (earlier_mean, more) = blocks.pop(), blocks.pop()
            blocks.append([(mean * many + earlier_mean * more) / (many + more), many + more])
    ascending = np.concatenate([np.full(int(members), mean) for mean, members in blocks])
    placed: Float[np.ndarray, " label"] = np.clip(ascending, 0, room - apart * (count - 1)) + apart * np.arange(count)
    return placed


def _what(comparison: Comparison, curves: Sequence[Cmc]) -> str:
    texts = []
    for run, curve in zip(comparison.runs, curves, strict=True):
        points = [f"{100 * curve.value[k - 1]:.1f} at {k}" for k in (1, 5, 10, 20) if k <= len(curve.ranks)]
        texts.append(f"{run.name} {', '.join(points)}")
    return (
        f"Cumulative match characteristic: percent of queries with a right answer among the first k: {'; '.join(texts)}"
    )
