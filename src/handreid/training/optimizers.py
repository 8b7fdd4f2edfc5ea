"""Parameter groups, optimizers and learning-rate schedules."""

import bisect
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from handreid.recipe import (
    ConstantSchedule,
    CosineSchedule,
    MultistepSchedule,
    OneCycleSchedule,
    Schedule,
)

Group = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """Parameters with one learning rate; those in `undecayed` have no weight decay, whatever their shape."""

    name: str
    parameters: Sequence[nn.Parameter]
    lr: float
    undecayed: Sequence[nn.Parameter] = ()


def parameter_groups(
    parts: Iterable[Part], *, weight_decay: float, biases: Iterable[nn.Parameter] = (), bias_factor: float = 1.0
) -> list[Group]:
    """Every parameter that may learn, each once: part by part, with and without decay.

    Vectors (biases, norms, the class token) do not decay. Those in `biases` learn at `bias_factor` times their
    part's rate. Raises ValueError when two parts share a parameter.
    """
    groups: list[Group] = []
    grouped: set[int] = set()
    quicker = {id(p) for p in biases} if bias_factor != 1 else set()
    for part in parts:
        free = {id(p) for p in part.undecayed}
        learning = [p for p in part.parameters if p.requires_grad]
        if grouped & {id(p) for p in learning}:
            raise ValueError(f"a parameter of {part.name} is already in an earlier group")
        grouped |= {id(p) for p in learning}
        for decays, quickly in itertools.product((True, False), (False, True)):
            candidates = [p for p in learning if (id(p) in quicker) == quickly]
            parameters = [p for p in candidates if (p.ndim > 1 and id(p) not in free) == decays]
            if parameters:
                name = f"{part.name}, {'decayed' if decays else 'not decayed'}{', biases' if quickly else ''}"
                decay, lr = weight_decay if decays else 0.0, part.lr * (bias_factor if quickly else 1.0)
                groups.append({"params": parameters, "lr": lr, "weight_decay": decay, "name": name})
    return groups


def encoder_parts(layers: Sequence[Sequence[nn.Parameter]], lr: float, layer_decay: float) -> list[Part]:
    """The encoder as one part, or with `layer_decay` under 1 a part per layer.

    Layers after the last block learn at `lr`, the last block at lr * layer_decay, the one before it at
    lr * layer_decay^2, and so on down to the stem (Clark et al. 2020, ELECTRA, appendix A; Bao et al. 2022, BEiT).
    """
    if layer_decay == 1:
        return [Part("encoder", [parameter for layer in layers for parameter in layer], lr)]
    top = len(layers) - 1
    names = ["stem", *(f"block {number}" for number in range(1, top)), "after the blocks"]
    return [
        Part(f"encoder, {name}", list(layer), lr * layer_decay ** (top - depth))
        for depth, (name, layer) in enumerate(zip(names, layers, strict=True))
    ]


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


def rate_factor(schedule: Schedule, epochs: int, steps_per_epoch: int) -> Callable[[int], float]:
    """The factor of all learning rates at a step (from 0). Schedules are defined in epochs and stepped per batch."""
    factor = _factor(schedule, float(epochs))
    return lambda step: factor(step / steps_per_epoch)


def _factor(schedule: Schedule, epochs: float) -> Callable[[float], float]:
    warmup, start = schedule.warmup_epochs, schedule.warmup_factor

    def after(epoch: float) -> float:
        match schedule:
            case ConstantSchedule():
                return 1.0
            case MultistepSchedule(milestones=milestones, gamma=gamma):
                return float(gamma ** bisect.bisect_right(sorted(milestones), epoch))
            case CosineSchedule(final_factor=final) | OneCycleSchedule(final_factor=final):
                remaining = epochs - warmup  # 0 for a stage that is all warm-up
                return final + (1 - final) * (_half_cosine((epoch - warmup) / remaining) if remaining else 1.0)

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
