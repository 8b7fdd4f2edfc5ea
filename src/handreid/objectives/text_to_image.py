"""Contrast of each identity's text with the photos of a batch."""

from jaxtyping import Float
from torch import Tensor

from handreid.objectives.contrast import contrast, similarities
from handreid.objectives.distances import at_least_fp32, without_autocast
from handreid.objectives.objective import Objective
from handreid.types import Outputs, Targets


class TextToImage(Objective):
    """Mean over the batch's identities of the contrast of their text with the batch's photos.

    Li, Sun, Li, "CLIP-ReID" (2023), equation 4, there used to learn prompts; here the texts are fixed, one per
    identity, and photos learn. An identity's weight is its number of photos in the batch, as in the paper's sum.
    """

    def __init__(
        self, texts: Float[Tensor, "identities joint"], *, normalise: bool = False, temperature: float = 1.0
    ) -> None:
        super().__init__()
        self.texts: Tensor
        self.register_buffer("texts", texts, persistent=False)  # they are stored with the stage that learned them
        self.normalise = normalise
        self.temperature = temperature

    def forward(self, outputs: Outputs, targets: Targets) -> Float[Tensor, ""]:
        photos, labels = outputs.features.joint, targets.labels
        with without_autocast(photos):
            texts = self.texts[labels]  # one per photo: a text of n photos is an anchor n times
            logits = similarities(texts, at_least_fp32(photos), normalise=self.normalise, temperature=self.temperature)
            return contrast(logits, labels[:, None] == labels[None, :]).mean()
