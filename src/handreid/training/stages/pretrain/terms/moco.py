"""Momentum contrast, with a queue of keys (He et al. 2020) or with the batch's (Chen, Xie, He 2021)."""

import copy
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from handreid.models.backbone import Backbone
from handreid.objectives.momentum_contrast import momentum_contrast
from handreid.training.stages.pretrain.terms.base import Encoded, PretrainTerm, Result, normed_mlp, projection


class Moco(PretrainTerm):
    """Queries come from the trained tower, keys from a copy that follows it: k = m k + (1 - m) q after each step.

    `queue`: He et al., "Momentum Contrast" (2020), with the projection of Chen et al. (2020), "Improved Baselines". The
    queue begins with random directions, as in their code. `v3`: Chen, Xie, He, "An Empirical Study of Training
    Self-Supervised Vision Transformers" (2021): keys of the batch, both views in both roles, a prediction head, and the
    loss times 2 temperature, as in their code.

    Where we differ: keys of the query's own photo are no negatives (see `momentum_contrast`). Batch norms of the key
    tower use the trained tower's running statistics instead of the batch's, so that no statistics of the batch give
    away which key belongs to a query; the paper shuffles photos between GPUs for this, and the idea is that of EMAN
    (Cai et al. 2021). The momentum is constant, and the patch projection learns like all other layers.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        feature: Literal["joint", "pooled"],
        version: Literal["queue", "v3"],
        queue: int,
        momentum: float,
        temperature: float,
        hidden: int,
        width: int,
    ) -> None:
        super().__init__()
        self.feature = feature
        self.version = version
        self.momentum = momentum
        self.temperature = temperature
        self.encoded_views = 2 if version == "v3" else 1
        width_in = backbone.widths[feature]
        if version == "v3":
            self.projection = normed_mlp(width_in, hidden, width, layers=3)
            self.prediction: nn.Module = normed_mlp(width, hidden, width, layers=2)
        else:
            self.projection = projection(width_in, hidden, width)
            self.prediction = nn.Identity()
        self.key_backbone = copy.deepcopy(backbone).requires_grad_(False).eval()
        self.key_projection = copy.deepcopy(self.projection).requires_grad_(False)
        size = queue if version == "queue" else 0
        self.queue: Tensor
        self.queue_places: Tensor
        self.queue_next: Tensor
        self.register_buffer("queue", F.normalize(torch.randn(size, width), dim=1))
        self.register_buffer("queue_places", torch.full((size,), -1))
        self.register_buffer("queue_next", torch.zeros((), dtype=torch.long))

    def train(self, mode: bool = True) -> "Moco":
        super().train(mode)
        self.key_backbone.eval()
        return self

    def forward(self, encoded: Encoded) -> Result:
        return self._symmetric(encoded) if self.version == "v3" else self._with_queue(encoded)

    def _with_queue(self, encoded: Encoded) -> Result:
        queries = self.prediction(self.projection(getattr(encoded.features[0], self.feature)))
        keys = self.keys(encoded, 1)
        same = encoded.places[:, None] == self.queue_places
        # a copy, as the gradient needs the queue of before this batch
        loss, accuracy = momentum_contrast(queries, keys, self.queue.clone(), same, self.temperature)
        if self.training:
            self._enqueue(keys, encoded.places)
        return Result(loss, {"": queries}, {"queue_accuracy": accuracy})

    def _symmetric(self, encoded: Encoded) -> Result:
        queries = [self.prediction(self.projection(getattr(view, self.feature))) for view in encoded.features[:2]]
        keys = [self.keys(encoded, view) for view in (0, 1)]
        same = encoded.places[:, None] == encoded.places
        pairs = [
            momentum_contrast(query, key, key, same, self.temperature)
            for query, key in zip(queries, reversed(keys), strict=True)
        ]
        loss = 2 * self.temperature * (pairs[0][0] + pairs[1][0])
        return Result(loss, {"": torch.cat(queries)}, {"accuracy": (pairs[0][1] + pairs[1][1]) / 2})

    @torch.no_grad()
    def keys(self, encoded: Encoded, view: int) -> Float[Tensor, "batch width"]:
        """The keys of a view, of length 1, without a gradient."""
        features = self.key_backbone(encoded.pixels[view], encoded.conditions)
        return F.normalize(self.key_projection(getattr(features, self.feature)).float(), dim=1)

    @torch.no_grad()
    def _enqueue(self, keys: Float[Tensor, "batch width"], places: Int[Tensor, " batch"]) -> None:
        """The oldest keys are replaced; of a batch larger than the queue the last keys stay."""
        keys, places = keys[-len(self.queue) :], places[-len(self.queue) :]
        slots = (self.queue_next + torch.arange(len(keys), device=keys.device)) % len(self.queue)
        self.queue[slots] = keys.to(self.queue.dtype)
        self.queue_places[slots] = places
        self.queue_next.copy_((self.queue_next + len(keys)) % len(self.queue))

    @torch.no_grad()
    def after_step(self, backbone: Backbone) -> None:
        pairs = ((self.key_backbone, backbone), (self.key_projection, self.projection))
        for follower, leader in pairs:
            for slow, quick in zip(follower.parameters(), leader.parameters(), strict=True):
                slow.lerp_(quick.detach(), 1 - self.momentum)
        for held, current in zip(self.key_backbone.buffers(), backbone.buffers(), strict=True):
            held.copy_(current)

    def momentum_parameters(self) -> dict[str, nn.Parameter]:
        parts = {"key_backbone": self.key_backbone, "key_projection": self.key_projection}
        return {f"{name}.{own}": value for name, part in parts.items() for own, value in part.named_parameters()}

    def held_places(self) -> Tensor | None:
        return self.queue_places if self.version == "queue" else None
