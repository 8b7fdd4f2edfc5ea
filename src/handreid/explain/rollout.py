"""Attention rollout: how the attention of the tokens behind an embedding is distributed over the patches.

Abnar and Zuidema, "Quantifying Attention Flow in Transformers" (2020), section 3: the attention of a block, averaged
over heads, is averaged with the identity matrix, which represents the residual connection; blocks are multiplied.

* It starts from the tokens that the embedding is computed from, not always the class token: all patches with equal
  weight where a head reads the patches; both with equal weight where both are read; for `penultimate` the class token
  one block earlier.
* Visual prompts are intermediate tokens, not part of the map: attention to them belongs to no part of the photo and is
  dropped, and the rest is normalised. The paper has no such tokens.
* It uses attention weights only: not the values, the MLPs, or what a head does with the tokens; and it does not depend
  on the photo that this one is compared with.
"""

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from handreid.models.embedder import Embedder
from handreid.models.tower import attention_weights, pools_tokens

RESIDUAL = 0.5


def rollout(
    embedder: Embedder, photos: UInt8[Tensor, "photo 3 height width"], conditions: Int[Tensor, " photo"] | None = None
) -> Float[Tensor, "photo rows cols"]:
    """Share of each patch in the attention of a photo's embedding; sums to 1. Raises WeightsError for a ResNet."""
    rows, cols, _ = embedder.backbone.grid
    prompts = embedder.backbone.visual_prompts
    count = 0 if prompts is None else prompts.prompts.shape[1]
    renewed = 1 if prompts is None else len(prompts.prompts)
    with embedder.evaluating(), torch.inference_mode(), attention_weights(embedder.backbone.visual) as attention:
        embedder(photos, conditions)
        weights = [block.float() for block in attention]
    starts = _starts(embedder, rows * cols, count, len(weights))
    rolled = sum(
        share * attention_flow(weights[:depth], prompts=count, renewed=renewed)[:, tokens].mean(dim=1)
        for share, depth, tokens in starts
    )
    patches = torch.as_tensor(rolled)[:, 1:]
    return (patches / patches.sum(dim=1, keepdim=True)).reshape(-1, rows, cols)


def attention_flow(
    weights: list[Float[Tensor, "photo token token"]], *, prompts: int = 0, renewed: int = 1
) -> Float[Tensor, "photo token place"]:
    """How much each token depends on the class token and the patches of the input, after the given blocks.

    The `prompts` tokens after the class token are left out of the last axis. Each of the first `renewed` blocks
    replaces them by new ones.
    """
    photos, tokens = weights[0].shape[:2]
    drawn = torch.eye(tokens).to(weights[0])
    drawn[1 : 1 + prompts] = 0
    drawn = torch.cat([drawn[:, :1], drawn[:, 1 + prompts :]], dim=1).expand(photos, -1, -1)
    for depth, block in enumerate(weights):
        if prompts and 0 < depth < renewed:
            drawn = drawn.clone()
            drawn[:, 1 : 1 + prompts] = 0
        drawn = RESIDUAL * drawn + (1 - RESIDUAL) * block @ drawn
    return drawn


def _starts(embedder: Embedder, patches: int, prompts: int, blocks: int) -> list[tuple[float, int, slice]]:
    """What the embedding is read from: its share, the number of blocks before it, and its tokens."""
    of_class, of_patches = slice(0, 1), slice(1 + prompts, 1 + prompts + patches)
    pooled = of_patches if pools_tokens(embedder.backbone.visual) else of_class
    read = set()
    for name in embedder.test_features:
        if name == "penultimate":
            read.add((max(blocks - 1, 1), of_class.start, of_class.stop))
        else:
            tokens = of_patches if name == "parts" else pooled
            read.add((blocks, tokens.start, tokens.stop))
    return [(1 / len(read), depth, slice(start, stop)) for depth, start, stop in sorted(read)]
