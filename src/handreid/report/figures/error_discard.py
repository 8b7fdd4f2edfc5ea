"""Error-versus-discard curves of one run: rank-1 errors and false non-matches, by quality and its parts.

* Each panel has the curve of every column, the band of random discarding, and the lowest curve that is possible.
* The caption has the numbers, so that nothing has to be read off lines.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from handreid.evaluation.error_discard import Curves, QualityCheck
from handreid.files import check_writable
from handreid.report.figures import style
from handreid.report.figures.cmc import spread_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _HEIGHT = 11.0, 5.3  # inches
_LEFT, _PANEL, _TALL, _NAMES, _BOTTOM = 0.62, 3.35, 3.2, 1.55, 0.66
_COLOURS = tuple(colour for colour in style.CATEGORIES if colour not in ("#0072B2", "#555555"))
_DASHES = ("-", (0, (4, 1.5)), (0, (1, 1.2)))


def error_discard_figure(check: QualityCheck, out: Path, *, run: str, command: str = "") -> list[Path]:
    """The files written: `out` (.png, .svg or .pdf), and its caption as .txt beside it."""
    check_writable(out, style.FORMATS)
    subtitle = (
        f"Error of {run} with the photos of lowest quality left out; grey: left out at random, 95 % of orders.",
        "Falling means that the measure finds the photos that fail. Dotted: the lowest error that any order can reach.",
    )
    figure = style.new_figure("Error versus discard", subtitle, width=_WIDTH, height=_HEIGHT)
    panels = (
        ("rank-1 error in %", "queries left out, %", check.rank1),
        (f"false non-match rate in %, at FMR {100 * check.fmr:g} %", "mated pairs left out, %", check.non_match),
    )
    for number, (title, below, curves) in enumerate(panels):
        left = _LEFT + number * (_PANEL + _NAMES + 0.42)
        box = (left / _WIDTH, _BOTTOM / _HEIGHT, _PANEL / _WIDTH, _TALL / _HEIGHT)
        axes = figure.add_axes(box)
        _draw(axes, curves)
        axes.set_xlabel(below, color=style.QUIET, size=9)
        axes.set_title(title, loc="left", size=10, weight="bold", color=style.INK, pad=7)
    return style.save(figure, out, caption(check, run, command))


def _draw(axes: "Axes", curves: Curves) -> None:
    first = curves.first
    shares = 100 * first.shares
    axes.fill_between(shares, *(100 * curves.random), color=style.UNKNOWN, alpha=0.5, lw=0, zorder=1)
    axes.axhline(100 * first.error[0], color=style.QUIET, lw=0.9, ls=(0, (4, 2)), zorder=2)
    axes.plot(shares, 100 * first.best, color=style.INK, lw=1.0, ls=(0, (1, 1.6)), zorder=2)
    names, ends = ["random", "best possible"], [100 * first.error[0], 100 * first.best[-1]]
    colours, weights = [style.QUIET, style.INK], ["normal", "normal"]
    for number, (name, curve) in enumerate(curves.by_column.items()):
        main = number == 0
        colour = style.CATEGORIES[0] if main else _COLOURS[(number - 1) % len(_COLOURS)]
        dash = "-" if main else _DASHES[(number - 1) // len(_COLOURS) % len(_DASHES)]
        axes.plot(shares, 100 * curve.error, color=colour, lw=2.6 if main else 1.2, ls=dash, zorder=4 if main else 3)
        names.append(short_name(name))
        ends.append(100 * curve.error[-1])
        colours.append(colour)
        weights.append("bold" if main else "normal")
    highest = 100 * max(float(curve.error.max()) for curve in curves.by_column.values())
    axes.set_ylim(0, 1.08 * max(highest, 100 * float(curves.random.max()), 1))
    axes.set_xlim(0, shares[-1])
    _finish(axes)
    _label(axes, names, ends, colours, weights)


def _finish(axes: "Axes") -> None:
    axes.tick_params(length=0, labelsize=9, labelcolor=style.QUIET)
    axes.grid(color=style.HAIR, lw=0.6)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _label(
    axes: "Axes", names: Sequence[str], ends: Sequence[float], colours: Sequence[str], weights: Sequence[str]
) -> None:
    """Names at the ends of the curves, moved apart where they would overlap."""
    top = axes.get_ylim()[1]
    order = np.argsort(ends, kind="stable")
    places = spread_labels(np.array(ends)[order] / top * _TALL, 0.17, _TALL)
    for place, number in zip(places, order, strict=True):
        axes.annotate(
            "", xy=(1.0, ends[number] / top), xytext=(1.05, place / _TALL), xycoords="axes fraction",
            textcoords="axes fraction",
            arrowprops={"arrowstyle": "-", "color": colours[number], "lw": 0.7, "shrinkA": 0, "shrinkB": 0},
        )  # fmt: skip
        axes.text(
            1.06, place / _TALL, names[number], transform=axes.transAxes, va="center", size=8.5, color=colours[number],
            weight=weights[number],
        )  # fmt: skip


def short_name(column: str) -> str:
    """A column as the figure names it: `-quality_slant` is slant, as less of it is better."""
    return column.removeprefix("-").removeprefix("quality_").replace("_", " ")


def caption(check: QualityCheck, run: str, command: str) -> str:
    """What is shown, with the numbers of every curve."""
    found = check.found
    kinds = (("Rank-1 error", check.rank1), (f"False non-match rate at FMR {100 * check.fmr:g} %", check.non_match))
    last = 100 * check.rank1.first.shares[-1]
    text = (
        f"Error versus discard of {run}: {found.subjects} subjects, {check.rank1.first.comparisons:,} queries and "
        f"{check.non_match.first.comparisons:,} mated pairs of {found.draws} draws; a pair has the lower quality of "
        f"its two photos; threshold {found.threshold:.3f}, chosen on {found.impostors:,} pairs of different subjects "
        "with nothing left out."
    )
    gain = (
        f"Gain: mean error over 0 to {last:g} % left out, minus that of random discarding; 95 % intervals over "
        "subjects, not corrected for the number of measures."
    )
    lines = [text, gain]
    for kind, curves in kinds:
        lines += [f"{kind}, {line}." for line in numbers(curves)]
    lines.append(f"Manifest {found.manifest_hash[:16]}, draws {found.draws_hash[:8]}.")
    if command:
        lines.append(f"Made by: {command}")
    return "\n".join(lines)


def numbers(curves: Curves) -> list[str]:
    """A line for every curve."""
    lines = []
    for name, curve in curves.by_column.items():
        last = float(curve.shares[-1])
        steps = ", ".join(f"{100 * curve.at(share):.1f} at {100 * share:g} %" for share in (0.0, last / 3, last))
        value, low, high = (100 * bound for bound in (curve.gain.value, curve.gain.low, curve.gain.high))
        lines.append(f"{short_name(name)}: {steps}; gain {value:+.1f} [{low:+.1f}, {high:+.1f}], {curve.verdict}")
    return lines
