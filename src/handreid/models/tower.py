"""Inside an image tower of open_clip, a ViT or a ResNet: the forward pass, widths, grid, layers.

* open_clip is untyped: towers are `Any` in this module.
* `attention_weights` and `last_feature_map` use hooks that are removed afterwards: an observed pass is the same pass,
  for any head, and needs no second implementation of the tower.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from handreid.errors import WeightsError
from handreid.models.visual_prompts import VisualPrompts
from handreid.types import Features


def image_features(
    visual: Any,
    photos: Float[Tensor, "batch 3 height width"],
    *,
    prompts: VisualPrompts | None = None,
    offset: Float[Tensor, "batch token"] | None = None,
) -> Features:
    """One pass through the image tower; without prompts and offset `joint` equals `encode_image` to the last bit, for a
    ResNet that of photos in the memory format of `_in_fast_format`.

    `offset` is added to a ViT's class token before the position embedding, as in CLIP-ReID, or to a ResNet's mean over
    the map. That mean is also the query of the attention pool, as the class token is in a ViT, so `joint` changes too.
    `prompts` are for a ViT only.
    """
    if isinstance(visual, VisionTransformer):
        return _vit_features(visual, photos, prompts, offset)
    return _resnet_features(visual, photos, offset)


def joint_projection(visual: Any) -> Tensor | None:
    """The matrix from `pooled` to `joint`; None for a tower that has another kind of map, or none."""
    return visual.proj if isinstance(visual, VisionTransformer) else None


def prompt_spec(visual: Any) -> tuple[int, int, tuple[int, int]] | None:
    """Blocks, width and patch (height, width) of a ViT, as visual prompts need them; None for a ResNet."""
    if not isinstance(visual, VisionTransformer):
        return None
    return len(visual.transformer.resblocks), visual.transformer.width, visual.patch_size


def feature_widths(visual: Any) -> dict[str, int]:
    if isinstance(visual, VisionTransformer):
        pooled = visual.ln_post.normalized_shape[0]
        return {"joint": visual.output_dim, "pooled": pooled, "penultimate": visual.transformer.width}
    channels = visual.attnpool.q_proj.in_features
    return {"joint": visual.output_dim, "pooled": channels, "penultimate": channels // 2}


def patch_grid(visual: Any) -> tuple[int, int, int]:
    """Rows, cols and width of `Features.patches`."""
    if isinstance(visual, VisionTransformer):
        rows, cols = visual.grid_size
        return rows, cols, visual.transformer.width
    size = visual.image_size
    height, width = (size, size) if isinstance(size, int) else size
    return height // 32, width // 32, visual.attnpool.q_proj.in_features


def patch_places(visual: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    """Side of a patch and the step to the next one, each (height, width) in pixels; a ResNet's are both 32."""
    if isinstance(visual, VisionTransformer):
        return visual.patch_size, visual.conv1.stride
    return (32, 32), (32, 32)


@contextmanager
def attention_weights(visual: Any) -> Iterator[list[Tensor]]:
    """A list that a pass within the context fills, block by block: a ViT's attention weights, the mean of all heads.

    Each is "batch token token", rows sum to 1; tokens are class, visual prompts, patches. Raises WeightsError for a
    tower without attention blocks that return their weights.
    """
    blocks = visual.transformer.resblocks if isinstance(visual, VisionTransformer) else []
    if not blocks or not all(isinstance(block.attn, nn.MultiheadAttention) for block in blocks):
        raise WeightsError("this tower gives no attention weights: attention rollout needs a ViT like CLIP's")
    weights: list[Tensor] = []

    def ask(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        return args, {**kwargs, "need_weights": True}

    def take(module: nn.Module, args: Any, output: tuple[Tensor, Tensor]) -> None:
        weights.append(output[1])

    with ExitStack() as hooks:
        for block in blocks:
            hooks.callback(block.attn.register_forward_pre_hook(ask, with_kwargs=True).remove)
            hooks.callback(block.attn.register_forward_hook(take).remove)
        yield weights


@contextmanager
def last_feature_map(visual: Any, *, before: int = 0) -> Iterator[list[Tensor]]:
    """A list into which a pass within the context puts one tensor, a leaf with a gradient: the last map of places.

    Of a ResNet the last map, "batch width rows cols"; of a ViT all tokens that enter the last block, "batch token
    width", as most heads read only the class token after it; patches are the last of them. `before` is how many stages
    or blocks earlier, fewer if the tower has not so many. The pass must begin without gradients: they are recorded from
    the leaf on.
    """
    maps: list[Tensor] = []

    def leaf(tensor: Tensor) -> Tensor:
        torch.set_grad_enabled(True)  # until the caller's no_grad ends: nothing before the leaf needs a gradient
        maps.append(tensor.detach().requires_grad_())
        return maps[-1]

    if isinstance(visual, VisionTransformer):
        blocks = visual.transformer.resblocks
        block = blocks[max(len(blocks) - 1 - before, 0)]
        hook = block.register_forward_pre_hook(lambda module, args: (leaf(args[0]), *args[1:]))
    else:
        layers = (visual.layer1, visual.layer2, visual.layer3, visual.layer4)
        hook = layers[max(3 - before, 0)].register_forward_hook(lambda module, args, output: leaf(output))
    try:
        yield maps
    finally:
        hook.remove()


def pools_tokens(visual: Any) -> bool:
    """Whether `pooled` is of all of a ViT's tokens; False where it is the class token's."""
    return isinstance(visual, VisionTransformer) and (visual.attn_pool is not None or visual.pool_type != "tok")


def layers_in_order(visual: Any) -> list[list[nn.Parameter]]:
    """Parameters from the input up: the stem, then each block; those after the last block are not included."""
    if isinstance(visual, VisionTransformer):
        stem = [visual.conv1.weight, visual.class_embedding, visual.positional_embedding, *visual.ln_pre.parameters()]
        return [stem, *(list(block.parameters()) for block in visual.transformer.resblocks)]
    parts = (visual.conv1, visual.bn1, visual.conv2, visual.bn2, visual.conv3, visual.bn3)
    stem = [parameter for part in parts for parameter in part.parameters()]
    blocks = [block for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4) for block in layer]
    return [stem, *(list(block.parameters()) for block in blocks)]


def _vit_features(visual: Any, photos: Tensor, prompts: VisualPrompts | None, offset: Tensor | None) -> Features:
    x = _tokens(visual, photos, offset)
    for depth, block in enumerate(visual.transformer.resblocks):
        penultimate = x[:, 0]
        x = block(x if prompts is None else prompts.enter(x, depth))
    if prompts is not None:
        x = prompts.leave(x)
    pooled, tokens = visual._pool(x)
    joint = pooled if visual.proj is None else pooled @ visual.proj
    if visual.attn_pool is not None:  # its tokens are learned queries, not places in the photo
        tokens = x[:, 1:]
    rows, cols = visual.grid_size
    return Features(joint, pooled, penultimate, tokens.reshape(len(tokens), rows, cols, -1))


def _tokens(visual: Any, photos: Tensor, offset: Tensor | None) -> Tensor:
    """Input of the first block, as in open_clip's `_embeds`, which does not take an offset."""
    patches = visual.conv1(photos).flatten(2).transpose(1, 2)
    token = visual.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
    if offset is not None:
        token = token + offset.to(patches.dtype).unsqueeze(1)
    x = torch.cat([token, patches], dim=1) + visual.positional_embedding.to(patches.dtype)
    tokens: Tensor = visual.ln_pre(visual.patch_dropout(x))
    return tokens


def _in_fast_format(photos: Tensor) -> Tensor:
    """The same photos in the memory format in which convolutions and norms are faster; these then keep it.

    Channels last, where it helps: on a CPU (`benchmarks/precision.py`), and on a GPU in half precision, whose tensor
    cores compute in that format. On Apple's GPUs batch norms of such tensors had wrong gradients (PyTorch issue
    175189). Parameters keep their format, so that files and the optimizer's state do not depend on the device.
    """
    device = photos.device.type
    faster = device == "cpu" or (device == "cuda" and torch.is_autocast_enabled("cuda"))
    return photos.contiguous(memory_format=torch.channels_last) if faster else photos


def _resnet_features(visual: Any, photos: Tensor, offset: Tensor | None) -> Features:
    photos = _in_fast_format(photos)
    before = visual.layer3(visual.layer2(visual.layer1(visual.stem(photos))))
    top = visual.layer4(before)
    patches = top.permute(0, 2, 3, 1)
    pooled = top.mean((2, 3))
    if offset is None:
        joint = visual.attnpool(top)
    else:
        pooled = pooled + offset.to(pooled.dtype)
        joint = _attention_pool(visual.attnpool, top, pooled)
    return Features(joint, pooled, before.mean((2, 3)), patches)


def _attention_pool(pool: Any, feature_map: Tensor, query: Tensor) -> Tensor:
    """open_clip's `AttentionPool2d` with `query` as first token instead of the mean of the map."""
    x = torch.cat([query.unsqueeze(0), feature_map.flatten(2).permute(2, 0, 1)])
    x = x + pool.positional_embedding.unsqueeze(1).to(x.dtype)
    pooled, _ = F.multi_head_attention_forward(
        x[:1],
        x,
        x,
        x.shape[-1],
        pool.num_heads,
        in_proj_weight=None,
        in_proj_bias=torch.cat([pool.q_proj.bias, pool.k_proj.bias, pool.v_proj.bias]),
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=pool.c_proj.weight,
        out_proj_bias=pool.c_proj.bias,
        training=pool.training,
        need_weights=False,
        use_separate_proj_weight=True,
        q_proj_weight=pool.q_proj.weight,
        k_proj_weight=pool.k_proj.weight,
        v_proj_weight=pool.v_proj.weight,
    )
    return pooled[0]
