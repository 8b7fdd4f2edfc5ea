"""Photos classified by the texts of their identities."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from handreid.objectives.contrast import similarities
from handreid.objectives.distances import at_least_fp32, without_autocast
from handreid.objectives.objective import Objective, weighted_mean
from handreid.types import Outputs, Targets


class ImageToText(Objective):
    """Cross-entropy of a photo's similarities to the texts of all identities, with label smoothing.

    Li, Sun, Li, "CLIP-ReID" (2023), equation 7: features are compared as they are, without a temperature. `texts` are
    fixed, one per identity. A photo mixed of two identities has the loss of each by its share.
    """

    def __init__(
        self,
        texts: Float[Tensor, "identities joint"],
        *,
        label_smoothing: float = 0.1,
        normalise: bool = False,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.texts: Tensor
        self.register_buffer("texts", texts, persistent=False)  # they are stored with the stage that learned them
        self.label_smoothing = label_smoothing
        self.normalise = normalise
        self.temperature = temperature

    def forward(self, outputs: Outputs, targets: Targets) -> Float[Tensor, ""]:
        photos = outputs.features.joint
        with without_autocast(photos):
            photos = at_least_fp32(photos)
            logits = similarities(photos, self.texts, normalise=self.normalise, temperature=self.temperature)
            smoothing = self.label_smoothing
            losses = [
                weighted_mean(F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none"), share)
                for labels, share in targets.parts()
            ]
        return sum(losses[1:], losses[0])
