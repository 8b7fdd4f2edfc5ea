"""Embeddings of a run's test photos, kept by its evaluation: what looks at them need not run the model again.

* They are given only where the model would surely give the same now: the hashes of the model and the manifest, whether
  photos were mirrored, and the bytes of every photo are compared. Else there are none, and one embeds anew.
* Photos are found by their paths: manifests of one hash may have their rows in another order.
* A photo that is gone cannot have changed. Its embedding is given, so that numbers outlive photos.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from handreid.data.manifest import Manifest
from handreid.files import file_hash, write_atomic
from handreid.training.runs import Run

_FORMAT = 1
_KEY = "handreid"  # the one key of ours in the metadata of the file


def keep_embeddings(
    run: Run,
    manifest: Manifest,
    rows: Int[np.ndarray, " photo"],
    embeddings: Float[np.ndarray, "photo dim"],
    *,
    mirrored: bool,
) -> Path:
    """Writes the embeddings of some rows of the manifest into the run's folder, whole or not at all."""
    names = manifest.table["path"].gather(rows).to_list()
    facts = {
        **_facts(file_hash(run.model), manifest, mirrored=mirrored),
        "photos": names,
        "contents": _contents([manifest.root / name for name in names]),
    }
    tensors: dict[str, np.ndarray] = {
        "embeddings": np.ascontiguousarray(embeddings, np.float32),
        "rows": rows.astype(np.int64),
    }
    write_atomic(run.embeddings, lambda part: save_file(tensors, part, {_KEY: json.dumps(facts)}))
    return run.embeddings


def kept_embeddings(
    run: Run, manifest: Manifest, rows: Int[np.ndarray, " photo"], *, model_hash: str, mirrored: bool
) -> Float[np.ndarray, "photo dim"] | None:
    """What was kept of these rows; None where it was not, or where it is of another model, manifest or photo."""
    if not run.embeddings.is_file():
        return None
    try:
        with safe_open(run.embeddings, framework="numpy") as file:
            facts = json.loads((file.metadata() or {}).get(_KEY, "{}"))
            if not _facts(model_hash, manifest, mirrored=mirrored).items() <= facts.items():
                return None
            embeddings: Float[np.ndarray, "photo dim"] = file.get_tensor("embeddings")
    except (SafetensorError, OSError, ValueError):
        return None
    place = {name: at for at, name in enumerate(facts["photos"])}
    names = manifest.table["path"].gather(rows).to_list()
    if not place.keys() >= set(names):
        return None
    at = [place[name] for name in names]
    now = _contents([manifest.root / name for name in names])
    if any(new is not None and new != facts["contents"][was] for new, was in zip(now, at, strict=True)):
        return None
    return embeddings[at]


def _facts(model_hash: str, manifest: Manifest, *, mirrored: bool) -> dict[str, Any]:
    return {"format": _FORMAT, "model": model_hash, "manifest": manifest.hash, "mirrored": mirrored}


def _contents(paths: Sequence[Path]) -> list[str | None]:
    """A hash of each photo's bytes; None where there is no such photo."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(_content, paths))


def _content(path: Path) -> str | None:
    try:
        state = path.stat()
        return _hashed(path, state.st_mtime_ns, state.st_size)
    except OSError:
        return None


@lru_cache(maxsize=2**17)
def _hashed(path: Path, _changed: int, _size: int) -> str:
    """Once in a process, for many runs on the same photos."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:32]
