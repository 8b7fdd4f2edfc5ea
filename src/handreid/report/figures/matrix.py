"""A matrix as a picture: a cell for every gallery and query, with its number and interval written in.

* Colour repeats what the number says and adds nothing; a question that the photos cannot answer is hatched, one that
  nobody asks (a mirrored hand for its own side) is empty.
* The scale is 0 to 100 %, whatever the numbers: two pictures of two runs can be laid side by side.
"""

from collections.abc import Hashable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from handreid.errors import DataError
from handreid.evaluation.tables.matrix import (
    caption,
    cell_at,
    describe_shared,
    describe_test,
    describe_training,
    galleries,
    queries,
    query_name,
    remarks,
)
from handreid.files import check_writable
from handreid.metric_table import title
from handreid.report.figures import style
from handreid.runs.results import Matrix, MatrixCell

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Metric = Literal["rank1", "map"]
_Name = TypeVar("_Name", bound=Hashable)
_COLOURS = "Blues"
_DARK = 0.55  # of the scale; from here on letters are white
_CELL, _ROW, _GAP = 1.5, 0.6, 0.14  # inches
_LEFT, _RIGHT, _TOP, _BOTTOM = 2.1, 0.35, 1.5, 0.6


def matrix_figure(found: Matrix, out: Path, *, metric: Metric = "rank1", shared: bool = False) -> list[Path]:
    """Writes `out` and its caption beside it; the files written.

    With `shared`, the cells over the same people. Raises DataError where there are none, or the file has no place.
    """
    check_writable(out, style.FORMATS)
    cells = (found.shared.cells if found.shared else ()) if shared else found.cells
    if not cells:
        raise DataError(
            f"there is no matrix over the same people: {describe_shared(found) or 'the data sets share no subjects'}"
        )
    columns = _places([(name, _is_merged(cells, name)) for name in galleries(cells)], _CELL)
    rows = _places([(query, not query[1]) for query in queries(cells)], _ROW)
    across, down = max(columns.values()) + _CELL / 2, max(rows.values()) + _ROW / 2
    width, height = max(_LEFT + across + _RIGHT, 8.0), _TOP + down + _BOTTOM
    figure = style.new_figure("", [], width=width, height=height)
    same = ", the same people in every gallery" if shared else ""
    _write_head(figure, f"{title(metric)} by {found.by}{same}", [describe_training(found), describe_test(found)])
    axes = figure.add_axes((_LEFT / width, _BOTTOM / height, across / width, down / height))
    _frame(axes, columns, {query_name(query): place for query, place in rows.items()}, (across, down))
    for (gallery, x), (query, y) in product(columns.items(), rows.items()):
        _draw(axes, (x, y), cell_at(cells, gallery, query), metric)
    figure.text(0.2 / width, 0.2 / height, _legend(cells), size=8.5, color=style.QUIET, va="bottom")
    return style.save(figure, out, _caption(found, metric, shared=shared))


def _is_merged(cells: Sequence[MatrixCell], gallery: str) -> bool:
    """A column that is no condition of its own: it stands apart."""
    return all(cell.query != gallery for cell in cells)


def _places(names: Sequence[tuple[_Name, bool]], size: float) -> dict[_Name, float]:
    """Middles in inches, one after the other, with a gap before those that are marked."""
    places: dict[_Name, float] = {}
    at = 0.0
    for name, apart in names:
        at += _GAP if apart and places else 0.0
        places[name] = at + size / 2
        at += size
    return places


def _write_head(figure: "Figure", head: str, lines: Sequence[str]) -> None:
    width, height = figure.get_size_inches()
    head = f"{head[:1].upper()}{head[1:]}"
    figure.text(0.2 / width, 1 - 0.2 / height, head, size=14, color=style.INK, weight="bold", va="top")
    for number, line in enumerate(lines):
        figure.text(0.2 / width, 1 - (0.54 + 0.2 * number) / height, line, size=9, color=style.QUIET, va="top")


def _frame(axes: "Axes", columns: Mapping[str, float], rows: Mapping[str, float], size: tuple[float, float]) -> None:
    axes.set_xlim(0, size[0])
    axes.set_ylim(size[1], 0)
    axes.set_xticks(list(columns.values()), list(columns))
    axes.set_yticks(list(rows.values()), list(rows))
    axes.xaxis.tick_top()
    axes.tick_params(length=0, labelsize=9.5, labelcolor=style.INK)
    axes.text(-0.05, -0.09, "query", color=style.QUIET, size=9.5, ha="right", style="italic")
    axes.text(0.03, -0.31, "gallery", color=style.QUIET, size=9.5, style="italic")
    for spine in axes.spines.values():
        spine.set_visible(False)


def _draw(axes: "Axes", at: tuple[float, float], cell: MatrixCell | None, metric: Metric) -> None:
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    if cell is None:
        return
    x, y = at
    corner, size = (x - _CELL / 2 + 0.03, y - _ROW / 2 + 0.03), (_CELL - 0.06, _ROW - 0.06)
    if cell.metrics is None:
        axes.add_patch(Rectangle(corner, *size, facecolor="none", edgecolor=style.UNKNOWN, hatch="////", linewidth=0))
        return
    of = cell.metrics[metric]
    edge = style.INK if cell.gallery == cell.query else "none"
    fill = colormaps[_COLOURS](0.06 + 0.86 * of.value)
    axes.add_patch(Rectangle(corner, *size, facecolor=fill, edgecolor=edge, linewidth=1.4))
    colour = "white" if of.value > _DARK else style.INK
    axes.text(x, y - 0.09, f"{100 * of.value:.1f}", size=12, color=colour, ha="center", va="center")
    bounds = f"[{100 * of.low:.1f}, {100 * of.high:.1f}]"
    axes.text(x, y + 0.14, bounds, size=8, color=colour, ha="center", va="center")


def _legend(cells: Sequence[MatrixCell]) -> str:
    hatched = "; hatched: cannot be computed" if any(cell.metrics is None for cell in cells) else ""
    framed = "framed: gallery and query of the same kind"
    return f"percent, 95 % intervals over subjects; darker is higher, 0 to 100; {framed}{hatched}"


def _caption(found: Matrix, metric: Metric, *, shared: bool) -> str:
    about = f"{title(metric)} by {found.by}, galleries across and queries down."
    same = f" Shown are {describe_shared(found)}." if shared else ""
    notes = "".join(f" {remark[:1].upper()}{remark[1:]}." for remark in remarks(found))
    return f"{about[:1].upper()}{about[1:]} {caption(found)}{same}{notes}"
