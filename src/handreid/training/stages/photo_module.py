"""Base of the modules of stages that learn from batches of augmented photos."""

from functools import cached_property
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset

from handreid.data.sampling import Batches, BatchSampler
from handreid.recipe.photo_stage import PhotoStage
from handreid.training.stage_module import StageModule


class PhotoModule(StageModule):
    """Trains on `photos`, a data set whose items are whole batches, in the batches that `batches` draws each epoch."""

    def __init__(
        self, stage: PhotoStage, photos: Dataset[Any], batches: Batches, *, seed: int, workers: int = 0
    ) -> None:
        super().__init__(stage, stage.optimizer, seed=seed)
        self.photos = photos
        self.batches = batches
        self.workers = workers

    @property
    def views(self) -> int:
        """Views of each photo in a batch."""
        return 1

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(
            self.photos,
            sampler=self._batches(self.current_epoch),
            batch_size=None,  # the sampler yields whole batches
            num_workers=self.workers,
        )

    @cached_property
    def batches_per_epoch(self) -> int:
        return sum(1 for _ in self._batches(0))

    @cached_property
    def photos_per_epoch(self) -> int:
        return self.views * sum(len(batch) for batch in self._batches(0))

    def photos_in(self, batch: Any) -> int:
        return self.views * len(batch)

    def identity_centres(self) -> np.ndarray | None:
        """What a sampler of similar identities compares, (identities, dim); None for the others."""
        return None

    def _batches(self, epoch: int) -> BatchSampler:
        trainer = self._trainer
        rank, ranks = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        return self.batches(epoch, rank, ranks, self.identity_centres())
