"""Reads weight files from other sources as tensors only: no such file can run code here.

* safetensors holds only tensors. A pickle (what torch.save writes, in any of its formats) is read by torch's unpickler
  for weights, which creates tensors and plain containers and refuses everything else.
* A TorchScript archive is a program, which runs when it is loaded. Those that OpenAI published are recognised by their
  SHA-256; no other is loaded.
"""

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from handreid.errors import WeightsError
from handreid.files import file_hash

State = dict[str, Tensor]

# SHA-256 of OpenAI's archives, as in the addresses that github.com/openai/CLIP and open_clip have of them
OPENAI = {
    "RN50": "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762",
    "RN101": "8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599",
    "RN50x4": "7e526bd135e493cef0776de27d5f42653e6b4c8bf9e0f653bb11773263205fdd",
    "RN50x16": "52378b407f34354e150460fe41077663dd5b39c54cd0bfd2b27167a4a06ec9aa",
    "RN50x64": "be1cfb55d75a9666199fb2206c106743da0f6468c9d327f3e0d0a543a9919d9c",
    "ViT-B-32": "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
    "ViT-B-16": "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
    "ViT-L-14": "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
    "ViT-L-14-336": "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02",
}
_NO_PARAMETERS = ("input_resolution", "context_length", "vocab_size")  # of OpenAI's archives
_NESTED = ("state_dict", "model")  # keys under which checkpoints keep the parameters
_INSTEAD = "give its tensors instead, as .safetensors or as a state_dict that torch.save wrote"


def read_weights(path: Path) -> tuple[State, bool]:
    """Parameters of a file by name, and whether it is one of OpenAI's archives. Raises WeightsError."""
    try:
        if _is_program(path):
            return _read_openai(path), True
        content = load_file(path) if _is_safetensors(path) else _unpickled(path)
    except WeightsError:
        raise
    except OSError as error:
        raise WeightsError(f"weights file {path} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # for any other file the readers may raise any type
        raise WeightsError(
            f"weights file {path} cannot be read as parameters of a CLIP ({_reason(error)}); {_INSTEAD}"
        ) from None
    return _parameters(content, path), False


def _is_program(path: Path) -> bool:
    """Whether it is a zip with code or constants in it, at any depth, as torch.jit.save writes."""
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            names = [re.split(r"[/\\]", name.lower()) for name in archive.namelist()]
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return False  # then torch refuses it, or finds only tensors
    return any(parts[-1] == "constants.pkl" or "code" in parts for parts in names)


def _read_openai(path: Path) -> State:
    digest = file_hash(path)
    if digest not in OPENAI.values():
        raise WeightsError(
            f"weights file {path} is a TorchScript archive, which runs code when it is loaded, and is not one of those "
            f"that OpenAI published (its SHA-256 is {digest}); {_INSTEAD}"
        )
    with warnings.catch_warnings():  # torch deprecates TorchScript; OpenAI's weights are in such archives
        warnings.simplefilter("ignore")
        state = torch.jit.load(str(path), map_location="cpu").state_dict()  # type: ignore[no-untyped-call]
    return {name: value for name, value in state.items() if name not in _NO_PARAMETERS}


def _is_safetensors(path: Path) -> bool:
    """By its content: the length of a header (8 bytes), then the header, which is a JSON object."""
    with path.open("rb") as file:
        start = file.read(9)
    return path.suffix == ".safetensors" or (start[8:] == b"{" and int.from_bytes(start[:8], "little") < 1e8)


def _unpickled(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=True)


def _parameters(content: Any, path: Path) -> State:
    """The state dict that the content is or contains, without the prefix `module.` of models trained in parallel."""
    nested = [content[key] for key in _NESTED if isinstance(content, Mapping) and isinstance(content.get(key), Mapping)]
    state = nested[0] if nested else content
    if not isinstance(state, Mapping) or not state:
        raise WeightsError(f"weights file {path} holds {_kind(state)}, not parameters by name; {_INSTEAD}")
    extra = {str(name): value for name, value in state.items() if not (isinstance(name, str) and _is_plain(value))}
    if extra:
        name, value = next(iter(extra.items()))
        raise WeightsError(
            f"weights file {path} holds more than parameters ({len(extra)} other entries, such as {name[:60]!r}, "
            f"{_kind(value)}); {_INSTEAD}"
        )
    broken = [name for name, value in state.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if broken:
        raise WeightsError(
            f"weights file {path}: {len(broken)} of {len(state)} parameters hold NaN or infinite "
            f"numbers, such as {broken[0][:60]!r}; the file is damaged"
        )
    prefixed = all(name.startswith("module.") for name in state)
    return {name.removeprefix("module.") if prefixed else name: value.detach() for name, value in state.items()}


def _is_plain(value: Any) -> bool:
    dense = isinstance(value, Tensor) and value.layout == torch.strided and not value.is_quantized
    return dense and not value.is_complex() and value.device.type == "cpu"


def _reason(error: Exception) -> str:
    """Our wording: torch's messages advise running the file's code."""
    message = str(error)
    match = re.search(r"GLOBAL (\S{1,80})", message) or re.search(r"module (\S{1,80}) is blocked", message)
    if match:
        return f"it holds more than tensors: {match[1]}"
    if "weights_only" in message or "Weights only" in message:
        return "it is no file of tensors alone"
    line = next(iter(message.splitlines()), "")[:200]
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def _kind(value: Any) -> str:
    return "nothing" if isinstance(value, Mapping) and not value else f"a {type(value).__name__}"
