"""Weight averaging over a stage, with torch's `AveragedModel`.

* Batch-norm statistics are averaged like weights, as in timm; exact ones would need another pass over the photos.
* The average is part of the checkpoint: a resumed run continues it.
"""

from typing import cast

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from handreid.models.embedder import Embedder
from handreid.recipe.stages import Ema, Swa


class Averaging(nn.Module):
    """The average of an embedder's weights, over steps (`Ema`) or over the last epochs (`Swa`)."""

    def __init__(self, embedder: Embedder, how: Ema | Swa, epochs: int) -> None:
        super().__init__()
        self.how = how
        self.first = int(how.start * epochs) if isinstance(how, Swa) else 0
        rule = get_ema_multi_avg_fn(how.decay) if isinstance(how, Ema) else None  # type: ignore[no-untyped-call]
        self.model = AveragedModel(embedder, multi_avg_fn=rule, use_buffers=True).requires_grad_(False)

    def after_step(self, embedder: Embedder) -> None:
        if isinstance(self.how, Ema):
            self.model.update_parameters(embedder)

    def after_epoch(self, embedder: Embedder, epoch: int) -> None:
        """`epoch` counts from 0."""
        if isinstance(self.how, Swa) and epoch >= self.first:
            self.model.update_parameters(embedder)

    @property
    def result(self) -> Embedder | None:
        """The averaged embedder; None before the first update."""
        return cast(Embedder, self.model.module) if self.model.n_averaged else None
