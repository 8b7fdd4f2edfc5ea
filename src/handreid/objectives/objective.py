"""One term of the loss."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn

from handreid.types import Outputs, Targets


class Objective(nn.Module, ABC):
    """Reads `Outputs`, owns its parameters (classifiers, centres), gives one number for the batch.

    `OBJECTIVES` in `table.py` has the class of each kind of term. Its keyword arguments are the fields of the term's
    model, without `kind`, `weight`, `lr` and `features`. The positional arguments of a term that learns (`LearnedTerm`)
    are the widths of its features by name and the number of identities; of any other, the names of its features.
    """

    @abstractmethod
    def forward(self, outputs: Outputs, targets: Targets) -> Float[Tensor, ""]: ...

    def undecayed(self) -> list[nn.Parameter]:
        """Parameters that are points, not maps, such as centres: weight decay would pull them to the origin."""
        return []

    def at_epoch(self, epoch: float) -> None:
        """Called before every step with the epochs done in the stage; for schedules such as a growing margin."""


def weighted_mean(loss: Float[Tensor, " batch"], share: Float[Tensor, " batch"] | None) -> Float[Tensor, ""]:
    """Mean over the batch of losses of photos, each weighted by its share; see `Targets.parts`."""
    return loss.mean() if share is None else (share * loss).mean()
