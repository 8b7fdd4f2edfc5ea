"""Classification by angle, the base of ArcFace and CosFace, which differ in their margins.

* In fp32 even under autocast: in half precision the error of a cosine near 1 is larger than the effect of the margin.
* The angle to the right identity is computed from the chords to its weight and to the opposite point, not by acos,
  whose gradient is infinite where photo and weight agree and whose fp32 value is off by up to 5e-4 there.
* A feature of zeros has no direction: all its cosines are 0, and so is its gradient; division by a tiny norm would give
  a gradient that ruins the step.
"""

from abc import abstractmethod

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from handreid.objectives.distances import at_least_fp32, without_autocast
from handreid.objectives.objective import Objective, weighted_mean
from handreid.types import Outputs, Targets


class MarginSoftmax(Objective):
    """Cross-entropy of `scale` times cosines, the right identity's changed by a margin; summed over the features.

    One weight per identity and feature; features are read after the neck. Only the weights' directions classify. They
    are initialised uniformly on the sphere, so that no identity is nearer to the photos than another, and as short as
    those of the plain classifier: the angle by which a step turns a weight is inversely proportional to its length, and
    the steps of a fine-tuning are small. A photo mixed of two identities has the loss of each by its share, with the
    margin on that identity.

    The margin grows linearly over `margin_warmup_epochs`: before the weights point to their identities it would move
    the encoder without use.
    """

    def __init__(
        self,
        widths: dict[str, int],
        identities: int,
        *,
        scale: float,
        margin: float,
        margin_warmup_epochs: float,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.final_margin = margin
        self.warmup_epochs = margin_warmup_epochs
        self.weights = nn.ParameterDict(
            {name: nn.Parameter(0.001 * torch.randn(identities, width)) for name, width in widths.items()}
        )
        self.at_epoch(0.0)

    @abstractmethod
    def with_margin(self, angles: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """What replaces the cosine of the angle to the right identity; uses `self.margin`."""

    def at_epoch(self, epoch: float) -> None:
        grown = min(1.0, epoch / self.warmup_epochs) if self.warmup_epochs else 1.0
        self.margin = grown * self.final_margin

    def forward(self, outputs: Outputs, targets: Targets) -> Float[Tensor, ""]:
        losses = [
            weighted_mean(self._losses(outputs.after[name], weight, labels), share)
            for name, weight in self.weights.items()
            for labels, share in targets.parts()
        ]
        return torch.stack(losses).sum()

    def _losses(
        self,
        features: Float[Tensor, "batch width"],
        weight: Float[Tensor, "identities width"],
        labels: Int[Tensor, " batch"],
    ) -> Float[Tensor, " batch"]:
        with without_autocast(features):
            photos, identities = directions(at_least_fp32(features)), directions(weight)
            right = self.with_margin(angles(photos, F.embedding(labels, identities)))
            logits = self.scale * (photos @ identities.T).scatter(1, labels[:, None], right[:, None])
            return F.cross_entropy(logits, labels, reduction="none")


def directions(vectors: Float[Tensor, "any width"]) -> Float[Tensor, "any width"]:
    """Vectors of unit length; zeros stay zeros, with a gradient of 0."""
    return F.normalize(vectors * vectors.any(dim=1, keepdim=True), dim=1)


def angles(a: Float[Tensor, "any width"], b: Float[Tensor, "any width"]) -> Float[Tensor, " any"]:
    """Angles between vectors of unit length, row by row; in radians, 0 to pi, accurate also near both ends.

    The gradient at an angle of exactly 0 or pi, where there is a kink, is 0.
    """
    return 2 * torch.atan2(torch.linalg.vector_norm(a - b, dim=1), torch.linalg.vector_norm(a + b, dim=1))
