"""Training curves: losses, learning rates, gradient norm and validation as panels, stages from left to right."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from handreid.files import check_writable
from handreid.report.figures import style
from handreid.report.figures.cmc import spread_labels
from handreid.report.figures.training_series import Panel, StageSeries, training_series
from handreid.runs.folder import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _LEFT, _NAMED, _RIGHT = 11.0, 0.75, 1.75, 0.15  # inches; `_NAMED` is the room for names at the lines' ends
_PANEL, _BETWEEN = 1.35, 0.42
_ORDER = ("loss", "terms", "learning rate", "gradient norm", "features", "effective rank", "validation")
_LOGARITHMIC = 30.0  # the axis is logarithmic from this ratio of the largest to the smallest value


def training_figure(run: Run, out: Path, *, command: str = "") -> list[Path]:
    """The files written: `out` (.png, .svg or .pdf), and its caption as .txt beside it. The run may be unfinished."""
    check_writable(out, style.FORMATS)
    stages = training_series(run)
    rows = [name for name in _ORDER if any(panel.name == name for stage in stages for panel in stage.panels)]
    subtitle = [_subtitle(stages)]
    head, foot = 0.8075 + 0.2295 + 0.35, 0.6
    height = head + len(rows) * _PANEL + (len(rows) - 1) * _BETWEEN + foot
    figure = style.new_figure(f"Training of {run.recipe.name}", subtitle, width=_WIDTH, height=height)
    x = _LEFT
    for stage, width in zip(stages, _widths(stages), strict=True):
        for row, name in enumerate(rows):
            panel = next((panel for panel in stage.panels if panel.name == name), None)
            if panel is not None:
                bottom = height - head - row * (_PANEL + _BETWEEN) - _PANEL
                box = (x / _WIDTH, bottom / height, width / _WIDTH, _PANEL / height)
                is_last = row == max(rows.index(drawn_panel.name) for drawn_panel in stage.panels)
                _draw(figure.add_axes(box), panel, stage, head=row == 0, foot=is_last, several=len(stages) > 1)
        x += width + _NAMED + _LEFT
    return style.save(figure, out, _caption(run, stages, command))


def _widths(stages: Sequence[StageSeries]) -> list[float]:
    """Widths of the stages' panels in inches, proportional to the square root of their epochs."""
    room = _WIDTH - len(stages) * (_LEFT + _NAMED) - _RIGHT
    shares = np.sqrt([stage.epochs for stage in stages])
    return [float(width) for width in room * shares / shares.sum()]


def _draw(axes: "Axes", panel: Panel, stage: StageSeries, *, head: bool, foot: bool, several: bool) -> None:
    factor = 100 if panel.unit == "%" else 1
    for number, line in enumerate(panel.series):
        look = _look(panel, number)
        dots: dict[str, Any] = {"marker": "o", "ms": 3} if len(line.epochs) < 25 else {}
        axes.plot(line.epochs, factor * line.values, lw=1.6 if line.named else 0.6, **look, **dots)
    lowest = min(line.values.min() for line in panel.series)
    highest = max(line.values.max() for line in panel.series)
    if lowest > 0 and highest / lowest > _LOGARITHMIC:
        axes.set_yscale("log")
    elif panel.name == "learning rate":
        axes.set_ylim(bottom=0)
    axes.margins(y=0.12)
    _mark_kept(axes, panel, stage, factor)
    _finish(axes, panel, stage, head=head, foot=foot, several=several)
    _name_lines(axes, panel, stage, factor)


def _look(panel: Panel, number: int) -> dict[str, Any]:
    if not panel.series[number].named:
        return {"color": style.UNKNOWN}
    colours = (style.INK,) if panel.name in ("loss", "gradient norm") else style.CATEGORIES
    return {
        "color": colours[number % len(colours)],
        "ls": ("-", (0, (4, 1.5)), (0, (1, 1.2)))[number // len(colours) % 3],
    }


def _mark_kept(axes: "Axes", panel: Panel, stage: StageSeries, factor: int) -> None:
    if stage.kept is None:
        return
    axes.axvline(stage.kept, color=style.QUIET, lw=0.9, ls=(0, (2, 2)), zorder=0)
    if panel.name != "validation":
        return
    for number, line in enumerate(panel.series):
        kept_points = np.flatnonzero(line.epochs == stage.kept)
        colour = _look(panel, number)["color"]
        axes.scatter(
            line.epochs[kept_points],
            factor * line.values[kept_points],
            s=70,
            facecolor="none",
            edgecolor=colour,
            linewidth=1.4,
            zorder=4,
        )


def _finish(axes: "Axes", panel: Panel, stage: StageSeries, *, head: bool, foot: bool, several: bool) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    if axes.get_yscale() == "linear":
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    title = panel.name + (f", {panel.unit}" if panel.unit else "")
    axes.set_title(title, loc="left", size=9.5, weight="bold", color=style.INK, pad=5)
    if head and several:
        axes.annotate(
            f"stage {stage.number}: {stage.kind}", (0, 1), xycoords="axes fraction", xytext=(0, 24),
            textcoords="offset points", size=10.5, color=style.QUIET,
        )  # fmt: skip
    room = max(stage.epochs - 1, 1)
    axes.set_xlim(1 - 0.03 * room, max(stage.epochs, 2) + 0.03 * room)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    axes.tick_params(length=0, which="both", labelsize=8.5, labelcolor=style.QUIET, labelbottom=foot)
    if foot:
        axes.set_xlabel("epoch", size=9, color=style.QUIET)
    axes.grid(color=style.HAIR, lw=0.6)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _name_lines(axes: "Axes", panel: Panel, stage: StageSeries, factor: int) -> None:
    """Writes the name and last value of each line to its right, near that value."""
    place, box, dpi = axes.transData.transform, axes.get_window_extent(), axes.figure.dpi
    labels: list[tuple[float, str, str]] = []  # inches from the bottom, text, colour
    for number, line in enumerate(panel.series):
        if line.named:
            end = factor * line.values[-1]
            text = line.name if panel.name == "learning rate" else f"{line.name} {_digits(end)}"
            height = (place((line.epochs[-1], end))[1] - box.y0) / dpi
            labels.append((float(height), text, _look(panel, number)["color"]))
    if panel.name == "validation" and stage.kept:
        labels.append((0.0, f"kept: epoch {stage.kept}", style.QUIET))
    labels.sort()
    places = spread_labels(np.array([y for y, _, _ in labels]), 0.17, box.height / dpi)
    for y, (_, text, colour) in zip(places, labels, strict=True):
        height = y * dpi / box.height
        axes.text(1.03, height, _cut(text), size=8.5, va="center", color=colour, transform=axes.transAxes)


def _cut(text: str, limit: int = 28) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}\N{HORIZONTAL ELLIPSIS}"


def _digits(value: float) -> str:
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2g}" if abs(value) < 0.1 else f"{value:.2f}"


def _subtitle(stages: Sequence[StageSeries]) -> str:
    stage_texts = [f"{stage.kind}, {_epochs(stage)}" for stage in stages]
    return "; then ".join(stage_texts) + "; numbers are those of the last epoch"


def _epochs(stage: StageSeries) -> str:
    done = max(int(line.epochs[-1]) for panel in stage.panels for line in panel.series)
    return f"{done} epochs" if done == stage.epochs else f"{done} of {stage.epochs} epochs"


def _caption(run: Run, stages: Sequence[StageSeries], command: str) -> str:
    facts = run.facts
    lines = [
        (
            f"Training of {run.recipe.name} in {run.folder.name}, epoch by epoch: the loss, its terms before their "
            "weights, the learning rate of each group of parameters at the end of the epoch, the mean gradient norm "
            "before clipping, and validation, which uses no test identity."
        )
    ]
    for stage in stages:
        kept_text = f"; the weights of epoch {stage.kept} were kept (dashed line)" if stage.kept else ""
        lines.append(f"Stage {stage.number}, {stage.kind}: {_epochs(stage)}{kept_text}.")
    hashes = [
        f"{name} {facts[f'{name}_hash'][:8]}" for name in ("manifest", "split", "draws") if f"{name}_hash" in facts
    ]
    lines.append(f"Seed {facts.get('seed', run.recipe.seed)}; {', '.join(hashes)}.")
    return "\n".join([*lines, *([f"Made by: {command}."] if command else [])])
