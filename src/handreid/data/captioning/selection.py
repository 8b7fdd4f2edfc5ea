"""Which columns of a manifest captions shall say."""

from collections.abc import Sequence
from dataclasses import dataclass

from handreid.data.captioning.english import column_words
from handreid.data.captioning.values import Value, meanings
from handreid.data.manifest import Manifest
from handreid.data.rows import KNOWN, VALUES
from handreid.data.tables import format_list, require_columns
from handreid.errors import ManifestError

_SAYABLE = ("side", "aspect", "camera", "session")  # of the core columns: the others name a person, file or split
_NEVER = (*(name for name in KNOWN if name not in _SAYABLE), "perturbed_from")
_BOTH = ("aspectofhand", "view")  # `dorsal right`, as HandInfo.csv of 11k Hands has it


@dataclass(frozen=True)
class Said:
    """A column with its name in words, and what each row says."""

    name: str
    words: str
    values: list[Value | None]


def select_columns(manifest: Manifest, names: Sequence[str]) -> list[Said]:
    """The columns of these names, however they are spelled (`skinColor`, `skin_color`), each once.

    `aspectOfHand` and `view` are aspect and side. Raises ManifestError for unknown columns, all at once, and for those
    that tell the person or the file rather than what the photo shows.
    """
    table = manifest.table
    columns = [name for name in table.columns if name not in _NEVER]
    by_key = {_key(name): name for name in reversed(columns)}
    asked = [name.strip() for name in names if name.strip()]
    if not asked:
        raise ManifestError(f"no column is named; captions can say {format_list(columns, 30)}")
    found: list[str] = []
    for name in asked:
        column = name if name in columns else by_key.get(_key(name))
        found += [column] if column else ["aspect", "side"] if _key(name) in _BOTH else [name]
    refused = [name for name in dict.fromkeys(found) if name in _NEVER and name in (*KNOWN, *table.columns)]
    if refused:
        raise ManifestError(
            f"captions cannot say {format_list(refused)}, which tells the person, the file or its use and not what the "
            f"photo shows; choose from {format_list(columns, 30)}"
        )
    require_columns(columns, list(dict.fromkeys(found)), "the manifest")
    said = [Said(name, column_words(name), meanings(table[name])) for name in dict.fromkeys(found)]
    return [part for column in said for part in _parted(column)]


def _parted(column: Said) -> list[Said]:
    """Aspect and side of a column that holds both; any other column as it is."""
    if _key(column.name) not in _BOTH:
        return [column]
    words = [set(str(value or "").lower().replace("-", " ").split()) for value in column.values]
    return [
        Said(name, name, [next((part for part in VALUES[name] if part in cell), None) for cell in words])
        for name in ("aspect", "side")
    ]


def _key(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
