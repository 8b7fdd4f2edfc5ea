"""Cross-attention from a sentence's feature to the tokens of one photo.

Yang et al., "A Pedestrian is Worth One Prompt" (CVPR 2024), the interaction module: the text feature is the query, the
projected class token and the patch tokens are keys and values; one cross-attention, then two blocks of self-attention.

* Every photo attends to its own tokens only: the batch is never a dimension of attention.
* Every layer has a residual. A softmax over one key is 1 for any query, and without a residual the query would be lost.
* Where we differ: self-attention over the single vector that comes out of the cross-attention would have one key, and
  so be a linear layer. Ours is over that vector and the photo's tokens together; the output is the vector.
* Patches go through a linear layer of their own, initialised with the tower's projection where that is a matrix.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from handreid.errors import RecipeError

SELF_BLOCKS = 2


class Interaction(nn.Module):
    """Raises RecipeError when heads do not divide the joint width."""

    def __init__(
        self, width: int, patches: int, *, heads: int, dropout: float, projection: Float[Tensor, "patch joint"] | None
    ) -> None:
        super().__init__()
        if width % heads:
            fitting = [n for n in range(1, 17) if width % n == 0]
            raise RecipeError(
                f"model.head.heads is {heads}, which does not divide {width}, the width of the joint space; "
                f"use one of {', '.join(map(str, fitting))}"
            )
        self.project = nn.Linear(patches, width, bias=False)
        if projection is not None:
            with torch.no_grad():
                self.project.weight.copy_(projection.T)
        self.cross = Block(width, heads, dropout, norm_keys=True)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(SELF_BLOCKS))
        self.norm = nn.LayerNorm(width, bias=False)  # before a batch norm, which would remove a bias

    def forward(
        self,
        text: Float[Tensor, "batch joint"],
        image: Float[Tensor, "batch joint"],
        patches: Float[Tensor, "batch rows cols width"],
    ) -> Float[Tensor, "batch joint"]:
        tokens = torch.cat([image[:, None], self.project(patches.flatten(1, 2))], dim=1)
        sequence = torch.cat([self.cross(text[:, None], tokens), tokens], dim=1)
        *lower, top = self.blocks
        for block in lower:
            sequence = block(sequence, sequence)
        attended: Tensor = top(sequence[:, :1], sequence)[:, 0]  # other outputs of the last block are not used
        out: Tensor = self.norm(attended)
        return out


class Block(nn.Module):
    """Attention of queries to keys, then an MLP of four times the width; pre-norm, residuals around both."""

    def __init__(self, width: int, heads: int, dropout: float, *, norm_keys: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.norm_keys = nn.LayerNorm(width) if norm_keys else None
        self.attention = nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, queries: Float[Tensor, "batch queries width"], keys: Float[Tensor, "batch keys width"]
    ) -> Float[Tensor, "batch queries width"]:
        normed = (self.norm_keys or self.norm)(keys)
        attended, _ = self.attention(self.norm(queries), normed, normed, need_weights=False)
        queries = queries + self.dropout(attended)
        mixed: Tensor = queries + self.dropout(self.mlp(self.norm_mlp(queries)))
        return mixed
