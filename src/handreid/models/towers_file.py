"""Both towers in one safetensors file, in open_clip's names, for other recipes and other programs to start from."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Bool
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from handreid.files import TOWERS, found_file, is_folder
from handreid.models.exported_towers import read_exported
from handreid.models.sealed import load_sealed, save_sealed
from handreid.models.text import TextEncoder, seen_tokens

FORMAT = 1
_KEY = "handreid-towers"  # of the file's metadata


@dataclass(frozen=True, eq=False)
class Found:
    """Parameters by name, whether they need QuickGELU (None: unknown), and the tokens that the text tower learned from
    (None: all of them, or unknown).
    """

    state: dict[str, Tensor]
    quick_gelu: bool | None = None
    seen: Bool[Tensor, " vocabulary"] | None = None


def save_towers(
    path: Path,
    image: nn.Module,
    text: TextEncoder,
    config: dict[str, Any],
    *,
    before: Callable[[Path], object] | None = None,
) -> None:
    """Writes the file; `config` is the complete one of both towers, `before` as in `write_atomic`. Raises OutputError.

    What a recipe adds to the image tower (visual prompts, side information) is not in it.
    """
    state = {f"visual.{name}": value for name, value in image.state_dict().items()} | text.clip.state_dict()
    facts = {"format": FORMAT, "quick_gelu": bool(config.get("quick_gelu", False)), **text.seen_facts}
    save_sealed(path, state, _KEY, facts, before=before)


def read_towers(path: Path) -> Found | None:
    """The towers of a file that `save_towers` or `save_exported` wrote; None for any other file.

    Raises WeightsError if the file was changed.
    """
    exported = read_exported(path)
    if exported is not None:
        return Found(exported.state, exported.quick_gelu, exported.seen)
    try:
        with safe_open(path, framework="pt") as file:
            ours = _KEY in (file.metadata() or {})
    except (OSError, SafetensorError, ValueError):
        ours = False
    if not ours:
        return None
    facts, state = load_sealed(path, _KEY, "file of both towers", FORMAT)
    return Found(state, bool(facts.get("quick_gelu")), seen_tokens(facts))


def towers_file(weights: str) -> Path | None:
    """The file that `weights` names: a file, or a run's folder with its towers; None if there is none."""
    return found_file(weights) or found_file(f"{weights}/{TOWERS}")


def lacks_towers(weights: str) -> bool:
    """Whether it names a folder without both towers."""
    try:
        folder = Path(weights).expanduser()
    except RuntimeError:  # an unknown user
        return False
    return "\0" not in weights and is_folder(folder) and towers_file(weights) is None
