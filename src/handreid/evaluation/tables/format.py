"""Numbers as text: percent, intervals, differences with their verdict, tables in Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from handreid.messages import markdown as as_markdown


def number(of: Mapping[str, Any]) -> str:
    """Three digits, with the interval if there is one; nothing where the number is not defined."""
    if of["value"] is None:
        return ""
    bounds = "" if of["low"] is None else f" [{_digits(of['low'])}, {_digits(of['high'])}]"
    return _digits(of["value"]) + bounds


def percent(metric: Mapping[str, float], *, interval: bool = True) -> str:
    bounds = f" [{100 * metric['low']:.1f}, {100 * metric['high']:.1f}]" if interval else ""
    return f"{100 * metric['value']:.1f}{bounds}"


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]], words: Sequence[bool]) -> list[str]:
    """The lines of a table in Markdown; columns that hold no words are numbers, to the right."""
    rule = "|" + "".join("---|" if word else "---:|" for word in words)
    told = [[as_markdown(cell) for cell in row] for row in (columns, *rows)]
    head, *body = ["| " + " | ".join(row) + " |" for row in told]
    return [head, rule, *body]


def against(difference: Mapping[str, Any]) -> str:
    bounds = f"[{100 * difference['low']:+.1f}, {100 * difference['high']:+.1f}]"
    return f"{difference['verdict']} {100 * difference['value']:+.1f} {bounds}"


def gained(difference: Mapping[str, Any]) -> str:
    bounds = f"[{difference['low']:+.3f}, {difference['high']:+.3f}]"
    return f"{difference['verdict']} {difference['value']:+.3f} {bounds}"


def _digits(value: float) -> str:
    """Three decimals; fewer where the number is large."""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
