"""Numbers as text in the format of the table of metrics (percent or plain, digits); tables in Markdown."""

from collections.abc import Sequence

from handreid.messages import markdown as as_markdown
from handreid.metric_table import METRICS, MetricInfo
from handreid.runs.results import Difference, Number


def format_number(name: str, number: Number, *, interval: bool = True) -> str:
    """A metric's value, with its interval if there is one; empty where it is not defined."""
    if number.value is None:
        return ""
    info = METRICS[name]
    if not interval or number.low is None or number.high is None:
        return _digits(info, number.value)
    return f"{_digits(info, number.value)} [{_digits(info, number.low)}, {_digits(info, number.high)}]"


def format_difference(name: str, difference: Difference) -> str:
    """`better +1.2 [+0.3, +2.1]`: verdict, difference and interval."""
    value, low, high = (_signed(METRICS[name], bound) for bound in (difference.value, difference.low, difference.high))
    return f"{difference.verdict} {value} [{low}, {high}]"


def markdown_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], words: Sequence[bool] | None = None
) -> list[str]:
    """The lines of a table in Markdown; columns where `words` is False hold numbers and are right-aligned."""
    rule = "|" + "".join("---|" if word else "---:|" for word in words or [True] * len(columns))
    cells = [[as_markdown(cell) for cell in row] for row in (columns, *rows)]
    head, *body = ["| " + " | ".join(row) + " |" for row in cells]
    return [head, rule, *body]


def _digits(info: MetricInfo, value: float) -> str:
    """Numbers other than percentages have one decimal from 10 on."""
    if info.unit == "percent":
        return f"{100 * value:.{info.digits}f}"
    return f"{value:.{info.digits}f}" if abs(value) < 10 else f"{value:.1f}"


def _signed(info: MetricInfo, value: float) -> str:
    return f"{100 * value:+.{info.digits}f}" if info.unit == "percent" else f"{value:+.{info.digits}f}"
