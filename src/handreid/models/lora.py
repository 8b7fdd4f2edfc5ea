"""LoRA: low-rank changes to frozen matrices of a ViT's blocks, added while it trains and merged when it is kept.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2022), section 4.1: W + alpha / rank * B A.

* The change is on the weight, not around the layer: attention reads its matrices itself, without calling a layer that
  could be wrapped, and keeps q, k and v in one of them; each of the three has its own pair here. (That is also why not
  peft: it wraps layers, takes q, k and v as one matrix of shared rank, and renames the tower's modules.)
* B begins at zero and A uniformly in +-1 / sqrt(columns), as in the authors' code (their paper says Gaussian): the
  tower's output is the same to the bit at first. No dropout on the change.
* What is saved or compared as a number is fp32: the change is computed outside of autocast, so merging alters nothing.
* It saves the optimizer's memory and bounds what can change; a step costs what it costs without: the gradient of the
  full matrix is still computed.
"""

import math
import re
from collections.abc import Iterator
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from handreid.errors import RecipeError

_BLOCK = r"transformer\.resblocks\.\d+"
_MATRICES = {
    "attention": re.compile(rf"{_BLOCK}\.attn\.(in_proj_weight|out_proj\.weight)"),
    "mlp": re.compile(rf"{_BLOCK}\.mlp\.(c_fc|c_proj)\.weight"),
}


class LowRank(nn.Module):
    """The change of a matrix of `blocks` equal blocks of rows, each with its own pair; parametrizes the matrix."""

    def __init__(self, matrix: Float[Tensor, "rows cols"], rank: int, alpha: float, blocks: int) -> None:
        super().__init__()
        rows, cols = matrix.shape
        self.scale = alpha / rank
        self.a = nn.Parameter(matrix.new_empty(blocks, rank, cols))
        self.b = nn.Parameter(matrix.new_zeros(blocks, rows // blocks, rank))
        nn.init.uniform_(self.a, -1 / math.sqrt(cols), 1 / math.sqrt(cols))

    def forward(self, matrix: Float[Tensor, "rows cols"]) -> Float[Tensor, "rows cols"]:
        with torch.autocast(matrix.device.type, enabled=False):
            changed = torch.baddbmm(matrix.reshape(len(self.a), -1, matrix.shape[1]), self.b, self.a, alpha=self.scale)
        return changed.flatten(0, 1)


class _Frozen(nn.Module):
    """Left in a tower with changes: the names of its parameters that learned before."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.names = names


def add_lora(visual: nn.Module, *, rank: int, alpha: float, layers: tuple[Literal["attention", "mlp"], ...]) -> None:
    """Freezes all of the tower's own parameters and adds changes, drawn from torch's global generator, that learn.

    `attention` is the matrices of q, k, v and the output, `mlp` the two of each block's MLP. What else is to be frozen
    (`Backbone.freeze`) is frozen afterwards, so that it covers the changes too. Raises RecipeError for a tower without
    such matrices or a rank larger than theirs, ValueError for one that has changes already.
    """
    if _changed(visual):
        raise ValueError("the tower already has LoRA adapters; merge them into its weights with merge_lora")
    chosen = [name for name, _ in visual.named_parameters() if any(_MATRICES[kind].fullmatch(name) for kind in layers)]
    if not chosen:
        raise RecipeError(
            f"lora changes the {' and '.join(layers)} matrices of a ViT's blocks, but this tower has none: "
            "remove lora, or use a ViT"
        )
    _check_rank(visual, chosen, rank)
    visual.add_module("lora", _Frozen([name for name, own in visual.named_parameters() if own.requires_grad]))
    visual.requires_grad_(False)
    for name in chosen:
        owner, _, attribute = name.rpartition(".")
        matrix = visual.get_parameter(name)
        change = LowRank(matrix, rank, alpha, _blocks(name))
        parametrize.register_parametrization(visual.get_submodule(owner), attribute, change)


def merge_lora(visual: nn.Module) -> None:
    """Makes the changes part of the tower's weights, which learn again where they did before; else does nothing.

    torch's `remove_parametrizations` would break every deep copy of the tower (an average has one): a copy shares the
    class from which it deletes the property. It would also leave the parameters in another order than a fresh tower's.
    """
    for _, part, values in _changed(visual):
        originals = {name: part.get_parameter(f"parametrizations.{name}.original") for name in values}
        others = [(name, own) for name, own in part.named_parameters(recurse=False)]
        del part.parametrizations
        part.__class__ = type(part).__bases__[0]
        for name, _ in others:
            delattr(part, name)
        with torch.no_grad():
            for name, original in originals.items():
                part.register_parameter(name, original)
                original.copy_(values[name])
        for name, own in others:  # a bias comes after its matrix
            part.register_parameter(name, own)
    for name, child in list(visual.named_children()):
        if isinstance(child, _Frozen):
            delattr(visual, name)
            for path in child.names:
                visual.get_parameter(path).requires_grad_(True)


def merged_state(module: nn.Module) -> dict[str, Tensor]:
    """The state of any module as it would be with all low-rank changes within it merged; the module stays as it is."""
    state: dict[str, Tensor] = dict(module.state_dict())
    for path, _, values in _changed(module):
        prefix = f"{path}." if path else ""
        for key in [key for key in state if key.startswith(f"{prefix}parametrizations.")]:
            del state[key]
        state |= {prefix + name: value for name, value in values.items()}
    return state


def _changed(module: nn.Module) -> list[tuple[str, nn.Module, dict[str, Tensor]]]:
    """Path and module of every part with changed matrices, and these by name, merged."""
    with torch.no_grad():
        return [
            (path, part, {name: getattr(part, name) for name in _parametrized(part)})
            for path, part in module.named_modules()
            if parametrize.is_parametrized(part)
        ]


def _parametrized(part: nn.Module) -> Iterator[str]:
    return (name for name, _ in part.get_submodule("parametrizations").named_children())


def _blocks(name: str) -> int:
    return 3 if name.endswith("in_proj_weight") else 1


def _check_rank(visual: nn.Module, names: list[str], rank: int) -> None:
    for name in names:
        rows, cols = visual.get_parameter(name).shape
        rows //= _blocks(name)
        if rank > min(rows, cols):
            raise RecipeError(
                f"lora.rank is {rank}, but the matrices of {name} are {rows} x {cols}: use at most {min(rows, cols)}"
            )
