"""The context of a running training, as stages use it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from handreid.data.loading import decode_all
from handreid.data.photo_file import photo_files
from handreid.models.embedder import Embedder
from handreid.models.extraction import Conditions, Photos
from handreid.models.text import TextEncoder
from handreid.progress import EpochListener, Progress
from handreid.recipe import Recipe
from handreid.runs.dataset import RunDataset
from handreid.runs.folder import Run
from handreid.runs.side_information import side_information_of

LongCheck = Literal["overfit"]  # slow checks, only made on request


@dataclass(frozen=True)
class Handover:
    """What one stage passes to the next.

    `texts` are the text features of the training identities, in the order of their labels; None until a stage has
    learned them. `text_trained`: the text tower's weights differ from the backbone's, so it is saved with the run.
    """

    embedder: Embedder
    text: TextEncoder
    texts: Float[Tensor, "identities joint"] | None = None
    text_trained: bool = False


@dataclass(frozen=True)
class Job:
    """A run in progress, with the results of its stages so far in `handover`.

    `long_checks` are slow checks that were requested in addition to the fast ones.
    """

    run: Run
    recipe: Recipe
    handover: Handover
    material: RunDataset
    progress: Progress
    watch: tuple[EpochListener, ...] = ()
    long_checks: tuple[LongCheck, ...] = ()

    @property
    def embedder(self) -> Embedder:
        return self.handover.embedder

    @property
    def text(self) -> TextEncoder:
        return self.handover.text

    def decoded(self, rows: np.ndarray, *, enlarge: float = 1.0) -> Photos:
        return decode_all(
            photo_files(self.material.manifest, rows),
            self.embedder.preprocessing,
            enlarge=enlarge,
            cache=self.recipe.data.cache,
            progress=self.progress,
        )

    def conditions(self, rows: np.ndarray) -> Conditions | None:
        return side_information_of(self.embedder, self.material.manifest.table[rows])[0]

    def folder(self, number: int) -> Path:
        return self.run.stage(number, self.recipe.stages[number].kind)

    def seed(self, number: int) -> int:
        """The seed of everything random in a stage."""
        return self.recipe.seed * 1000 + number


def labels_of(material: RunDataset) -> Int[np.ndarray, " train"]:
    """The label of every training photo: the index of its identity among the sorted names."""
    identities = [material.split.identities[row] for row in material.split.train]
    labels: Int[np.ndarray, " train"] = np.unique(identities, return_inverse=True)[1]
    return labels
