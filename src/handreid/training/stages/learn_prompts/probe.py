"""Interface of the `learn_prompts` stage for the checks before the first step."""

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

RATE = 1e-2  # learning rate of Adam to memorise a few photos


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

    def missing(self, result: Pass) -> list[str]:
        """By gradients: `losses` are computed again, separately from the step, so `total` does not depend on them."""
        contexts = list(self.module.learner.parameters())
        total = flat(torch.autograd.grad(result.total, contexts, retain_graph=True))
        parts = {
            name: result.weights[name] * flat(torch.autograd.grad(loss, contexts, retain_graph=True))
            for name, loss in result.losses.items()
        }
        missing = total - torch.stack(list(parts.values())).sum(dim=0)
        if missing.norm() <= 1e-3 * total.norm():
            return []
        nearest = min(parts, key=lambda name: float((missing + parts[name]).norm()))
        return [f"the loss is not the sum of its terms by their weights; what is missing is most like {nearest}"]

    def frozen(self) -> dict[str, nn.Parameter]:
        return {f"text.{name}": parameter for name, parameter in self.module.text.named_parameters()}

    def shared(self, result: Pass, name: str) -> list[Tensor]:
        return list(self.module.learner.parameters())

    def of_learning(self, result: Pass, *, fresh: bool) -> Iterator[Question]:
        module = self.module
        yield partial(texts_of_prompts, module.learner, module.text, shared=module.stage.contexts == "shared")

    def overfit(self) -> CheckResult:
        """With features spread apart (`_apart`), and no dropout."""
        module = self.module
        positions: Tensor = next(small_batches(self, identities=6, images=1))
        module.learner.dropout.p = 0.0
        with torch.no_grad():
            module.features[positions] = _apart(module.features[positions])
        labels = self.labels[positions]

        def right() -> tuple[int, int]:
            with torch.no_grad():
                texts = module.learner.mean(module.learner(module.text, labels))
                nearest = module.similarities(module.features[positions], texts).argmax(dim=1)
            return int((labels[nearest] == labels).sum()), len(labels)

        return memorise(module, positions, right, f"{len(labels)} photos of as many identities", RATE)


def _apart(features: Tensor) -> Tensor:
    """Features without their common mean, with the mean length of before: whether contexts can move texts to features
    is only testable if these differ, and to an untrained tower all photos are similar.
    """
    centred = F.normalize(features - features.mean(dim=0), dim=1)
    apart: Tensor = centred * features.norm(dim=1).mean()
    return apart
