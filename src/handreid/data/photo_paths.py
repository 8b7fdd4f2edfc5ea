"""Paths of photos in a table: which are refused, and how this disk spells them."""

import os
from collections.abc import Iterable
from pathlib import Path

import polars as pl

from handreid.data.names import spelled_on_disk
from handreid.data.tables import format_list

OUTSIDE = (
    "photos outside the folder of the table are taken only if you say so: `handreid data prepare csv TABLE "
    "--outside-root`"
)
_ADDRESS = r"^[A-Za-z][A-Za-z0-9+.\-]+://"
_DRIVE = r"^[A-Za-z]:" if os.name == "nt" else r"^[A-Za-z]:[/\\]"
_ABSOLUTE = rf"^[/\\]|{_DRIVE}"
_UP = r"(^|[/\\])\.\.([/\\]|$)"
_NO_FILE = r"(^|/)\.?$|\x00"
_LOOSE = r"(^|/)\.?/"  # `./a.jpg` and `a//b.jpg`; an absolute path, too


def path_problems(paths: pl.Series, outside_root: bool) -> list[tuple[int, str, str]]:
    """Row, what is wrong with its path, and advice that applies to all such rows."""
    problems = [(row, "is no path of a file", "") for row in paths.str.contains(_NO_FILE).arg_true()]
    addresses = paths.str.contains(_ADDRESS)
    problems += [(row, "is a web address", "download the photos, and give their paths") for row in addresses.arg_true()]
    if not outside_root:
        absolute = paths.str.contains(_ABSOLUTE) & ~addresses
        problems += [(row, "is absolute", OUTSIDE) for row in absolute.arg_true()]
        up = paths.str.contains(_UP) & ~absolute & ~addresses
        problems += [(row, "leaves the folder of the photos", OUTSIDE) for row in up.arg_true()]
    return problems


def forward(paths: pl.Series, root: Path) -> tuple[pl.Series, list[str]]:
    """Paths as people and Windows write them, with forward slashes and without `./`, and notes.

    A backslash counts as a separator only if the file exists that way; otherwise it may belong to a name.
    """
    tidy = {path: _tidy(path) for path in paths.filter(paths.str.contains(_LOOSE) & ~paths.str.contains(_ADDRESS))}
    turned = {}
    for path in paths.filter(paths.str.contains(r"\\")):
        slashed = _tidy(path.replace("\\", "/"))
        if not os.path.lexists(root / path) and (os.path.lexists(root / slashed) or spelled_on_disk(root, [slashed])):
            turned[path] = slashed
    note = f"{len(turned):,} paths had backslashes, taken for forward slashes: {format_list(turned.values(), 3)}"
    return _replaced(paths, {**tidy, **turned}), [note] if turned else []


def as_on_disk(paths: pl.Series, root: Path) -> pl.Series:
    """Paths as this disk spells them (NFC or NFD), for files that exist in either spelling."""
    strange = paths.filter(paths.str.contains(r"[^\x00-\x7f]"))
    return _replaced(paths, spelled_on_disk(root, strange)) if len(strange) else paths


def _replaced(paths: pl.Series, new: dict[str, str]) -> pl.Series:
    return paths.replace(list(new), list(new.values())) if new else paths


def _tidy(path: str) -> str:
    parts: Iterable[str] = (part for n, part in enumerate(path.split("/")) if part != "." and (part or not n))
    return "/".join(parts)
