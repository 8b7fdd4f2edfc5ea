"""Joint features of photos, computed once: a later run on the same photos with the same weights reads them.

The file's name is a hash of the photos' pixels as they are decoded, of the tower and all its weights, and of the
preprocessing, and of the side information that it is told: whatever changes one of them is another key. (A cache that
is keyed by a model's name is stale as soon as the model is trained.)
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor

from handreid.evaluation.extraction import Conditions, Photos, joint_features
from handreid.files import cache_folder, write_atomic
from handreid.models.embedder import Embedder
from handreid.progress import Progress

FORMAT = 1


def cached_joint_features(
    embedder: Embedder,
    photos: Photos,
    *,
    conditions: Conditions | None = None,
    batch_size: int = 64,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Float[np.ndarray, "photos joint"]:
    """What `joint_features` gives, from `folder` (see `cache_folder`) where it lies there."""
    folder = folder or cache_folder()
    path = folder / f"features-{_key(embedder, photos, conditions)}.npy"
    if path.exists():
        found: np.ndarray = np.load(path)
        return found
    features = joint_features(embedder, photos, conditions=conditions, batch_size=batch_size, progress=progress)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(path, lambda part: np.save(part, features))
    return features


def digest_of(state: Mapping[str, Tensor]) -> bytes:
    """SHA-256 over names and values."""
    digest = hashlib.sha256()
    for name, value in state.items():
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(np.ascontiguousarray(value.detach().cpu().numpy()).view(np.uint8).data)
    return digest.digest()


def _key(embedder: Embedder, photos: Photos, conditions: Conditions | None) -> str:
    facts = [FORMAT, embedder.backbone.config, repr(embedder.preprocessing), photos.shape]
    digest = hashlib.sha256(json.dumps(facts, default=str).encode())
    digest.update(digest_of(embedder.backbone.state_dict()))
    if conditions is not None:
        digest.update(conditions.tobytes())
    for photo in photos:
        digest.update(np.ascontiguousarray(photo).data)
    return digest.hexdigest()[:24]
