"""A run, and another that goes on from the files that the first had after one of its epochs: what a kill leaves."""

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from handreid.recipe import Recipe
from handreid.runs.folder import Run
from handreid.training.stages import run as stages
from handreid.training.train import train


def whole_and_resumed(recipe: Recipe, photos: Path, folder: Path, *, epoch: int) -> tuple[Run, Run]:
    """The run, and the one that went on after this epoch of its first stage. Both built each stage with the same
    weights: those of a resumed stage, which come from its checkpoint, would not show it.
    """
    left = folder / "resumed" / "run"  # in a folder of its own: beside the whole run, its stages would be taken over
    built: list[str] = []
    fit = stages.fit

    def copy(entry: Mapping[str, Any]) -> None:
        if (entry["stage"], entry["epoch"]) == (0, epoch):
            shutil.copytree(folder / "whole" / "run", left)

    def noting(job: Any, number: int, module: torch.nn.Module, check: Any) -> None:
        built.append(_digest(module))
        fit(job, number, module, check)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(stages, "fit", noting)
        whole = train(recipe, photos, folder / "whole" / "run", watch=[copy])
        resumed = train(None, None, left, resume=True)
    assert built[: len(recipe.stages)] == built[len(recipe.stages) :]
    return whole, resumed


def _digest(module: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        digest.update(value.numpy().tobytes() if isinstance(value, torch.Tensor) else repr(value).encode())
    return digest.hexdigest()
