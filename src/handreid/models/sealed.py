"""Tensors and facts in a safetensors file that holds the hash of both: loading detects a single changed bit.

safetensors itself checks only shapes and lengths, not the bytes.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from handreid.errors import WeightsError
from handreid.files import checksum, write_atomic

SEAL = "sha256"


def save_sealed(
    path: Path,
    tensors: Mapping[str, Tensor],
    key: str,
    facts: Mapping[str, Any],
    *,
    before: Callable[[Path], object] | None = None,
) -> None:
    """Writes the file atomically, with `facts` as JSON under `key` of the metadata; `before` as in `write_atomic`.

    Raises OutputError.
    """
    stored = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    # in one entry: safetensors writes several entries in a varying order
    stated = {key: json.dumps({**facts, SEAL: _seal(stored, facts)})}
    write_atomic(path, lambda part: save_file(stored, part, metadata=stated), durable=True, before=before)


def load_sealed(path: Path, key: str, what: str, format_: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The facts and tensors of a file that `save_sealed` wrote. Raises WeightsError for any other file; its message
    says `what` was expected, and in which format.
    """
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(key, "null")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError, ValueError) as error:
        raise WeightsError(f"{what} {path} cannot be read: {error}; copy it again, or train it again") from None
    facts = _facts(text)
    if facts is None or facts.get("format") != format_:
        was = "" if facts is None else f" (it says {facts.get('format')!r}: another version of handreid wrote it)"
        raise WeightsError(
            f"{path} is not a {what} of format {format_}{was}; give the file or folder of a run that this version "
            "trained, or train it again"
        )
    if facts.pop(SEAL, None) != _seal(tensors, facts):
        raise WeightsError(
            f"{path}, a {what}, was changed, damaged or only partly copied: its content does not match the hash "
            "in it; copy it again, or train it again"
        )
    return facts, tensors


def digest_of(state: Mapping[str, Tensor]) -> bytes:
    """SHA-256 over names, shapes, kinds and values, in their order."""
    digest = hashlib.sha256()
    for name, value in state.items():
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.digest()


def _seal(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> str:
    inside = digest_of({name: tensors[name] for name in sorted(tensors)})
    return hashlib.sha256(f"{checksum(facts)} {inside.hex()}".encode()).hexdigest()


def _facts(text: str) -> dict[str, Any] | None:
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return facts if isinstance(facts, dict) else None
