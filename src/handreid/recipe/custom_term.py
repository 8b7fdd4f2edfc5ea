"""A user's term of the loss: a class that is imported by its name, or an object given from Python.

* `kind: "package.module:Class"` and `arguments` describe an imported class completely, so that anybody who has the
  package can train the recipe again.
* The constructor arguments of an object are unknown. A recipe holds a copy of it as it was given, and stores its
  `fingerprint`: hashes of its settings and of its weights. A run resumes only with an object of the same fingerprint.
* Recipes do not import torch: an object can only be an `nn.Module` if torch has been imported already.
"""

import copy
import hashlib
import json
import re
import sys
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ModelWrapValidatorHandler, PrivateAttr, model_validator

from handreid.messages import shown
from handreid.recipe.base import FeatureName, Neck
from handreid.recipe.term import LearnedTerm

CUSTOM = "package.module:Class"  # stands for all such kinds in messages
_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d][\w.<>]*")


def _check_name(kind: str) -> str:
    if not _NAME.fullmatch(kind):
        raise ValueError(f"write {CUSTOM} as Python imports it, such as my_losses:Spread; a module, never a file")
    return kind


class CustomTerm(LearnedTerm):
    """A loss of your own, an `nn.Module` (see [Python](python.md)). Training such a recipe imports its package and runs
    its code.
    """

    kind: Annotated[str, AfterValidator(_check_name)]
    """`package.module:Class`, as Python imports it."""
    arguments: dict[str, object] = Field({})
    """Keyword arguments of the class. `features`, `widths`, `identities` and `neck` are filled in if the class has such
    parameters."""
    features: tuple[FeatureName, ...] = Field(("pooled",), min_length=1)
    """Features that it reads."""
    neck: Neck = "before"
    """Whether features are read before or after the head's neck."""
    pairs: bool = False
    """Whether it compares photos of one identity within a batch; the sampler must then provide several."""
    mixed_photos: bool = False
    """Whether it supports photos mixed from two identities (`targets.parts()`)."""
    fingerprint: str | None = None
    """Written by handreid for an object that was given from Python and that no recipe can construct: identifies the
    object."""
    _module: Any = PrivateAttr(None)

    @property
    def module(self) -> Any:
        """The object as it was given, of which a copy is trained; None where the class must be imported."""
        return self._module

    @property
    def needs_pairs(self) -> bool:
        return self.pairs

    @property
    def takes_mixed_photos(self) -> bool:
        return self.mixed_photos

    @model_validator(mode="wrap")
    @classmethod
    def _from_module(cls, value: Any, handler: ModelWrapValidatorHandler["CustomTerm"]) -> "CustomTerm":
        """Accepts an object instead of the keys, or among them as `module`."""
        keys = {"module": value} if is_module(value) or isinstance(value, type) else value
        if not isinstance(keys, dict) or "module" not in keys:
            return handler(value)
        module = keys["module"]
        if not is_module(module):
            raise ValueError(f"{shown(module)} is no object of nn.Module: give one, such as Loss(), not its class")
        if "kind" in keys or "arguments" in keys:
            raise ValueError("module is an object already: leave out kind and arguments, which make one")
        try:
            snapshot = copy.deepcopy(module)
        except (RuntimeError, TypeError) as error:
            raise ValueError(f"module {_path_of(type(module))} cannot be copied: {error}") from None
        term = handler(_facts_of(snapshot) | {name: value for name, value in keys.items() if name != "module"})
        term._module = snapshot
        return term


def kind_of(value: Any) -> str | None:
    """The discriminator of terms in a list of objectives: the kind, or `CUSTOM` for all that are not handreid's."""
    if (
        is_module(value)
        or isinstance(value, type)
        or (isinstance(value, dict) and "module" in value and "kind" not in value)
    ):
        return CUSTOM
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    return CUSTOM if isinstance(kind, str) and ":" in kind else kind


def is_module(value: object) -> bool:
    """Whether it is an object of torch's `nn.Module`."""
    module = getattr(getattr(sys.modules.get("torch"), "nn", None), "Module", None)
    return module is not None and isinstance(value, module)


def _facts_of(module: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {"kind": _path_of(type(module)), "fingerprint": fingerprint_of(module)}
    features, neck = getattr(module, "features", None), getattr(module, "neck", None)
    if isinstance(features, list | tuple) and all(isinstance(name, str) for name in features):
        facts["features"] = tuple(features)
    if isinstance(neck, str):
        facts["neck"] = neck
    return facts


def fingerprint_of(module: Any) -> str:
    """Equal for objects of one class with the same settings (numbers, texts, lists of them) and the same weights."""
    torch: Any = sys.modules["torch"]
    internal = vars(torch.nn.Module())
    settings, weights = hashlib.sha256(), hashlib.sha256()
    for path, part in module.named_modules():
        plain = {name: _plain(value) for name, value in vars(part).items() if name not in internal}
        settings.update(json.dumps([path, _path_of(type(part)), plain], sort_keys=True).encode())
    for name, value in module.state_dict().items():
        weights.update(json.dumps([name, _plain(value)], sort_keys=True).encode())
    return f"settings {settings.hexdigest()[:16]}, weights {weights.hexdigest()[:16]}"


def _plain(value: Any) -> Any:
    torch: Any = sys.modules["torch"]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, torch.Tensor):
        stored = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        return [str(value.dtype), list(value.shape), hashlib.sha256(stored.numpy().tobytes()).hexdigest()]
    owner = value if hasattr(value, "__qualname__") else type(value)
    return _path_of(owner)


def _path_of(owner: Any) -> str:
    return f"{owner.__module__}:{owner.__qualname__}"
