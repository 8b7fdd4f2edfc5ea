"""Restores a stage after checks have trained it: weights, statistics, memories, random numbers.

* The module itself is used and restored, not a copy: a deep copy would need the memory of a large tower twice, and a
  copy of a tower with LoRA adapters shares their classes.
* Everything a module holds is restored: tensors by value, and all other attributes. Running centres, positions in a
  queue or growing margins need no special rules.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


@contextmanager
def restored(module: nn.Module) -> Iterator[None]:
    """The module may be trained in this context; afterwards it and all global random states are restored exactly."""
    state = _State.of(module)
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002 - what others draw from
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            state.restore()
            random.setstate(python)
            np.random.set_state(legacy)  # noqa: NPY002


@dataclass
class _Kept:
    """A tensor and its saved state."""

    tensor: Tensor
    value: Tensor
    learns: bool
    grad: Tensor | None

    def restore(self) -> None:
        with torch.no_grad():
            self.tensor.detach().copy_(self.value)
        if self.tensor.is_leaf:
            self.tensor.requires_grad_(self.learns)
            self.tensor.grad = self.grad


@dataclass
class _State:
    attributes: list[tuple[nn.Module, dict[str, Any]]] = field(default_factory=list)
    contents: list[tuple[Any, Any]] = field(default_factory=list)  # containers, and copies of what was in them
    tensors: dict[int, _Kept] = field(default_factory=dict)

    @classmethod
    def of(cls, module: nn.Module) -> "_State":
        state = cls()
        for part in module.modules():
            state.attributes.append((part, dict(vars(part))))
            for value in vars(part).values():
                state._keep(value)
        return state

    def restore(self) -> None:
        for part, attributes in self.attributes:
            vars(part).clear()
            vars(part).update(attributes)
        for container, content in self.contents:
            container.clear()
            container.extend(content) if isinstance(container, list) else container.update(content)
        for saved in self.tensors.values():
            saved.restore()

    def _keep(self, value: Any) -> None:
        if isinstance(value, Tensor):
            if id(value) not in self.tensors:
                self.tensors[id(value)] = _Kept(value, value.detach().clone(), value.requires_grad, value.grad)
        elif isinstance(value, dict | list | set):
            self.contents.append((value, value.copy()))
            for inner in value.values() if isinstance(value, dict) else value:
                if isinstance(inner, Tensor):
                    self._keep(inner)
