"""Classification by angle with an additive angular margin."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from handreid.objectives.margin_softmax import MarginSoftmax


class ArcFace(MarginSoftmax):
    """Cross-entropy of s cos(theta + m) for the right identity and s cos(theta) for the others.

    Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition" (2019), equation 3, with the margin
    in radians. Beyond theta = pi - m, which the equation does not cover, cos(theta + m) would rise again and reward a
    larger error. There it is replaced by cos(theta) - m sin(m), as in the authors' code: after a step down it keeps
    falling. Such angles are rare: in many dimensions a random angle is near pi / 2.
    """

    def __init__(
        self,
        widths: dict[str, int],
        identities: int,
        *,
        scale: float = 30.0,
        margin: float = 0.5,
        margin_warmup_epochs: float = 0.0,
    ) -> None:
        super().__init__(widths, identities, scale=scale, margin=margin, margin_warmup_epochs=margin_warmup_epochs)

    def with_margin(self, angles: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        past = angles > math.pi - self.margin
        return torch.where(past, angles.cos() - self.margin * math.sin(self.margin), (angles + self.margin).cos())
