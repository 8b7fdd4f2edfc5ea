"""Reads text tables into typed columns, with the line in the file of every row.

* The csv module reads them, not polars: it gives the line of every row, with quoted line breaks and blank lines.
* What spreadsheets add is removed, and counted: a `sep=` line, empty columns and rows.
* A column becomes numeric only where writing the number gives the same text: "0007" stays text.
"""

import csv
import difflib
import io
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from handreid.data.names import nfc, printable
from handreid.data.text_files import read_text
from handreid.errors import ManifestError

SHOWN = 10  # problems printed before "and n more"
_LONGEST = 60  # characters of a value that are shown
_LONGEST_NAME = 200  # of a name, such as a path
_SEP = re.compile(r'"?sep=(?P<delimiter>[^\r\n"])"?[,;\t]*(\r\n|\r|\n|$)', re.IGNORECASE)


@dataclass(frozen=True)
class TextTable:
    """A CSV file as text: `columns` by name, and the line in the file of every row (the header is line 1).

    `notes` say what was left out.
    """

    file: str
    columns: dict[str, list[str]]
    lines: list[int]
    notes: tuple[str, ...] = ()

    def where(self) -> list[str]:
        return [f"{self.file} line {line}" for line in self.lines]


def read_text_table(path: Path, missing: str = "") -> TextTable:
    """Read a comma, semicolon or tab separated file. Raises ManifestError with the line at fault.

    Rows, and columns without a name, are left out if they are wholly empty. `missing` is the advice if there is no
    file.
    """
    file = printable(path.name)
    header_line, header, rows, lines = _read_rows(read_text(path, missing), file)
    filled = [(row, line) for row, line in zip(rows, lines, strict=True) if any(cell.strip() for cell in row)]
    notes = [f"{len(rows) - len(filled):,} empty rows left out"] if len(filled) < len(rows) else []
    rows, lines = [row for row, _ in filled], [line for _, line in filled]
    names = [nfc(name.strip()) for name in header]
    rows = [row[: len(names)] if not any(row[len(names) :]) else row for row in rows]
    raise_all(
        [
            f"{file} line {line}: {len(row)} values where the header has {len(names)}"
            for row, line in zip(rows, lines, strict=True)
            if len(row) != len(names)
        ]
    )
    columns = [list(values) for values in zip(*rows, strict=True)] or [[] for _ in names]
    indices = [n for n, name in enumerate(names) if name or any(value.strip() for value in columns[n])]
    if len(indices) < len(names):
        notes.append(f"{len(names) - len(indices):,} columns without a name or a value left out")
    _named_once(f"{file} line {header_line}", [names[n] for n in indices])
    return TextTable(file, {names[n]: columns[n] for n in indices}, lines, tuple(notes))


def infer_types(values: Sequence[str]) -> pl.Series:
    """Whole numbers, floats or true/false where every filled value is one; else text. Empty text is null."""
    filled = {value for value in values if value != ""}
    if not filled:
        return pl.Series([None] * len(values), dtype=pl.String)
    for convert, dtype in _CONVERSIONS:
        converted = {value: convert(value) for value in filled}
        if None not in converted.values():
            return pl.Series([converted.get(value) for value in values], dtype=dtype)
    return pl.Series([value if value != "" else None for value in values], dtype=pl.String)


def raise_all(problems: Sequence[str], advice: str = "") -> None:
    """One ManifestError for all problems: the first few in full, the others counted."""
    if not problems:
        return
    more = [f"... and {len(problems) - SHOWN:,} more"] if len(problems) > SHOWN else []
    raise ManifestError("\n".join([*problems[:SHOWN], *more, *([advice] if advice else [])]))


def require_columns(columns: Iterable[str], needed: Sequence[str], file: str) -> None:
    """Raises ManifestError for missing columns, and lists those that exist."""
    names = list(columns)
    missing = [f"{column!r}{closest_match(column, names)}" for column in needed if column not in names]
    if missing:
        raise ManifestError(f"{file}: no column {' and '.join(missing)}; its columns are {format_list(names, 30)}")


def closest_match(word: str, choices: Iterable[str]) -> str:
    """`" (did you mean 'right'?)"`, or empty if none of the choices is similar."""
    names = {name.lower(): name for name in choices}
    lower = word.strip().lower()
    starts = [name for name in names if lower and name.startswith(lower)]
    close = starts if len(starts) == 1 else difflib.get_close_matches(lower, names, n=1)
    return f" (did you mean {short(names[close[0]])}?)" if close else ""


def format_list(names: Iterable[str], limit: int = SHOWN, separator: str = ", ") -> str:
    """Comma separated, the rest counted: `a, b, c and 4 more`."""
    texts = [clipped(name) for name in names]
    return separator.join(texts[:limit]) + (f" and {len(texts) - limit:,} more" if len(texts) > limit else "")


def clipped(name: str) -> str:
    """The name; one of hundreds of characters is cut short."""
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST]}... ({len(name):,} characters)"


def short(value: object) -> str:
    """A value in quotes, as Python writes it; a long one is cut short."""
    text = str(value)
    return repr(text) if len(text) <= _LONGEST else f"{text[:_LONGEST]!r}... ({len(text):,} characters)"


def _named_once(where: str, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1} - {""})
    if twice or "" in names:
        what = f"names {', '.join(map(repr, twice))} twice" if twice else "has a column without a name"
        raise ManifestError(f"{where}: the header {what}; every column needs its own name")


def _read_rows(text: str, file: str) -> tuple[int, list[str], list[list[str]], list[int]]:
    """The line of the header, the header, and the rows with their lines, without blank lines."""
    prefix = _SEP.match(text)
    text, line = (text[prefix.end() :], 2) if prefix else (text, 1)
    delimiter = prefix["delimiter"] if prefix else _delimiter(text.split("\n", 1)[0])
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header_line = line
    rows, lines = [], []
    try:
        for row in reader:
            rows.append(row)
            lines.append(line)
            line = header_line + reader.line_num
    except csv.Error as error:
        raise ManifestError(f"{file} line {line}: not readable as CSV ({error})") from error
    if not rows or not any(rows[0]):
        raise ManifestError(f"{file}: no header in line {header_line}; the first line must name the columns")
    filled = [n for n in range(1, len(rows)) if rows[n]]  # the csv module gives an empty list for a blank line
    return header_line, rows[0], [rows[n] for n in filled], [lines[n] for n in filled]


def _delimiter(header: str) -> str:
    return max(",;\t", key=header.count)  # max keeps the comma in a tie


def _whole(text: str) -> int | None:
    digits = text.removeprefix("-")
    # up to 18 digits fit in 64 bits; "0007" and "-0" would be written differently as numbers
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
    """The column of this name, or the only one that starts with it: `skin` is `skin_color` in 11k Hands."""
    longer = [column for column in columns if column.startswith(f"{name}_")]
    if name in columns:
        return name
    return longer[0] if len(longer) == 1 else None
