"""The quality of one hand as a strip: the number, its five factors as bars with their measures, and three measures that
are not in the number.
"""

from typing import TYPE_CHECKING

from handreid.landmarks.quality import HandQuality
from handreid.landmarks.quality_rule import factors_of, quality_of
from handreid.report.figures import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NUMBER, _BAR = 1.02, 1.0  # inches: room of the number, length of a bar
_LOW, _MIDDLE, _HIGH = "#D55E00", "#E69F00", "#009E73"
_MINUS = "\u2212"


def measures(found: HandQuality) -> dict[str, str]:
    """Every measure as text in its unit; none of pixels where the hand lies outside the photo."""
    texts = {"size": f"{found.size:.0f} px"}
    if found.pixels is not None:
        pixels = found.pixels
        texts |= {
            "sharpness": f"{pixels.sharpness:.2f}",
            "contrast": f"{pixels.contrast:.0f} levels",
            "overexposed": f"{100 * pixels.overexposed:.0f} %",
        }
    texts |= {"slant": f"{100 * found.slant:.1f} %", "inside": f"{found.inside} of 20"}
    texts["tilt"] = f"{found.tilt:.0f}°".replace("-", _MINUS)
    if found.pixels is not None:
        texts["brightness"] = f"{found.pixels.brightness:.0f} levels"
        texts["underexposed"] = f"{100 * found.pixels.underexposed:.0f} %"
    return texts


def described(found: HandQuality | None) -> str:
    """The number and all measures in a line."""
    if found is None:
        return "quality 0: no hand"
    return f"quality {quality_of(found):.0f}: " + ", ".join(f"{name} {text}" for name, text in measures(found).items())


def quality_strip(figure: "Figure", found: HandQuality | None, left: float, top: float, width: float) -> None:
    """Draws the strip, about 0.5 inches high, with its upper left corner at `left` and `top`, in inches."""
    value = 0.0 if found is None else quality_of(found)
    page, tall = figure.get_size_inches()
    number = f"{value:.0f}"
    figure.text(left / page, top / tall, number, size=22, weight="bold", color=_colour(value / 100), va="top")
    figure.text(left / page, (top - 0.37) / tall, "quality", size=8, color=style.QUIET, va="top")
    if found is None:
        return
    texts, factors = measures(found), factors_of(found)
    others = [name for name in ("inside", "tilt", "brightness") if name in texts]
    step = (width - _NUMBER) / 8
    for place, name in enumerate([*factors, *others]):
        x = left + _NUMBER + place * step
        figure.text(x / page, top / tall, name, size=8, color=style.QUIET, va="top")
        ink = _LOW if name == "inside" and found.inside < 20 else style.INK
        figure.text(x / page, (top - 0.155) / tall, texts.get(name, "none"), size=9.5, color=ink, va="top")
        if name in factors:
            _bar(figure, x, top - 0.44, min(_BAR, step - 0.14), factors[name])


def _bar(figure: "Figure", x: float, y: float, length: float, share: float) -> None:
    from matplotlib.patches import Rectangle

    page, tall = figure.get_size_inches()
    for part, colour in ((1.0, style.HAIR), (share, _colour(share))):
        box = ((x / page, y / tall), part * length / page, 0.05 / tall)
        figure.add_artist(Rectangle(*box, facecolor=colour, edgecolor="none", transform=figure.transFigure))


def _colour(share: float) -> str:
    return _LOW if share < 1 / 3 else _MIDDLE if share < 2 / 3 else _HIGH
