"""LoRA adapters: low-rank updates of frozen matrices of a ViT's blocks, merged into the weights when they are saved.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2022), section 4.1: W + alpha / rank * B A.

* The update is added to the weight, not around the layer: attention reads its matrices itself, without calling a layer
  that could be wrapped, and has q, k and v in one matrix; each of the three has its own pair here. (This is also why
  peft is not used: it wraps layers, takes q, k and v as one matrix of shared rank, and renames the tower's modules.)
* B begins at zero and A uniformly in +-1 / sqrt(columns), as in the authors' code (their paper says Gaussian): the
  tower's output is unchanged to the bit at first. No dropout on the update.
* The update is computed in fp32, outside of autocast, so that merging changes no result.
* Adapters save the optimizer's memory and limit what can change; a step takes as long as without them: the gradient of
  the full matrix is still computed.
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
    """The adapter of a matrix of `blocks` equal blocks of rows, each with its own pair; parametrizes the matrix."""

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
    """Stored in a tower with adapters: the names of its parameters that learned before."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.names = names


def add_lora(visual: nn.Module, *, rank: int, alpha: float, layers: tuple[Literal["attention", "mlp"], ...]) -> None:
    """Freezes all of the tower's own parameters and adds adapters, drawn from torch's global generator, that learn.

    `attention` is the matrices of q, k, v and the output, `mlp` the two of each block's MLP. Call `Backbone.freeze`
    afterwards, so that it covers the adapters too. Raises RecipeError for a tower without such matrices or a rank
    larger than theirs, ValueError for one that has adapters already.
    """
    if _adapted(visual):
        raise ValueError("the tower already has LoRA adapters; merge them into its weights with merge_lora")
    names = [name for name, _ in visual.named_parameters()]
    matrices = [name for name in names if any(_MATRICES[kind].fullmatch(name) for kind in layers)]
    if not matrices:
        raise RecipeError(
            f"lora changes the {' and '.join(layers)} matrices of a ViT's blocks, but this tower has none: "
            "remove lora, or use a ViT"
        )
    _check_rank(visual, matrices, rank)
    learning = [name for name, parameter in visual.named_parameters() if parameter.requires_grad]
    visual.add_module("lora", _Frozen(learning))
    visual.requires_grad_(False)
    for name in matrices:
        owner, _, attribute = name.rpartition(".")
        matrix = visual.get_parameter(name)
        change = LowRank(matrix, rank, alpha, _blocks(name))
        parametrize.register_parametrization(visual.get_submodule(owner), attribute, change)


def merge_lora(visual: nn.Module) -> None:
    """Merges the adapters into the tower's weights, which learn again if they did before; else does nothing.

    torch's `remove_parametrizations` would break every deep copy of the tower (an average has one): a copy shares the
    class from which it deletes the property. It would also leave the parameters in another order than a fresh tower's.
    """
    for _, part, values in _adapted(visual):
        originals = {name: part.get_parameter(f"parametrizations.{name}.original") for name in values}
        siblings = [(name, parameter) for name, parameter in part.named_parameters(recurse=False)]
        del part.parametrizations
        part.__class__ = type(part).__bases__[0]
        for name, _ in siblings:
            delattr(part, name)
        with torch.no_grad():
            for name, original in originals.items():
                part.register_parameter(name, original)
                original.copy_(values[name])
        for name, parameter in siblings:  # a bias comes after its matrix
            part.register_parameter(name, parameter)
    for name, child in list(visual.named_children()):
        if isinstance(child, _Frozen):
            delattr(visual, name)
            for path in child.names:
                visual.get_parameter(path).requires_grad_(True)


def merged_state(module: nn.Module) -> dict[str, Tensor]:
    """The state of any module with all LoRA adapters within it merged; the module itself is not changed."""
    state: dict[str, Tensor] = dict(module.state_dict())
    for path, _, values in _adapted(module):
        prefix = f"{path}." if path else ""
        for key in [key for key in state if key.startswith(f"{prefix}parametrizations.")]:
            del state[key]
        state |= {prefix + name: value for name, value in values.items()}
    return state


def _adapted(module: nn.Module) -> list[tuple[str, nn.Module, dict[str, Tensor]]]:
    """Path and module of every part with adapters, and its merged matrices by name."""
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
