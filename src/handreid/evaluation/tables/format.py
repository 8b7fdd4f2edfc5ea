"""Numbers as text, as the table of metrics wants each: shares in percent, others with digits; tables in Markdown."""

from collections.abc import Sequence

from handreid.messages import markdown as as_markdown
from handreid.metric_table import METRICS, MetricInfo
from handreid.runs.results import Difference, Number


def format_number(name: str, of: Number, *, interval: bool = True) -> str:
    """A metric's value, with its interval if there is one; nothing where it is not defined."""
    if of.value is None:
        return ""
    info = METRICS[name]
    if not interval or of.low is None or of.high is None:
        return _digits(info, of.value)
    return f"{_digits(info, of.value)} [{_digits(info, of.low)}, {_digits(info, of.high)}]"


def format_difference(name: str, difference: Difference) -> str:
    """The verdict on a metric's difference, and what it rests on."""
    value, low, high = (_signed(METRICS[name], one) for one in (difference.value, difference.low, difference.high))
    return f"{difference.verdict} {value} [{low}, {high}]"


def markdown_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], words: Sequence[bool] | None = None
) -> list[str]:
    """The lines of a table in Markdown; columns that hold no `words` are numbers, to the right."""
    rule = "|" + "".join("---|" if word else "---:|" for word in words or [True] * len(columns))
    told = [[as_markdown(cell) for cell in row] for row in (columns, *rows)]
    head, *body = ["| " + " | ".join(row) + " |" for row in told]
    return [head, rule, *body]


def _digits(info: MetricInfo, value: float) -> str:
    """Numbers that are no share have fewer decimals where they are large."""
    if info.unit == "percent":
        return f"{100 * value:.{info.digits}f}"
    return f"{value:.{info.digits}f}" if abs(value) < 10 else f"{value:.1f}"


def _signed(info: MetricInfo, value: float) -> str:
    return f"{100 * value:+.{info.digits}f}" if info.unit == "percent" else f"{value:+.{info.digits}f}"
