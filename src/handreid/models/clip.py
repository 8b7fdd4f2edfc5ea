"""Builds and loads the towers. Only this module, `clip_weights.py`, `tower.py` and `text.py` use open_clip.

* A tower is built at the size of its weights, loaded strictly, and only then resized: so nothing is resized that fits,
  and nothing stays unresized because the number of positions happens to be equal.
* With a `stride` under the patch size patches overlap, as in TransReID (He et al. 2021, section 3.2): the grid has
  (side - patch) // stride + 1 patches a side, and the remainder at the right and the bottom, less than a stride, is
  not used. The stride is a key of the config beside `vision_cfg`, where open_clip would not accept it.
* Weights are fp32 here whatever the file holds; half precision comes from autocast.
* open_clip is untyped: towers are `Any` in this module, and modules elsewhere.
"""

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal, cast

import open_clip
import torch
import torch.nn.functional as F
from open_clip.coca_model import CoCa
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from handreid import messages
from handreid.errors import WeightsError
from handreid.models.clip_weights import find_weights, load_weights, resize_position_embedding
from handreid.models.embedded_weights import EMBEDDED_BACKBONE
from handreid.models.text import TextEncoder

TINY = "handreid-tiny"
OWN = (TINY, EMBEDDED_BACKBONE)
Config = dict[str, Any]


@dataclass(frozen=True)
class ClipTowers:
    """`config` is complete: a tower built from it fits the image tower's parameters without changes."""

    image: nn.Module
    text: TextEncoder
    config: Config


def backbone_names() -> list[str]:
    """Every model of open_clip with open_clip's own ViT or ResNet tower, and handreid's."""
    configs = ((name, open_clip.get_model_config(name)) for name in open_clip.list_models())
    return [*OWN, *(name for name, config in configs if "timm_model_name" not in config["vision_cfg"])]


def clip_config(name: str, override: Config | Path | None = None) -> Config:
    """The towers' config: `override`, a config or its JSON file, or that of `name`. Raises WeightsError."""
    if override is not None:
        config = deepcopy(override) if isinstance(override, dict) else _read_json(override)
        absent = {"embed_dim", "vision_cfg", "text_cfg"} - config.keys()
        if absent:
            raise WeightsError(f"backbone config lacks {', '.join(sorted(absent))}; see open_clip's model configs")
        _check_own(config)
        return config
    if name in OWN:
        return _read_json(Path(str(resources.files("handreid") / "models" / f"{name}.json")))
    if name not in backbone_names():
        raise WeightsError(f"backbone {messages.shown(name)} is not known; {_nearest(name)}")
    config = open_clip.get_model_config(name)
    return dict(config)


def load_clip(
    name: str,
    *,
    weights: str = "none",
    towers: Literal["both", "image"] = "both",
    image_size: int | tuple[int, int] | None = None,
    stride: int | None = None,
    config: Config | Path | None = None,
    seed: int = 0,
) -> ClipTowers:
    """Both towers in eval mode, fp32.

    `weights` is a pretrained tag, a file (open_clip, OpenAI or safetensors), the folder of a run with both towers, or
    "none". With `towers="image"` the file
    holds the image tower alone and the text tower stays random, drawn from `seed`. `stride` is between patches, in
    pixels; None is the patch's side. Raises WeightsError.
    """
    complete = clip_config(name, config)
    found = None if weights == "none" else find_weights(name, weights, tagged=config is None)
    if found is not None and found.quick_gelu is not None:
        complete["quick_gelu"] = found.quick_gelu
    if found is not None:
        resize_position_embedding(complete, found.state, weights)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        clip = _build(complete, name)
    if found is not None:
        load_weights(clip, found.state, towers, weights)
    if image_size is not None or stride is not None:
        resize_input(clip.visual, clip.visual.image_size if image_size is None else image_size, stride)
        complete["vision_cfg"]["image_size"] = list(clip.visual.image_size)
    if stride is not None:
        complete["stride"] = stride
    visual = clip.visual.float().eval()
    del clip.visual
    text = TextEncoder(clip.float().eval(), _tokenizer(name, complete, config is not None))
    text.seen = found.seen if found is not None and towers == "both" else None
    return ClipTowers(visual, text, complete)


def build_image_tower(config: Config) -> nn.Module:
    """The image tower of a complete config with random parameters, at the (possibly non-square) size it names."""
    native = deepcopy(config)
    size = native["vision_cfg"].get("image_size", 224)
    if isinstance(native["vision_cfg"].get("layers"), list) and not isinstance(size, int):
        native["vision_cfg"]["image_size"] = max(size)  # open_clip builds ResNets square only
    native["text_cfg"] = {"width": 64, "heads": 1, "layers": 1, "vocab_size": 64}  # not used
    native.pop("custom_text", None)
    native.pop("multimodal_cfg", None)
    stride = native.pop("stride", None)
    visual: nn.Module = _build(native, "saved model").visual
    resize_input(visual, size, stride)
    return visual


def build_text_tower(config: Config) -> TextEncoder:
    """The text tower of a complete config with random parameters."""
    native = deepcopy(config)
    _check_own(native)
    native["vision_cfg"] = {"image_size": 32, "patch_size": 32, "width": 64, "layers": 1}  # not used
    clip = _build(native, "saved model")
    del clip.visual
    return TextEncoder(clip.eval(), _tokenizer("", config, own_config=True))


def _check_own(config: Config) -> None:
    """Raises WeightsError for a user's config that is malformed, or would download a model by its name."""
    for part in ("vision_cfg", "text_cfg"):
        if not isinstance(config[part], dict):
            raise WeightsError(f"backbone config: {part} is {messages.shown(config[part])}, not an object with keys")
    if config["text_cfg"].get("hf_model_name"):
        raise WeightsError(
            "backbone config: text_cfg.hf_model_name would download a model by name; handreid only supports "
            "open_clip's own text towers"
        )


def resize_input(visual: Any, size: int | tuple[int, int] | list[int], stride: int | None = None) -> None:
    """Sets input size (height, width) and stride in place, position embeddings resized bicubically.

    Without a stride the size is a multiple of a ViT's patch, or for a ResNet of 16: of half a cell at the right and the
    bottom, the last layers use nothing. Raises WeightsError.
    """
    height, width = (size, size) if isinstance(size, int) else size
    grid = _grid(visual, height, width, stride)
    if isinstance(visual, VisionTransformer):
        visual.positional_embedding = _resized(visual.positional_embedding, visual.grid_size, grid)
        visual.grid_size = grid
        if stride is not None:
            visual.conv1.stride = (stride, stride)
    else:
        old = visual.image_size if isinstance(visual.image_size, tuple) else (visual.image_size, visual.image_size)
        pool = visual.attnpool
        pool.positional_embedding = _resized(pool.positional_embedding, (old[0] // 32, old[1] // 32), grid)
    visual.image_size = (height, width)


def _grid(visual: Any, height: int, width: int, stride: int | None) -> tuple[int, int]:
    vit = isinstance(visual, VisionTransformer)
    patch = visual.patch_size if vit else (32, 32)
    if stride is None:
        # a ResNet's last pooling leaves out an odd row and column, so half a cell may remain
        step = patch[0] if vit else 16
        if height % step or width % step or min(height, width) < patch[0]:
            low, high = max(height // step * step, patch[0]), max((height // step + 1) * step, patch[0])
            raise WeightsError(
                f"image_size {height} x {width} does not fit a grid of {patch[0]}-pixel patches; "
                f"use multiples of {step}, such as {low} or {high}"
            )
        return height // patch[0], width // patch[1]
    if not vit:
        raise WeightsError(f"stride is {stride}, but this tower is a ResNet and has no patches: remove stride")
    if not 1 <= stride <= min(patch):
        raise WeightsError(f"stride is {stride}, but must be between 1 and the patch size, {min(patch)} pixels")
    if height < patch[0] or width < patch[1]:
        raise WeightsError(f"image_size {height} x {width} is smaller than a patch of {patch[0]} pixels")
    return (height - patch[0]) // stride + 1, (width - patch[1]) // stride + 1


def _build(config: Config, name: str) -> Any:
    arguments = deepcopy(config)
    vision = arguments["vision_cfg"]
    if "timm_model_name" in vision:
        raise WeightsError(
            f"backbone {name!r} has a timm tower; handreid only supports open_clip's own ViT and ResNet towers"
        )
    vision["patch_dropout"] = 0.0  # the patch grid stays complete: part heads and maps need every patch
    custom_text = arguments.pop("custom_text", False) or "hf_model_name" in arguments["text_cfg"]
    kind = CLIP if not custom_text else CoCa if "multimodal_cfg" in arguments else CustomTextCLIP
    try:
        return kind(**arguments)
    except Exception as error:  # open_clip and torch raise any type for a wrong config
        reason = messages.shortened(f"{type(error).__name__}: {error}", 500)
        raise WeightsError(f"backbone {messages.shown(name)} cannot be built from its config: {reason}") from None


def _resized(positions: nn.Parameter, old: tuple[int, int], new: tuple[int, int]) -> nn.Parameter:
    if tuple(old) == tuple(new):
        return positions
    token, grid = positions.detach()[:1], positions.detach()[1:]
    grid = grid.reshape(1, old[0], old[1], -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=new, mode="bicubic", antialias=True, align_corners=False)
    grid = grid.permute(0, 2, 3, 1).reshape(new[0] * new[1], -1)
    return nn.Parameter(torch.cat([token, grid]), requires_grad=positions.requires_grad)


@cache
def _simple_tokenizer(context_length: int) -> Callable[[list[str]], Tensor]:
    """Kept, as reading its 48,894 merges takes a fifth of a second."""
    return cast("Callable[[list[str]], Tensor]", open_clip.SimpleTokenizer(context_length=context_length))


def _tokenizer(name: str, config: Config, own_config: bool) -> Callable[[list[str]], Tensor]:
    if own_config or name in OWN:
        tokenizer: Callable[[list[str]], Tensor] = _simple_tokenizer(config["text_cfg"].get("context_length", 77))
    else:
        tokenizer = open_clip.get_tokenizer(name)
    return tokenizer


def _read_json(path: Path) -> Config:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WeightsError(f"backbone config {path} cannot be read: {error.strerror}") from None
    except json.JSONDecodeError as error:
        raise WeightsError(f"backbone config {path} line {error.lineno} is not JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:  # not UTF-8, numbers of thousands of digits, lists in lists in lists
        raise WeightsError(f"backbone config {path} is not JSON: {messages.shortened(str(error), 200)}") from None
    if not isinstance(config, dict) or not isinstance(config.get("model_cfg", {}), dict):
        raise WeightsError(f"backbone config {path} holds {type(config).__name__}, not an object")
    return dict(config.get("model_cfg", config))


def _nearest(name: str) -> str:
    if name in open_clip.list_models():
        return "its image tower is timm's; handreid reads open_clip's own ViT and ResNet towers"
    return messages.known(name, backbone_names(), "by `handreid.models.clip.backbone_names()`")
