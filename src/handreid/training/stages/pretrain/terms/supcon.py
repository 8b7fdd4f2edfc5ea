"""Supervised contrast over the views of a batch's photos; with one label a photo it is SimCLR's NT-Xent."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from handreid.objectives.supcon import supervised_contrast
from handreid.training.stages.pretrain.terms.base import Encoded, PretrainTerm, Result, projection


class SupCon(PretrainTerm):
    """Khosla et al., "Supervised Contrastive Learning" (2020), equation 2 (L_out), over 2N views of N photos, or over
    one view of each.

    Where we differ: the mean over the views instead of the sum, as in their code; and the projection stays small (see
    the recipe). `by_photo`: every photo is a label of its own, Chen et al., "A Simple Framework for Contrastive
    Learning" (2020), equation 1.
    """

    def __init__(
        self,
        width_in: int,
        *,
        feature: Literal["joint", "pooled"],
        by_photo: bool,
        views: Literal[1, 2],
        projected: bool,
        temperature: float,
        hidden: int,
        width: int,
    ) -> None:
        super().__init__()
        self.feature = feature
        self.by_photo = by_photo
        self.temperature = temperature
        self.encoded_views = views
        self.projection: nn.Module = projection(width_in, hidden, width) if projected else nn.Identity()

    def forward(self, encoded: Encoded) -> Result:
        features = torch.cat([getattr(view, self.feature) for view in encoded.features[: self.encoded_views]])
        projected = self.projection(features)
        labels = (encoded.places if self.by_photo else encoded.labels).repeat(self.encoded_views)
        loss = supervised_contrast(projected, labels, self.temperature)
        with torch.no_grad():
            unit = F.normalize(projected.float(), dim=1)
            nearest = (unit @ unit.T).fill_diagonal_(-2).argmax(dim=1)
            accuracy = (labels[nearest] == labels).float().mean()
        return Result(loss, {"": projected}, {"accuracy": accuracy})
