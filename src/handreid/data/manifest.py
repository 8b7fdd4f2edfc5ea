"""What is a photo of a hand: a row of path, subject, side, aspect, camera, session, split, and whatever else is known.

* A `Manifest` that exists is valid: the values of the core columns are checked when it is made.
* Paths are stored relative to a root, with forward slashes, so that folder and manifest can move together.
* The hash depends on what the rows say, not on their order, their file, or the machine; `origin` only tells
  where a row came from and is left out of it.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import polars as pl

from handreid.data.tables import listed, nearest, raise_all, read_text_table, typed
from handreid.data.unlabelled import UNKNOWN, named, note
from handreid.errors import ManifestError
from handreid.files import write_atomic

LabelKind = Literal["subject", "hand", "aspect"]
LABEL_KINDS: tuple[LabelKind, ...] = get_args(LabelKind)

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
VALUES: dict[str, tuple[str, ...]] = {
    "side": ("left", "right"),
    "aspect": ("dorsal", "palmar"),
    "split": ("train", "validation", "test", "query", "gallery", "distractor"),
}
_NEEDED: dict[str, tuple[str, ...]] = {"subject": (), "hand": ("side",), "aspect": ("aspect", "side")}
_KEY = "handreid"  # the one key of ours in the metadata of a parquet file


@dataclass(frozen=True, eq=False)
class Manifest:
    """A table of photos. `table` has the core columns first, then metadata columns of any plain type.

    `notes` says what the source found, dropped and mended; it is not part of the hash. Raises ManifestError for
    wrong values, all at once, each with the row's origin.
    """

    table: pl.DataFrame
    root: Path
    dataset: str = "csv"
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        table = with_core_columns(self.table)
        object.__setattr__(self, "table", table)
        raise_all(problems(table, table["origin"].to_list()))

    def __len__(self) -> int:
        return self.table.height

    @cached_property
    def hash(self) -> str:
        """SHA-256 over what the rows say, 64 hex digits; equal for equal content on every machine."""
        return content_hash(self.table)

    @property
    def metadata(self) -> tuple[str, ...]:
        """Names of the columns beside the core ones."""
        return tuple(name for name in self.table.columns if name not in CORE)

    @cached_property
    def views(self) -> tuple[str | None, ...]:
        """Per row what of the hand is seen: `dorsal-right`, or `dorsal` or `right` where only that is known."""
        parts = pl.concat_str("aspect", "side", separator="-", ignore_nulls=True)
        return tuple(view or None for view in self.table.select(parts).to_series())

    def filter(self, *predicates: pl.Expr) -> "Manifest":
        """The rows for which all polars expressions are true; null counts as false."""
        return replace(self, table=self.table.filter(*predicates))

    def paths(self) -> list[Path]:
        """Where the photos lie, row by row."""
        return [self.root / path for path in self.table["path"]]

    @cached_property
    def labelled(self) -> "Manifest":
        """The photos of which somebody knows whose they are; those without a subject are left out."""
        return self.filter(pl.col("subject").is_not_null()) if self.table["subject"].null_count() else self

    def labels(self, kind: LabelKind) -> list[str | None]:
        """Per row who it is: `0001042`, `0001042/right` (hand), `0001042/dorsal-right` (aspect), None if nobody knows.

        With "aspect", the papers' choice, each of the four views of a subject is an identity of its own. Raises
        ManifestError where the label needs a side or an aspect that a row with a subject does not have.
        """
        needed = _NEEDED[kind]
        raise_all(
            self._gaps(needed, kind),
            f"Fill in {' and '.join(needed)}, drop these rows, or choose another label: {', '.join(LABEL_KINDS)}.",
        )
        if not needed:
            return self.table["subject"].to_list()
        view = pl.concat_str(*needed, separator="-")
        return self.table.select(pl.concat_str("subject", view, separator="/")).to_series().to_list()

    @cached_property
    def label_kinds(self) -> tuple[LabelKind, ...]:
        """The kinds of label for which every row with a subject has what is needed, the finest last."""
        table = self.labelled.table
        complete = {name for name in ("side", "aspect") if table[name].null_count() == 0}
        return tuple(kind for kind in LABEL_KINDS if complete.issuperset(_NEEDED[kind]))

    def _gaps(self, needed: Sequence[str], kind: str) -> list[str]:
        found = []
        for column in needed:
            rows = self.table.filter(pl.col(column).is_null() & pl.col("subject").is_not_null())["origin"]
            found += [f"{origin}: no {column}, which the label {kind!r} needs" for origin in rows]
        return found

    def write(self, path: Path | str) -> None:
        """Write `.parquet` or `.csv`, whole or not at all. Only parquet keeps types, data set name and notes."""
        path = Path(path)
        if path.suffix not in (".parquet", ".csv"):
            raise ManifestError(f"{path}: a manifest is written as .parquet or .csv, not {path.suffix!r}")
        if not path.parent.is_dir():
            raise ManifestError(f"{path}: the folder {path.parent} does not exist; create it first")
        if path.suffix == ".csv":
            write_atomic(path, lambda part: _rebased(self, path.parent).write_csv(part))
        else:
            facts = {_KEY: json.dumps(_facts(self, path))}
            write_atomic(path, lambda part: self.table.write_parquet(part, metadata=facts))


def names_of(manifest: Manifest, kind: LabelKind) -> list[str]:
    """Labels, and for each photo of nobody known a name that no other has: it equals nobody."""
    labels = manifest.labels(kind)
    return [
        f"{UNKNOWN}: {path}" if label is None else label
        for label, path in zip(labels, manifest.table["path"], strict=True)
    ]


def read(path: Path | str) -> Manifest:
    """Read a manifest that `write` wrote, or a CSV file made by hand (see `read_csv`)."""
    path = Path(path)
    if path.suffix == ".csv":
        return read_csv(path)
    if path.suffix != ".parquet":
        raise ManifestError(f"{path}: a manifest is a .parquet or .csv file, not {path.suffix!r}")
    try:
        table = pl.read_parquet(path)
        facts = json.loads(pl.read_parquet_metadata(path).get(_KEY, "{}"))
    except FileNotFoundError as error:
        raise ManifestError(f"{path}: no such file; make one with `handreid data prepare`") from error
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        raise ManifestError(f"{path}: not a readable parquet file ({error})") from error
    require_columns(table.columns, ("path", "subject"), path.name)
    return Manifest(table, _root(path, table, facts), facts.get("dataset", "csv"), tuple(facts.get("notes", ())))


def read_csv(path: Path | str) -> Manifest:
    """Read a CSV file with a header.

    Columns: `path` and `subject` are needed, an empty subject is nobody known; `side`, `aspect`, `camera`, `session`,
    `split`, `draw`, `caption` may be there; all others are carried along as metadata. Paths are relative to the CSV
    file. Spaces around core values are dropped, and counted in the notes.
    """
    path = Path(path)
    text = read_text_table(path)
    require_columns(text.columns, ("path", "subject"), path.name)
    where = text.where()
    if not where:
        raise ManifestError(f"{path}: a header and no rows; every photo is a row")
    columns, notes = {}, []
    for name, values in text.columns.items():
        if name not in CORE:
            columns[name] = typed(values)
            continue
        stripped = [value.strip() for value in values]
        spaced = [place for place, old, new in zip(where, values, stripped, strict=True) if old != new]
        if spaced:
            notes.append(f"{len(spaced)} values of {name} had spaces around them, dropped: {listed(spaced, 3)}")
        columns[name] = pl.Series([value or None for value in stripped], dtype=pl.String)
    columns.setdefault("origin", pl.Series(where, dtype=pl.String))
    notes += note(columns["subject"].to_list(), "subject")
    columns["subject"] = pl.Series(named(columns["subject"].to_list()), dtype=pl.String)
    table = pl.DataFrame(columns)
    raise_all([*_draw_problems(table, where), *problems(table, where)])
    extra = [name for name in columns if name not in CORE]
    notes.append(f"{table.height:,} photos; metadata columns: {listed(extra) or 'none'}")
    return Manifest(table, path.parent.absolute(), "csv", tuple(notes))


def require_columns(found: Iterable[str], needed: Sequence[str], file: str) -> None:
    """Raise ManifestError for needed columns that are not there, with the ones that are."""
    names = list(found)
    missing = [f"{column!r}{nearest(column, names)}" for column in needed if column not in names]
    if missing:
        raise ManifestError(f"{file}: no column {' and '.join(missing)}; the columns are {', '.join(names)}")


def with_core_columns(table: pl.DataFrame) -> pl.DataFrame:
    """The core columns in their order and type, those not given as nulls, then the others; empty text is null."""
    core = []
    for name, dtype in CORE.items():
        column = pl.col(name).cast(dtype) if name in table.columns else pl.lit(None, dtype=dtype)
        core.append((column.replace("", None) if dtype is pl.String else column).alias(name))
    try:
        table = table.select(*core, *(name for name in table.columns if name not in CORE))
    except pl.exceptions.PolarsError as error:
        raise ManifestError(f"a core column has values of the wrong type ({error})") from error
    return table.with_columns(pl.col("origin").fill_null(pl.format("row {}", pl.int_range(pl.len()) + 1)))


def problems(table: pl.DataFrame, where: Sequence[str]) -> list[str]:
    """Everything wrong with the core values, in the order of the rows; `where` names the place of each row."""
    found: list[tuple[int, str]] = []
    for column, known in VALUES.items():
        if column in table.columns:
            wrong = table[column].is_not_null() & ~table[column].is_in(known)
            for row in wrong.arg_true():
                value = table[column][row]
                choice = f"{column} {value!r} is not one of {', '.join(known)}{nearest(value, known)}"
                found.append((row, choice))
    found += [(row, "path is empty") for row in table["path"].is_null().arg_true()]
    spaced = table["subject"].str.strip_chars() != table["subject"]
    found += [(row, f"subject {table['subject'][row]!r} has spaces around it") for row in spaced.arg_true()]
    if not table["path"].is_unique().all():
        found += _repeated(table["path"].to_list(), where)
    return [f"{where[row]}: {what}" for row, what in sorted(found)]


def content_hash(table: pl.DataFrame) -> str:
    """SHA-256 of the cells as text, columns by name and rows by path. A column of nulls counts as absent."""
    names = [name for name in sorted(table.columns) if name != "origin" and table[name].null_count() < table.height]
    rows = table.select(names).sort("path").rows() if table.height else []
    digest = hashlib.sha256(json.dumps(names).encode())
    for row in rows:
        digest.update(json.dumps([_cell(value) for value in row]).encode() + b"\n")
    return digest.hexdigest()


def _cell(value: Any) -> str | None:
    """A cell as text that a CSV file could hold as well; empty text is null there."""
    if value is None or value == "":
        return None
    return str(value).lower() if isinstance(value, bool) else str(value)


def _repeated(paths: Sequence[str | None], where: Sequence[str]) -> list[tuple[int, str]]:
    first: dict[str, int] = {}
    found = []
    for row, path in enumerate(paths):
        if path is not None and first.setdefault(path, row) != row:
            found.append((row, f"path {path!r} was already given in {where[first[path]]}"))
    return found


def _draw_problems(table: pl.DataFrame, where: Sequence[str]) -> list[str]:
    if "draw" not in table.columns:
        return []
    wrong = table["draw"].is_not_null() & ~table["draw"].str.contains(r"^\d{1,9}$")
    return [f"{where[row]}: draw {table['draw'][row]!r} is not a whole number from 0 on" for row in wrong.arg_true()]


def _facts(manifest: Manifest, path: Path) -> dict[str, Any]:
    root = manifest.root.absolute()
    facts = {"dataset": manifest.dataset, "notes": list(manifest.notes), "hash": manifest.hash, "root_then": str(root)}
    try:
        facts["root"] = Path(os.path.relpath(root, path.parent.absolute())).as_posix()
    except ValueError:  # on another drive there is no relative way
        facts["root"] = str(root)
    return facts


def _root(path: Path, table: pl.DataFrame, facts: dict[str, Any]) -> Path:
    """The root as seen from the manifest; the place where it was at writing if the photos are only there."""
    beside = Path(os.path.normpath(path.parent.absolute() / facts.get("root", ".")))
    then = Path(facts.get("root_then", beside))
    first = table["path"][0] if table.height else None
    moved_alone = first and not (beside / first).exists() and (then / first).exists()
    return then if moved_alone else beside


def _rebased(manifest: Manifest, folder: Path) -> pl.DataFrame:
    """The table with paths as seen from `folder`, which is what a CSV file promises."""
    prefix = os.path.relpath(manifest.root.absolute(), folder.absolute())
    if prefix == ".":
        return manifest.table
    return manifest.table.with_columns(
        pl.col("path").map_elements(lambda path: (Path(prefix) / path).as_posix(), return_dtype=pl.String)
    )
