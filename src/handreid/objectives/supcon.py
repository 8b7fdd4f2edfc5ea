"""Supervised contrastive learning."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from handreid.objectives.distances import at_least_fp32, cosines, positive_negative_masks, without_autocast
from handreid.objectives.objective import Objective
from handreid.types import Neck, Outputs, Targets


class SupCon(Objective):
    """Each photo is pulled to its identity's photos, away from the others of the batch; summed over the features.

    Khosla et al., "Supervised Contrastive Learning" (2020), equation 2 (L_out): with z of length 1 and P(i) the other
    photos of i's identity, the mean over i of -1/|P(i)| sum over p in P(i) of ln softmax(z_i z_a / temperature)_p,
    where a runs over all photos except i. Where we differ: the paper sums over i and has two views of every photo; we
    take the mean over those that have a positive, and compare each photo with the batch as drawn. Without any pair the
    loss is 0 with a gradient of 0.
    """

    def __init__(self, features: tuple[str, ...], *, temperature: float = 0.1, neck: Neck = "before") -> None:
        super().__init__()
        self.features = features
        self.temperature = temperature
        self.neck = neck

    def forward(self, outputs: Outputs, targets: Targets) -> Float[Tensor, ""]:
        features = outputs.at(self.neck)
        return torch.stack(
            [supervised_contrast(features[name], targets.labels, self.temperature) for name in self.features]
        ).sum()


def supervised_contrast(
    features: Float[Tensor, "batch dim"], labels: Int[Tensor, " batch"], temperature: float
) -> Float[Tensor, ""]:
    """The mean over all rows that have a positive; see `SupCon`. With two views of each photo, and the photo's number
    as label, it is SimCLR's NT-Xent (Chen et al. 2020, equation 1).
    """
    with without_autocast(features):
        logits = cosines(at_least_fp32(features)) / temperature
        itself = torch.eye(len(labels), dtype=torch.bool, device=logits.device)
        # not -inf: the softmax of a photo that is alone would be 0 / 0
        log_sums = logits.masked_fill(itself, torch.finfo(logits.dtype).min).logsumexp(dim=1, keepdim=True)
        positive, _ = positive_negative_masks(labels)
        counts = positive.sum(dim=1)
        losses = ((log_sums - logits) * positive).sum(dim=1) / counts.clamp(min=1)
        return losses.sum() / counts.count_nonzero().clamp(min=1)
