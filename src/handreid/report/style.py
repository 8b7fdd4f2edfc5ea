"""How every figure looks: colours that colour-blind people tell apart, one type, one place for the title.

* Categories have Okabe and Ito's colours (Color Universal Design, 2008; without black and yellow, which white swallows)
  and three of Tol's. What has an order has viridis. What is not known is light grey.
* Nothing is told by colour alone where there are more groups than colours: they are numbered.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from handreid.report.files import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CATEGORIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255", "#555555", "#999933")
UNKNOWN = "#C9C9C9"
INK, QUIET, HAIR = "#222222", "#6B6B6B", "#DDDDDD"
FONT = "Inter, 'Helvetica Neue', Arial, sans-serif"
# matplotlib's and plotly's name of the mark for each view
MARKS = {
    "dorsal-right": ("o", "circle"),
    "dorsal-left": ("s", "square"),
    "palmar-right": ("^", "triangle-up"),
    "palmar-left": ("D", "diamond"),
    "dorsal": ("o", "circle"),
    "palmar": ("^", "triangle-up"),
    "right": ("P", "cross"),
    "left": ("X", "x"),
    "unknown": ("o", "circle"),
}
_DPI = 200


def ordered_colours(count: int) -> list[str]:
    """From dark to light, for groups that have an order."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colormaps["viridis"](0.05 + 0.85 * place / max(count - 1, 1))) for place in range(count)]


def new_figure(title: str, subtitle: Sequence[str], *, width: float = 11.0, height: float = 8.5) -> "Figure":
    """A blank figure with its title at the top left; sizes in inches. Axes go below `top_of(subtitle)`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)  # no pyplot: nothing global, no window
    figure.text(0.03, 0.965, title, size=16, weight="bold", color=INK, va="top")
    for number, line in enumerate(subtitle):
        figure.text(0.03, 0.922 - 0.027 * number, line, size=10, color=QUIET, va="top")
    return figure


def top_of(subtitle: Sequence[str]) -> float:
    """Where axes may begin, as a share of the height."""
    return 0.905 - 0.027 * len(subtitle)


def save(figure: "Figure", path: Path) -> None:
    """As PNG, the same bytes for the same figure."""
    write_whole(path, lambda part: figure.savefig(part, format="png", dpi=_DPI, metadata={"Software": None}))
