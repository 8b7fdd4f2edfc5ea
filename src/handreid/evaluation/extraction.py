"""Photos to embeddings, once; every draw and metric reads the same array."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from handreid.models.embedder import Embedder
from handreid.progress import Progress, Silent

Photos = UInt8[np.ndarray, "photos 3 height width"]


def embed_photos(
    embedder: Embedder,
    photos: Photos,
    *,
    batch_size: int = 64,
    mirrored: bool = False,
    progress: Progress | None = None,
) -> Float[np.ndarray, "photos dim"]:
    """Embeddings of unit length, in fp32, on the device that the embedder is on."""
    return _extract(lambda batch: embedder.embed(batch, mirrored=mirrored), embedder, photos, batch_size, progress)


def joint_features(
    embedder: Embedder, photos: Photos, *, batch_size: int = 64, progress: Progress | None = None
) -> Float[np.ndarray, "photos joint"]:
    """Features in CLIP's joint space, not normalised: what texts are compared with."""
    embedder.eval()
    return _extract(lambda batch: embedder(batch).features.joint, embedder, photos, batch_size, progress)


def _extract(
    features: Callable[[Tensor], Tensor], embedder: Embedder, photos: Photos, batch_size: int, progress: Progress | None
) -> Float[np.ndarray, "photos dim"]:
    device = embedder.mean.device
    found = []
    with torch.inference_mode(), (progress or Silent()).step("embedding", len(photos), "photos") as advance:
        for start in range(0, len(photos), batch_size):
            batch = torch.from_numpy(np.array(photos[start : start + batch_size])).to(device)
            found.append(features(batch).float().cpu().numpy())
            advance(len(batch))
    return np.concatenate(found)
