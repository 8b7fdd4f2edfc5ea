"""Can the stage learn anything at all: a few photos by heart.

* Of the stage's own first batch, without augmentation, dropout, mixing and label smoothing, and with the labels of
  different people exchanged: what the tower knows already is of no help, and a classifier alone, over features that do
  not move, cannot make photos of one label each other's nearest.
* Adam at a rate that a few photos take, whatever the recipe's: it is asked whether gradients lead down, not how fast.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from handreid.training.checks.result import CheckResult, verdict
from handreid.training.stage_module import StageModule

STEPS = 150
SHARE = 0.5  # of its start that the loss must fall below
EVERY = 10  # steps between looks


def memorise(
    module: StageModule, batch: Any, right: Callable[[], tuple[int, int]], what: str, rate: float
) -> CheckResult:
    """Trains the module on this one batch. `right` gives how many photos are right, and of how many.

    `what` the batch is, in words; `rate` is Adam's. Leaves a trace.
    """
    return _judge(_learn(module, batch, rate), right, what, rate)


def _learn(module: StageModule, batch: Any, rate: float) -> Iterator[float]:
    """The loss before each step."""
    groups = module.groups()
    optimizer = torch.optim.Adam([own for group in groups for own in group["params"] if own.requires_grad], lr=rate)
    for _ in range(STEPS):
        loss: Any = module.training_step(batch, 0)
        yield float(loss.detach())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([own for group in optimizer.param_groups for own in group["params"]], 1.0)
        optimizer.step()
        module.after_step()


def _judge(losses: Iterator[float], right: Callable[[], tuple[int, int]], what: str, rate: float) -> CheckResult:
    start = now = next(losses)
    steps = good = count = 0
    for steps, now in enumerate(losses, 1):
        if steps % EVERY:
            continue
        good, count = right()
        if good == count and now < SHARE * start:
            break
    found = f"{what}: loss {start:.3g} to {now:.3g} in {steps} steps at {rate:g}, {good} of {count} right"
    wrong = []
    if not now < SHARE * start:
        wrong.append(f"the loss of {what} went from {start:.3g} to {now:.3g} in {steps} steps at a rate of {rate:g}")
    if good < count:
        wrong.append(f"{good} of {count} photos are classified or ranked right after {steps} steps ({what})")
    return verdict("overfit", wrong, found, "the model cannot memorise one batch, so training cannot work")
