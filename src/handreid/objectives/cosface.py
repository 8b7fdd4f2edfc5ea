"""Classification by angle with a margin on the cosine."""

from jaxtyping import Float
from torch import Tensor

from handreid.objectives.margin_softmax import MarginSoftmax


class CosFace(MarginSoftmax):
    """Cross-entropy of s (cos(theta) - m) for the right identity and s cos(theta) for the others.

    Wang et al., "CosFace: Large Margin Cosine Loss for Deep Face Recognition" (2018), equation 4.
    """

    def __init__(
        self,
        widths: dict[str, int],
        identities: int,
        *,
        scale: float = 30.0,
        margin: float = 0.35,
        margin_warmup_epochs: float = 0.0,
    ) -> None:
        super().__init__(widths, identities, scale=scale, margin=margin, margin_warmup_epochs=margin_warmup_epochs)

    def with_margin(self, angles: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        return angles.cos() - self.margin
