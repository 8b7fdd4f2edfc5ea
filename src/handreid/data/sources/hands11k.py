"""11k Hands as it is published: `Hands/*.jpg` beside `HandInfo.csv`.

Afifi, "11K Hands: gender recognition and biometric identification using a large dataset of hand images", 2019.
"""

from pathlib import Path

import polars as pl

from handreid.data.manifest import Manifest, require_columns
from handreid.data.sources.files import files_below
from handreid.data.tables import TextTable, listed, nearest, raise_all, read_text_table, typed
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
_FLAGS = ("accessories", "nailPolish", "irregularities")


def hands11k(root: Path | str, allow_missing: bool = False) -> Manifest:
    """The photos that `HandInfo.csv` names and `Hands/` holds, with all columns of the table.

    Raises ManifestError when photos are absent; with `allow_missing` their rows are left out, and counted in the notes.
    """
    root = Path(root)
    manifest = hands11k_metadata(root / "HandInfo.csv")
    there = {f"Hands/{path}" for path in files_below(root / "Hands").photos}
    absent = sorted(set(manifest.table["path"]) - there)
    if absent and not allow_missing:
        raise ManifestError(
            f"{root}: {len(absent):,} of the {len(manifest):,} photos in HandInfo.csv are absent "
            f"({listed(absent, 20)}). Complete the folder, or go on with the photos that are there: --allow-missing"
        )
    found = manifest.filter(pl.col("path").is_in(there))
    if not len(found):
        raise ManifestError(f"{root / 'Hands'}: none of the {len(manifest):,} photos in HandInfo.csv is there")
    notes = [*manifest.notes, f"{len(found):,} photos of {len(manifest):,} in HandInfo.csv found"]
    if absent:
        notes.append(f"{len(absent):,} photos absent, their rows left out: {listed(absent, 20)}")
    unnamed = sorted(there - set(manifest.table["path"]))
    if unnamed:
        notes.append(f"{len(unnamed):,} photos that HandInfo.csv does not name, left out: {listed(unnamed, 3)}")
    return Manifest(found.table, root.absolute(), "hands11k", tuple(notes))


def hands11k_metadata(path: Path | str) -> Manifest:
    """Every row of `HandInfo.csv`, whether or not its photo is there."""
    path = Path(path)
    if not path.is_file():
        raise ManifestError(f"{path}: no such file; 11k Hands is the folder that holds HandInfo.csv and Hands/")
    text = read_text_table(path)
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
            **{name: typed(text.columns[published]) for published, name in _METADATA.items()},
            **{name: typed(values) for name, values in text.columns.items() if name not in _known()},
        }
    )
    notes = (f"{len(mended)} ids had a space, dropped: {listed(mended, 3)}",) if mended else ()
    return Manifest(table, path.parent.absolute(), "hands11k", notes)


def _known() -> tuple[str, ...]:
    return ("id", "aspectOfHand", "imageName", *_METADATA)


def _problems(text: TextTable) -> list[str]:
    found = []
    for row, where in enumerate(text.where()):
        view, number = text.columns["aspectOfHand"][row], text.columns["id"][row].strip()
        if view not in _VIEWS:
            found.append(f"{where}: aspectOfHand {view!r} is not one of {', '.join(_VIEWS)}{nearest(view, _VIEWS)}")
        if not (number.isascii() and number.isdigit()):
            found.append(f"{where}: id {number!r} is not a number")
        age = text.columns["age"][row]
        if not (age.isascii() and age.isdigit()):
            found.append(f"{where}: age {age!r} is not a number of years")
        for flag in _FLAGS:
            value = text.columns[flag][row]
            if value not in ("0", "1"):
                found.append(f"{where}: {flag} {value!r} is not 0 or 1")
    return found
