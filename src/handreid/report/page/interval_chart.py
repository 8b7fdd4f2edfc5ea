"""Numbers with intervals as dots on lines, in the page's own HTML: it prints, needs no script, follows the theme."""

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
    """What the template's macro draws: a name, one or two metrics, and the gain on what the row is compared with.

    All share one axis, with round ticks; places are percent of its length. It begins no lower than `least`. None if no
    row has a number.
    """
    found = [one for _, metrics, _ in rows for one in metrics if one is not None]
    ends = [scale * end for one in found for end in (one.value, one.low, one.high) if end is not None]
    if not ends:
        return None
    ticks = _ticks(min(ends), max(ends), least)
    first, length = ticks[0], ticks[-1] - ticks[0]

    def at(value: float) -> float:
        return round(100 * (scale * value - first) / length, 2)

    def drawn(one: Number | None) -> dict[str, Any] | None:
        if one is None or one.value is None:
            return None
        low, high = one.low, one.high
        return {
            "at": at(one.value),
            "low": None if low is None else at(low),
            "high": None if high is None else at(high),
            "text": f"{scale * one.value:.{digits}f}",
            "range": "" if low is None or high is None else f"[{scale * low:.{digits}f}, {scale * high:.{digits}f}]",
        }

    return {
        "scale": scale,
        "digits": digits,
        "ticks": [{"at": round(100 * (tick - first) / length, 2), "text": f"{tick:g}"} for tick in ticks],
        "rows": [
            {"name": name, "series": [drawn(one) for one in metrics], "against": against}
            for name, metrics, against in rows
        ],
    }


def _ticks(low: float, high: float, least: float | None) -> list[float]:
    from matplotlib.ticker import MaxNLocator

    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    found = [round(float(tick), 10) for tick in MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)]
    return [tick for tick in found if least is None or tick >= least]
