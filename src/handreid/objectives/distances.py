"""Distances and cosines between the features of a batch, for the objectives that use pairs.

* In fp32 even under autocast: in fp16 the difference of two near features is lost, and squares overflow. fp32 and fp64
  stay as they are.
* Features that are equal have a finite gradient.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

Comparison = Float[Tensor, "batch batch"]


def without_autocast(features: Tensor) -> torch.autocast:
    """A context in which results computed from `features` are not rounded to half precision."""
    return torch.autocast(features.device.type, enabled=False)


def at_least_fp32(features: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
    return features.to(torch.promote_types(features.dtype, torch.float32))


def euclidean(features: Float[Tensor, "batch dim"]) -> Comparison:
    """Distances, from differences and not from |x|^2 - 2xy + |y|^2.

    The expanded form, which `cdist` uses by default from 26 photos on, cancels digits for near features: with CLIP's
    width and a norm of 10 it gives up to 0.006 between a feature and itself. The gradient where two features are equal
    is 0, `cdist`'s choice among the subgradients there; that of a square root would be infinite.
    """
    return torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")


def cosines(features: Float[Tensor, "batch dim"]) -> Comparison:
    unit = F.normalize(features, dim=1)
    return unit @ unit.T


def positive_negative_masks(
    labels: Int[Tensor, " batch"],
) -> tuple[Bool[Tensor, "batch batch"], Bool[Tensor, "batch batch"]]:
    """Which photos (columns) are positives, and which negatives, of each photo (rows); itself is neither."""
    same = labels[:, None] == labels[None, :]
    return same.fill_diagonal_(False), labels[:, None] != labels[None, :]
