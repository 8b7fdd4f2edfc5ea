"""Text tables become typed columns, and every row keeps the line that it came from.

* The csv module reads, not polars: it knows the line of every row, quoted line breaks and blank lines included.
* A column becomes a number only where writing the number gives back the text: "0007" stays text.
"""

import csv
import difflib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from handreid.errors import ManifestError

SHOWN = 10  # problems printed before "and n more"


@dataclass(frozen=True)
class TextTable:
    """A CSV file as text: `columns` by name, and the line in the file of every row (the header is line 1)."""

    file: str
    columns: dict[str, list[str]]
    lines: list[int]

    def where(self) -> list[str]:
        return [f"{self.file} line {line}" for line in self.lines]


def read_text_table(path: Path) -> TextTable:
    """Read a comma, semicolon or tab separated file in UTF-8. Raises ManifestError with the line at fault."""
    header, rows, lines = _read_rows(path)
    names = [name.strip() for name in header]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or "" in names:
        what = f"names {', '.join(map(repr, twice))} twice" if twice else "has a column without a name"
        raise ManifestError(f"{path.name} line 1: the header {what}; every column needs a name of its own")
    ragged = [
        f"{path.name} line {line}: {len(row)} values where the header has {len(names)}"
        for row, line in zip(rows, lines, strict=True)
        if len(row) != len(names)
    ]
    raise_all(ragged)
    columns = [list(values) for values in zip(*rows, strict=True)] or [[] for _ in names]
    return TextTable(path.name, dict(zip(names, columns, strict=True)), lines)


def typed(values: Sequence[str]) -> pl.Series:
    """Whole numbers, floats or true/false where every filled value is one; else text. Empty text is null."""
    filled = {value for value in values if value != ""}
    if not filled:
        return pl.Series([None] * len(values), dtype=pl.String)
    for convert, dtype in _CONVERSIONS:
        known = {value: convert(value) for value in filled}
        if None not in known.values():
            return pl.Series([known.get(value) for value in values], dtype=dtype)
    return pl.Series([value if value != "" else None for value in values], dtype=pl.String)


def raise_all(problems: Sequence[str], advice: str = "") -> None:
    """One ManifestError for all problems: the first few in full, the others counted."""
    if not problems:
        return
    more = [f"... and {len(problems) - SHOWN:,} more"] if len(problems) > SHOWN else []
    raise ManifestError("\n".join([*problems[:SHOWN], *more, *([advice] if advice else [])]))


def nearest(word: str, known: Iterable[str]) -> str:
    """`" (did you mean 'right'?)"`, or nothing where no known word is near."""
    names = {name.lower(): name for name in known}
    lower = word.strip().lower()
    starts = [name for name in names if lower and name.startswith(lower)]
    close = starts if len(starts) == 1 else difflib.get_close_matches(lower, names, n=1)
    return f" (did you mean {names[close[0]]!r}?)" if close else ""


def listed(names: Iterable[str], limit: int = SHOWN) -> str:
    """Comma separated, the rest counted: `a, b, c and 4 more`."""
    every = list(names)
    return ", ".join(every[:limit]) + (f" and {len(every) - limit:,} more" if len(every) > limit else "")


def _read_rows(path: Path) -> tuple[list[str], list[list[str]], list[int]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter=_delimiter(first), strict=True)
            header = next(reader, [])
            rows, lines, line = [], [], reader.line_num + 1
            for row in reader:
                if row:  # the csv module gives an empty list for a blank line
                    rows.append(row)
                    lines.append(line)
                line = reader.line_num + 1
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: byte {error.start} is not UTF-8; save the table as UTF-8") from error
    except csv.Error as error:
        raise ManifestError(f"{path.name} line {reader.line_num}: not readable as CSV ({error})") from error
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read ({error.strerror})") from error
    if not any(header):
        raise ManifestError(f"{path}: no header in line 1; the first line must name the columns")
    return header, rows, lines


def _delimiter(header: str) -> str:
    return max(",;\t", key=header.count)  # max keeps the comma in a tie


def _whole(text: str) -> int | None:
    digits = text.removeprefix("-")
    # up to 18 digits fit in 64 bits; "0007" and "-0" do not survive being a number
    exact = digits.isascii() and digits.isdigit() and len(digits) <= 18 and str(int(text)) == text
    return int(text) if exact else None


def _float(text: str) -> float | None:
    if text[-1] not in "0123456789." or "_" in text or (text[0] == "0" and text[1:2].isdigit()):
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _flag(text: str) -> bool | None:
    return {"true": True, "false": False}.get(text)


_CONVERSIONS: tuple[tuple[Callable[[str], int | float | bool | None], type[pl.DataType]], ...] = (
    (_whole, pl.Int64),
    (_float, pl.Float64),
    (_flag, pl.Boolean),
)


def column_called(name: str, columns: Sequence[str]) -> str | None:
    """The column called so, or the only one whose name goes on after it: `skin` is `skin_color` in 11k Hands."""
    longer = [column for column in columns if column.startswith(f"{name}_")]
    if name in columns:
        return name
    return longer[0] if len(longer) == 1 else None
