"""Numbers with intervals as dots on lines, in the page's own HTML: it prints, needs no script, follows the theme."""

from collections.abc import Mapping, Sequence
from typing import Any

Metric = Mapping[str, Any]  # value, and low and high, or None


def dots(
    rows: Sequence[tuple[str, Sequence[Metric | None], Metric | None]],
    *,
    scale: float = 100.0,
    digits: int = 1,
    least: float | None = None,
) -> dict[str, Any] | None:
    """What the template's macro draws: a name, one or two metrics, and the gain on what the row is compared with.

    All share one axis, with round ticks; places are percent of its length. It begins no lower than `least`. None if no
    row has a number.
    """
    found = [one for _, metrics, _ in rows for one in metrics if one is not None and one["value"] is not None]
    if not found:
        return None
    ends = [scale * one[end] for one in found for end in ("value", "low", "high") if one.get(end) is not None]
    ticks = _ticks(min(ends), max(ends), least)
    first, length = ticks[0], ticks[-1] - ticks[0]

    def at(value: float) -> float:
        return round(100 * (scale * value - first) / length, 2)

    def drawn(one: Metric | None) -> dict[str, Any] | None:
        if one is None or one["value"] is None:
            return None
        bounded = one.get("low") is not None
        return {
            "at": at(one["value"]),
            "low": at(one["low"]) if bounded else None,
            "high": at(one["high"]) if bounded else None,
            "text": f"{scale * one['value']:.{digits}f}",
            "range": f"[{scale * one['low']:.{digits}f}, {scale * one['high']:.{digits}f}]" if bounded else "",
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
