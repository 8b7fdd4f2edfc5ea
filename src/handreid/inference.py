"""From photo files to embeddings: hands, decoding, side information, batches."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int

from handreid.data.landmark_columns import landmark_notes
from handreid.data.landmark_search import add_landmarks
from handreid.data.loading import decode_all
from handreid.data.manifest import Manifest
from handreid.data.photo_file import PhotoFile, check_hands, photo_files
from handreid.landmarks import Landmarker
from handreid.landmarks.mediapipe import check_installed
from handreid.landmarks.model_file import landmarker_file
from handreid.models.embedder import Embedder
from handreid.models.extraction import Conditions, Photos, embed_photos
from handreid.models.promptsg_head import SemanticHead
from handreid.progress import Progress
from handreid.recipe import Recipe
from handreid.runs.folder import Run, finished_model
from handreid.types import Reading

_AT_ONCE = 1024  # photos that are decoded at a time: 150 MB at 224 x 224


def load_embedder(run: Run) -> Embedder:
    """The run's model, on the GPU if there is one. Raises RunError when it is not as it was written."""
    return load_model(finished_model(run))


def load_model(model: Path | str) -> Embedder:
    """What `Embedder.load` gives, on the GPU if there is one."""
    return Embedder.load(model).to("cuda" if torch.cuda.is_available() else "cpu")


def find_hands(
    manifest: Manifest,
    reading: Reading,
    progress: Progress,
    *,
    landmarker: Path | Landmarker | None = None,
    workers: int | None = 1,
) -> Manifest:
    """The manifest with the hands that a model with this `reading` has to know; unchanged for one that needs none.

    For photos that come as files. `landmarker` is a function, or the file of MediaPipe's Hand Landmarker; by default
    that is found as `landmarker_file` says, or downloaded once. What it finds is stored as by `data landmarks`, with
    `workers` as in `add_landmarks`; photos without a hand, and with several, are named to `progress`.

    Raises PhotoError for a photo that cannot be decoded, WeightsError where LiteRT or the model is missing.
    """
    if not (reading.aligns or reading.mirrors):
        return manifest
    if landmarker is None or isinstance(landmarker, Path):
        check_installed()
        landmarker = landmarker_file(landmarker)
    found = add_landmarks(manifest, landmarker, workers=workers, progress=progress)
    for note in landmark_notes(found):
        progress.say(f"note: {note}")
    return found


def decode_rows(
    manifest: Manifest, rows: Int[np.ndarray, " photo"], recipe: Recipe, embedder: Embedder, progress: Progress
) -> Photos:
    """The photos of some rows, decoded as the model's input."""
    photos = photo_files(manifest, rows)
    return decode_all(photos, embedder.preprocessing, cache=recipe.data.cache, progress=progress)


def embed_rows(
    photos: Photos, conditions: Conditions | None, recipe: Recipe, embedder: Embedder, progress: Progress
) -> Float[np.ndarray, "photos dim"]:
    """Embeddings as the recipe evaluates them, mirrored or not, in its batches."""
    evaluation = recipe.evaluate
    return embed_photos(
        embedder,
        photos,
        conditions=conditions,
        batch_size=evaluation.batch_size,
        flip_tta=evaluation.flip_tta,
        progress=progress,
    )


def composes(embedder: Embedder) -> bool:
    """Whether the embedder's head composes a sentence per photo."""
    return isinstance(embedder.head, SemanticHead) and embedder.head.words is not None


def embed_photo_files(
    embedder: Embedder,
    files: Sequence[PhotoFile],
    conditions: Conditions | None = None,
    *,
    batch_size: int = 64,
    flip_tta: bool = False,
    progress: Progress,
) -> Float[np.ndarray, "photos dim"]:
    """Embeddings of one photo or more, in their order; about a thousand at a time are in memory.

    Raises PhotoError for a photo without what the model has to know of it, or that cannot be decoded.
    """
    check_hands(files, embedder.preprocessing)
    step = -(-_AT_ONCE // batch_size) * batch_size
    parts = []
    for start in range(0, len(files), step):
        rows = slice(start, start + step)
        decoded = decode_all(files[rows], embedder.preprocessing, cache="memory", progress=progress)
        known = None if conditions is None else conditions[rows]
        parts.append(
            embed_photos(
                embedder, decoded, conditions=known, batch_size=batch_size, flip_tta=flip_tta, progress=progress
            )
        )
    return np.concatenate(parts)


@dataclass(eq=False)
class Shots:
    """Photos of some rows of a manifest, decoded on demand; the photos of the last call stay in memory."""

    manifest: Manifest
    rows: Int[np.ndarray, " photo"]
    recipe: Recipe
    embedder: Embedder
    progress: Progress
    _last: tuple[Int[np.ndarray, " position"], Photos] | None = None

    def at(self, positions: Int[np.ndarray, " position"]) -> Photos:
        """Photos by their position in `rows`."""
        if self._last is None or not np.array_equal(self._last[0], positions):
            photos = decode_rows(self.manifest, self.rows[positions], self.recipe, self.embedder, self.progress)
            self._last = positions, photos
        return self._last[1]

    def embed(
        self, positions: Int[np.ndarray, " position"], conditions: Conditions | None, *, mirror: bool = False
    ) -> Float[np.ndarray, "position dim"]:
        """Embeddings of these photos, with `mirror` of their mirror images. `conditions` are those of all `rows`."""
        photos = self.at(positions)
        side_values = None if conditions is None else conditions[positions]
        return embed_rows(
            photos[..., ::-1] if mirror else photos, side_values, self.recipe, self.embedder, self.progress
        )
