"""The precision of a stage on the available device, and which precisions it does not support.

Lightning computes `16-mixed` on a CPU as bf16, with only a warning: the run's record would then be wrong. So this is
refused here, before anything is read.
"""

from typing import Literal

import torch

from handreid.errors import RecipeError
from handreid.recipe import Recipe
from handreid.recipe.stage_base import StageValue

Precision = Literal["fp32", "bf16", "fp16"]
LIGHTNING = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
_OURS: dict[str, Precision] = {"32-true": "fp32", "bf16-mixed": "bf16", "16-mixed": "fp16"}


def precision_of(stage: StageValue) -> Precision:
    """The precision on this machine: `auto` is bf16 on a GPU that supports it, else fp32."""
    if stage.precision != "auto":
        return stage.precision
    return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "fp32"


def precisions(recipe: Recipe) -> list[Precision]:
    """The precision of every stage, as stored in run.json."""
    return [precision_of(stage) for stage in recipe.stages]


def named(lightning: object) -> str:
    """Our name for a trainer's actual precision."""
    return _OURS.get(str(lightning), str(lightning))


def check_precision(recipe: Recipe, *, gpu: bool | None = None) -> None:
    """Raises RecipeError for fp16 without a GPU. `gpu` says whether there is one; None: detected here."""
    if has_gpu() if gpu is None else gpu:
        return
    wrong = [f"stages.{number}.precision" for number, stage in enumerate(recipe.stages) if stage.precision == "fp16"]
    if wrong:
        raise RecipeError(
            f"{' and '.join(wrong)} is fp16, but a CPU only trains in fp32 or bf16: use auto "
            "(fp32 here), fp32 or bf16, or train on a GPU"
        )


def has_gpu() -> bool:
    """Whether training on this machine uses anything but a CPU."""
    return torch.cuda.is_available() or torch.backends.mps.is_available()
