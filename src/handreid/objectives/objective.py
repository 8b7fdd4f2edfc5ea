"""One term of the loss."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn

from handreid.types import Outputs, Targets


class Objective(nn.Module, ABC):
    """Reads `Outputs`, owns its parameters (classifiers, centres), gives one number for the batch."""

    @abstractmethod
    def forward(self, outputs: Outputs, targets: Targets) -> Float[Tensor, ""]: ...
