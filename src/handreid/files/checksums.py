"""SHA-256 of JSON content and of files."""

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

CHECKSUM = "checksum"  # the key of a JSON file with the hash of all its other keys


def checksum(content: Mapping[str, Any]) -> str:
    """SHA-256 of the content as JSON, independent of the order of keys and of layout: 64 hex digits."""
    plain = json.loads(json.dumps({key: value for key, value in content.items() if key != CHECKSUM}))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hex digits; once per process while it is unchanged. Raises OSError."""
    state = path.stat()
    return _hashed(path.absolute(), state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)


@lru_cache(maxsize=2**18)
def _hashed(path: Path, _inode: int, _size: int, _modified: int, _changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
