"""The encoder learns from labels: one Lightning module.

* The loss is the weighted sum of the recipe's objectives; each term is logged under its own name.
* Randomness of a step (dropout, mixed photos) is seeded anew for each, so that a resumed epoch is the same epoch.
"""

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any, cast

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from handreid.data.sampling import Batches, BatchSampler, TrainingPhotos
from handreid.errors import RunError
from handreid.models.embedder import Embedder
from handreid.models.lora import add_lora
from handreid.objectives.objective import Objective
from handreid.recipe import FineTune
from handreid.training.averaging import Averaging
from handreid.training.optim import Group, Part, build_optimizer, encoder_parts, parameter_groups, rate_factor
from handreid.types import Batch, Mixed, Targets

Mix = Callable[[Tensor, Tensor], tuple[Tensor, Mixed | None]]  # photos and labels of a batch


class FineTuneModule(L.LightningModule):
    """Trains `embedder` and the objectives' own parameters on `photos`, in the batches that `batches` makes."""

    def __init__(
        self,
        embedder: Embedder,
        objectives: nn.ModuleDict,
        stage: FineTune,
        photos: TrainingPhotos,
        batches: Batches,
        *,
        seed: int,
        mix: Mix | None = None,
        workers: int = 0,
    ) -> None:
        super().__init__()
        self.embedder = embedder
        self.objectives = objectives
        self.stage = stage
        self.photos = photos
        self.batches = batches
        self.seed = seed
        self.mix = mix
        self.workers = workers
        self.sums: dict[str, Tensor] = {}
        embedder.head.meet(photos.identities)
        if stage.lora:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                add_lora(embedder.backbone.visual, **stage.lora.model_dump())
        if stage.freeze_blocks:
            embedder.backbone.freeze(stage.freeze_blocks)
        self.averaging = Averaging(embedder, stage.averaging, stage.epochs) if stage.averaging else None
        self.centres = Centres(photos.identities, embedder.dim) if stage.sampler.kind == "hard_identity" else None

    @property
    def result(self) -> Embedder:
        """What is validated and kept: the average where there is one, else the embedder itself."""
        return (self.averaging and self.averaging.result) or self.embedder

    def train_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(
            self.photos,
            sampler=self._batches(self.current_epoch),
            batch_size=None,  # the sampler gives whole batches
            num_workers=self.workers,
        )

    def on_train_epoch_start(self) -> None:
        self.sums = {}
        if self.centres is not None:
            self.centres.clear()  # this epoch's batches have been made of them
        if self.stage.unfreeze_every:
            backbone = self.embedder.backbone
            thawed = 1 + int(self.current_epoch / self.stage.unfreeze_every)
            backbone.freeze_layers(max(0, len(backbone.layers) - thawed))

    def training_step(self, batch: Batch, index: int) -> Tensor:
        torch.manual_seed(int(np.random.SeedSequence([self.seed, self.current_epoch, index]).generate_state(1)[0]))
        photos, mixed = self.mix(batch.photos, batch.labels) if self.mix else (batch.photos, None)
        outputs = self.embedder(photos, batch.labels)
        if self.centres is not None:
            self.centres.add(self.embedder.compared(outputs), batch.labels)
        targets = Targets(batch.labels, mixed)
        losses: dict[str, Tensor] = {}
        for name, objective in self._objectives():
            objective.at_epoch(self.current_epoch + index / self.batches_per_epoch)
            losses[name] = objective(outputs, targets)
        terms = [term.weight * loss for term, loss in zip(self.stage.objectives, losses.values(), strict=True)]
        total = torch.stack(terms).sum()
        self._note(loss=total, **losses)
        return total

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        stepped = (batch_idx + 1) % self.stage.accumulate == 0 or batch_idx + 1 == self.batches_per_epoch
        if self.averaging and stepped:
            self.averaging.after_step(self.embedder)

    def close_epoch(self) -> None:
        """Called when an epoch's steps are done, before anything is validated or saved."""
        if self.averaging:
            self.averaging.after_epoch(self.embedder, self.current_epoch)

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
        """All that learns in this stage, each parameter once: the encoder, the head, the objectives' own layers."""
        chosen = self.stage.optimizer
        new = chosen.lr * chosen.new_layers
        parts = encoder_parts(self.embedder.backbone.layers, chosen.lr, chosen.layer_decay)
        parts.append(Part("head", list(self.embedder.head.parameters()), new))
        for term, (name, objective) in zip(self.stage.objectives, self._objectives(), strict=True):
            lr = getattr(term, "lr", None) or new
            parts.append(Part(name, list(objective.parameters()), lr, objective.undecayed()))
        return parameter_groups(parts, weight_decay=chosen.weight_decay)

    @cached_property
    def batches_per_epoch(self) -> int:
        return sum(1 for _ in self._batches(0))

    @cached_property
    def photos_per_epoch(self) -> int:
        return sum(len(batch) for batch in self._batches(0))

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.batches_per_epoch // self.stage.accumulate)

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

    def _objectives(self) -> list[tuple[str, Objective]]:
        return [(name, cast(Objective, module)) for name, module in self.objectives.items()]

    def _batches(self, epoch: int) -> BatchSampler:
        return self.batches(
            epoch,
            self.trainer.global_rank if self._trainer else 0,
            self.trainer.world_size if self._trainer else 1,
            self.centres.means() if self.centres is not None else None,
        )

    def _note(self, **values: Tensor) -> None:
        for name, value in values.items():
            pair = torch.stack([value.detach().float(), value.new_ones((), dtype=torch.float32)])
            self.sums[name] = self.sums[name] + pair if name in self.sums else pair


class Centres(nn.Module):
    """Mean direction of each identity's photos over an epoch, gathered as they pass; part of the checkpoint."""

    def __init__(self, identities: int, dim: int) -> None:
        super().__init__()
        self.sums: Tensor
        self.register_buffer("sums", torch.zeros(identities, dim))

    @torch.no_grad()
    def add(self, features: Tensor, labels: Tensor) -> None:
        self.sums.index_add_(0, labels, F.normalize(features.float(), dim=1))

    def means(self) -> np.ndarray | None:
        """Of length 1 and the same on every rank, zero for an identity that was not seen; None before any was."""
        sums = self.sums.clone()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(sums)
        return F.normalize(sums, dim=1).cpu().numpy() if sums.any() else None

    def clear(self) -> None:
        self.sums.zero_()
