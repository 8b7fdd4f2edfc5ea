"""Base of every stage's Lightning module: means over an epoch, measured gradient clipping, seeded steps."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn

from handreid.errors import RunError
from handreid.models.text import TextEncoder
from handreid.recipe import Optimizer
from handreid.recipe.prompts import PromptOptimizer
from handreid.recipe.stage_base import StageValue
from handreid.training.optimizers import Group, build_optimizer, rate_factor


@runtime_checkable
class Saved(Protocol):
    def save(self, path: Path, *, before: Callable[[Path], object] | None = None) -> None:
        """`before` as in `write_atomic`."""


class StageModule(L.LightningModule, ABC):
    """Trains the parameters in `groups`. Each step has its own random seed, so that a resumed epoch is the same."""

    def __init__(self, stage: StageValue, optimizer: Optimizer | PromptOptimizer, *, seed: int) -> None:
        super().__init__()
        self.epochs = stage.epochs
        self.batches_per_step = stage.batches_per_step
        self.largest_norm = stage.clip_gradients
        self.optimizer = optimizer
        self.seed = seed
        self.sums: dict[str, Tensor] = {}

    @property
    @abstractmethod
    def result(self) -> Saved:
        """What is validated and saved."""

    @property
    def learned_text(self) -> TextEncoder | None:
        """The text tower where this stage trains it: it is saved beside `result`, at the same times."""
        return None

    @property
    @abstractmethod
    def batches_per_epoch(self) -> int: ...

    @property
    @abstractmethod
    def photos_per_epoch(self) -> int:
        """Photos that pass through the model in an epoch; two views of a photo count twice."""

    def photos_in(self, batch: Any) -> int:
        """Photos in a batch of `train_dataloader`, counted as in `photos_per_epoch`.

        A batch may be of any type; one whose length is not its number of photos needs another count.
        """
        return len(batch)

    @abstractmethod
    def groups(self) -> list[Group]:
        """All trainable parameters of this stage, each once."""

    def after_step(self) -> None:
        """Called after every step of the optimizer, such as to move a momentum encoder."""

    def close_epoch(self) -> None:
        """Called when an epoch's steps are done, before anything is validated or saved."""

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.batches_per_epoch // self.batches_per_step)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        batches = batch_idx + 1
        if batches % self.batches_per_step == 0 or batches == self.batches_per_epoch:
            self.after_step()

    def configure_optimizers(self) -> Any:
        settings = self.optimizer
        optimizer = build_optimizer(self.groups(), settings.kind, settings.momentum)
        factor = rate_factor(settings.schedule, self.epochs, self.steps_per_epoch)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips by the norm over all parameters; the norm before clipping is logged."""
        learning = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in learning if p.grad is not None])
        if gradient_clip_val is not None:
            nn.utils.clip_grads_with_norm_(learning, gradient_clip_val, norm)
        self._note(gradient_norm=norm)

    def epoch_means(self) -> dict[str, float]:
        """Mean over the epoch's steps of the loss, its terms and the gradient norm (before clipping).

        Raises RunError when the loss is not finite.
        """
        means = {name: (value[0] / value[1]).item() for name, value in self.sums.items()}
        if not math.isfinite(means["loss"]):
            terms = ", ".join(f"{name} {value:.3g}" for name, value in means.items())
            raise RunError(
                f"the loss is {means['loss']} in epoch {self.current_epoch + 1} ({terms}): "
                "lower optimizer.lr, lengthen the warm-up, or set clip_gradients"
            )
        return means

    def judge_epoch(self, numbers: Mapping[str, Any]) -> None:
        """Called with an epoch's line of metrics.jsonl once it is written, before the checkpoint: raises RunError if it
        makes no sense to go on.
        """

    def on_train_epoch_start(self) -> None:
        self.sums = {}

    def seed_step(self, index: int) -> None:
        seed = int(np.random.SeedSequence([self.seed, self.current_epoch, index]).generate_state(1)[0])
        if self.device.type == "cpu":
            torch.default_generator.manual_seed(seed)  # the same, without the stack trace that the next line records
        else:
            torch.manual_seed(seed)

    def _note(self, **values: Tensor) -> None:
        for name, value in values.items():
            pair = torch.stack([value.detach().float(), value.new_ones((), dtype=torch.float32)])
            self.sums[name] = self.sums[name] + pair if name in self.sums else pair
