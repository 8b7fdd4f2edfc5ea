"""Parquet files that prove themselves: a table, what we say about it, and the hash of the whole file.

* The file holds the SHA-256 of its own bytes, with zeros in the place of the hash. It is compared before anything else
  looks at the file: a reader of parquet can end the whole process over one wrong bit.
* A file without it is somebody else's, or an old one: it is read by a process of its own first.
"""

import hashlib
import io
import json
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from handreid.data.names import printable
from handreid.data.text_files import read_bytes
from handreid.errors import ManifestError
from handreid.files import write_atomic

_KEY = "handreid"  # the one key of ours in the metadata of a parquet file
_SEALED = "sha256 of this file:"
_SEAL = re.compile(_SEALED.encode() + rb"(.{64})", re.DOTALL)
_FORMAT = 2  # 1 had no hash of the file
_NO_HASH = "0" * 64
_SECONDS = 300  # for a process that only reads


@dataclass(frozen=True)
class Facts:
    """What a manifest says about its table: where the root is, seen from the file, and was then."""

    dataset: str
    notes: tuple[str, ...]
    hash: str
    root: str
    root_then: str
    outside_root: bool = False


def write_parquet(path: Path, table: pl.DataFrame, facts: Facts) -> None:
    """Raises OutputError."""
    said = {_KEY: json.dumps({"format": _FORMAT, **asdict(facts)}), f"{_KEY}-file": _SEALED + _NO_HASH}
    whole = io.BytesIO()
    table.write_parquet(whole, metadata=said)
    data = whole.getvalue()
    seal = hashlib.sha256(data).hexdigest().encode()
    at = _seal_at(data)
    sealed = data[: at[0]] + seal + data[at[1] :] if at else data
    write_atomic(path, lambda part: part.write_bytes(sealed))


def read_parquet(path: Path, missing: str) -> tuple[pl.DataFrame, Facts | None]:
    """The table and what is said about it; None where somebody else wrote the file.

    Raises ManifestError for a file that cannot be read, or is not as it was written.
    """
    data = read_bytes(path, missing)
    name = printable(path)
    if not data:
        raise ManifestError(f"{name} is empty; write it again with `handreid data prepare`")
    at = _seal_at(data)
    if at:
        _compare(name, data, at)
    else:
        _try(name, data)
    try:
        table = pl.read_parquet(io.BytesIO(data))
        said = pl.read_parquet_metadata(io.BytesIO(data))
    except Exception as error:  # polars has many kinds
        raise ManifestError(f"{name}: not a readable parquet file ({_first_line(error)})") from None
    return table, _facts(name, said[_KEY], sealed=bool(at)) if _KEY in said else None


def _seal_at(data: bytes) -> tuple[int, int] | None:
    """Where the hash stands: the last that is there, as metadata are at the end."""
    begins = data.rfind(_SEALED.encode())
    found = _SEAL.match(data, begins) if begins >= 0 else None
    return found.span(1) if found else None


def _compare(name: str, data: bytes, at: tuple[int, int]) -> None:
    digest = hashlib.sha256(data[: at[0]])
    digest.update(_NO_HASH.encode())
    digest.update(data[at[1] :])
    if digest.hexdigest().encode() != data[at[0] : at[1]]:
        raise ManifestError(
            f"{name} was changed or damaged: its bytes do not match its hash; copy it again, or write it again with "
            "`handreid data prepare`"
        )


def _try(name: str, data: bytes) -> None:
    """Have a process of its own read it first."""
    if not (data.startswith(b"PAR1") and data.endswith(b"PAR1")):
        raise ManifestError(f"{name}: not a readable parquet file (it lacks the marks at its beginning and end)")
    code = "import io, sys, polars; polars.read_parquet(io.BytesIO(sys.stdin.buffer.read()))"
    try:
        tried = subprocess.run(
            [sys.executable, "-c", code], input=data, capture_output=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ManifestError(f"{name}: not a readable parquet file ({_first_line(error)})") from None
    if tried.returncode:
        said = tried.stderr.decode("utf-8", "replace").strip().splitlines() or [f"exit {tried.returncode}"]
        raise ManifestError(f"{name}: not a readable parquet file ({said[-1][:200]})")


def _facts(name: str, text: str, *, sealed: bool) -> Facts:
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        said = None
    if isinstance(said, dict) and _known(said) and (sealed or said.get("format", 1) == 1):
        return Facts(
            said["dataset"],
            tuple(said["notes"]),
            said["hash"],
            said["root"],
            said["root_then"],
            said.get("outside_root", False),
        )
    raise ManifestError(
        f"{name} was changed or damaged: the description of its table cannot be read; write it again with "
        "`handreid data prepare`"
    )


def _known(said: dict[str, Any]) -> bool:
    texts = all(isinstance(said.get(key), str) for key in ("dataset", "hash", "root", "root_then"))
    notes = said.get("notes")
    return (
        texts
        and isinstance(notes, list)
        and all(isinstance(note, str) for note in notes)
        and isinstance(said.get("outside_root", False), bool)
        and "\0" not in said["root"] + said["root_then"]
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
