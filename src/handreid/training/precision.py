"""The precision of a stage on the available device, and which precisions it does not support.

Lightning computes `16-mixed` on a CPU as bf16, with only a warning: the run's record would then be wrong. So this is
refused here, before anything is read.
"""

from typing import Literal

import torch

from handreid.errors import RecipeError
from handreid.recipe import Recipe
from handreid.recipe.stage_base import StageValue
from handreid.runs.environment import cpu_computes_bf16

Precision = Literal["fp32", "bf16", "fp16"]
LIGHTNING = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
_OURS: dict[str, Precision] = {"32-true": "fp32", "bf16-mixed": "bf16", "16-mixed": "fp16"}
_AUTOMATIC_BF16 = "auto is bf16, which this processor computes itself; its results are not those of fp32 to the digit"
_SLOW_BF16 = "bf16 is probably slower than fp32 here: torch finds neither AVX512-BF16 nor AMX-BF16; auto takes fp32"


def precision_of(stage: StageValue) -> Precision:
    """The precision on this machine; `auto` is bf16 on a GPU or processor with instructions for it, else fp32."""
    return automatic() if stage.precision == "auto" else stage.precision


def automatic() -> Literal["bf16", "fp32"]:
    """What `auto` is on this machine."""
    if has_gpu():
        native = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        return "bf16" if native else "fp32"
    return _on_this_cpu()


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
    wrong = _with_precision(recipe, "fp16")
    if wrong:
        raise RecipeError(
            f"{' and '.join(wrong)} is fp16, but a CPU only trains in fp32 or bf16: use auto "
            f"({_on_this_cpu()} here), fp32 or bf16, or train on a GPU"
        )


def precision_notes(recipe: Recipe) -> list[str]:
    """What a run on a CPU says about bf16; nothing on a GPU, nor of fp32."""
    if has_gpu():
        return []
    asked, note = ("auto", _AUTOMATIC_BF16) if cpu_computes_bf16() else ("bf16", _SLOW_BF16)
    stages = _with_precision(recipe, asked)
    return [f"{' and '.join(stages)}: {note}"] if stages else []


def _with_precision(recipe: Recipe, precision: str) -> list[str]:
    return [f"stages.{number}.precision" for number, stage in enumerate(recipe.stages) if stage.precision == precision]


def _on_this_cpu() -> Literal["bf16", "fp32"]:
    return "bf16" if cpu_computes_bf16() else "fp32"


def has_gpu() -> bool:
    """Whether training on this machine uses anything but a CPU."""
    return torch.cuda.is_available() or torch.backends.mps.is_available()
