"""11k Hands as it is published: `Hands/*.jpg` beside `HandInfo.csv`.

Afifi, "11K Hands: gender recognition and biometric identification using a large dataset of hand images", 2019.
"""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import polars as pl

from handreid.data.manifest import Manifest
from handreid.data.names import Spellings, folded
from handreid.data.sources.absent import lost
from handreid.data.sources.files import files_below
from handreid.data.tables import (
    TextTable,
    closest_match,
    format_list,
    infer_types,
    raise_all,
    read_text_table,
    require_columns,
    short,
)
from handreid.errors import ManifestError

_METADATA = {
    "age": "age",
    "gender": "gender",
    "skinColor": "skin_color",
    "accessories": "accessories",
    "nailPolish": "nail_polish",
    "irregularities": "irregularities",
}
_VIEWS = ("dorsal left", "dorsal right", "palmar left", "palmar right")
_DIGITS = 18  # that many fit into 64 bits
_FLAGS = ("accessories", "nailPolish", "irregularities")


def hands11k(root: Path | str, allow_missing: bool = False) -> Manifest:
    """The photos that `HandInfo.csv` names and `Hands/` holds, with all columns of the table.

    Names may differ in case where only one file matches. Raises ManifestError when photos are absent; with
    `allow_missing` their rows are left out, and counted in the notes.
    """
    root = Path(root)
    table = _table_below(root)
    manifest = hands11k_metadata(root / table)
    below = {folder: files_below(root / folder) for folder in _spelled(root, "Hands") or ["Hands"]}
    on_disk = {f"{folder}/{path}" for folder, files in below.items() for path in files.photos}
    manifest, renamed = _as_on_disk(manifest, on_disk)
    absent = sorted(set(manifest.table["path"]) - on_disk)
    if absent and not allow_missing:
        raise ManifestError(
            f"{root}: {len(absent):,} of the {len(manifest):,} photos in {table} are missing "
            f"({format_list(absent, 20)}). Complete the folder, or leave these photos out with --allow-missing"
        )
    present = manifest.filter(pl.col("path").is_in(on_disk))
    if not len(present):
        raise ManifestError(f"{root / 'Hands'}: none of the {len(manifest):,} photos in {table} exists")
    notes = [*manifest.notes, *renamed, f"{len(present):,} photos of {len(manifest):,} in {table} found"]
    if absent:
        notes += [
            f"{len(absent):,} photos are missing, their rows are left out: {format_list(absent, 20)}",
            *lost(manifest, present),
        ]
    unnamed = sorted(on_disk - set(manifest.table["path"]))
    if unnamed:
        notes.append(f"{len(unnamed):,} photos that are not in {table}, left out: {format_list(unnamed, 3)}")
    notes += [note for files in below.values() for note in files.notes()]
    return Manifest(present.table, root.absolute(), "hands11k", tuple(notes))


def _spelled(root: Path, name: str) -> list[str]:
    """The entries of the folder with this name in any case; the name itself first."""
    return Spellings(root, folded).candidates(name)


def _table_below(root: Path) -> str:
    names = _spelled(root, "HandInfo.csv")
    if len(names) > 1 and "HandInfo.csv" not in names:
        raise ManifestError(f"{root}: {' and '.join(names)} could both be HandInfo.csv; remove one of them")
    return names[0] if names else "HandInfo.csv"


def _as_on_disk(manifest: Manifest, on_disk: Collection[str]) -> tuple[Manifest, list[str]]:
    """The manifest with each photo under the path of its file, and a note on those that the table spells otherwise.

    A path stays as it is if several files match, or if the file is that of another row.
    """
    paths = manifest.table["path"].to_list()
    files: dict[str, list[str]] = {}
    for path in set(on_disk).difference(paths):
        files.setdefault(folded(path), []).append(path)
    spelled = []
    for path in paths:
        matches = files.get(folded(path), [])
        spelled.append(matches[0] if path not in on_disk and len(matches) == 1 else path)
    renamed = [new for old, new in zip(paths, spelled, strict=True) if old != new]
    note = [f"{len(renamed):,} photos have names that differ in case: {format_list(renamed, 3)}"] if renamed else []
    return replace(manifest, table=manifest.table.with_columns(path=pl.Series(spelled, dtype=pl.String))), note


def hands11k_metadata(path: Path | str) -> Manifest:
    """Every row of `HandInfo.csv`, whether or not its photo exists."""
    path = Path(path)
    text = read_text_table(path, "11k Hands is the folder that holds HandInfo.csv and Hands/")
    require_columns(text.columns, ("id", "aspectOfHand", "imageName", *_METADATA), path.name)
    raise_all(_problems(text))
    subjects = [value.strip() for value in text.columns["id"]]
    mended = [place for place, old, new in zip(text.where(), text.columns["id"], subjects, strict=True) if old != new]
    views = [value.split(" ") for value in text.columns["aspectOfHand"]]
    table = pl.DataFrame(
        {
            "path": [f"Hands/{name}" for name in text.columns["imageName"]],
            "subject": subjects,
            "side": [side for _, side in views],
            "aspect": [aspect for aspect, _ in views],
            "origin": text.where(),
            **{name: infer_types(text.columns[published]) for published, name in _METADATA.items()},
            **{name: infer_types(values) for name, values in text.columns.items() if name not in _core_columns()},
        }
    )
    notes = (f"{len(mended)} ids had a space, dropped: {format_list(mended, 3)}",) if mended else ()
    return Manifest(table, path.parent.absolute(), "hands11k", (*text.notes, *notes))


def _core_columns() -> tuple[str, ...]:
    return ("id", "aspectOfHand", "imageName", *_METADATA)


def _problems(text: TextTable) -> list[str]:
    problems = []
    for row, where in enumerate(text.where()):
        view, number = text.columns["aspectOfHand"][row], text.columns["id"][row].strip()
        if view not in _VIEWS:
            problems.append(
                f"{where}: aspectOfHand {short(view)} is not one of {', '.join(_VIEWS)}{closest_match(view, _VIEWS)}"
            )
        if not (number.isascii() and number.isdigit() and len(number) <= _DIGITS):
            problems.append(f"{where}: id {short(number)} is not a number")
        age = text.columns["age"][row]
        if not (age.isascii() and age.isdigit() and len(age) <= _DIGITS):
            problems.append(f"{where}: age {short(age)} is not a number of years")
        for flag in _FLAGS:
            value = text.columns[flag][row]
            if value not in ("0", "1"):
                problems.append(f"{where}: {flag} {short(value)} is not 0 or 1")
    return problems
