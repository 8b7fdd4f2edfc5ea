"""Photos that a table names and the disk does not have: found all at once, before anything is written."""

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
    """The rows whose photos are there. `table` is what names them, for messages.

    Raises ManifestError for photos that are absent, unless `allow_missing`, which leaves them out and counts them in
    the notes; and always for what is there and can be no photo, such as a folder.
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
    told = f"{len(absent):,} of {len(manifest):,} photos are missing: {_named(manifest, absent)}"
    if not allow_missing:
        advice = f"complete the folder {manifest.root}, correct {table}, or leave them out with --allow-missing"
        raise ManifestError(f"{table}: {told}{_backslashes(manifest, absent)}; {advice}")
    if len(absent) == len(manifest):
        raise ManifestError(f"{table}: none of its {len(manifest):,} photos is below {manifest.root}")
    there = set(range(len(manifest))).difference(absent)
    found = replace(manifest, table=manifest.table[sorted(there)])
    return replace(found, notes=(*manifest.notes, f"{told}; their rows are left out", *lost(manifest, found)))


def lost(before: Manifest, after: Manifest) -> list[str]:
    """A note on people of whom no photo is left."""
    gone = sorted(set(before.table["subject"].drop_nulls()) - set(after.table["subject"]))
    return [f"{len(gone):,} subjects are left out, as none of their photos exists: {format_list(gone)}"] if gone else []


def _trouble(path: os.PathLike[str]) -> str | None:
    """Why this can be no photo; empty where nothing is there, None for a file."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - tells more than is_file
    except OSError as error:
        return "" if error.errno in _ABSENT else f"cannot be read ({error.strerror})"
    if stat.S_ISREG(mode):
        return None
    return "is a folder, not a photo" if stat.S_ISDIR(mode) else "is neither a file nor a folder"


def _named(manifest: Manifest, rows: Sequence[int]) -> str:
    """The first in full, with where the table says it, and with what is there under another spelling."""
    alike = Spellings(manifest.root, folded)
    told = []
    for count, row in enumerate(rows):
        path, origin = manifest.table["path"][row], manifest.table["origin"][row]
        near = alike.every(path.replace("\\", "/")) if count < _SUGGESTED else []
        told.append(f"{clipped(path)} ({origin}" + (f"; did you mean {near[0]}?)" if near else ")"))
    return format_list(told, 5)


def _backslashes(manifest: Manifest, rows: Sequence[int]) -> str:
    count = sum("\\" in manifest.table["path"][row] for row in rows)
    return f"; {count:,} of them have backslashes: write paths with forward slashes" if count else ""
