"""A run's test photos with their embeddings, for ranking strips, confusions and embedding maps.

Photos are identified by their position here, from 0, in the order of their rows in the manifest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from handreid.data.manifest import Manifest
from handreid.data.photo_file import PhotoFile, photo_files
from handreid.data.splits import Split
from handreid.draw import Draw
from handreid.errors import DataError
from handreid.evaluation.embed import embed_known, select_photos
from handreid.inference import load_embedder
from handreid.metrics.arrays import exact_unit_vectors
from handreid.progress import Progress
from handreid.recipe import Recipe
from handreid.runs.folder import Run
from handreid.types import Preprocessing


@dataclass(frozen=True, eq=False)
class TestPhotos:
    """A run's test photos, as its evaluation ranks them: every photo of any test draw once, rows ascending.

    Photos without a label may be included on request; they are in no draw, and match no identity.
    """

    run: Run
    recipe: Recipe
    manifest: Manifest
    split: Split
    rows: Int[np.ndarray, " photo"]
    embeddings: Float[np.ndarray, "photo dim"]
    model_hash: str

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def names(self) -> list[str]:
        """Paths as the manifest has them, relative to its root."""
        return [self.split.paths[row] for row in self.rows]

    @cached_property
    def paths(self) -> list[Path]:
        return [self.manifest.root / name for name in self.names]

    @cached_property
    def files(self) -> list[PhotoFile]:
        """The photos with their landmarks, to decode them for the model."""
        return photo_files(self.manifest, self.rows)

    @cached_property
    def changes_photos(self) -> Preprocessing | None:
        """The model's preprocessing where it aligns or mirrors hands: what it sees is then another picture."""
        settings = self.recipe.model.preprocess
        return load_embedder(self.run).preprocessing if settings.aligns or settings.mirrors else None

    @cached_property
    def identities(self) -> list[str]:
        return [self.split.identities[row] for row in self.rows]

    @cached_property
    def unlabelled(self) -> frozenset[int]:
        """Photos without a label."""
        return frozenset(np.flatnonzero(self.manifest.table["subject"].is_null().to_numpy()[self.rows]).tolist())

    @cached_property
    def subjects(self) -> list[str]:
        return [self.split.subjects[row] for row in self.rows]

    @cached_property
    def views(self) -> list[str]:
        """Views such as `dorsal-right`; `unknown` where the manifest has none."""
        return [self.manifest.views[row] or "unknown" for row in self.rows]

    @cached_property
    def labels(self) -> Int[np.ndarray, " photo"]:
        """Identities as numbers."""
        return np.unique(np.array(self.identities), return_inverse=True)[1].astype(np.int64)

    @cached_property
    def cameras(self) -> Int[np.ndarray, " photo"] | None:
        """Cameras as numbers; None if the protocol ignores them (see `Split`)."""
        if self.split.cameras is None:
            return None
        names = np.array([self.split.cameras[row] or "" for row in self.rows])
        return np.unique(names, return_inverse=True)[1].astype(np.int64)

    def left_out(
        self, query: Int[np.ndarray, " query"], gallery: Int[np.ndarray, " gallery"]
    ) -> Bool[np.ndarray, "query gallery"]:
        """Gallery photos that are ignored: of the query's identity and camera, if the protocol uses cameras."""
        if self.cameras is None:
            return np.zeros((len(query), len(gallery)), np.bool_)
        same: Bool[np.ndarray, "query gallery"] = self.labels[query][:, None] == self.labels[gallery]
        same &= self.cameras[query][:, None] == self.cameras[gallery]
        return same

    @cached_property
    def units(self) -> Float[np.ndarray, "photo dim"]:
        """Features whose dot products are similarities without rounding, times 2**52 (see `metrics/ranking.py`)."""
        return exact_unit_vectors(self.embeddings, "test")

    def gallery(self, draw: int) -> Int[np.ndarray, " gallery"]:
        """Gallery photos of a draw, in the order of their paths. Raises DataError for an unknown draw."""
        return np.searchsorted(self.rows, self._draw(draw).gallery)

    def query(self, draw: int) -> Int[np.ndarray, " query"]:
        """Query photos of a draw, in the order of their paths. Raises DataError for an unknown draw."""
        return np.searchsorted(self.rows, self._draw(draw).query)

    def _draw(self, number: int) -> Draw:
        count = len(self.split.test)
        if not 0 <= number < count:
            raise DataError(f"there is no draw {number}: the {count} test draws are numbered from 0 to {count - 1}")
        return self.split.test[number]


def load_test_photos(run: Run, *, include: Sequence[str] = (), progress: Progress | None = None) -> TestPhotos:
    """The run's test photos. Embeddings are those cached by its evaluation, or computed again if these do not match.

    `include` are paths, or ends of paths, of photos without a label. Raises RunError for an unfinished run or
    a changed manifest, DataError for a missing manifest or a photo that cannot be read.
    """
    table = select_photos(run, progress=progress)
    roles, paths = table.table["role"].to_list(), table.table["path"].to_list()
    selected = table.only(np.flatnonzero([_wanted(*photo, include) for photo in zip(roles, paths, strict=True)]))
    if selected.split is None:
        raise DataError(f"{selected.facts['manifest']} cannot be split, so it has no test photos")
    embeddings = embed_known(run, selected, progress)
    return TestPhotos(
        run,
        selected.recipe,
        selected.manifest,
        selected.split,
        selected.rows,
        embeddings,
        str(selected.facts["model_hash"]),
    )


def _wanted(role: str, path: str, include: Sequence[str]) -> bool:
    return role == "test" or (role == "unlabelled" and any(f"/{path}".endswith(f"/{name}") for name in include))
