"""Finds all photos that a table names and that do not exist, before anything is written."""

import errno
import os
import stat
from collections.abc import Sequence
from dataclasses import replace

from handreid.data.manifest import Manifest
from handreid.data.names import Spellings, folded
from handreid.data.tables import clipped, format_list, raise_all
from handreid.errors import ManifestError

_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
_SUGGESTED = 3


def without_absent(manifest: Manifest, table: str, allow_missing: bool) -> Manifest:
    """The rows whose photos exist. `table` is the name of the table, for messages.

    Raises ManifestError for absent photos, unless `allow_missing`, which leaves them out and counts them in the notes;
    and always for paths that cannot be a photo, such as a folder.
    """
    absent, wrong = [], []
    for row, path in enumerate(manifest.paths()):
        trouble = _trouble(path)
        if trouble == "":
            absent.append(row)
        elif trouble:
            wrong.append(f"{manifest.table['origin'][row]}: {clipped(manifest.table['path'][row])} {trouble}")
    raise_all(wrong)
    if not absent:
        return manifest
    message = f"{len(absent):,} of {len(manifest):,} photos are missing: {_listing(manifest, absent)}"
    if not allow_missing:
        advice = f"complete the folder {manifest.root}, correct {table}, or leave them out with --allow-missing"
        raise ManifestError(f"{table}: {message}{_backslashes(manifest, absent)}; {advice}")
    if len(absent) == len(manifest):
        raise ManifestError(f"{table}: none of its {len(manifest):,} photos is below {manifest.root}")
    rows = set(range(len(manifest))).difference(absent)
    present = replace(manifest, table=manifest.table[sorted(rows)])
    return replace(present, notes=(*manifest.notes, f"{message}; their rows are left out", *lost(manifest, present)))


def lost(before: Manifest, after: Manifest) -> list[str]:
    """A note on subjects of whom no photo is left."""
    subjects = sorted(set(before.table["subject"].drop_nulls()) - set(after.table["subject"]))
    if not subjects:
        return []
    return [f"{len(subjects):,} subjects are left out, as none of their photos exists: {format_list(subjects)}"]


def _trouble(path: os.PathLike[str]) -> str | None:
    """Why this cannot be a photo; empty if it does not exist, None for a file."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - tells more than is_file
    except OSError as error:
        return "" if error.errno in _ABSENT else f"cannot be read ({error.strerror})"
    if stat.S_ISREG(mode):
        return None
    return "is a folder, not a photo" if stat.S_ISDIR(mode) else "is neither a file nor a folder"


def _listing(manifest: Manifest, rows: Sequence[int]) -> str:
    """The first ones in full, with their line in the table, and with files of a similar spelling."""
    spellings = Spellings(manifest.root, folded)
    items = []
    for count, row in enumerate(rows):
        path, origin = manifest.table["path"][row], manifest.table["origin"][row]
        near = spellings.candidates(path.replace("\\", "/")) if count < _SUGGESTED else []
        items.append(f"{clipped(path)} ({origin}" + (f"; did you mean {near[0]}?)" if near else ")"))
    return format_list(items, 5)


def _backslashes(manifest: Manifest, rows: Sequence[int]) -> str:
    count = sum("\\" in manifest.table["path"][row] for row in rows)
    return f"; {count:,} of them have backslashes: write paths with forward slashes" if count else ""
