"""The rows of a manifest: the core columns, what their values may be, and their hash."""

import hashlib
import json
from collections.abc import Sequence
from json.encoder import encode_basestring_ascii

import polars as pl

from handreid.data.landmark_checks import landmark_problems
from handreid.data.photo_paths import path_problems
from handreid.data.tables import closest_match, raise_all, short
from handreid.errors import ManifestError

CORE: dict[str, type[pl.DataType]] = {
    "path": pl.String,
    "subject": pl.String,
    "side": pl.String,
    "aspect": pl.String,
    "camera": pl.String,
    "session": pl.String,
    "split": pl.String,
    "draw": pl.Int64,  # the gallery draw of a prepared tree that a query, gallery or distractor photo belongs to
    "caption": pl.String,
    "sha256": pl.String,  # of the photo's file, when the manifest was prepared
    "origin": pl.String,
}
# The probability of a value that was predicted; empty where the value is known. See `predicted_views.py`.
PROBABILITIES = {"side": "side_probability", "aspect": "aspect_probability"}
# Columns of a hand's landmarks and of predictions, in a table only where it has them; see `landmark_columns.py`.
OPTIONAL: dict[str, type[pl.DataType]] = {
    "pixel_aspect": pl.Float64,
    "hands": pl.Int64,
    "landmarks": pl.String,
    "landmark_score": pl.Float64,
    "handedness": pl.String,
    "handedness_score": pl.Float64,
    **dict.fromkeys(PROBABILITIES.values(), pl.Float64),
}
KNOWN = (*CORE, *OPTIONAL)
VALUES: dict[str, tuple[str, ...]] = {
    "side": ("left", "right"),
    "aspect": ("dorsal", "palmar"),
    "handedness": ("left", "right"),
    "split": ("train", "validation", "test", "query", "gallery", "distractor"),
}
_WHOLE = ("path", "subject", "draw")  # no text or whole number becomes a fraction by accident
_HASH = r"^[0-9a-f]{64}$"


def with_core_columns(table: pl.DataFrame) -> pl.DataFrame:
    """The core columns in their order and type, missing ones as nulls, then those of landmarks that there are, then the
    others; empty text is null.

    Text is NFC, except paths. Raises ManifestError for types that no manifest has.
    """
    _check_types(table)
    core = []
    for name, dtype in CORE.items():
        column = pl.col(name).cast(dtype) if name in table.columns else pl.lit(None, dtype=dtype)
        core.append((column.replace("", None) if dtype is pl.String else column).alias(name))
    try:
        optional = [_typed(table, name) for name in OPTIONAL if name in table.columns]
        extra = [_plain(table[name]) for name in table.columns if name not in KNOWN]
        table = table.select(*core, *optional, *extra)
    except pl.exceptions.PolarsError as error:
        raise ManifestError(f"a column has values of the wrong type ({_first_line(error)})") from error
    table = table.with_columns((pl.col(pl.String).exclude("path")).str.normalize("NFC"))
    table = table.with_columns(pl.col("origin").fill_null(pl.format("row {}", pl.int_range(pl.len()) + 1)))
    return lower_hashes(table)


def raise_problems(table: pl.DataFrame, where: Sequence[str], outside_root: bool = False) -> None:
    """Raises ManifestError for everything wrong with the values, all at once; `where` names the place of each row."""
    messages = problems(table, where)
    paths = path_problems(table["path"], outside_root)
    messages += [f"{where[row]}: path {short(table['path'][row])} {what}" for row, what, _ in sorted(paths)]
    raise_all(messages, "; ".join(dict.fromkeys(advice for *_, advice in paths if advice)))


def problems(table: pl.DataFrame, where: Sequence[str]) -> list[str]:
    """Everything wrong with the core values, in the order of the rows; `where` names the place of each row."""
    findings: list[tuple[int, str]] = []
    for column, allowed in VALUES.items():
        if column in table.columns:
            wrong = table[column].is_not_null() & ~table[column].is_in(allowed)
            for row in wrong.arg_true():
                value = table[column][row]
                choice = f"{column} {short(value)} is not one of {', '.join(allowed)}{closest_match(value, allowed)}"
                findings.append((row, choice))
    findings += [(row, "path is empty") for row in table["path"].is_null().arg_true()]
    spaced = table["subject"].str.strip_chars() != table["subject"]
    findings += [(row, f"subject {short(table['subject'][row])} has spaces around it") for row in spaced.arg_true()]
    if "sha256" in table.columns:
        wrong = ~table["sha256"].str.contains(_HASH).fill_null(value=True)
        what = "is not a SHA-256, 64 hex digits"
        findings += [(row, f"sha256 {short(table['sha256'][row])} {what}") for row in wrong.arg_true()]
    if "draw" in table.columns and table["draw"].dtype.is_integer():
        findings += [(row, f"draw {table['draw'][row]} is below 0") for row in (table["draw"] < 0).arg_true()]
    findings += [*landmark_problems(table), *_without_value(table)]
    if not table["path"].is_unique().all():
        findings += _repeated(table["path"].to_list(), where)
    return [f"{where[row]}: {what}" for row, what in sorted(findings)]


def content_hash(table: pl.DataFrame, *, spelled: bool = False) -> str:
    """SHA-256 of the cells as text, columns by name and rows by path. A column of nulls counts as absent.

    Paths are hashed in NFC, however the disk spells them; with `spelled` as they are.
    """
    names = [name for name in sorted(table.columns) if name != "origin" and table[name].null_count() < table.height]
    if not spelled:
        table = table.sort("path").with_columns(pl.col("path").str.normalize("NFC"))
    digest = hashlib.sha256(json.dumps(names).encode())
    if table.height:
        table = table.select(names).sort("path", maintain_order=True)
        columns = [_cells(table[name]) for name in names]
        digest.update("".join(f"[{', '.join(row)}]\n" for row in zip(*columns, strict=True)).encode())
    return digest.hexdigest()


def _cells(column: pl.Series) -> list[str]:
    """Cells as JSON, as text that a CSV file could hold as well; empty text is null there."""
    values = column.to_list()
    if column.dtype == pl.Boolean:
        values = [None if value is None else str(value).lower() for value in values]
    elif column.dtype != pl.String:
        values = [None if value is None else str(value) for value in values]
    return [encode_basestring_ascii(value) if value else "null" for value in values]


def _without_value(table: pl.DataFrame) -> list[tuple[int, str]]:
    """Rows with the probability of a value that is not there."""
    return [
        (row, f"{probability} {table[probability][row]} without {name}")
        for name, probability in PROBABILITIES.items()
        if name in table.columns and probability in table.columns
        for row in (table[name].is_null() & table[probability].is_not_null()).arg_true()
    ]


def _repeated(paths: Sequence[str | None], where: Sequence[str]) -> list[tuple[int, str]]:
    first_row: dict[str, int] = {}
    repeats = []
    for row, path in enumerate(paths):
        if path is not None and first_row.setdefault(path, row) != row:
            repeats.append((row, f"path {short(path)} was already given in {where[first_row[path]]}"))
    return repeats


def draw_problems(table: pl.DataFrame, where: Sequence[str]) -> list[str]:
    if "draw" not in table.columns:
        return []
    wrong = table["draw"].is_not_null() & ~table["draw"].str.contains(r"^[0-9]{1,9}$")
    return [
        f"{where[row]}: draw {short(table['draw'][row])} is not a whole number from 0 on" for row in wrong.arg_true()
    ]


def _check_types(table: pl.DataFrame) -> None:
    wrong = [
        f"column {name!r} holds {dtype}; a manifest has text, numbers and true/false"
        for name, dtype in table.schema.items()
        if dtype.is_nested() or dtype in (pl.Binary, pl.Object) or (name in _WHOLE and dtype.is_float())
    ]
    raise_all(wrong)


def _typed(table: pl.DataFrame, name: str) -> pl.Expr:
    """A column of landmarks in its type; NaN and empty text are null."""
    column = pl.col(name).replace("", None) if table.schema[name] == pl.String else pl.col(name)
    cast = column.cast(OPTIONAL[name])
    return cast.fill_nan(None) if OPTIONAL[name] is pl.Float64 else cast


def _plain(column: pl.Series) -> pl.Series:
    """Dates, categories and the like as text, as a CSV file has them."""
    dtype = column.dtype
    if dtype.is_float():
        return column.fill_nan(None)
    return column if dtype in (pl.String, pl.Boolean) or dtype.is_integer() else column.cast(pl.String)


def lower_hashes(table: pl.DataFrame) -> pl.DataFrame:
    return table.with_columns(pl.col("sha256").str.to_lowercase()) if "sha256" in table.columns else table


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
