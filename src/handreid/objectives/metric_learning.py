"""Any loss of pytorch-metric-learning."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from handreid.errors import RecipeError
from handreid.objectives.distances import at_least_fp32, without_autocast
from handreid.objectives.objective import Objective
from handreid.types import Neck, Outputs, Targets


class MetricLearning(Objective):
    """A loss of pytorch-metric-learning, one per feature with its own parameters and memory; summed over the features.

    Musgrave, Belongie, Lim, "PyTorch Metric Learning" (2020); formulas are in the library's classes. Arguments of a
    loss that depend on the data (`num_classes`, `embedding_size`) are filled in. With `memory`, photos are also
    compared with that many of earlier batches: Wang et al., "Cross-Batch Memory for Embedding Learning" (2020). Siamese
    training is `ContrastiveLoss`: over all pairs of the batch, positives nearer than pos_margin, negatives farther
    than neg_margin. Where we differ: AngularLoss is given features of length 1, where the library normalises only
    anchors and positives, and `mean` over nothing is 0.

    Raises RecipeError for a loss, miner or argument that the library does not have, or that do not fit together; and
    from `forward` when a batch is larger than the memory.
    """

    def __init__(
        self,
        widths: dict[str, int],
        identities: int,
        *,
        loss: str,
        arguments: dict[str, object] | None = None,
        miner: str | None = None,
        miner_arguments: dict[str, object] | None = None,
        distance: str = "euclidean",
        reducer: str = "mean",
        memory: int | None = None,
        neck: Neck = "before",
    ) -> None:
        from handreid.objectives.pml_adapter import (  # takes seconds; not needed by other terms
            build_loss,
            build_memory,
            build_miner,
            dry_run,
        )

        super().__init__()
        self.memory = memory
        self.neck = neck
        self.normalised = loss == "AngularLoss"
        self.losses = nn.ModuleDict()
        self.miners = nn.ModuleDict()
        for name, width in widths.items():
            sizes: dict[str, object] = {"num_classes": identities, "embedding_size": width, "descriptors_dim": width}
            criterion = build_loss(loss, arguments or {}, distance, reducer, sizes)
            mined = build_miner(miner, miner_arguments or {}, distance) if miner else None
            dry_run(criterion, mined, width, identities)
            self.losses[name] = build_memory(criterion, mined, memory, width) if memory else criterion
            if mined and not memory:
                self.miners[name] = mined

    def forward(self, outputs: Outputs, targets: Targets) -> Float[Tensor, ""]:
        if self.memory is not None and len(targets.labels) > self.memory:
            raise RecipeError(
                f"objective metric_learning: memory {self.memory} is smaller than a batch of {len(targets.labels)}: "
                "make it several times larger than a batch"
            )
        features = outputs.at(self.neck)
        return torch.stack([self._loss(name, features[name], targets.labels) for name in self.losses]).sum()

    def undecayed(self) -> list[nn.Parameter]:
        """Proxies: places in feature space."""
        return [p for name, p in self.losses.named_parameters() if name.endswith("proxies")]

    def _loss(self, name: str, features: Tensor, labels: Tensor) -> Float[Tensor, ""]:
        with without_autocast(features):
            features = at_least_fp32(features)
            if self.normalised:
                features = F.normalize(features, dim=1)
            mined = self.miners[name](features, labels) if name in self.miners else None
            value: Tensor = self.losses[name](features, labels, mined)
            return value.sum()  # some of the library's losses give one element, not a scalar
