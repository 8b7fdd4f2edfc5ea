"""Visual prompts: learned tokens among a ViT's own, with which the tower itself may stay frozen.

Jia et al., "Visual Prompt Tuning" (2022), section 3.2.

* They are between the class token and the patches, inserted before the first block. CLIP's ViT has a norm there that
  the paper's has not; prompts are inserted after it, so that the block reads them unchanged. They have no position
  embedding.
* `shallow` prompts pass through all blocks with the other tokens. With `deep` each block has its own prompts, which
  replace the output of the previous block's.
* They are removed before the last norm and the pooling: features are of class token and patches, as without prompts.
* Initialised uniformly in +-sqrt(6 / (3 * patch height * patch width + width)), with dropout of single values, as in
  the authors' code. Its projection from another width is left out, since our prompts have the tower's width.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn


class VisualPrompts(nn.Module):
    """`tokens` prompts for the first of a ViT's `blocks` (`shallow`) or for each (`deep`)."""

    def __init__(
        self,
        tokens: int,
        depth: Literal["shallow", "deep"],
        dropout: float = 0.0,
        *,
        blocks: int,
        width: int,
        patch: tuple[int, int],
    ) -> None:
        super().__init__()
        bound = math.sqrt(6 / (3 * patch[0] * patch[1] + width))
        self.prompts = nn.Parameter(torch.empty(blocks if depth == "deep" else 1, tokens, width))
        nn.init.uniform_(self.prompts, -bound, bound)
        self.dropout = nn.Dropout(dropout)

    def enter(self, x: Float[Tensor, "batch before width"], depth: int) -> Float[Tensor, "batch after width"]:
        """Input of block `depth` (from 0), from the output of the block before."""
        if depth >= len(self.prompts):
            return x
        prompts = self.dropout(self.prompts[depth].to(x.dtype).expand(len(x), -1, -1))
        tokens = x if depth == 0 else self.leave(x)
        return torch.cat([tokens[:, :1], prompts, tokens[:, 1:]], dim=1)

    def leave(self, x: Float[Tensor, "batch before width"]) -> Float[Tensor, "batch after width"]:
        """The tokens without the prompts."""
        return torch.cat([x[:, :1], x[:, 1 + self.prompts.shape[1] :]], dim=1)
