"""The interface between the checks and a stage of any kind: small batches, one pass, frozen parameters.

Each kind of stage has a subclass. The defaults are right for any stage whose loss is a weighted sum of terms and whose
`train_dataloader` has a sampler of positions, or gives its own `batches`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from handreid.data.sampling import Drawn
from handreid.data.splits import Split
from handreid.training.checks.result import CheckResult
from handreid.training.context import Job
from handreid.training.stage_module import StageModule

Module = TypeVar("Module", bound=StageModule)
Question = Callable[[], CheckResult | Sequence[CheckResult] | None]  # a deferred check; None: nothing to check


@dataclass(frozen=True)
class Pass:
    """Result of a stage's `training_step` on some photos: the sum, and its terms with their weights."""

    total: Tensor
    losses: dict[str, Tensor]
    weights: dict[str, float]


class Probe(ABC, Generic[Module]):
    """What the checks need to know of a stage's module."""

    moving: frozenset[str] = (
        frozenset()
    )  # parts of the optimizer that must change in a step, with or without a gradient
    shared_name = "the parameters"  # name of what `shared` gives, for messages

    def __init__(self, module: Module) -> None:
        self.module = module

    @property
    @abstractmethod
    def labels(self) -> Tensor | None:
        """Label of every position that the sampler may draw; None for a stage that uses no labels."""

    @abstractmethod
    def one_pass(self, batch: Any) -> Pass:
        """Runs a batch, as from `train_dataloader`, through the module's `training_step`."""

    def drawn(self) -> Iterator[list[Drawn]]:
        """The batches of the first epoch, as positions and seeds. A position may be one photo, or several."""
        sampler: Any = self.module.train_dataloader().sampler
        yield from sampler

    def batch(self, drawn: list[Drawn]) -> Any:
        """The batch of these positions, as the module trains on it."""
        return self.module.train_dataloader().dataset[drawn]

    def expected_labels(self, split: Split) -> list[int]:
        """The right `labels`: the index of each training photo's identity among the names."""
        places = {name: place for place, name in enumerate(split.train_identities())}
        return [places[split.identities[row]] for row in split.train]

    def unlike_labels(self, identities: int) -> list[str]:
        """Other parts of the stage that do not match the number of identities, as messages."""
        return []

    def frozen(self) -> dict[str, nn.Parameter]:
        """Parameters that the recipe freezes in the first epoch, by name; without those updated by other rules."""
        return {}

    def missing(self, result: Pass) -> list[str]:
        """Messages on terms that are not in the sum with their weight."""
        names = [name for name, loss in result.losses.items() if loss.requires_grad]
        terms = [result.losses[name] for name in names]
        parts: Sequence[Tensor | None] = torch.autograd.grad(result.total, terms, retain_graph=True, allow_unused=True)
        wrong = []
        for name, part in zip(names, parts, strict=True):
            weight = result.weights[name]
            if part is None:
                wrong.append(f"{name} is computed but not in the loss")
            elif not math.isclose(part.item(), weight, rel_tol=1e-4):
                wrong.append(f"{name} is in the loss with the weight {part.item():g}, not {weight:g}")
        return wrong

    def shared(self, result: Pass, name: str) -> list[Tensor]:
        """Tensors at which the gradient of a term is computed: what all terms read, or all trainable parameters."""
        return [parameter for group in self.module.groups() for parameter in group["params"] if parameter.requires_grad]

    def own_parameters(self, name: str) -> list[Tensor]:
        """Trainable parameters that only this term has."""
        return []

    def exchanged(self, result: Pass, name: str) -> Tensor | None:
        """The term for the same photos with exchanged labels; None where a term cannot be zero."""
        return None

    def of_photos(self, job: Job) -> Iterator[Question]:
        """Further checks of the stage's training photos."""
        return iter(())

    def of_learning(self, result: Pass, *, fresh: bool) -> Iterator[Question]:
        """Further checks of a first pass; `fresh` unless the stage is resumed."""
        return iter(())

    def overfit(self) -> CheckResult | None:
        """Whether a few photos can be memorised, with `checks.overfit`; changes the module. None: not checked."""
        return None
