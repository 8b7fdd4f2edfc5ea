"""One term of the loss of pre-training."""

from abc import ABC, abstractmethod
from collections import OrderedDict
from dataclasses import dataclass, field

from jaxtyping import Float, Int
from torch import Tensor, nn

from handreid.models.backbone import Backbone
from handreid.types import Features


@dataclass(frozen=True)
class Encoded:
    """What terms read of a batch: normalised pixels of each view, and the tower's features of the first views.

    `features` has as many views as a term asks for; `labels` and `places` as in `Views`.
    """

    pixels: list[Float[Tensor, "batch 3 height width"]]
    features: list[Features]
    labels: Int[Tensor, " batch"]
    places: Int[Tensor, " batch"]
    conditions: Int[Tensor, " batch"] | None = None
    tokens: Int[Tensor, "batch length"] | None = None
    measured: Float[Tensor, "batch numbers"] | None = None


@dataclass(frozen=True)
class Result:
    """The loss before its weight; features to be watched for collapse, by name; numbers to be logged, by name."""

    loss: Float[Tensor, ""]
    watched: dict[str, Tensor]
    numbers: dict[str, Tensor] = field(default_factory=dict)


class PretrainTerm(nn.Module, ABC):
    """Owns its projections, queues and momentum encoders; they are in the stage's checkpoint, and in no model."""

    encoded_views = 1  # views that the trained tower encodes for this term

    @abstractmethod
    def forward(self, encoded: Encoded) -> Result: ...

    def new_layers(self) -> list[nn.Parameter]:
        """Trainable parameters of this term."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def after_step(self, backbone: Backbone) -> None:
        """Called after every step of the optimizer."""

    def momentum_parameters(self) -> dict[str, nn.Parameter]:
        """Parameters that no gradient may reach, by name."""
        return {}

    def held_places(self) -> Tensor | None:
        """Places of the training photos that a memory holds, -1 where it is still empty; None without a memory."""
        return None


def projection(inputs: int, hidden: int, width: int) -> nn.Sequential:
    """Two layers, as SimCLR, SupCon and MoCo v2 train with and discard."""
    layers = [("hidden", nn.Linear(inputs, hidden)), ("relu", nn.ReLU()), ("out", nn.Linear(hidden, width))]
    return nn.Sequential(OrderedDict(layers))


def normed_mlp(inputs: int, hidden: int, width: int, layers: int) -> nn.Sequential:
    """Linear layers, each followed by a batch norm and between them ReLUs: MoCo v3's projection and prediction heads.

    The last batch norm has no parameters, as there.
    """
    parts: list[nn.Module] = []
    for number in range(layers):
        last = number == layers - 1
        size = width if last else hidden
        parts.append(nn.Linear(inputs if number == 0 else hidden, size, bias=False))
        parts += [nn.BatchNorm1d(size, affine=False)] if last else [nn.BatchNorm1d(size), nn.ReLU()]
    return nn.Sequential(*parts)
