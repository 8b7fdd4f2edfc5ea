"""Files on disk: written whole or not at all, and read with one clear error where they are not as they were written.

* Everything is written beside and moved into place (`write_atomic`); two writers never share a temporary name, and what
  a killed process left is removed by the next writer of the same file.
* A JSON file of ours carries the SHA-256 of its own content (`write_json`), and is compared with it when it is read.
  Other files are compared with a hash that their folder notes (`file_hash`).
* A folder is ours alone while we work in it (`locked`). One that a killed process had only begun is as good as new
  (`beginning`, `is_free`).
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import socket
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from handreid.errors import HandreidError, OutputError, RunError

_LONGEST_NAME = 200  # bytes; systems allow 255, and a file has a longer name while it is written
CHECKSUM = "checksum"  # the key of a JSON file that holds the hash of all its other keys
LOCK = ".lock"
BEGINNING = ".beginning"
_PART = re.compile(r"\.(?P<name>.+)\.(?P<node>[0-9a-f]{8})-(?P<pid>\d+)-[0-9a-f]{8}\.writing(\.\w+)?")
_OLD_PART = re.compile(r"\..+\.writing(\.\w+)?")  # of versions before 0.1, always the same for a file
_AGAIN = "restore a copy of it, or write it again"
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL)  # some network file systems


def check_writable(path: Path, suffixes: Sequence[str] = ()) -> None:
    """Raises OutputError where a file could not be written: before the work, not after it.

    That is another suffix than one of `suffixes` (none: any), no folder to lie in, a folder of that name, or no
    permission. What is there is left as it is.
    """
    if suffixes and path.suffix not in suffixes:
        raise OutputError(f"{path}: the suffix must be {' or '.join(suffixes)}, not {path.suffix or 'none'!r}")
    if is_folder(path):
        raise OutputError(f"{path} is a folder; give the file to write")
    check_folder_writable(path.parent, create=False)
    if len(os.fsencode(path.name)) > _LONGEST_NAME:
        raise OutputError(f"{path} cannot be written (File name too long); choose a shorter name")


def check_folder_writable(folder: Path, *, create: bool = True) -> None:
    """Raises OutputError where no file could be written into the folder; with `create` it may have to be made first."""
    there = folder
    if create:
        there = next((place for place in (folder, *folder.absolute().parents) if _exists(place)), folder)
    if any(len(os.fsencode(part)) > _LONGEST_NAME for part in folder.parts):
        raise OutputError(f"{folder} cannot be written (File name too long); choose a shorter name")
    if not is_folder(there):
        reason = "is a file, not a folder" if _exists(there) else "does not exist; create it first"
        raise OutputError(f"{folder} cannot be written: the folder {there} {reason}")
    try:
        probe = there / f".handreid-{secrets.token_hex(8)}.writing"
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise OutputError(f"{folder} cannot be written ({error.strerror}); choose another folder") from None


def write_atomic(
    path: Path,
    write: Callable[[Path], object],
    *,
    durable: bool = False,
    before: Callable[[Path], object] | None = None,
) -> None:
    """Whole or not at all, whatever stops it; what was there before is replaced.

    `write` is given the place to write to, which has the same suffix. `durable` has the disk keep the new content
    before the old one is gone, which takes as long as the disk does. `before` is given the file when it is written, and
    not yet in its place: to note its hash. Raises OutputError.
    """
    part = path.with_name(f".{path.name}.{_owner()}-{secrets.token_hex(4)}.writing{path.suffix}")
    try:
        remove_stale(path.parent, of=path.name)
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
        if interrupted(error) or not _of_writing(error):
            raise
        raise OutputError(f"{path} cannot be written: {_reason(error)}") from None


def sync(path: Path) -> None:
    """Has the disk keep what was written to a file, or which names a folder has. Raises OSError."""
    if path.is_dir() and os.name != "posix":
        return  # Windows has no handle of a folder
    handle = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno in (errno.EIO, errno.ENOSPC, errno.EDQUOT):
            raise  # others: a file system that knows nothing of it
    finally:
        os.close(handle)


def interrupted(stopped: BaseException) -> bool:
    """Whether somebody pressed Ctrl-C, and the error is what a library that was just at it made of that."""
    cause: BaseException | None = stopped
    while cause is not None and not isinstance(cause, KeyboardInterrupt):
        cause = cause.__context__
    return cause is not None


def write_text(path: Path, text: str) -> None:
    """UTF-8, whole or not at all, and kept by the disk. Raises OutputError."""
    write_atomic(path, lambda part: part.write_text(text, encoding="utf-8"), durable=True)


def write_json(path: Path, content: Mapping[str, Any], *, by_line: bool = False) -> None:
    """With the hash of the content; `by_line` puts one key of the top level on each line: for thousands of numbers.

    Raises OutputError.
    """
    whole = {**content, CHECKSUM: checksum(content)}
    if by_line:
        text = "{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in whole.items()) + "\n}\n"
    else:
        text = json.dumps(whole, indent=1) + "\n"
    write_text(path, text)


def read_json(path: Path) -> dict[str, Any]:
    """What `write_json` wrote, without its hash. Raises RunError for what is not, or is not as it was written.

    One without a hash is taken as it is, unless it states its format: every such file has one.
    """
    try:
        text = path.read_bytes().decode("utf-8")
        found = json.loads(text)
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise RunError(f"{path} was not written by handreid: byte {error.start} is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise RunError(f"{path} line {error.lineno} is not JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, or a thousand lists in each other
        raise RunError(f"{path} was not written by handreid: {error}") from None
    if not isinstance(found, dict):
        raise RunError(f"{path} was not written by handreid: it holds {_kind(found)}, not an object")
    stated = found.pop(CHECKSUM, None)
    if stated is None and "format" in found:
        raise RunError(f"{path} was changed: its checksum is missing; {_AGAIN}")
    if stated is not None and stated != checksum(found):
        raise RunError(f"{path} was changed or damaged: its content does not match its checksum; {_AGAIN}")
    return found


def checksum(content: Mapping[str, Any]) -> str:
    """SHA-256 of the content as JSON, whatever the order of its keys and its layout: 64 hex digits."""
    plain = json.loads(json.dumps({key: value for key, value in content.items() if key != CHECKSUM}))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hex digits; once in a process for a file that does not change. Raises OSError."""
    state = path.stat()
    return _hashed(path.absolute(), state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)


@contextlib.contextmanager
def locked(folder: Path, what: str, error: type[HandreidError] = RunError) -> Iterator[bool]:
    """Nobody else holds this folder meanwhile; a process that was killed leaves no lock.

    Raises `error` where somebody does, which says `what` they do with it. False where the disk knows no locks, as on
    some network file systems.
    """
    lock = FileLock(folder / LOCK)
    try:
        with warnings.catch_warnings(action="ignore"):  # where it makes do with a file that it removes at the end
            lock.acquire(blocking=False)
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


@contextlib.contextmanager
def beginning(folder: Path) -> Iterator[None]:
    """Marks a folder as one in which nothing is yet but what is written inside this context.

    The mark goes with its end. It stays where that never comes: whoever begins there again may (`is_free`).
    """
    write_text(folder / BEGINNING, "")
    yield
    (folder / BEGINNING).unlink(missing_ok=True)


def is_free(folder: Path, begun: str) -> bool:
    """Whether something new may begin in a folder: it is not there, is empty, or a killed process had only begun.

    `begun` is the file that is there once something has.
    """
    try:
        names = {entry.name for entry in folder.iterdir()}
    except FileNotFoundError:
        return True
    except OSError:
        return False
    if begun in names:
        return False
    return BEGINNING in names or all(name == LOCK or _OLD_PART.fullmatch(name) for name in names)


def remove_stale(folder: Path, *, of: str | None = None, everyone: bool = False) -> None:
    """Removes temporary files that a process of this machine left in a folder when it was killed.

    `of` is the file whose they are, any by default. `everyone`: those of other machines and of older versions too, for
    who knows that nobody else writes there.
    """
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if _OLD_PART.fullmatch(entry.name)]
    for name in names:
        found = _PART.fullmatch(name)
        if of is not None and (found is None or found["name"] != of):
            continue
        ours = found is not None and found["node"] == _node()
        if (found is not None and ours and not _alive(int(found["pid"]))) or (everyone and not ours):
            (folder / name).unlink(missing_ok=True)


def cache_folder() -> Path:
    """$HANDREID_CACHE, else handreid/ in the user's cache folder."""
    given = os.environ.get("HANDREID_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "handreid"


def found_file(named: str | Path) -> Path | None:
    """The file that a person named, a leading `~` being home; None where there is none, whatever the name is like."""
    with contextlib.suppress(OSError, ValueError, RuntimeError):  # too long, with a null byte, or of an unknown user
        path = Path(named).expanduser()
        return path if path.is_file() else None
    return None


def first_difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The first key, by path, in which nested values differ, and how."""
    was, now = flat(old), flat(new)
    for key in dict.fromkeys([*was, *now]):
        if was.get(key) != now.get(key):
            return f"{key} was {was.get(key)!r}, now {now.get(key)!r}"
    return "differently written"


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Nested mappings and lists as one mapping, its keys the paths, joined by dots."""
    if isinstance(value, Mapping) and value:
        return {k: v for key, item in value.items() for k, v in flat(item, f"{path}.{key}".lstrip(".")).items()}
    if isinstance(value, list) and value:
        return {k: v for key, item in enumerate(value) for k, v in flat(item, f"{path}.{key}").items()}
    return {path: value}


@lru_cache(maxsize=2**18)
def _hashed(path: Path, _inode: int, _size: int, _modified: int, _changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _owner() -> str:
    """Names this machine, as long as it runs, and this process."""
    return f"{_node()}-{os.getpid()}"


@cache
def _node() -> str:
    facts = [socket.gethostname()]
    for place in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):  # containers may share a name and a disk
        with contextlib.suppress(OSError):
            at = Path(place)
            facts.append(str(at.readlink()) if at.is_symlink() else at.read_text(encoding="ascii").strip())
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:8]


def _alive(process: int) -> bool:
    if os.name != "posix":
        return True  # os.kill would end it there
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False


def _of_writing(error: Exception) -> bool:
    """Whether an error is of a file that could not be written: libraries have their own kinds for that."""
    if isinstance(error, OSError | SafetensorError):
        return True
    said = str(error)
    torch_says = isinstance(error, RuntimeError) and any(word in said for word in ("inline_container", "StreamWriter"))
    return torch_says or (type(error).__module__.startswith("polars.") and "IO error" in said)


def is_folder(path: Path) -> bool:
    """Whether a folder is there, as far as one may look."""
    try:
        return path.is_dir()
    except OSError:  # no permission to look, or a name that is too long for a file
        return False


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, RuntimeError):  # torch says where in its own source, and not why
        return "the disk did not take all of it; look whether it is full"
    return str(error)


def _kind(value: Any) -> str:
    kinds = {list: "a list", str: "a text", type(None): "null", bool: "true or false"}
    return kinds.get(type(value), "a number")
