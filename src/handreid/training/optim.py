"""Which parameters learn, how fast, and when."""

import bisect
import math
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import nn

from handreid.recipe import (
    ConstantSchedule,
    CosineSchedule,
    MultistepSchedule,
    OneCycleSchedule,
    Optimizer,
)

Group = dict[str, Any]


def parameter_groups(
    encoder: nn.Module, new_layers: Iterable[nn.Module], *, lr: float, new_factor: float, weight_decay: float
) -> list[Group]:
    """Every parameter that may learn, each once: encoder and new layers, with and without decay.

    Vectors (biases, norms, the class token) do not decay.
    """
    groups: list[Group] = []
    for where, modules, rate in (("encoder", [encoder], lr), ("new layers", list(new_layers), lr * new_factor)):
        parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
        for decays in (True, False):
            chosen = [p for p in parameters if (p.ndim > 1) == decays]
            if chosen:
                name = f"{where}, {'decayed' if decays else 'not decayed'}"
                groups.append(
                    {"params": chosen, "lr": rate, "weight_decay": weight_decay if decays else 0.0, "name": name}
                )
    return groups


def build_optimizer(
    groups: list[Group], kind: Literal["adam", "adamw", "sgd"], momentum: float
) -> torch.optim.Optimizer:
    match kind:
        case "adam":
            return torch.optim.Adam(groups)
        case "adamw":
            return torch.optim.AdamW(groups)
        case "sgd":
            return torch.optim.SGD(groups, lr=groups[0]["lr"], momentum=momentum)


def rate_factor(schedule: Optimizer, epochs: int, steps_per_epoch: int) -> Callable[[int], float]:
    """What every group's rate is multiplied by at a step (from 0); stated in epochs, stepped per batch."""
    factor = _factor(schedule.schedule, float(epochs))
    return lambda step: factor(step / steps_per_epoch)


def _factor(
    schedule: ConstantSchedule | CosineSchedule | MultistepSchedule | OneCycleSchedule, epochs: float
) -> Callable[[float], float]:
    warmup, start = schedule.warmup_epochs, schedule.warmup_factor

    def after(epoch: float) -> float:
        match schedule:
            case ConstantSchedule():
                return 1.0
            case MultistepSchedule(milestones=milestones, gamma=gamma):
                return float(gamma ** bisect.bisect_right(sorted(milestones), epoch))
            case CosineSchedule(final_factor=final) | OneCycleSchedule(final_factor=final):
                left = epochs - warmup  # 0 for a stage that is all warm-up
                return final + (1 - final) * (_half_cosine((epoch - warmup) / left) if left else 1.0)

    def factor(epoch: float) -> float:
        if epoch >= warmup:
            return after(epoch)
        share = epoch / warmup
        if isinstance(schedule, OneCycleSchedule):
            share = 1 - _half_cosine(share)
        return start + (1 - start) * share

    return factor


def _half_cosine(share: float) -> float:
    """From 1 at 0 to 0 at 1."""
    return 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
