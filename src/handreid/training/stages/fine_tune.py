"""The encoder learns from labels: one Lightning module.

* The loss is the weighted sum of the recipe's objectives; each term is logged under its own name.
* Randomness inside the network (dropout) is seeded anew each epoch, so that a resumed epoch is the same epoch.
"""

import math
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from handreid.data.sampling import RandomBatches, TrainingPhotos
from handreid.errors import RunError
from handreid.models.embedder import Embedder
from handreid.recipe import FineTune
from handreid.training.optim import Group, build_optimizer, parameter_groups, rate_factor
from handreid.types import Batch, Targets


class FineTuneModule(L.LightningModule):
    """Trains `embedder` and the objectives' own parameters on `photos`."""

    def __init__(
        self,
        embedder: Embedder,
        objectives: nn.ModuleDict,
        stage: FineTune,
        photos: TrainingPhotos,
        *,
        seed: int,
        workers: int = 0,
    ) -> None:
        super().__init__()
        self.embedder = embedder
        self.objectives = objectives
        self.stage = stage
        self.photos = photos
        self.seed = seed
        self.workers = workers
        self.term_weights = [term.weight for term in stage.objectives]
        self.sums: dict[str, Tensor] = {}
        embedder.backbone.freeze(stage.freeze_blocks)

    def train_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(
            self.photos,
            sampler=self._batches(self.current_epoch),
            batch_size=None,  # the sampler gives whole batches
            num_workers=self.workers,
        )

    def on_train_epoch_start(self) -> None:
        torch.manual_seed((self.seed << 20) + self.current_epoch)
        self.sums = {}

    def training_step(self, batch: Batch, index: int) -> Tensor:
        outputs = self.embedder(batch.photos)
        targets = Targets(batch.labels)
        losses = {name: objective(outputs, targets) for name, objective in self.objectives.items()}
        terms = [weight * loss for weight, loss in zip(self.term_weights, losses.values(), strict=True)]
        total = torch.stack(terms).sum()
        self._note(loss=total, **losses)
        return total

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips by the norm over all parameters, which is measured once and noted as it was before."""
        learning = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in learning if p.grad is not None])
        if gradient_clip_val is not None:
            nn.utils.clip_grads_with_norm_(learning, gradient_clip_val, norm)
        self._note(gradient_norm=norm)

    def configure_optimizers(self) -> Any:
        optimizer = build_optimizer(self.groups(), self.stage.optimizer.kind, self.stage.optimizer.momentum)
        factor = rate_factor(self.stage.optimizer, self.stage.epochs, self.steps_per_epoch)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def groups(self) -> list[Group]:
        """All that learns, each parameter once: the encoder, and the layers that are new."""
        chosen = self.stage.optimizer
        return parameter_groups(
            self.embedder.backbone,
            [self.embedder.head, self.objectives],
            lr=chosen.lr,
            new_factor=chosen.new_layers,
            weight_decay=chosen.weight_decay,
        )

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self._batches(0)) // self.stage.accumulate)

    def epoch_means(self) -> dict[str, float]:
        """Mean over the epoch's steps of the loss, its terms and the gradient norm (before clipping).

        Raises RunError when the loss was not finite: nothing that comes after it means anything.
        """
        means = {name: (value[0] / value[1]).item() for name, value in self.sums.items()}
        if not math.isfinite(means["loss"]):
            terms = ", ".join(f"{name} {value:.3g}" for name, value in means.items())
            raise RunError(
                f"the loss is {means['loss']} in epoch {self.current_epoch + 1} ({terms}): "
                "lower optimizer.lr, lengthen the warm-up, or set clip_gradients"
            )
        return means

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        return Batch(*(part.to(device, non_blocking=True) for part in (batch.photos, batch.labels, batch.rows)))

    def _batches(self, epoch: int) -> RandomBatches:
        return RandomBatches(
            len(self.photos),
            self.stage.photos_per_batch,
            seed=self.seed,
            epoch=epoch,
            rank=self.trainer.global_rank if self._trainer else 0,
            world_size=self.trainer.world_size if self._trainer else 1,
        )

    def _note(self, **values: Tensor) -> None:
        for name, value in values.items():
            pair = torch.stack([value.detach().float(), value.new_ones((), dtype=torch.float32)])
            self.sums[name] = self.sums[name] + pair if name in self.sums else pair
