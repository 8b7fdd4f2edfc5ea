"""What the checks ask of a stage, whatever its kind: a few photos, one pass, what has to stay as it is.

A kind of stage answers with a subclass. What has a default here is right for any stage whose loss is a weighted sum of
terms and whose `train_dataloader` has a sampler of positions, or gives its own `batches`.
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
Question = Callable[
    [], CheckResult | Sequence[CheckResult] | None
]  # a check that is still to be made; None: nothing to check


@dataclass(frozen=True)
class Pass:
    """Some photos through a stage's `training_step`: the sum, and the terms in it with their weights."""

    total: Tensor
    losses: dict[str, Tensor]
    weights: dict[str, float]


class Probe(ABC, Generic[Module]):
    """What the checks of a stage that is about to begin ask of its module."""

    moving: frozenset[str] = frozenset()  # parts of the optimizer of which something must move, gradient or not
    shared_name = "the parameters"  # what `shared` gives, as messages call it

    def __init__(self, module: Module) -> None:
        self.module = module

    @property
    @abstractmethod
    def labels(self) -> Tensor | None:
        """Label of every position that the sampler may draw; None for a stage that reads no labels."""

    @abstractmethod
    def one_pass(self, batch: Any) -> Pass:
        """A batch, as `train_dataloader` gives it, through the module's `training_step`."""

    def drawn(self) -> Iterator[list[Drawn]]:
        """The batches of the first epoch, as positions and seeds. A position may be a photo, or several."""
        sampler: Any = self.module.train_dataloader().sampler
        yield from sampler

    def batch(self, drawn: list[Drawn]) -> Any:
        """What the module trains on of these positions."""
        return self.module.train_dataloader().dataset[drawn]

    def expected_labels(self, split: Split) -> list[int]:
        """What `labels` have to be: the place of each training photo's identity among the names."""
        places = {name: place for place, name in enumerate(split.train_identities())}
        return [places[split.identities[row]] for row in split.train]

    def unlike_labels(self, identities: int) -> list[str]:
        """What else of the stage does not go with so many identities."""
        return []

    def frozen(self) -> dict[str, nn.Parameter]:
        """What the recipe says does not learn in the first epoch, by name; not what a rule of its own moves."""
        return {}

    def missing(self, first: Pass) -> list[str]:
        """Terms whose part in the sum is not their weight."""
        known = [name for name, loss in first.losses.items() if loss.requires_grad]
        terms = [first.losses[name] for name in known]
        parts: Sequence[Tensor | None] = torch.autograd.grad(first.total, terms, retain_graph=True, allow_unused=True)
        wrong = []
        for name, part in zip(known, parts, strict=True):
            weight = first.weights[name]
            if part is None:
                wrong.append(f"{name} is computed but not in the loss")
            elif not math.isclose(part.item(), weight, rel_tol=1e-4):
                wrong.append(f"{name} is in the loss with the weight {part.item():g}, not {weight:g}")
        return wrong

    def shared(self, now: Pass, name: str) -> list[Tensor]:
        """Where the gradient of a term is taken that it shares with others: what they read, or all that learns."""
        return [own for group in self.module.groups() for own in group["params"] if own.requires_grad]

    def own(self, name: str) -> list[Tensor]:
        """Parameters that a term alone has."""
        return []

    def exchanged(self, now: Pass, name: str) -> Tensor | None:
        """A term of the same photos with exchanged labels; None where a term always has something to say."""
        return None

    def of_photos(self, job: Job) -> Iterator[Question]:
        """Further checks of what the stage trains on."""
        return iter(())

    def of_learning(self, first: Pass, *, fresh: bool) -> Iterator[Question]:
        """Further checks of a first pass; `fresh` where the stage begins, and does not go on."""
        return iter(())

    def overfit(self) -> CheckResult | None:
        """Whether a few photos can be memorised, with `checks.overfit`; leaves a trace. None: it is not checked."""
        return None
