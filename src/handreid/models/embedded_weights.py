"""The weights inside the package: a pretrained tag, the backbone that it belongs to, and its file.

`MODEL_CARD.md` beside the file says what they were trained on. `handreid export towers` writes such a file.
"""

from importlib import resources
from pathlib import Path

from handreid.errors import WeightsError

EMBEDDED = "handreid"  # the tag; also the name of the model in place of a run
EMBEDDED_BACKBONE = "handreid-small"
FILE = Path(str(resources.files("handreid") / "models" / "embedded" / "handreid.safetensors"))


def embedded_file() -> Path:
    """Raises WeightsError if this installation has no such file."""
    if not FILE.is_file():
        raise WeightsError(f"weights {EMBEDDED!r} are not in this installation ({FILE} is missing): install it again")
    return FILE


def is_embedded(model: object) -> bool:
    """Whether a model, named where a run or a file could be, is the embedded one, whatever lies at that path."""
    return isinstance(model, str | Path) and str(model) == EMBEDDED
