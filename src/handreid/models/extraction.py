"""Photos to embeddings, computed once; every draw and metric reads the same array."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from handreid.models.embedder import Embedder
from handreid.progress import NullProgress, Progress

Photos = UInt8[np.ndarray, "photos 3 height width"]
Conditions = Int[np.ndarray, " photos"]  # see `Batch.conditions`


def embed_photos(
    embedder: Embedder,
    photos: Photos,
    *,
    conditions: Conditions | None = None,
    batch_size: int = 64,
    flip_tta: bool = False,
    progress: Progress | None = None,
) -> Float[np.ndarray, "photos dim"]:
    """Embeddings of unit length, in fp32, on the device that the embedder is on."""

    def embeddings(batch: Tensor, batch_conditions: Tensor | None) -> Tensor:
        return embedder.embed(batch, batch_conditions, flip_tta=flip_tta)

    return _extract(embeddings, embedder, photos, conditions, batch_size, progress)


def joint_features(
    embedder: Embedder,
    photos: Photos,
    *,
    conditions: Conditions | None = None,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> Float[np.ndarray, "photos joint"]:
    """Features in CLIP's joint space, not normalised, to be compared with texts."""
    embedder.eval()

    def joint(batch: Tensor, batch_conditions: Tensor | None) -> Tensor:
        features: Tensor = embedder(batch, batch_conditions).features.joint
        return features

    return _extract(joint, embedder, photos, conditions, batch_size, progress)


def _extract(
    features: Callable[[Tensor, Tensor | None], Tensor],
    embedder: Embedder,
    photos: Photos,
    conditions: Conditions | None,
    batch_size: int,
    progress: Progress | None,
) -> Float[np.ndarray, "photos dim"]:
    device = embedder.mean.device
    parts = []
    with torch.inference_mode(), (progress or NullProgress()).step("embedding", len(photos), "photos") as advance:
        for start in range(0, len(photos), batch_size):
            rows = slice(start, start + batch_size)
            batch = torch.from_numpy(np.array(photos[rows])).to(device)
            batch_conditions = None if conditions is None else torch.from_numpy(conditions[rows]).to(device)
            parts.append(features(batch, batch_conditions).float().cpu().numpy())
            advance(len(batch))
    return np.concatenate(parts)
