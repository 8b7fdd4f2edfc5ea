"""What the checks ask of a stage in which sentences for identities learn, with both towers frozen."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handreid.training.checks import CheckResult, Pass, Probe
from handreid.training.checks.gradients import flat
from handreid.training.checks.overfit import memorise
from handreid.training.checks.probe import Question
from handreid.training.checks.small_batches import small_batches
from handreid.training.checks.texts import texts_of_prompts
from handreid.training.stages.learn_prompts.module import LearnPromptsModule

RATE = 1e-2  # of Adam, at which a few photos are memorised


class LearnPromptsProbe(Probe[LearnPromptsModule]):
    moving = frozenset({"contexts"})
    shared_name = "the contexts"

    @property
    def labels(self) -> Tensor:
        return self.module.labels

    def one_pass(self, batch: Any) -> Pass:
        total = self.module.training_step(batch, 0)
        self.module.seed_step(0)
        losses = self.module.losses(batch)
        return Pass(total, losses, {name: weight for name, weight in self.module.weights.items() if name in losses})

    def missing(self, first: Pass) -> list[str]:
        """By gradients: terms are computed anew beside the step, so the sum does not hold these ones."""
        own = list(self.module.learner.parameters())
        total = flat(torch.autograd.grad(first.total, own, retain_graph=True))
        parts = {
            name: first.weights[name] * flat(torch.autograd.grad(loss, own, retain_graph=True))
            for name, loss in first.losses.items()
        }
        missing = total - torch.stack(list(parts.values())).sum(dim=0)
        if missing.norm() <= 1e-3 * total.norm():
            return []
        nearest = min(parts, key=lambda name: float((missing + parts[name]).norm()))
        return [f"the loss is not the sum of its terms by their weights; what is missing is most like {nearest}"]

    def frozen(self) -> dict[str, nn.Parameter]:
        return {f"text.{name}": own for name, own in self.module.text.named_parameters()}

    def shared(self, now: Pass, name: str) -> list[Tensor]:
        return list(self.module.learner.parameters())

    def of_learning(self, first: Pass, *, fresh: bool) -> Iterator[Question]:
        module = self.module
        yield partial(texts_of_prompts, module.learner, module.text, shared=module.stage.contexts == "shared")

    def overfit(self) -> CheckResult:
        """With features that are as far apart as their identities, and no dropout."""
        module = self.module
        positions: Tensor = next(small_batches(self, identities=6, images=1))
        module.learner.dropout.p = 0.0
        with torch.no_grad():
            module.features[positions] = _apart(module.features[positions])
        labels = self.labels[positions]

        def right() -> tuple[int, int]:
            with torch.no_grad():
                texts = module.learner.mean(module.learner(module.text, labels))
                found = module.similarities(module.features[positions], texts).argmax(dim=1)
            return int((labels[found] == labels).sum()), len(labels)

        return memorise(module, positions, right, f"{len(labels)} photos of as many identities", RATE)


def _apart(features: Tensor) -> Tensor:
    """As long as before, and their mean taken away: what is asked is whether contexts lead texts to where photos are,
    and to an untrained tower all photos are alike.
    """
    centred = F.normalize(features - features.mean(dim=0), dim=1)
    apart: Tensor = centred * features.norm(dim=1).mean()
    return apart
