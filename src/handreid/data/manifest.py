"""The manifest: a table with one row per photo of path, subject, side, aspect, camera, session, split, and metadata.

* Every `Manifest` is valid: the values of the core columns are checked when it is created.
* Text is composed Unicode (NFC), so that names can be compared. Only `path` is spelled as on this disk, to open it.
* Paths are stored relative to a root, with forward slashes, so that folder and manifest can move together; they do not
  leave it unless the manifest says so (`outside_root`).
* The hash depends on what the rows say, not on their order, their file, the machine, or how a disk spells a path;
  `origin` says where a row came from and is not hashed.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import polars as pl

from handreid.data.manifest_files import Facts, read_parquet, write_parquet
from handreid.data.names import Spellings, is_utf8, printable
from handreid.data.photo_paths import as_on_disk, forward
from handreid.data.rows import (
    CORE,
    KNOWN,
    content_hash,
    draw_problems,
    lower_hashes,
    raise_problems,
    with_core_columns,
)
from handreid.data.tables import format_list, infer_types, raise_all, read_text_table, require_columns
from handreid.data.unlabelled import UNKNOWN, known_subjects, note
from handreid.errors import ManifestError
from handreid.files import check_writable, write_atomic

LabelKind = Literal["subject", "hand", "view"]
LABEL_KINDS: tuple[LabelKind, ...] = get_args(LabelKind)

_NEEDED: dict[str, tuple[str, ...]] = {"subject": (), "hand": ("side",), "view": ("aspect", "side")}
_SUFFIXES = (".parquet", ".csv")
_MISSING = "make one with `handreid data prepare`"


@dataclass(frozen=True, eq=False)
class Manifest:
    """A table of photos. `table` has the core columns first, then metadata columns: text, numbers, true/false.

    `notes` says what the source found, dropped and corrected; it is not part of the hash. `outside_root` lets paths be
    absolute or go up. Raises ManifestError for wrong values, all at once, each with the row's origin.
    """

    table: pl.DataFrame
    root: Path
    dataset: str = "csv"
    notes: tuple[str, ...] = ()
    outside_root: bool = False

    def __post_init__(self) -> None:
        table = with_core_columns(self.table)
        object.__setattr__(self, "table", table)
        raise_problems(table, table["origin"].to_list(), self.outside_root)

    def __len__(self) -> int:
        return self.table.height

    @cached_property
    def hash(self) -> str:
        """SHA-256 over what the rows say, 64 hex digits; equal for equal content on every machine."""
        return content_hash(self.table)

    @property
    def metadata(self) -> tuple[str, ...]:
        """Names of the columns beside the core ones and those of landmarks."""
        return tuple(name for name in self.table.columns if name not in KNOWN)

    @cached_property
    def views(self) -> tuple[str | None, ...]:
        """The view of each row: `dorsal-right`, or `dorsal` or `right` where only that is known."""
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
        """The photos that have a subject."""
        return self.filter(pl.col("subject").is_not_null()) if self.table["subject"].null_count() else self

    def labels(self, kind: LabelKind) -> list[str | None]:
        """The identity of each row: `0001042`, `0001042/right` (hand) or `0001042/dorsal-right` (view); None without a
        subject.

        With "view", the papers' choice, each of the four views of a subject is an identity of its own. Raises
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
        """The kinds of label for which every row with a subject has the columns needed, the finest last."""
        table = self.labelled.table
        complete = {name for name in ("side", "aspect") if table[name].null_count() == 0}
        return tuple(kind for kind in LABEL_KINDS if complete.issuperset(_NEEDED[kind]))

    def _gaps(self, needed: Sequence[str], kind: str) -> list[str]:
        problems = []
        for column in needed:
            rows = self.table.filter(pl.col(column).is_null() & pl.col("subject").is_not_null())["origin"]
            problems += [f"{origin}: no {column}, which the label {kind!r} needs" for origin in rows]
        return problems

    def write(self, path: Path | str) -> None:
        """Write `.parquet` or `.csv`, whole or not at all. Only parquet keeps types, data set name, notes and hash.

        Raises OutputError where that is not possible, ManifestError where a CSV file would name photos outside its
        folder.
        """
        path = Path(path)
        check_target(path, self.root, self.outside_root)
        if path.suffix == ".csv":
            text = _rebased(self, path.parent).write_csv()
            write_atomic(path, lambda part: part.write_text(text, encoding="utf-8", newline=""))
        else:
            write_parquet(path, self.table, _facts(self, path))


def names_of(manifest: Manifest, kind: LabelKind) -> list[str]:
    """Labels; a photo without a subject gets a label of its own, so that it matches no other."""
    labels = manifest.labels(kind)
    return [
        f"{UNKNOWN}: {path}" if label is None else label
        for label, path in zip(labels, manifest.table["path"], strict=True)
    ]


def check_target(path: Path, root: Path, outside_root: bool = False) -> None:
    """Raises what `Manifest.write` would raise for photos below `root`, to be called before the work."""
    check_writable(path, _SUFFIXES)
    if path.suffix == ".csv" and (outside_root or _way_down(path.parent, root) is None):
        raise ManifestError(
            f"{printable(path)}: a CSV manifest can only name photos below its own folder, and some are elsewhere; "
            f"write a .parquet, which stores their location, or a CSV file in {printable(root)} or above it"
        )


def read(path: Path | str, *, outside_root: bool = False) -> Manifest:
    """Read a manifest that `write` wrote, or a table made by hand: CSV (see `read_csv`), or parquet of that form.

    `outside_root` lets the paths of a table made by hand leave its folder; a manifest that `write` wrote stores this
    itself. Raises ManifestError, also for a manifest that was changed after it was written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return read_csv(path, outside_root=outside_root)
    if suffix != ".parquet":
        folder = os.path.isdir(path)  # noqa: PTH112 - is_dir raises where a folder above may not be entered
        kind = "a folder" if folder else "a recipe" if suffix in (".yaml", ".yml") else suffix or "without a suffix"
        raise ManifestError(f"{printable(path)}: a manifest is a .parquet or .csv file, not {kind}; {_MISSING}")
    table, facts = read_parquet(path, _MISSING)
    require_columns(table.columns, ("path", "subject"), printable(path.name))
    try:
        if facts is None:
            return _foreign_parquet(path, table, outside_root)
        return _own_parquet(path, table, facts)
    except ManifestError as error:
        raise ManifestError(f"{printable(path)}: {error}") from None


def read_csv(path: Path | str, *, outside_root: bool = False) -> Manifest:
    """Read a CSV file with a header.

    Columns: `path` and `subject` are needed, an empty subject means unknown; `side`, `aspect`, `camera`, `session`,
    `split`, `draw`, `caption`, `sha256`, and those of landmarks are optional; all others become metadata. Paths are
    relative to the CSV file, and leave its folder only with `outside_root`. Spaces around core values are dropped, and
    counted in the notes.
    """
    path = Path(path)
    text = read_text_table(path, _MISSING)
    require_columns(text.columns, ("path", "subject"), text.file)
    where = text.where()
    if not where:
        raise ManifestError(f"{printable(path)}: a header but no rows; the table needs one row per photo")
    columns, notes = {}, [*text.notes]
    for name, values in text.columns.items():
        if name not in CORE:
            columns[name] = infer_types(values)
            continue
        stripped = [value.strip() for value in values]
        spaced = [place for place, old, new in zip(where, values, stripped, strict=True) if old != new]
        if spaced:
            notes.append(f"{len(spaced)} values of {name} had spaces around them, dropped: {format_list(spaced, 3)}")
        columns[name] = pl.Series([value or None for value in stripped], dtype=pl.String)
    columns.setdefault("origin", pl.Series(where, dtype=pl.String))
    notes += note(columns["subject"].to_list(), "subject")
    columns["subject"] = pl.Series(known_subjects(columns["subject"].to_list()), dtype=pl.String)
    root = path.parent.absolute()
    columns["path"], turned = forward(columns["path"], root)
    table = pl.DataFrame(columns)
    raise_all(draw_problems(table, where))
    raise_problems(lower_hashes(table), where, outside_root)
    extra = [name for name in columns if name not in KNOWN]
    notes += [*turned, f"{table.height:,} photos; metadata columns: {format_list(extra) or 'none'}"]
    return Manifest(_spelled(table, root), root, "csv", tuple(notes), outside_root)


def _spelled(table: pl.DataFrame, root: Path) -> pl.DataFrame:
    return table.with_columns(as_on_disk(table["path"], root))


def _own_parquet(path: Path, table: pl.DataFrame, facts: Facts) -> Manifest:
    try:
        same = facts.hash in (content_hash(table, spelled=spelled) for spelled in (False, True))  # True: older files
    except pl.exceptions.PolarsError:  # columns of types that we never write
        same = False
    if not same:
        raise ManifestError(
            "the file was changed or damaged: the hash in it is not that of its table; prepare it again"
        )
    root = _root(path, table, facts)
    manifest = Manifest(_spelled(table, root), root, facts.dataset, facts.notes, facts.outside_root)
    if manifest.table.drop("path").equals(table.drop("path")):  # reuse the hash, which takes a moment per 10,000 photos
        manifest.__dict__["hash"] = facts.hash
    return manifest


def _foreign_parquet(path: Path, table: pl.DataFrame, outside_root: bool) -> Manifest:
    """A parquet file that handreid did not write: read like a CSV file."""
    if not table.height:
        raise ManifestError("no rows; the table needs one row per photo")
    root = path.parent.absolute()
    table = with_core_columns(table)
    stripped = table.with_columns(pl.col(name).str.strip_chars() for name, dtype in CORE.items() if dtype is pl.String)
    paths, turned = forward(stripped["path"], root)
    table = _spelled(stripped.with_columns(paths), root)
    return Manifest(table, root, "csv", (*turned, f"{table.height:,} photos"), outside_root)


def _facts(manifest: Manifest, path: Path) -> Facts:
    root = manifest.root.absolute()
    try:
        way = Path(os.path.relpath(root, path.parent.absolute())).as_posix()
    except ValueError:  # on another drive there is no relative way
        way = str(root)
    return Facts(manifest.dataset, manifest.notes, manifest.hash, way, str(root), manifest.outside_root)


def _root(path: Path, table: pl.DataFrame, facts: Facts) -> Path:
    """The root relative to the manifest; the absolute root at writing if the photos are only there."""
    beside = _existing(Path(os.path.normpath(path.parent.absolute() / facts.root)))
    original = _existing(Path(facts.root_then))
    photo = table["path"][0] if table.height else None
    moved_alone = photo and Spellings(beside).find(photo) is None and Spellings(original).find(photo) is not None
    return original if moved_alone else beside


def _existing(folder: Path) -> Path:
    """The folder as the disk spells it."""
    if str(folder).isascii() or os.path.lexists(folder):
        return folder
    top = Path(folder.anchor)
    spelling = Spellings(top).find(folder.relative_to(top).as_posix())
    return top / spelling if spelling is not None else folder


def _way_down(folder: Path, root: Path) -> str | None:
    """From a folder to a root in it or below; None where the way goes up."""
    ways = [(root.absolute(), folder.absolute()), (root.resolve(), folder.resolve())]
    for to, start in ways:
        try:
            way = Path(os.path.relpath(to, start)).as_posix()
        except ValueError:  # on another drive
            continue
        if way.split("/", 1)[0] != ".." and is_utf8(way):
            return way
    return None


def _rebased(manifest: Manifest, folder: Path) -> pl.DataFrame:
    """The table with paths relative to `folder`, as in a CSV file."""
    prefix = _way_down(folder, manifest.root)
    if prefix in (".", None):
        return manifest.table
    return manifest.table.with_columns(pl.format("{}/{}", pl.lit(prefix), pl.col("path")).alias("path"))
