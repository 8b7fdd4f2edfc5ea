"""Overfitting check: can the stage memorise a few photos?

* Photos of the stage's own first batch, without augmentation, dropout, mixing and label smoothing, and with labels
  exchanged between people: what the tower has learned before does not help, and a classifier alone, on constant
  features, cannot make photos of one label nearest neighbours.
* Adam at a rate suitable for a few photos, whatever the recipe's: tested is whether gradients reduce the loss, not how
  fast.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from handreid.training.checks.result import CheckResult, verdict
from handreid.training.stage_module import StageModule

STEPS = 150
SHARE = 0.5  # of its initial value that the loss must fall below
EVERY = 10  # steps between tests


def memorise(
    module: StageModule, batch: Any, right: Callable[[], tuple[int, int]], what: str, rate: float
) -> CheckResult:
    """Trains the module on this one batch. `right` gives the number of correct photos, and of all photos.

    `what` describes the batch for messages; `rate` is Adam's learning rate. The module stays changed.
    """
    return _judge(_learn(module, batch, rate), right, what, rate)


def _learn(module: StageModule, batch: Any, rate: float) -> Iterator[float]:
    """The loss before each step."""
    groups = module.groups()
    optimizer = torch.optim.Adam(
        [parameter for group in groups for parameter in group["params"] if parameter.requires_grad], lr=rate
    )
    for _ in range(STEPS):
        loss: Any = module.training_step(batch, 0)
        yield float(loss.detach())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([parameter for group in optimizer.param_groups for parameter in group["params"]], 1.0)
        optimizer.step()
        module.after_step()


def _judge(losses: Iterator[float], right: Callable[[], tuple[int, int]], what: str, rate: float) -> CheckResult:
    start = loss = next(losses)
    steps = good = count = 0
    for steps, loss in enumerate(losses, 1):
        if steps % EVERY:
            continue
        good, count = right()
        if good == count and loss < SHARE * start:
            break
    summary = f"{what}: loss {start:.3g} to {loss:.3g} in {steps} steps at {rate:g}, {good} of {count} right"
    wrong = []
    if not loss < SHARE * start:
        wrong.append(f"the loss of {what} went from {start:.3g} to {loss:.3g} in {steps} steps at a rate of {rate:g}")
    if good < count:
        wrong.append(f"{good} of {count} photos are classified or ranked right after {steps} steps ({what})")
    return verdict("overfit", wrong, summary, "the model cannot memorise one batch, so training cannot work")
