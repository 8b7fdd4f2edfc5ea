"""Momentum contrast: a query finds its own key among the keys of other photos."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from handreid.objectives.distances import at_least_fp32, without_autocast


def momentum_contrast(
    queries: Float[Tensor, "batch dim"],
    keys: Float[Tensor, "batch dim"],
    others: Float[Tensor, "others dim"],
    same: Bool[Tensor, "batch others"],
    temperature: float,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The loss, and the share of queries whose own key is nearer than all `others`.

    He et al., "Momentum Contrast for Unsupervised Visual Representation Learning" (2020), equation 1: the mean over the
    queries q of -ln exp(q k+ / temperature) / sum of exp(q k / temperature) over k+ and the others, for vectors of
    length 1. Where we differ: others that are `same`, of the query's own photo, are left out of the sum. In the paper's
    10^6 photos there are nearly none; on a few hundred photos a queue holds each of them several times.
    """
    with without_autocast(queries):
        queries, keys, others = (F.normalize(at_least_fp32(part), dim=1) for part in (queries, keys, others))
        own = (queries * keys).sum(dim=1, keepdim=True)
        rest = (queries @ others.T).masked_fill(same, torch.finfo(own.dtype).min)
        logits = torch.cat([own, rest], dim=1) / temperature
        loss = F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))
        return loss, (own[:, 0] > rest.max(dim=1).values).float().mean().detach()
