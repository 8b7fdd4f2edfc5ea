"""Folders that one process at a time works in, and folders in which nothing has begun."""

import contextlib
import errno
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from handreid.errors import HandreidError, OutputError, RunError
from handreid.files.atomic import write_text
from handreid.files.temporary import OLD_PART

LOCK = ".lock"
BEGINNING = ".beginning"
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL)  # some network file systems


@contextlib.contextmanager
def locked(
    folder: Path, what: str, error: type[HandreidError] = RunError, *, waiting: Callable[[], object] | None = None
) -> Iterator[bool]:
    """Locks a folder against other processes; a killed process leaves no lock.

    If another process holds the lock, raises `error`; `what` says in the message what that process does. With `waiting`
    it is called once instead, and the lock waited for. Yields False if the file system has no locks, as some network
    file systems.
    """
    lock = FileLock(folder / LOCK)
    try:
        with warnings.catch_warnings(action="ignore"):  # filelock warns where it falls back to a plain file
            _acquire(lock, waiting)
    except Timeout:
        raise error(
            f"{folder} is in use: another process {what}; wait for it, or stop it (if there is no such process, remove "
            f"{folder / LOCK})"
        ) from None
    except OSError as problem:
        if problem.errno not in _NO_LOCKS:
            raise OutputError(f"{folder} cannot be written ({problem.strerror})") from None
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _acquire(lock: FileLock, waiting: Callable[[], object] | None) -> None:
    """Raises Timeout if the lock is held and not waited for, and OSError."""
    try:
        lock.acquire(blocking=False)
    except Timeout:
        if waiting is None:
            raise
        waiting()
        lock.acquire()


@contextlib.contextmanager
def beginning(folder: Path) -> Iterator[None]:
    """Marks a folder as just begun while this context writes its first files.

    The mark is removed at the end. If the process is killed before, it stays, and `is_free` says that the folder may be
    used again.
    """
    write_text(folder / BEGINNING, "")
    yield
    (folder / BEGINNING).unlink(missing_ok=True)


def is_free(folder: Path, begun: str) -> bool:
    """Whether a folder may be used for something new: it is missing, empty, or a killed process had only begun in it.

    `begun` is the file that exists once a run or sweep has begun.
    """
    try:
        names = {entry.name for entry in folder.iterdir()}
    except FileNotFoundError:
        return True
    except OSError:
        return False
    if begun in names:
        return False
    return BEGINNING in names or all(name == LOCK or OLD_PART.fullmatch(name) for name in names)
