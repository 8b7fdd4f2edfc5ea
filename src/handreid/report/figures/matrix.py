"""A cross-condition matrix as a figure: a cell per gallery and query condition, with its number and interval.

* Colour repeats the number. Cells that the photos cannot fill are hatched; cells that are not defined (a mirrored hand
  with its own side) are empty.
* The colour scale is always 0 to 100 %, so that figures of two runs can be compared.
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
_DARK = 0.55  # of the scale; on darker cells the text is white
_CELL, _ROW, _GAP = 1.5, 0.6, 0.14  # inches
_LEFT, _RIGHT, _TOP, _BOTTOM = 2.1, 0.35, 1.5, 0.6


def matrix_figure(matrix: Matrix, out: Path, *, metric: Metric = "rank1", shared: bool = False) -> list[Path]:
    """Writes `out` and its caption beside it, and returns the files.

    With `shared`, the cells over the same people in every gallery. Raises DataError if there are none, OutputError if
    the file cannot be written.
    """
    check_writable(out, style.FORMATS)
    cells = (matrix.shared.cells if matrix.shared else ()) if shared else matrix.cells
    if not cells:
        raise DataError(
            f"there is no matrix over the same people: {describe_shared(matrix) or 'the data sets share no subjects'}"
        )
    columns = _places([(name, _is_merged(cells, name)) for name in galleries(cells)], _CELL)
    rows = _places([(query, not query[1]) for query in queries(cells)], _ROW)
    across, down = max(columns.values()) + _CELL / 2, max(rows.values()) + _ROW / 2
    width, height = max(_LEFT + across + _RIGHT, 8.0), _TOP + down + _BOTTOM
    figure = style.new_figure("", [], width=width, height=height)
    same = ", the same people in every gallery" if shared else ""
    _write_head(figure, f"{title(metric)} by {matrix.by}{same}", [describe_training(matrix), describe_test(matrix)])
    axes = figure.add_axes((_LEFT / width, _BOTTOM / height, across / width, down / height))
    _frame(axes, columns, {query_name(query): place for query, place in rows.items()}, (across, down))
    for (gallery, x), (query, y) in product(columns.items(), rows.items()):
        _draw(axes, (x, y), cell_at(cells, gallery, query), metric)
    figure.text(0.2 / width, 0.2 / height, _legend(cells), size=8.5, color=style.QUIET, va="bottom")
    return style.save(figure, out, _caption(matrix, metric, shared=shared))


def _is_merged(cells: Sequence[MatrixCell], gallery: str) -> bool:
    """Whether a column is no single condition; it is drawn with a gap before it."""
    return all(cell.query != gallery for cell in cells)


def _places(names: Sequence[tuple[_Name, bool]], size: float) -> dict[_Name, float]:
    """Centres in inches, one after the other, with a gap before each marked name."""
    places: dict[_Name, float] = {}
    start = 0.0
    for name, apart in names:
        start += _GAP if apart and places else 0.0
        places[name] = start + size / 2
        start += size
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


def _draw(axes: "Axes", centre: tuple[float, float], cell: MatrixCell | None, metric: Metric) -> None:
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    if cell is None:
        return
    x, y = centre
    corner, size = (x - _CELL / 2 + 0.03, y - _ROW / 2 + 0.03), (_CELL - 0.06, _ROW - 0.06)
    if cell.metrics is None:
        axes.add_patch(Rectangle(corner, *size, facecolor="none", edgecolor=style.UNKNOWN, hatch="////", linewidth=0))
        return
    value = cell.metrics[metric]
    edge = style.INK if cell.gallery == cell.query else "none"
    fill = colormaps[_COLOURS](0.06 + 0.86 * value.value)
    axes.add_patch(Rectangle(corner, *size, facecolor=fill, edgecolor=edge, linewidth=1.4))
    colour = "white" if value.value > _DARK else style.INK
    axes.text(x, y - 0.09, f"{100 * value.value:.1f}", size=12, color=colour, ha="center", va="center")
    bounds = f"[{100 * value.low:.1f}, {100 * value.high:.1f}]"
    axes.text(x, y + 0.14, bounds, size=8, color=colour, ha="center", va="center")


def _legend(cells: Sequence[MatrixCell]) -> str:
    hatched = "; hatched: cannot be computed" if any(cell.metrics is None for cell in cells) else ""
    framed = "framed: gallery and query of the same kind"
    return f"percent, 95 % intervals over subjects; darker is higher, 0 to 100; {framed}{hatched}"


def _caption(matrix: Matrix, metric: Metric, *, shared: bool) -> str:
    about = f"{title(metric)} by {matrix.by}, galleries across and queries down."
    same = f" Shown are {describe_shared(matrix)}." if shared else ""
    notes = "".join(f" {remark[:1].upper()}{remark[1:]}." for remark in remarks(matrix))
    return f"{about[:1].upper()}{about[1:]} {caption(matrix)}{same}{notes}"
