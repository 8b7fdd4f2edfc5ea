"""From photo files to embeddings: decoded, with what the model is told beside the pixels, in batches."""

import numpy as np
import torch
from jaxtyping import Float, Int

from handreid.data.loading import decode_all
from handreid.data.manifest import Manifest
from handreid.models.embedder import Embedder
from handreid.models.extraction import Conditions, Photos, embed_photos
from handreid.progress import Progress
from handreid.recipe import Recipe
from handreid.runs.folder import Run, finished_model


def load_embedder(run: Run) -> Embedder:
    """The run's model, on the GPU if there is one. Raises RunError when it is not as it was written."""
    return Embedder.load(finished_model(run)).to("cuda" if torch.cuda.is_available() else "cpu")


def decoded(
    manifest: Manifest, rows: Int[np.ndarray, " photo"], recipe: Recipe, embedder: Embedder, progress: Progress
) -> Photos:
    """The photos of some rows, as the model wants them."""
    paths = manifest.paths()
    return decode_all([paths[row] for row in rows], embedder.preprocessing, cache=recipe.data.cache, progress=progress)


def embedded(
    photos: Photos, conditions: Conditions | None, recipe: Recipe, embedder: Embedder, progress: Progress
) -> Float[np.ndarray, "photos dim"]:
    """Embeddings as the recipe evaluates them."""
    chosen = recipe.evaluate
    return embed_photos(
        embedder,
        photos,
        conditions=conditions,
        batch_size=chosen.batch_size,
        mirrored=chosen.mirrored,
        progress=progress,
    )
