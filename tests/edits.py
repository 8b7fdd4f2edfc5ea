"""Changes of a run's files that leave them whole: what a test edits still has the checksum of its content."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from handreid.files import file_hash, read_json, write_json
from handreid.runs.epoch_metrics import append_metrics
from handreid.runs.folder import Run


def edit(path: Path, *, without: Sequence[str] = (), **changes: Any) -> None:
    """Replaces keys of the top level of a JSON file, and drops those in `without`."""
    kept = {key: value for key, value in read_json(path).items() if key not in without}
    write_json(path, kept | changes)


def edit_recipe(folder: Path, old: str, new: str) -> None:
    """Changes a run's recipe.yaml, as if it had been started with that."""
    path = folder / "recipe.yaml"
    path.write_text(path.read_text().replace(old, new))
    note(folder, path.name)


def write_metrics(run: Run, entries: Iterable[Mapping[str, Any]]) -> None:
    run.metrics.unlink(missing_ok=True)
    for entry in entries:
        append_metrics(run, entry)


def note(folder: Path, *names: str) -> None:
    """Notes files of a run's folder in run.json as they are now."""
    files = read_json(folder / "run.json")["files"]
    edit(folder / "run.json", files=files | {name: file_hash(folder / name) for name in names})
