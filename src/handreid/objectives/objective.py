"""One term of the loss."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn

from handreid.types import Outputs, Targets


class Objective(nn.Module, ABC):
    """Reads `Outputs`, owns its parameters (classifiers, centres), gives one number for the batch.

    `OBJECTIVES` in `table.py` names the class of each kind of term. Its keyword arguments are the fields of the term's
    model, without `kind`, `weight`, `lr` and `features`. Before them a term that learns (`LearnedTerm`) is given the
    widths of its features by name and the number of identities; any other is given the names of its features.
    """

    @abstractmethod
    def forward(self, outputs: Outputs, targets: Targets) -> Float[Tensor, ""]: ...

    def undecayed(self) -> list[nn.Parameter]:
        """Matrices that are places rather than maps, such as centres: weight decay would pull them to the origin."""
        return []

    def at_epoch(self, epoch: float) -> None:
        """Called before every step with the epochs that the stage has done; for what changes with time."""


def weighted_mean(loss: Float[Tensor, " batch"], share: Float[Tensor, " batch"] | None) -> Float[Tensor, ""]:
    """Mean over the batch of losses of photos, each weighted by its share; see `Targets.parts`."""
    return loss.mean() if share is None else (share * loss).mean()
