"""Both towers of a run in a small file: float16, and of the vocabulary only the tokens that are used.

* Names are open_clip's. The table of token embeddings has a row for each of `token_ids`; `token_seen` tells which of
  these tokens the text tower learned from, beside those that only sentences of this package have.
* Read, the table is complete again: tokens that are not in the file have zeros. Weight decay takes the embedding of a
  token that is in no caption there too.
* The metadata say from which run the towers are, how photos are read, and who was seen.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Int
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from handreid.errors import OutputError, RunError, WeightsError
from handreid.models.sealed import load_sealed, save_sealed
from handreid.models.weight_files import State
from handreid.types import Preprocessing

FORMAT = 1
_KEY = "handreid-exported-towers"  # of the file's metadata
_WHAT = "file of exported towers"
_TABLE = "token_embedding.weight"
_IDS, _SEEN = "token_ids", "token_seen"


class SeenPeople(BaseModel):
    """Who a run was trained or validated on. Rendered people are named; of others there is only their number."""

    model_config = ConfigDict(frozen=True)

    run: str
    recipe: str
    dataset: str
    manifest_hash: str
    protocol: str
    subjects: int
    train: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()


class TowerFacts(BaseModel):
    """The metadata. `epochs` are those of each stage; `seen` is of the run and of those before it."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    recipe: str
    seed: int
    epochs: tuple[int, ...]
    handreid: str
    manifest_hash: str
    photos_hash: str
    config: dict[str, Any]
    preprocessing: Preprocessing
    seen: tuple[SeenPeople, ...]


@dataclass(frozen=True, eq=False)
class ExportedTowers:
    """Towers as read: fp32, with the complete table. `seen` marks the tokens that the text tower learned from."""

    state: State
    seen: Bool[Tensor, " vocabulary"]
    facts: TowerFacts

    @property
    def quick_gelu(self) -> bool:
        return bool(self.facts.config.get("quick_gelu", False))


def save_exported(
    path: Path,
    state: Mapping[str, Tensor],
    ids: Int[Tensor, " kept"],
    seen: Bool[Tensor, " kept"],
    facts: TowerFacts,
    *,
    before: Callable[[Path], object] | None = None,
) -> None:
    """Writes complete towers (`state`, fp32) with the tokens `ids` (ascending); `before` as in `write_atomic`.

    Raises RunError for weights that float16 cannot hold, OutputError.
    """
    table = _table_name(state)
    stored = {**state, table: state[table][ids]}
    half = {name: value.half() if value.is_floating_point() else value for name, value in stored.items()}
    broken = [name for name, value in half.items() if not bool(value.isfinite().all())]
    if broken:
        raise RunError(f"float16 cannot hold {len(broken)} of the weights, such as {broken[0]}: were they ever finite?")
    half |= {_IDS: ids.int(), _SEEN: seen}
    save_sealed(path, half, _KEY, facts.model_dump(mode="json"), before=before)


def read_exported(path: Path) -> ExportedTowers | None:
    """The towers in the file; None for any other file. Raises WeightsError if the file was changed."""
    if not is_exported(path):
        return None
    facts, state = _read(path)
    ids, seen = state.pop(_IDS), state.pop(_SEEN)
    state = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    name = _table_name(state)
    size, places = int(facts.config["text_cfg"].get("vocab_size", 49408)), ids.long()
    table = torch.zeros(size, state[name].shape[1])
    table[places] = state[name]
    known = torch.zeros(size, dtype=torch.bool)
    known[places] = seen.bool()
    return ExportedTowers(state | {name: table}, known, facts)


def exported_facts(path: Path) -> TowerFacts:
    """The metadata of such a file. Raises WeightsError for any other, and if it was changed."""
    return _read(path)[0]


def is_exported(path: Path) -> bool:
    """Whether `save_exported` wrote the file."""
    try:
        with safe_open(path, framework="pt") as file:
            return _KEY in (file.metadata() or {})
    except (OSError, SafetensorError, ValueError):
        return False


def check_replaceable(path: Path) -> None:
    """Raises OutputError for an existing file of another kind, which would be lost."""
    if path.exists() and not is_exported(path):
        raise OutputError(f"{path} exists and does not hold exported towers; choose another name, or remove it")


def _read(path: Path) -> tuple[TowerFacts, State]:
    stated, state = load_sealed(path, _KEY, _WHAT, FORMAT)
    try:
        facts = TowerFacts.model_validate(stated)
        size = int(facts.config["text_cfg"].get("vocab_size", 49408))
        ids, seen, table = state[_IDS], state[_SEEN], state[_table_name(state)]
    except (ValidationError, LookupError, TypeError, ValueError, AttributeError):
        raise WeightsError(f"{path} is not a {_WHAT} as handreid writes it; export the run again") from None
    if not (ids.dim() == 1 and table.dim() == 2 and len(ids) == len(seen) == len(table)) or (
        len(ids) and not (int(ids.min()) >= 0 and int(ids.max()) < size)
    ):
        raise WeightsError(f"{path}: its tokens do not match its table of embeddings; export the run again")
    return facts, state


def _table_name(state: Mapping[str, Tensor]) -> str:
    """`token_embedding.weight`, or `text.token_embedding.weight` in CustomTextCLIP. Raises LookupError."""
    names = [name for name in state if name.endswith(_TABLE) and not name.startswith("visual.")]
    if len(names) != 1:
        raise LookupError(f"{len(names)} tables of token embeddings")
    return names[0]
