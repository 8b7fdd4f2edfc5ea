"""Prediction of numbers that the manifest states of every photo."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from handreid.objectives.distances import at_least_fp32
from handreid.training.stages.pretrain.terms.base import Encoded, PretrainTerm, Result


class Measurements(PretrainTerm):
    """A linear layer from the feature to all numbers, and the mean squared error; numbers have variance 1, see
    `training/stages/pretrain/measured.py`.
    """

    def __init__(self, width_in: int, numbers: int, *, feature: Literal["joint", "pooled"]) -> None:
        super().__init__()
        self.feature = feature
        self.predictor = nn.Linear(width_in, numbers)

    def forward(self, encoded: Encoded) -> Result:
        assert encoded.measured is not None  # noqa: S101 - for the type checker
        feature = getattr(encoded.features[0], self.feature)
        predicted = at_least_fp32(self.predictor(feature))
        loss = F.mse_loss(predicted, encoded.measured)
        with torch.no_grad():
            best = (predicted - encoded.measured).square().mean(dim=0).min()
        return Result(loss, {"": feature}, {"smallest_error": best})
