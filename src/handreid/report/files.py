"""Files that people asked for by name: written beside and moved into place, and refused before the work, not after."""

from collections.abc import Callable, Sequence
from pathlib import Path

from handreid.errors import DataError


def check_place(path: Path, suffixes: Sequence[str]) -> None:
    """Raises DataError when the file has another suffix, or no folder to lie in."""
    if path.suffix not in suffixes:
        raise DataError(f"{path}: written as {' or '.join(suffixes)}, not {path.suffix or 'without a suffix'!r}")
    if not path.parent.is_dir():
        raise DataError(f"{path}: the folder {path.parent} does not exist; create it first")
    if path.is_dir():
        raise DataError(f"{path} is a folder; give the file to write")


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Whole or not at all, whatever stops it; what was there before is replaced."""
    part = path.with_name(f".{path.name}.writing{path.suffix}")
    try:
        write(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
