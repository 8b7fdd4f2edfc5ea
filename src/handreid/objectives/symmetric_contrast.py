"""Contrast between photos and the sentences composed from them, in both directions."""

from jaxtyping import Float
from torch import Tensor

from handreid.objectives.contrast import contrast, similarities
from handreid.objectives.distances import at_least_fp32, without_autocast
from handreid.objectives.objective import Objective
from handreid.types import Outputs, Targets


class SymmetricContrast(Objective):
    """Half the mean loss of photos against the batch's texts, half that of texts against its photos.

    Yang et al., "A Pedestrian is Worth One Prompt" (CVPR 2024): supervised contrastive learning in both directions.
    With v_i the joint feature of photo i, t_j the feature of the sentence made of photo j, and P(i) the photos of i's
    identity, i among them: the mean over i of -1/|P(i)| sum over p in P(i) of ln softmax(v_i t_a / temperature)_p,
    where a runs over the whole batch; and the same with v and t exchanged. Where we differ: we take the mean of the two
    directions. The temperature of 1 and features as they are, not normalised, are CLIP-ReID's (`contrast`).
    Raises ValueError when the head composed no sentences.
    """

    def __init__(self, features: tuple[str, ...], *, temperature: float = 1.0, normalise: bool = False) -> None:
        super().__init__()
        self.features = features
        self.temperature = temperature
        self.normalise = normalise

    def forward(self, outputs: Outputs, targets: Targets) -> Float[Tensor, ""]:
        if outputs.texts is None:
            raise ValueError("symmetric_contrast needs the texts of a head that composes sentences")
        photos = outputs.features.joint
        with without_autocast(photos):
            logits = similarities(
                at_least_fp32(photos),
                at_least_fp32(outputs.texts),
                normalise=self.normalise,
                temperature=self.temperature,
            )
            same = targets.labels[:, None] == targets.labels[None, :]
            return (contrast(logits, same).mean() + contrast(logits.T, same.T).mean()) / 2
