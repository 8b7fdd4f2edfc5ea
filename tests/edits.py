"""Changes of a run's files that leave them whole: what a test edits still has the checksum of its content."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from handreid.files import read_json, write_json


def edit(path: Path, *, without: Sequence[str] = (), **changes: Any) -> None:
    """Replaces keys of the top level of a JSON file, and drops those in `without`."""
    kept = {key: value for key, value in read_json(path).items() if key not in without}
    write_json(path, kept | changes)
