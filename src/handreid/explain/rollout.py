"""Where the tokens that make an embedding have looked: attention rollout.

Abnar and Zuidema, "Quantifying Attention Flow in Transformers" (2020), section 3: a block's attention, heads averaged,
is taken half and half with the identity, which stands for the residual connection, and blocks are multiplied up.

* It starts from what the embedding is of, not always the class token: the patches, equally, where a head reads these;
  both, equally, where both are read; the class token a block earlier for `penultimate`.
* Visual prompts are on the way, never a place: what a token draws from them leads to no part of the photo, is left out,
  and the rest is the map. The paper has no such tokens.
* It follows weights alone. It sees neither what values carry, nor the MLPs, nor what a head makes of the tokens, and is
  the same whatever photo this one is compared with.
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
    """What share of its attention a photo's embedding draws from each patch, sums to 1. Raises WeightsError."""
    rows, cols, _ = embedder.backbone.grid
    prompts = embedder.backbone.visual_prompts
    count = 0 if prompts is None else prompts.prompts.shape[1]
    renewed = 1 if prompts is None else len(prompts.prompts)
    with embedder.evaluating(), torch.inference_mode(), attention_weights(embedder.backbone.visual) as found:
        embedder(photos, conditions)
        weights = [block.float() for block in found]
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
    """How each token draws on class token and patches of the input, through blocks whose attention is given.

    `prompts` tokens behind the class token are no places. The first `renewed` blocks are given new ones each.
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
    """What is compared: its share, how many blocks are below it, and its tokens behind these."""
    of_class, of_patches = slice(0, 1), slice(1 + prompts, 1 + prompts + patches)
    pooled = of_patches if pools_tokens(embedder.backbone.visual) else of_class
    read = set()
    for name in embedder.test_features:
        if name == "penultimate":
            read.add((max(blocks - 1, 1), of_class.start, of_class.stop))
        else:
            chosen = of_patches if name == "parts" else pooled
            read.add((blocks, chosen.start, chosen.stop))
    return [(1 / len(read), depth, slice(start, stop)) for depth, start, stop in sorted(read)]
