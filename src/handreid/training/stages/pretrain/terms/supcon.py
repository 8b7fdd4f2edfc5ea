"""Supervised contrast over two views of every photo; with one label a photo it is SimCLR's NT-Xent."""

from typing import Literal

import torch
import torch.nn.functional as F

from handreid.objectives.supcon import supervised_contrast
from handreid.training.stages.pretrain.terms.base import Encoded, PretrainTerm, Result, projection


class SupCon(PretrainTerm):
    """Khosla et al., "Supervised Contrastive Learning" (2020), equation 2 (L_out), over 2N views of N photos.

    Where we differ: the mean over the views instead of the sum, as in their code; and the projection stays small (see
    the recipe). `by_photo`: every photo is a label of its own, Chen et al., "A Simple Framework for Contrastive
    Learning" (2020), equation 1.
    """

    encoded_views = 2

    def __init__(
        self,
        width_in: int,
        *,
        feature: Literal["joint", "pooled"],
        by_photo: bool,
        temperature: float,
        hidden: int,
        width: int,
    ) -> None:
        super().__init__()
        self.feature = feature
        self.by_photo = by_photo
        self.temperature = temperature
        self.projection = projection(width_in, hidden, width)

    def forward(self, encoded: Encoded) -> Result:
        features = torch.cat([getattr(view, self.feature) for view in encoded.features[:2]])
        projected = self.projection(features)
        labels = (encoded.places if self.by_photo else encoded.labels).repeat(2)
        loss = supervised_contrast(projected, labels, self.temperature)
        with torch.no_grad():
            unit = F.normalize(projected.float(), dim=1)
            nearest = (unit @ unit.T).fill_diagonal_(-2).argmax(dim=1)
            accuracy = (labels[nearest] == labels).float().mean()
        return Result(loss, {"": projected}, {"accuracy": accuracy})
