"""Folders and files by path: whether they exist, and whether they can be written."""

import contextlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from handreid.errors import OutputError

_LONGEST_NAME = 200  # bytes; systems allow 255, and temporary names are longer

TOWERS = "towers.safetensors"  # in the folder of a run that has pre-trained: both towers, for other recipes


def check_writable(path: Path, suffixes: Sequence[str] = ()) -> None:
    """Raises OutputError if a file could not be written, so that the error comes before the work, not after it.

    Reasons are a suffix that is not in `suffixes` (empty: any), a missing folder, a folder of that name, or no
    permission. An existing file is not changed.
    """
    if suffixes and path.suffix not in suffixes:
        raise OutputError(f"{path}: the suffix must be {' or '.join(suffixes)}, not {path.suffix or 'none'!r}")
    if is_folder(path):
        raise OutputError(f"{path} is a folder; give the file to write")
    check_folder_writable(path.parent, create=False)
    if len(os.fsencode(path.name)) > _LONGEST_NAME:
        raise OutputError(f"{path} cannot be written (File name too long); choose a shorter name")


def check_folder_writable(folder: Path, *, create: bool = True) -> None:
    """Raises OutputError if no file could be written into the folder. With `create` the folder need not exist yet."""
    existing = folder
    if create:
        existing = next((place for place in (folder, *folder.absolute().parents) if _exists(place)), folder)
    if any(len(os.fsencode(part)) > _LONGEST_NAME for part in folder.parts):
        raise OutputError(f"{folder} cannot be written (File name too long); choose a shorter name")
    if not is_folder(existing):
        reason = "is a file, not a folder" if _exists(existing) else "does not exist; create it first"
        raise OutputError(f"{folder} cannot be written: the folder {existing} {reason}")
    try:
        probe = existing / f".handreid-{secrets.token_hex(8)}.writing"
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise OutputError(f"{folder} cannot be written ({error.strerror}); choose another folder") from None


def is_folder(path: Path) -> bool:
    """Whether a path is a folder; False where it cannot be read."""
    try:
        return path.is_dir()
    except OSError:  # no permission, or a name that is too long
        return False


def cache_folder() -> Path:
    """$HANDREID_CACHE, else handreid/ in the user's cache folder."""
    folder = os.environ.get("HANDREID_CACHE")
    if folder:
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "handreid"


def found_file(name: str | Path) -> Path | None:
    """The file that a user named, a leading `~` being home; None if there is none, or the name is invalid."""
    with contextlib.suppress(OSError, ValueError, RuntimeError):  # too long, a null byte, or an unknown user
        path = Path(name).expanduser()
        return path if path.is_file() else None
    return None


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False
