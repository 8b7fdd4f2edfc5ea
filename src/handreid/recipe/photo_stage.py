"""What stages that learn from augmented photos share: the size of their batches, and checks of it."""

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import model_validator

from handreid.recipe.augmentations import Augmentation
from handreid.recipe.samplers import HardIdentitySampler, PkSampler
from handreid.recipe.stage_base import StageValue

if TYPE_CHECKING:
    from handreid.recipe.optimizer import Optimizer


class PhotoStage(StageValue):
    """The keys of a stage that reads augmented photos; as of `StageValue`, every kind has them as its own fields."""

    BATCH: ClassVar[int]
    """Photos in a batch if neither `batch_size` nor the sampler says how many."""

    if TYPE_CHECKING:
        batch_size: int | None
        sampler: Any
        accumulate: int
        optimizer: Optimizer
        augment: tuple[Augmentation, ...]
        chirality: Any

    @property
    def photos_per_batch(self) -> int:
        """Largest number of photos in a batch."""
        if isinstance(self.sampler, PkSampler | HardIdentitySampler):
            return self.sampler.identities * self.sampler.images
        return self.batch_size or self.BATCH

    @property
    def batches_per_step(self) -> int:
        return self.accumulate

    @property
    def augmentations(self) -> tuple[Augmentation, ...]:
        return self.augment

    @model_validator(mode="after")
    def _warm_up_and_batches_fit(self) -> "PhotoStage":
        if self.optimizer.schedule.warmup_epochs > self.epochs:
            raise ValueError(
                f"warmup_epochs {self.optimizer.schedule.warmup_epochs:g} is longer than epochs {self.epochs}"
            )
        if self.batch_size not in (None, self.photos_per_batch):
            raise ValueError(
                f"batch_size {self.batch_size} is not the sampler's identities x images = {self.photos_per_batch}: "
                "leave it out"
            )
        return self
