"""Which rendered people a manifest has: those of a seed, under any name of the folder and of the manifest.

A person follows from seed and number, so `p00003` of two seeds are two people, and two renderings of a seed, of
whatever size and number of photos, have the same ones.
"""

import json
from pathlib import Path

from handreid.data.manifest import Manifest

_PREFIX = "rendered-"
_COLUMNS = frozenset({"skin_tone", "ring_finger", "sleeve", "pose", "moles", "scar"})  # of the table of `render`


def people_set(manifest: Manifest) -> str:
    """The name of the set of people: `rendered-7` for the seed 7, and for other photos the manifest's data set."""
    seed = _seed(manifest.root / "rendered.json")
    return manifest.dataset if seed is None else f"{_PREFIX}{seed}"


def is_rendered(people: str) -> bool:
    """Whether it is such a name of rendered people."""
    return people.startswith(_PREFIX)


def looks_rendered(manifest: Manifest) -> bool:
    """Whether the photos may be rendered although no `rendered.json` lies with them, as of turned copies."""
    return set(manifest.table.columns) >= _COLUMNS


def _seed(record: Path) -> int | None:
    try:
        seed = json.loads(record.read_text(encoding="utf-8"))["seed"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return seed if isinstance(seed, int) else None
