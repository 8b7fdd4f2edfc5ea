"""Numbers with intervals as dots on lines, in plain HTML: it prints, needs no script, and follows the page's theme."""

from collections.abc import Sequence
from typing import Any

from handreid.runs.results import Difference, Number


def dots(
    rows: Sequence[tuple[str, Sequence[Number | None], Difference | None]],
    *,
    scale: float = 100.0,
    digits: int = 1,
    least: float | None = None,
) -> dict[str, Any] | None:
    """Content for the template's macro. A row is a name, one or two metrics, and the difference to its reference.

    All rows share one axis with round ticks; positions are percent of its length. It starts no lower than `least`. None
    if no row has a number.
    """
    numbers = [number for _, metrics, _ in rows for number in metrics if number is not None]
    ends = [scale * end for number in numbers for end in (number.value, number.low, number.high) if end is not None]
    if not ends:
        return None
    ticks = _ticks(min(ends), max(ends), least)
    start, length = ticks[0], ticks[-1] - ticks[0]

    def position(value: float) -> float:
        return round(100 * (scale * value - start) / length, 2)

    def drawn(number: Number | None) -> dict[str, Any] | None:
        if number is None or number.value is None:
            return None
        low, high = number.low, number.high
        return {
            "at": position(number.value),
            "low": None if low is None else position(low),
            "high": None if high is None else position(high),
            "text": f"{scale * number.value:.{digits}f}",
            "range": "" if low is None or high is None else f"[{scale * low:.{digits}f}, {scale * high:.{digits}f}]",
        }

    return {
        "scale": scale,
        "digits": digits,
        "ticks": [{"at": round(100 * (tick - start) / length, 2), "text": f"{tick:g}"} for tick in ticks],
        "rows": [
            {"name": name, "series": [drawn(number) for number in metrics], "against": against}
            for name, metrics, against in rows
        ],
    }


def _ticks(low: float, high: float, least: float | None) -> list[float]:
    from matplotlib.ticker import MaxNLocator

    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    ticks = [round(float(tick), 10) for tick in MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)]
    return [tick for tick in ticks if least is None or tick >= least]
