"""Recognise a person from a photo of a hand.

All names here are imported on first use, so `import handreid` takes milliseconds. See docs/python.md.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from handreid.api import embed as embed
    from handreid.api import evaluate as evaluate
    from handreid.api import read_manifest as read_manifest
    from handreid.api import train as train
    from handreid.data.manifest import Manifest as Manifest
    from handreid.errors import HandreidError as HandreidError
    from handreid.metrics.search import rank as rank
    from handreid.metrics.search import rerank as rerank
    from handreid.metrics.summary import metrics as metrics
    from handreid.models.embedder import Embedder as Embedder
    from handreid.recipe import Recipe as Recipe
    from handreid.recipe import load_recipe as load_recipe

__all__ = [
    "Embedder",
    "HandreidError",
    "Manifest",
    "Recipe",
    "embed",
    "evaluate",
    "load_recipe",
    "metrics",
    "rank",
    "read_manifest",
    "rerank",
    "train",
]
_HOMES = {
    "Embedder": "handreid.models.embedder",
    "HandreidError": "handreid.errors",
    "Manifest": "handreid.data.manifest",
    "Recipe": "handreid.recipe",
    "embed": "handreid.api",
    "evaluate": "handreid.api",
    "load_recipe": "handreid.recipe",
    "metrics": "handreid",  # the package itself can be called, see `metrics/__init__.py`
    "rank": "handreid.metrics.search",
    "read_manifest": "handreid.api",
    "rerank": "handreid.metrics.search",
    "train": "handreid.api",
}


def __getattr__(name: str) -> Any:
    if name == "metrics":
        return import_module("handreid.metrics")
    if name not in _HOMES:
        raise AttributeError(f"module 'handreid' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
