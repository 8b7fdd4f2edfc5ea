"""Files that are written completely or not at all."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from handreid.errors import OutputError
from handreid.files.temporary import remove_stale, temporary_path


def write_atomic(
    path: Path,
    write: Callable[[Path], object],
    *,
    durable: bool = False,
    before: Callable[[Path], object] | None = None,
) -> None:
    """Writes a file completely or not at all, however it is interrupted; an existing file is replaced.

    `write` gets a temporary path with the same suffix. `durable` syncs the new content to the disk before it replaces
    the old, which takes as long as the disk does. `before` gets the temporary file when it is written and not yet moved
    into place: to note its hash. Raises OutputError.
    """
    part = temporary_path(path)
    try:
        remove_stale(path.parent, target=path.name)
        try:
            write(part)
            if durable:
                sync(part)
            if before is not None:
                before(part)
            part.replace(path)
            if durable:
                sync(path.parent)
        finally:
            part.unlink(missing_ok=True)
    except Exception as error:
        if interrupted(error) or not _is_write_error(error):
            raise
        raise OutputError(f"{path} cannot be written: {_reason(error)}") from None


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically and syncs it to the disk. Raises OutputError."""
    write_atomic(path, lambda part: part.write_text(text, encoding="utf-8"), durable=True)


def sync(path: Path) -> None:
    """Syncs a file's content, or a folder's entries, to the disk. Raises OSError."""
    if path.is_dir() and os.name != "posix":
        return  # Windows has no handle of a folder
    handle = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno in (errno.EIO, errno.ENOSPC, errno.EDQUOT):
            raise  # any other: the file system does not support fsync
    finally:
        os.close(handle)


def interrupted(stopped: BaseException) -> bool:
    """Whether an error comes from Ctrl-C, which some libraries turn into an error of their own."""
    cause: BaseException | None = stopped
    while cause is not None and not isinstance(cause, KeyboardInterrupt):
        cause = cause.__context__
    return cause is not None


def _is_write_error(error: Exception) -> bool:
    """Whether an error says that a file could not be written; libraries have their own classes for that."""
    if isinstance(error, OSError | SafetensorError):
        return True
    message = str(error)
    torch_says = isinstance(error, RuntimeError) and any(
        word in message for word in ("inline_container", "StreamWriter")
    )
    return torch_says or (type(error).__module__.startswith("polars.") and "IO error" in message)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, RuntimeError):  # torch gives the line of its own source, not the reason
        return "the disk did not take all of it; look whether it is full"
    return str(error)
