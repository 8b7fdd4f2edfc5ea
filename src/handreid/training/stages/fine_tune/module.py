"""Lightning module of the `fine_tune` stage: the encoder learns from labels.

The loss is the weighted sum of the recipe's objectives; each term is logged under its own name.
"""

from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handreid.data.mixing import Mix
from handreid.data.sampling import Batches, TrainingPhotos
from handreid.models.embedder import Embedder
from handreid.models.lora import add_lora
from handreid.objectives.objective import Objective
from handreid.recipe import FineTune
from handreid.training.optimizers import Group, Part, encoder_parts, parameter_groups
from handreid.training.stages.fine_tune.weight_averaging import Averaging
from handreid.training.stages.photo_module import PhotoModule
from handreid.types import Batch, Targets


class FineTuneModule(PhotoModule):
    """Trains `embedder` and the objectives' parameters on `photos`, in the batches from `batches`."""

    photos: TrainingPhotos

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
        super().__init__(stage, photos, batches, seed=seed, workers=workers)
        self.embedder = embedder
        self.objectives = objectives
        self.stage = stage
        self.mix = mix
        embedder.head.set_identities(photos.identities)
        if stage.lora:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed)
                add_lora(embedder.backbone.visual, **stage.lora.model_dump())
        if stage.freeze_blocks:
            embedder.backbone.freeze(stage.freeze_blocks)
        if stage.freeze_encoder:
            embedder.backbone.freeze_tower()
        self.averaging = Averaging(embedder, stage.averaging, stage.epochs) if stage.averaging else None
        self.centres = Centres(photos.identities, embedder.dim) if stage.sampler.kind == "hard_identity" else None

    @property
    def result(self) -> Embedder:
        """What is validated and saved: the weight average where there is one, else the embedder itself."""
        return (self.averaging and self.averaging.result) or self.embedder

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        if self.centres is not None:
            self.centres.clear()  # this epoch's batches have been drawn with them already
        if self.stage.unfreeze_every:
            backbone = self.embedder.backbone
            unfrozen = 1 + int(self.current_epoch / self.stage.unfreeze_every)
            backbone.freeze_layers(max(0, len(backbone.layers) - unfrozen))

    def training_step(self, batch: Batch, index: int) -> Tensor:
        self.seed_step(index)
        photos, mixed = self.mix(batch.photos, batch.labels) if self.mix else (batch.photos, None)
        outputs = self.embedder(photos, batch.conditions, labels=batch.labels)
        if self.centres is not None:
            self.centres.add(self.embedder.concat_features(outputs), batch.labels)
        targets = Targets(batch.labels, mixed)
        losses: dict[str, Tensor] = {}
        for name, objective in self._objectives():
            objective.at_epoch(self.current_epoch + index / self.batches_per_epoch)
            losses[name] = objective(outputs, targets)
        terms = [term.weight * loss for term, loss in zip(self.stage.objectives, losses.values(), strict=True)]
        total = torch.stack(terms).sum()
        self._note(loss=total, **losses)
        return total

    def after_step(self) -> None:
        if self.averaging:
            self.averaging.after_step(self.embedder)

    def close_epoch(self) -> None:
        """Called when an epoch's steps are done, before anything is validated or saved."""
        if self.averaging:
            self.averaging.after_epoch(self.embedder, self.current_epoch)

    def groups(self) -> list[Group]:
        """All trainable parameters, each once: the encoder, modules added to it, the head, the objectives' layers."""
        settings = self.stage.optimizer
        new = settings.lr * settings.new_layers
        parts = encoder_parts(self.embedder.backbone.layers, settings.lr, settings.layer_decay)
        parts += [Part(name, added, new) for name, added in self.embedder.backbone.added.items()]
        parts.append(Part("head", list(self.embedder.head.parameters()), new))
        for term, (name, objective) in zip(self.stage.objectives, self._objectives(), strict=True):
            lr = getattr(term, "lr", None) or new
            parts.append(Part(name, list(objective.parameters()), lr, objective.undecayed()))
        biases = [parameter for name, parameter in self.embedder.named_parameters() if name.endswith("bias")]
        decay, factor = settings.weight_decay, settings.bias_factor
        return parameter_groups(parts, weight_decay=decay, biases=biases, bias_factor=factor)

    def identity_centres(self) -> np.ndarray | None:
        return self.centres.means() if self.centres is not None else None

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        photos, labels, rows = (part.to(device, non_blocking=True) for part in (batch.photos, batch.labels, batch.rows))
        conditions = batch.conditions
        return Batch(photos, labels, rows, None if conditions is None else conditions.to(device, non_blocking=True))

    def _objectives(self) -> list[tuple[str, Objective]]:
        return [(name, cast(Objective, module)) for name, module in self.objectives.items()]


class Centres(nn.Module):
    """Mean direction of each identity's features over an epoch, accumulated in training; part of the checkpoint."""

    def __init__(self, identities: int, dim: int) -> None:
        super().__init__()
        self.sums: Tensor
        self.register_buffer("sums", torch.zeros(identities, dim))

    @torch.no_grad()
    def add(self, features: Tensor, labels: Tensor) -> None:
        self.sums.index_add_(0, labels, F.normalize(features.float(), dim=1))

    def means(self) -> np.ndarray | None:
        """(identities, dim), of length 1, equal on all ranks; 0 for identities without photos yet; None if all are."""
        sums = self.sums.clone()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(sums)
        return F.normalize(sums, dim=1).cpu().numpy() if sums.any() else None

    def clear(self) -> None:
        self.sums.zero_()
