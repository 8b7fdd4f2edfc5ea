"""Parquet manifests: a table, facts about it, and a checksum of the whole file.

* The file holds the SHA-256 of its own bytes, with zeros in the place of the hash. It is compared before the file is
  parsed: a parquet reader can crash the whole process over one wrong bit.
* A file without it was written by another program or an old version: a separate process reads it first.
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
    """What a manifest stores about its table: `root` is relative to the file, `root_then` absolute, at writing."""

    dataset: str
    notes: tuple[str, ...]
    hash: str
    root: str
    root_then: str
    outside_root: bool = False


def write_parquet(path: Path, table: pl.DataFrame, facts: Facts) -> None:
    """Raises OutputError."""
    metadata = {_KEY: json.dumps({"format": _FORMAT, **asdict(facts)}), f"{_KEY}-file": _SEALED + _NO_HASH}
    whole = io.BytesIO()
    table.write_parquet(whole, metadata=metadata)
    data = whole.getvalue()
    seal = hashlib.sha256(data).hexdigest().encode()
    span = _seal_span(data)
    sealed = data[: span[0]] + seal + data[span[1] :] if span else data
    write_atomic(path, lambda part: part.write_bytes(sealed))


def read_parquet(path: Path, missing: str) -> tuple[pl.DataFrame, Facts | None]:
    """The table and the facts stored about it; None where another program wrote the file.

    Raises ManifestError for a file that cannot be read, or was changed after it was written.
    """
    data = read_bytes(path, missing)
    name = printable(path)
    if not data:
        raise ManifestError(f"{name} is empty; write it again with `handreid data prepare`")
    span = _seal_span(data)
    if span:
        _compare(name, data, span)
    else:
        _try_in_subprocess(name, data)
    try:
        table = pl.read_parquet(io.BytesIO(data))
        metadata = pl.read_parquet_metadata(io.BytesIO(data))
    except Exception as error:  # polars has many kinds
        raise ManifestError(f"{name}: not a readable parquet file ({_first_line(error)})") from None
    return table, _facts(name, metadata[_KEY], sealed=bool(span)) if _KEY in metadata else None


def _seal_span(data: bytes) -> tuple[int, int] | None:
    """Start and end of the hash in the file: the last match, as metadata are at the end."""
    begins = data.rfind(_SEALED.encode())
    match = _SEAL.match(data, begins) if begins >= 0 else None
    return match.span(1) if match else None


def _compare(name: str, data: bytes, span: tuple[int, int]) -> None:
    digest = hashlib.sha256(data[: span[0]])
    digest.update(_NO_HASH.encode())
    digest.update(data[span[1] :])
    if digest.hexdigest().encode() != data[span[0] : span[1]]:
        raise ManifestError(
            f"{name} was changed or damaged: its bytes do not match its hash; copy it again, or write it again with "
            "`handreid data prepare`"
        )


def _try_in_subprocess(name: str, data: bytes) -> None:
    """Raises ManifestError if a separate process fails to read the file."""
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
        lines = tried.stderr.decode("utf-8", "replace").strip().splitlines() or [f"exit {tried.returncode}"]
        raise ManifestError(f"{name}: not a readable parquet file ({lines[-1][:200]})")


def _facts(name: str, text: str, *, sealed: bool) -> Facts:
    try:
        stored = json.loads(text)
    except (ValueError, RecursionError):
        stored = None
    if isinstance(stored, dict) and _is_valid(stored) and (sealed or stored.get("format", 1) == 1):
        return Facts(
            stored["dataset"],
            tuple(stored["notes"]),
            stored["hash"],
            stored["root"],
            stored["root_then"],
            stored.get("outside_root", False),
        )
    raise ManifestError(
        f"{name} was changed or damaged: the description of its table cannot be read; write it again with "
        "`handreid data prepare`"
    )


def _is_valid(stored: dict[str, Any]) -> bool:
    texts = all(isinstance(stored.get(key), str) for key in ("dataset", "hash", "root", "root_then"))
    notes = stored.get("notes")
    return (
        texts
        and isinstance(notes, list)
        and all(isinstance(note, str) for note in notes)
        and isinstance(stored.get("outside_root", False), bool)
        and "\0" not in stored["root"] + stored["root_then"]
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
