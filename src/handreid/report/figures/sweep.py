"""A sweep as a figure: a panel per parameter, with its values against the validation metric.

* Panels are in the order of importance and share the vertical axis. Each point is a trial; points of the same value are
  moved apart horizontally, so that they can be counted.
* Trials that were stopped early are hollow: their metric is of fewer epochs. A line joins the means of the values.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from handreid.errors import RunError
from handreid.files import check_writable
from handreid.metric_table import title
from handreid.recipe.sweep import Axis, number_words
from handreid.report.figures.style import CATEGORIES, FORMATS, HAIR, INK, QUIET, new_figure, save
from handreid.runs.records import read_sweep

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BESIDE = 3  # panels in a row
_HEIGHT, _TOP, _LEFT, _BETWEEN = 3.4, 1.15, 0.85, 0.5  # inches
_JITTER = (0.0, -1.0, 1.0, -2.0, 2.0, -3.0, 3.0)
_BEST, _OTHER = CATEGORIES[1], CATEGORIES[0]

Trials = Sequence[Mapping[str, Any]]


def sweep_figure(folder: Path, path: Path) -> list[Path]:
    """Draws a sweep that has ended; returns the files written. Raises RunError if the folder has none, or no scores."""
    check_writable(path, FORMATS)
    content = read_sweep(folder, ended=True)
    if not any(trial["value"] is not None for trial in content["trials"]):
        raise RunError(f"{folder} has no trial with a validation score, so nothing can be drawn")
    return save(draw(content), path, caption(content))


def draw(content: Mapping[str, Any]) -> "Figure":
    names = _by_importance(content)
    beside = 2 if len(names) == 4 else min(len(names), _BESIDE)
    width = {1: 7.0, 2: 9.5, 3: 13.0}[beside]
    below = 0.45 + 0.16 * max(len(_lines(content, name, width / beside)) for name in names)
    height = _TOP + math.ceil(len(names) / beside) * (_HEIGHT + below) + _BETWEEN * ((len(names) - 1) // beside)
    figure = new_figure("", (), width=width, height=height)
    _head(figure, content, height)
    each = (width - _LEFT - 0.3 - _BETWEEN * (beside - 1)) / beside
    shared_axes: Axes | None = None
    for place, name in enumerate(names):
        row, column = divmod(place, beside)
        x = _LEFT + column * (each + _BETWEEN)
        bottom = height - _TOP - row * (_HEIGHT + below + _BETWEEN) - _HEIGHT
        box = (x / width, bottom / height, each / width, _HEIGHT / height)
        axes = figure.add_axes(box, sharey=shared_axes)
        shared_axes = shared_axes or axes
        _panel(axes, content, name, each)
        axes.tick_params(labelleft=column == 0)
        if column == 0:
            axes.set_ylabel(f"validation {_metric(content)} (%)", color=INK)
    return figure


def caption(content: Mapping[str, Any]) -> str:
    """The caption, which also describes the figure for readers who cannot see it."""
    count = {state: sum(t["state"] == state for t in content["trials"]) for state in ("finished", "stopped", "failed")}
    states = ", ".join(f"{number} {state}" for state, number in count.items() if number)
    best = content["best"]
    settings = (
        ", ".join(f"{content['short_names'][k]} {_value_text(v)}" for k, v in best["parameters"].items())
        if best
        else ""
    )
    shares = content["importance"]["parameters"]
    words = {**content["short_names"], "seed": "seed"}
    mattered = ", ".join(f"{words[name]} {share:.0%}" for name, share in shares.items())
    scope = f"validation {_metric(content)} of {len(content['trials'])} trials ({states})"
    parts = [
        f"Sweep {content['sweep']}: {scope} against the values of each parameter.",
        "Filled points: finished trials; hollow points: stopped early, with the value after fewer epochs."
        if count["stopped"]
        else "",
        "The line joins the means of finished trials."
        if any(_listed(content, name) for name in _space(content))
        else "",
        f"Orange is the best setting by validation: {settings}, {100 * best['value']:.1f} %." if best else "",
        f"Importance (fANOVA over {content['importance']['trials']} finished trials): {mattered}." if shares else "",
        f"{content['importance']['remark']}.".capitalize() if content["importance"]["remark"] else "",
        "No trial used test identities.",
    ]
    return " ".join(part for part in parts if part)


def _head(figure: "Figure", content: Mapping[str, Any], height: float) -> None:
    from matplotlib.lines import Line2D

    best = content["best"]
    settings = (
        ", ".join(f"{content['short_names'][k]} {_value_text(v)}" for k, v in best["parameters"].items())
        if best
        else ""
    )
    line = (
        f"best by validation: {settings}, {_metric(content)} {100 * best['value']:.1f} %"
        if best
        else "no trial finished"
    )
    figure.text(0.03, 1 - 0.2 / height, content["sweep"], size=16, weight="bold", color=INK, va="top")
    figure.text(0.03, 1 - 0.53 / height, textwrap.shorten(line, 110), size=10, color=QUIET, va="top")
    marks = [("finished", _OTHER, _OTHER), ("stopped early", "white", QUIET), ("best setting", _BEST, _BEST)]
    has_label = {"stopped early": any(trial["state"] == "stopped" for trial in content["trials"])}
    handles = [
        Line2D([], [], marker="o", linestyle="", markerfacecolor=fill, markeredgecolor=edge, label=label)
        for label, fill, edge in marks
        if has_label.get(label, True)
    ]
    figure.legend(
        handles=handles,
        loc="upper right",
        bbox_to_anchor=(0.985, 1 - 0.1 / height),
        ncols=len(handles),
        frameon=False,
        fontsize=9,
        labelcolor=INK,
        handletextpad=0.1,
        columnspacing=1.0,
    )


def _panel(axes: "Axes", content: Mapping[str, Any], name: str, width: float) -> None:
    trials = [trial for trial in content["trials"] if trial["value"] is not None]
    places = _places(content, name, trials)
    positions = [places.where(trial["parameters"][name]) for trial in trials]
    _means(axes, places, trials, name)
    for trial, place in zip(trials, _apart(positions, places.step), strict=True):
        best = content["best"] is not None and trial["setting"] == content["best"]["setting"]
        colour = _BEST if best else _OTHER if trial["state"] == "finished" else QUIET
        filled = trial["state"] == "finished"
        axes.plot(
            [places.back(place)],
            [100 * trial["value"]],
            marker="o",
            markersize=9 if best else 7,
            markerfacecolor=colour if filled else "white",
            markeredgecolor="white" if filled else colour,
            markeredgewidth=0.8 if filled else 1.1,
            zorder=4 if best else 3 if filled else 2,
            clip_on=False,
        )
    _dress(axes, content, name, places, width)


class _Places:
    """Positions of values on the axis: linear, logarithmic, or one category beside another."""

    def __init__(self, labels: list[str] | None, *, log: bool, step: float) -> None:
        self.labels = labels
        self.log = log
        self.step = step  # horizontal distance between points of the same value

    def where(self, value: str | int | float) -> float:
        if self.labels is not None:
            return float(self.labels.index(str(value)))
        return math.log10(float(value)) if self.log else float(value)

    def back(self, place: float) -> float:
        return 10**place if self.log else place


def _places(content: Mapping[str, Any], name: str, trials: Trials) -> _Places:
    axis = _space(content)[name]
    numbers = _numbers(axis)
    if numbers is None and axis.bounds is None:
        return _Places(list(axis.options), log=False, step=0.07)
    low, high = axis.bounds or (min(numbers or [0]), max(numbers or [1]))
    log = axis.log_range is not None or (axis.range is None and low > 0 and high / low >= 20)
    span = math.log10(high / low) if log else high - low
    return _Places(None, log=log, step=0.012 * span if axis.listed else 0.0)


def _numbers(axis: Axis) -> list[float] | None:
    """The values of a choice between numbers; None for other axes."""
    if axis.together is not None or isinstance(axis.choice, dict) or axis.choice is None:
        return None
    try:
        numbers = [float(name) for name in axis.options]
    except ValueError:
        return None
    return numbers if not any(isinstance(value, bool) for value in axis.choice) else None


def _means(axes: "Axes", places: _Places, trials: Trials, name: str) -> None:
    """Draws a line through the means of finished trials, on axes where several trials can have the same value."""
    if not places.step:
        return
    done = [trial for trial in trials if trial["state"] == "finished"]
    values: dict[float, list[float]] = {}
    for trial in done:
        values.setdefault(places.where(trial["parameters"][name]), []).append(100 * trial["value"])
    middle = {place: sum(scores) / len(scores) for place, scores in sorted(values.items())}
    if places.labels is None:
        axes.plot([*map(places.back, middle)], [*middle.values()], color=_OTHER, alpha=0.35, linewidth=1.6, zorder=1)
        return
    several = {place: mean for place, mean in middle.items() if len(values[place]) > 1}
    for place, mean in several.items():
        axes.plot([place - 0.28, place + 0.28], [mean, mean], color=_OTHER, alpha=0.35, linewidth=2.5, zorder=1)


def _apart(places: Sequence[float], step: float) -> list[float]:
    """The positions, with equal ones moved apart horizontally."""
    counts: dict[float, int] = {}
    moved = []
    for place in places:
        count = counts.get(place, 0)
        counts[place] = count + 1
        moved.append(place + step * _JITTER[count % len(_JITTER)])
    return moved


def _dress(axes: "Axes", content: Mapping[str, Any], name: str, places: _Places, width: float) -> None:
    share = content["importance"]["parameters"].get(name)
    importance = "" if share is None or len(content["importance"]["parameters"]) < 2 else f"   importance {share:.0%}"
    axes.set_title(content["short_names"][name], loc="left", size=11, weight="bold", color=INK, pad=8)
    axes.set_title(importance, loc="right", size=9, color=QUIET, pad=8)
    axis = _space(content)[name]
    if places.log:
        axes.set_xscale("log")
    if places.labels is not None:
        axes.set_xticks(range(len(places.labels)), _wrapped(places.labels, width))
        axes.set_xlim(-0.5, len(places.labels) - 0.5)
    elif numbers := _numbers(axis):
        axes.set_xticks(numbers, [number_words(number) for number in numbers])
        axes.set_xticks([], minor=True)
    axes.grid(axis="y", color=HAIR, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=QUIET, labelsize=9, length=0)
    axes.tick_params(which="minor", colors=HAIR)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(HAIR)


def _wrapped(labels: Sequence[str], width: float) -> list[str]:
    """Labels wrapped to fit beside each other in `width` inches, with four lines at most."""
    chars = max(6, int(width * 11 / len(labels)))
    return ["\n".join(textwrap.wrap(label, chars)[:4]) for label in labels]


def _lines(content: Mapping[str, Any], name: str, width: float) -> list[str]:
    """The lines of a panel's tallest label."""
    axis = _space(content)[name]
    labels = [] if axis.bounds is not None or _numbers(axis) else _wrapped(list(axis.options), width)
    return max((label.split("\n") for label in labels), key=len, default=[])


def _by_importance(content: Mapping[str, Any]) -> list[str]:
    shares = content["importance"]["parameters"]
    return sorted(content["short_names"], key=lambda name: -shares.get(name, 0.0))


def _space(content: Mapping[str, Any]) -> dict[str, Axis]:
    return {name: Axis.model_validate(axis) for name, axis in content["identity"]["space"].items()}


def _listed(content: Mapping[str, Any], name: str) -> bool:
    return _space(content)[name].listed is not None


def _metric(content: Mapping[str, Any]) -> str:
    name = str(content["metric"]).removeprefix("validation_")
    return title(name)


def _value_text(value: str | int | float) -> str:
    return value if isinstance(value, str) else number_words(value)
