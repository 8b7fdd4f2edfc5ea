"""The supervised contrastive loss between photos and texts, for prompt learning and fine-tuning."""

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


def contrast(
    logits: Float[Tensor, "anchors others"],
    positive: Bool[Tensor, "anchors others"],
    counts: Float[Tensor, " others"] | None = None,
) -> Float[Tensor, " anchors"]:
    """For every anchor the mean over its positives of -ln softmax of their logits.

    Li, Sun, Li, "CLIP-ReID" (2023), equations 3 (photos as anchors, texts as others) and 4 (texts as anchors), which
    are Khosla et al. (2020), equation 2, over two kinds of features. `counts` says how often each of the others occurs
    in the batch: its weight in the denominator, so that it is computed only once. An anchor without a positive has a
    loss of 0.
    """
    weighted = logits if counts is None else logits + counts.log()
    losses = (weighted.logsumexp(dim=1, keepdim=True) - logits) * positive
    return losses.sum(dim=1) / positive.sum(dim=1).clamp(min=1)


def similarities(
    photos: Float[Tensor, "photos joint"],
    texts: Float[Tensor, "texts joint"],
    *,
    normalise: bool,
    temperature: float,
) -> Float[Tensor, "photos texts"]:
    """Products of features as they are, or of unit length, divided by the temperature."""
    if normalise:
        photos, texts = F.normalize(photos, dim=1), F.normalize(texts, dim=1)
    return photos @ texts.T / temperature
