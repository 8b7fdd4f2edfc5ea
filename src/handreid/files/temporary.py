"""Names of temporary files: which machine, process and file they belong to; removal of those left behind."""

import contextlib
import hashlib
import os
import re
import secrets
import socket
from functools import cache
from pathlib import Path

_PART = re.compile(r"\.(?P<name>.+)\.(?P<node>[0-9a-f]{8})-(?P<pid>\d+)-[0-9a-f]{8}\.writing(\.\w+)?")
OLD_PART = re.compile(r"\..+\.writing(\.\w+)?")  # of versions before 0.1: the same for every write of a file


def temporary_path(path: Path) -> Path:
    """A new name beside a file, with the same suffix, for its content while it is written."""
    return path.with_name(f".{path.name}.{_owner()}-{secrets.token_hex(4)}.writing{path.suffix}")


def remove_stale(folder: Path, *, target: str | None = None, everyone: bool = False) -> None:
    """Removes temporary files that a process of this machine left in a folder when it was killed.

    `target` restricts this to temporary files of one file name. With `everyone` those of other machines and of older
    versions are removed too: only for a caller who knows that nobody else writes there.
    """
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if OLD_PART.fullmatch(entry.name)]
    for name in names:
        match = _PART.fullmatch(name)
        if target is not None and (match is None or match["name"] != target):
            continue
        own_machine = match is not None and match["node"] == _node()
        if (match is not None and own_machine and not _alive(int(match["pid"]))) or (everyone and not own_machine):
            (folder / name).unlink(missing_ok=True)


def _owner() -> str:
    """A name for this machine, until it is restarted, and this process."""
    return f"{_node()}-{os.getpid()}"


@cache
def _node() -> str:
    facts = [socket.gethostname()]
    # containers may share a host name and a disk
    for place in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        with contextlib.suppress(OSError):
            path = Path(place)
            facts.append(str(path.readlink()) if path.is_symlink() else path.read_text(encoding="ascii").strip())
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:8]


def _alive(process: int) -> bool:
    if os.name != "posix":
        return True  # on Windows, os.kill would end the process
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's process
        return True
    return True
