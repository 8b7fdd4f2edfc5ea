"""Weights of CLIP's towers: found by pretrained tag or file, and checked parameter by parameter.

Whether the towers use QuickGELU is decided by the weights, not by the model's name: the wrong activation lowers
accuracy without an error. OpenAI's own archives always need QuickGELU.
"""

import os
import socket
from pathlib import Path
from typing import Any

import open_clip
from huggingface_hub import scan_cache_dir
from huggingface_hub.errors import CacheNotFound
from open_clip.pretrained import download_pretrained, get_pretrained_cfg, list_pretrained_tags_by_model

from handreid import messages
from handreid.errors import WeightsError
from handreid.files import TOWERS
from handreid.models.embedded_weights import EMBEDDED, EMBEDDED_BACKBONE, embedded_file
from handreid.models.exported_towers import exported_facts, is_exported
from handreid.models.towers_file import Found, lacks_towers, read_towers, towers_file
from handreid.models.weight_files import State, read_weights

_TAGS = "by `open_clip.list_pretrained_tags_by_model('{}')`"


def tags_of(name: str) -> list[str]:
    """Pretrained tags of a model of open_clip, or of ours."""
    return [EMBEDDED] if name == EMBEDDED_BACKBONE else list(list_pretrained_tags_by_model(name))


def weights_file(name: str, weights: str, *, tagged: bool = True) -> Path | None:
    """The file that `weights` names, in a run's folder that of its towers; for our own tag, the package's file.

    None for "none", for a pretrained tag of open_clip, and if there is no file.
    """
    if weights == "none" or (tagged and weights in tags_of(name)):
        return embedded_file() if weights == EMBEDDED else None
    return towers_file(weights)


def find_weights(name: str, weights: str, *, tagged: bool) -> Found:
    """The weights of a tag or a file. A tag has priority over a file of its name. Raises WeightsError."""
    tags = tags_of(name) if tagged else []
    if weights in tags and weights != EMBEDDED:
        tag = get_pretrained_cfg(name, weights)
        return Found(read_weights(_download(name, weights, tag))[0], bool(tag.get("quick_gelu", False)))
    path = weights_file(name, weights, tagged=tagged)
    if path is None and weights == EMBEDDED:
        raise WeightsError(
            f"weights {EMBEDDED!r} are those of the backbone {EMBEDDED_BACKBONE}, not of {messages.shown(name)}: set "
            f"model.backbone.name={EMBEDDED_BACKBONE}, and no config"
        )
    if path is None and lacks_towers(weights):
        raise WeightsError(
            f"weights {messages.shown(weights, 200)}: the folder has no {TOWERS}, which a finished run with a stage "
            "`pretrain` writes; to start from the image tower of another run, use init_from"
        )
    if path is None:
        tag_of = f"no tag of {name}" if tags else f"{name} has no pretrained tags"
        hint = f"; {messages.known(weights, tags, _TAGS.format(name))}" if tags else ""
        raise WeightsError(f"weights {messages.shown(weights, 200)}: no such file, and {tag_of}{hint}; or use 'none'")
    ours = read_towers(path)
    if ours is not None:
        return ours
    state, from_openai = read_weights(path)
    return Found(state, True if from_openai else None)


def _download(name: str, weights: str, tag: dict[str, Any]) -> Path:
    offline = f"weights {weights!r} of {name} are not on this machine and cannot be fetched"
    advice = "give a downloaded file instead: model.backbone.weights=/path/to/file"
    host = "huggingface.co" if tag.get("hf_hub") else str(tag.get("url", "")).split("/")[2]
    if not _cached(tag) and not _reachable(os.environ.get("HF_ENDPOINT", host).split("//")[-1]):
        raise WeightsError(f"{offline} (no connection to {host}); {advice}")
    try:
        return Path(download_pretrained(tag))
    except Exception as error:  # the hub's client raises many types; the advice is the same
        raise WeightsError(f"{offline} ({type(error).__name__}: {error}); {advice}") from None


def _cached(tag: dict[str, Any]) -> bool:
    if not tag.get("hf_hub"):
        return (Path("~/.cache/clip").expanduser() / Path(str(tag.get("url", ""))).name).is_file()
    try:
        return any(repo.repo_id == tag["hf_hub"].rstrip("/") for repo in scan_cache_dir().repos)
    except CacheNotFound:
        return False


def _reachable(host: str) -> bool:
    if any(os.environ.get(proxy) for proxy in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")):
        return True  # only the client knows how to use the proxy
    try:
        socket.create_connection((host.split("/")[0], 443), timeout=5).close()
    except OSError:
        return False
    return True


def resize_position_embedding(config: dict[str, Any], state: State, weights: str) -> None:
    """Sets the config's image_size to that of the weights, if it differs. Raises WeightsError."""
    vision = config["vision_cfg"]
    resnet = isinstance(vision.get("layers"), list)
    embedding = state.get("visual.attnpool.positional_embedding" if resnet else "visual.positional_embedding")
    if embedding is None:
        return
    step = 32 if resnet else vision.get("patch_size", 16)
    size = vision.get("image_size", 224)
    height, width = (size, size) if isinstance(size, int) else size
    positions = embedding.shape[0] - 1
    if positions == (height // step) * (width // step):
        return
    side = round(positions**0.5)
    if side * side != positions:
        raise WeightsError(
            f"weights {weights!r} have {positions} positions, which is not a square: give image_size in config"
        )
    vision["image_size"] = side * step


def load_weights(clip: Any, state: State, towers: str, weights: str) -> None:
    has_image, has_text = (any(key.startswith("visual.") is of_image for key in state) for of_image in (True, False))
    if towers == "image" and has_image and has_text:
        raise WeightsError(f"weights {weights!r} are of both towers: remove model.backbone.towers, which says image")
    if towers == "image":
        state = {key if key.startswith("visual.") else f"visual.{key}": value for key, value in state.items()}
        expected = {key: value for key, value in clip.state_dict().items() if key.startswith("visual.")}
    else:
        state = open_clip.factory.convert_state_dict(clip, state)
        if "positional_embedding" in state and "positional_embedding" not in clip.state_dict():
            state = open_clip.model.convert_to_custom_text_state_dict(state)
        expected = clip.state_dict()
    derived = {name for name, _ in clip.named_buffers()} - clip.state_dict().keys()  # an archive may hold masks as well
    state = {key: value for key, value in state.items() if key not in derived}
    problems = _differences(expected, state)
    if problems:
        hint = (
            ""
            if towers == "image" or any(not k.startswith("visual.") for k in state)
            else ("\nThe file holds an image tower alone; if that is meant, say model.backbone.towers=image")
        )
        raise WeightsError(f"weights {weights!r} do not fit the tower:\n" + "\n".join(problems) + hint)
    clip.load_state_dict(state, strict=False)


def _differences(expected: State, state: State) -> list[str]:
    missing = sorted(expected.keys() - state.keys())
    surplus = sorted(state.keys() - expected.keys())
    common = expected.keys() & state.keys()
    shapes = [
        f"{k} {tuple(state[k].shape)} for {tuple(expected[k].shape)}"
        for k in sorted(common)
        if state[k].numel() != expected[k].numel() or state[k].squeeze().shape != expected[k].squeeze().shape
    ]
    groups = (("missing", missing), ("surplus", surplus), ("of another shape", shapes))
    return [f"  {len(keys)} {what}: {_shortened(keys)}" for what, keys in groups if keys]


def _shortened(keys: list[str], limit: int = 12) -> str:
    return ", ".join(keys[:limit]) + (f" and {len(keys) - limit} more" if len(keys) > limit else "")


def trained_normalisation(name: str, weights: str) -> tuple[Any, Any] | None:
    """Channel means and standard deviations that a pretrained tag, or a file of exported towers, was trained with;
    None for any other weights.
    """
    path = weights_file(name, weights)
    if path is not None and is_exported(path):
        reading = exported_facts(path).preprocessing
        return reading.mean, reading.std
    tag = get_pretrained_cfg(name, weights)
    return (tuple(tag["mean"]), tuple(tag["std"])) if tag and "mean" in tag else None
