"""The style of all figures: colours that colour-blind readers can distinguish, font, place of the title.

* Categories have Okabe and Ito's colours (Color Universal Design, 2008; without black, and without yellow, which is
  hard to see on white) and three of Tol's. Ordered groups have viridis. Unknown values are light grey.
* If there are more groups than colours, they are numbered, so that none is identified by colour alone.
* A figure is a PNG, SVG or PDF by its suffix. Its caption is text, in a .txt beside it and in the file's metadata. The
  same figure gives the same bytes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from handreid import messages
from handreid.files import write_atomic

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
FORMATS = (".png", ".svg", ".pdf")
_DPI = 200
_LINE = 0.2295  # inches from one line of a subtitle to the next


def ordered_colours(count: int) -> list[str]:
    """Colours from dark to light, for ordered groups."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colormaps["viridis"](0.05 + 0.85 * place / max(count - 1, 1))) for place in range(count)]


def new_figure(title: str, subtitle: Sequence[str], *, width: float = 11.0, height: float = 8.5) -> "Figure":
    """A blank figure with its title at the top left; sizes in inches. Axes go below `top_of(subtitle, height)`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)  # without pyplot: no global state, no window
    figure.text(0.33 / width, 1 - 0.2975 / height, title, size=16, weight="bold", color=INK, va="top")
    for number, line in enumerate(subtitle):
        figure.text(0.33 / width, 1 - (0.663 + _LINE * number) / height, line, size=10, color=QUIET, va="top")
    return figure


def top_of(subtitle: Sequence[str], height: float = 8.5) -> float:
    """The top of the axes below title and subtitle, as a fraction of the height."""
    return 1 - above(subtitle) / height


def above(subtitle: Sequence[str]) -> float:
    """Height of title and subtitle in inches."""
    return 0.8075 + _LINE * len(subtitle)


def as_png(figure: "Figure", dpi: int = 130) -> bytes:
    """The figure as the bytes of a PNG file."""
    from io import BytesIO

    _plain(figure)
    into = BytesIO()
    figure.savefig(into, format="png", dpi=dpi, metadata={"Software": None})
    return into.getvalue()


def save(figure: "Figure", path: Path, caption: str = "") -> list[Path]:
    """Writes the figure in the format of its suffix (one of FORMATS), and the caption, if any, as .txt beside it."""
    from matplotlib import rc_context

    _plain(figure)
    caption = messages.text(caption)
    kind = path.suffix.removeprefix(".")
    metadata: dict[str, dict[str, str | None]] = {
        "png": {"Software": None, **({"Description": caption} if caption else {})},
        "svg": {"Date": None, "Creator": None, **({"Description": caption} if caption else {})},
        "pdf": {"CreationDate": None, "Producer": None, "Creator": None, **({"Subject": caption} if caption else {})},
    }
    fixed: Any = {"svg.hashsalt": "handreid", "svg.fonttype": "none", "pdf.fonttype": 42}  # keep text as text
    with rc_context(fixed):
        write_atomic(path, lambda part: figure.savefig(part, format=kind, dpi=_DPI, metadata=metadata[kind]))
    if not caption:
        return [path]
    beside = path.with_suffix(".txt")
    write_atomic(beside, lambda part: part.write_text(caption + "\n", encoding="utf-8"))
    return [path, beside]


def _plain(figure: "Figure") -> None:
    """Makes all text literal: names may hold `$`, which matplotlib reads as a formula, and control characters."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)
        text.set_text(messages.text(text.get_text()))
