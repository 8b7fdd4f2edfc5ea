"""Cache of photos' joint features: a later run on the same photos with the same weights reads them.

* The file's name is a hash of the decoded pixels, the tower with all its weights, the preprocessing, and the side
  information: a change of any of them gives another name. (A cache that is keyed by a model's name is stale as soon as
  the model is trained.)
* It is an .npy file with the SHA-256 of its content at its end. A file that was changed is computed again.
"""

import hashlib
import io
import json
from pathlib import Path

import numpy as np
from jaxtyping import Float

from handreid.errors import OutputError
from handreid.files import cache_folder, write_atomic
from handreid.models.embedder import Embedder
from handreid.models.extraction import Conditions, Photos, joint_features
from handreid.models.sealed import digest_of
from handreid.progress import NullProgress, Progress

FORMAT = 2
_SEAL = 32  # bytes


def cached_joint_features(
    embedder: Embedder,
    photos: Photos,
    *,
    conditions: Conditions | None = None,
    batch_size: int = 64,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Float[np.ndarray, "photos joint"]:
    """What `joint_features` gives, from `folder` (see `cache_folder`) if it is cached.

    If the cache cannot be read or written, the features are computed, with a message.
    """
    progress = progress or NullProgress()
    folder = folder or cache_folder()
    path = folder / f"features-{_key(embedder, photos, conditions)}.npy"
    if path.exists():
        cached = _read(path, (len(photos), embedder.backbone.widths["joint"]))
        if cached is not None:
            return cached
        progress.say(f"note: {path} was changed or damaged: it is computed again")
    features = joint_features(embedder, photos, conditions=conditions, batch_size=batch_size, progress=progress)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, lambda part: part.write_bytes(_sealed(features)))
    except (OSError, OutputError) as error:
        progress.say(f"note: features could not be cached: {error}")
    return features


def _sealed(features: np.ndarray) -> bytes:
    whole = io.BytesIO()
    np.save(whole, features, allow_pickle=False)
    content = whole.getvalue()
    return content + hashlib.sha256(content).digest()


def _read(path: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """None for a file that `_sealed` did not write, or that holds something else than features of this shape."""
    try:
        whole = path.read_bytes()
        content, seal = whole[:-_SEAL], whole[-_SEAL:]
        if hashlib.sha256(content).digest() != seal:
            return None
        features: np.ndarray = np.load(io.BytesIO(content), allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return features if features.shape == shape and features.dtype == np.float32 else None


def _key(embedder: Embedder, photos: Photos, conditions: Conditions | None) -> str:
    facts = [FORMAT, embedder.backbone.config, repr(embedder.preprocessing), photos.shape]
    digest = hashlib.sha256(json.dumps(facts, default=str).encode())
    digest.update(digest_of(embedder.backbone.state_dict()))
    if conditions is not None:
        digest.update(conditions.tobytes())
    for photo in photos:
        digest.update(np.ascontiguousarray(photo).data)
    return digest.hexdigest()[:24]
