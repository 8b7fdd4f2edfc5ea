"""Signs of collapse: how far features of an epoch spread, and in how many directions."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from handreid.recipe.pretrain_terms import Collapse

PREFIX = "features_"  # of the numbers in metrics.jsonl


class Spread:
    """Sums over features of unit length; what is asked of them does not depend on their order or batches."""

    def __init__(self) -> None:
        self.count = 0
        self.total = torch.zeros(())
        self.outer = torch.zeros(())

    def add(self, features: Float[Tensor, "batch dim"]) -> None:
        unit = F.normalize(features.detach().float(), dim=1).cpu().double()
        self.count += len(unit)
        self.total = self.total + unit.sum(dim=0)
        self.outer = self.outer + unit.T @ unit

    def spread(self) -> float:
        """The root of the variance summed over dimensions: 0 if all are equal, 1 if their mean is 0."""
        return math.sqrt(max(0.0, 1.0 - float((self.total / self.count).square().sum())))

    def effective_rank(self) -> float:
        """Exp of the entropy of the singular values of the centred features, scaled to the sum 1.

        Roy and Vetterli, "The Effective Rank" (2007), definition 1; 1 if all features are equal.
        """
        mean = self.total / self.count
        values = torch.linalg.eigvalsh(self.outer / self.count - mean[:, None] * mean).clamp(min=0).sqrt()
        shares = values[values > 1e-7] / values.sum()  # smaller ones are rounding errors
        return float(torch.exp(-(shares * shares.log()).sum())) if len(shares) else 1.0


def signs_of_collapse(numbers: dict[str, float], limits: Collapse) -> list[str]:
    """What is beyond the limits among an epoch's numbers, as messages."""
    signs = []
    for name, value in numbers.items():
        what = name.removeprefix(PREFIX)
        if name.endswith("_spread") and value < limits.spread:
            signs.append(f"{what} {value:.3g} is under {limits.spread:g}: all features are nearly equal")
        elif name.endswith("_effective_rank") and value < limits.effective_rank:
            signs.append(f"{what} {value:.3g} is under {limits.effective_rank:g}: features vary in one direction only")
        elif name.endswith("_temperature") and value > limits.temperature:
            signs.append(f"{what} {value:.3g} is over {limits.temperature:g}: the loss compares hardly anything")
    return signs
