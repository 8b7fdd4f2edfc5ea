"""Visual prompts: learned tokens among a ViT's own, beside which the tower itself may stay as it is.

Jia et al., "Visual Prompt Tuning" (2022), section 3.2.

* They stand between the class token and the patches, and enter before the first block. CLIP's ViT has a norm there that
  the paper's has not; prompts come after it, so that they are what the block sees. They have no position embedding.
* `shallow` prompts go through all blocks with the other tokens. With `deep` ones each block is given its own in the
  place of what the block before made of its.
* They leave before the last norm and the pooling: features are of class token and patches, as without prompts.
* Drawn uniformly in +-sqrt(6 / (3 * patch height * patch width + width)), and dropped out by single values, as in the
  authors' code. Their projection from another width is left out, since ours have the tower's.
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
        """What block `depth` (from 0) is given, of what came out of the one before it."""
        if depth >= len(self.prompts):
            return x
        own = self.dropout(self.prompts[depth].to(x.dtype).expand(len(x), -1, -1))
        others = x if depth == 0 else self.leave(x)
        return torch.cat([others[:, :1], own, others[:, 1:]], dim=1)

    def leave(self, x: Float[Tensor, "batch before width"]) -> Float[Tensor, "batch after width"]:
        """The tokens without the prompts."""
        return torch.cat([x[:, :1], x[:, 1 + self.prompts.shape[1] :]], dim=1)
