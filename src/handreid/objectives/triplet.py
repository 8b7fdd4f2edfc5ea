"""Triplets of an anchor, a positive and a negative.

* Not pytorch-metric-learning's: its loss gathers triplets by index, whose gradient is summed in an order that depends
  on threads, so that a resumed run could not equal an uninterrupted one; its miners have no quantile.
* Triplets are selected by a mask, not by indices: a NaN feature makes the loss NaN.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from handreid.objectives.distances import at_least_fp32, cosines, euclidean, positive_negative_masks, without_autocast
from handreid.objectives.objective import Objective
from handreid.types import Neck, Outputs, Targets

Mining = Literal["batch_all", "batch_hard", "semi_hard", "hard_only"]


class Triplet(Objective):
    """Mean over triplets of [h + margin]+, with h = d(a, p) - d(a, n); summed over the features.

    Hermans, Beyer, Leibe, "In Defense of the Triplet Loss for Person Re-Identification" (2017). The margin `soft`
    replaces the hinge by ln(1 + exp(h)), which has no margin: a triplet violates it when h > 0. Triplets are

    * `batch_all`: all of the batch, the paper's L_BA, equation 6. The mean is over all of them, whatever they
      contribute; pytorch-metric-learning divides by the number of those that are not zero.
    * `batch_hard`: per anchor its farthest positive and its nearest negative, the paper's L_BH, equation 5. Anchors
      that lack either are left out of the mean.
    * `semi_hard`: those with d(a, p) < d(a, n) < d(a, p) + margin; Schroff, Kalenichenko, Philbin, "FaceNet" (2015),
      equation 4, without its choice of one negative per pair. With `soft` there is no upper end.
    * `hard_only`: of those that violate the margin, h + margin > 0, the ones whose h is at least the `quantile` of the
      violations' h. For fine-tuning on remaining errors: 1 - quantile of a batch's violations are used.

    Without any triplet the loss is 0 with a gradient of 0. Memory grows with the cube of the batch: 8 MB per
    intermediate result at 128 photos; `batch_hard` needs the square only.
    """

    def __init__(
        self,
        features: tuple[str, ...],
        *,
        mining: Mining = "batch_hard",
        margin: float | Literal["soft"] = 0.3,
        distance: Literal["euclidean", "cosine"] = "euclidean",
        quantile: float = 0.5,
        neck: Neck = "before",
    ) -> None:
        super().__init__()
        self.features = features
        self.mining = mining
        self.soft = margin == "soft"
        self.margin = 0.0 if margin == "soft" else margin
        self.distance = distance
        self.quantile = quantile
        self.neck = neck

    def forward(self, outputs: Outputs, targets: Targets) -> Float[Tensor, ""]:
        features = outputs.at(self.neck)
        return torch.stack([self._loss(features[name], targets.labels) for name in self.features]).sum()

    def _loss(self, features: Float[Tensor, "batch dim"], labels: Int[Tensor, " batch"]) -> Float[Tensor, ""]:
        with without_autocast(features):
            features = at_least_fp32(features)
            distances = euclidean(features) if self.distance == "euclidean" else 1 - cosines(features)
            positive, negative = positive_negative_masks(labels)
            if self.mining == "batch_hard":
                hardness, mask = _hardest(distances, positive, negative)
            else:
                hardness = distances[:, :, None] - distances[:, None, :]
                mask = self._select(hardness.detach(), positive[:, :, None] & negative[:, None, :])
            losses = F.softplus(hardness) if self.soft else F.relu(hardness + self.margin)
            return (losses * mask).sum() / mask.sum().clamp(min=1)

    def _select(self, hardness: Float[Tensor, "a p n"], valid: Bool[Tensor, "a p n"]) -> Bool[Tensor, "a p n"]:
        if self.mining == "batch_all":
            return valid
        violating = valid & (hardness > -self.margin)
        if self.mining == "semi_hard":
            return (valid if self.soft else violating) & (hardness < 0)
        if not violating.any():
            return violating
        return violating & (hardness >= torch.quantile(hardness[violating], self.quantile))


def _hardest(
    distances: Float[Tensor, "a b"], positive: Bool[Tensor, "a b"], negative: Bool[Tensor, "a b"]
) -> tuple[Float[Tensor, " a"], Bool[Tensor, " a"]]:
    """Hardness of each anchor's hardest triplet, and which anchors have one; 0 for the others."""
    valid = positive.any(dim=1) & negative.any(dim=1)
    farthest = distances.masked_fill(~positive, -torch.inf).amax(dim=1)
    nearest = distances.masked_fill(~negative, torch.inf).amin(dim=1)
    return (farthest - nearest).where(valid, distances.new_zeros(())), valid
