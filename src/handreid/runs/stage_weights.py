"""Weights of a stage: their hashes are noted before they are moved into place, and compared when they are opened.

* While a stage goes on, `checkpoint.json` holds for each file the hash that it is about to have and the one it had: at
  whatever moment a process is killed, the file that is there is one of the two. Who goes on settles which.
* When it is finished, `stage.json` holds them.
"""

from collections.abc import Callable
from pathlib import Path

from handreid.files import file_hash, write_json
from handreid.runs.folder import check_noted
from handreid.runs.records import STAGE_FORMAT, read_checkpoint, read_stage

NOTES = "checkpoint.json"
_KEPT = (
    "best.safetensors",
    "last.safetensors",
    "best-text.safetensors",
    "last-text.safetensors",
    "wise_ft.safetensors",
    "last.ckpt",
)


def text_file(folder: Path, which: str) -> Path:
    """Where a stage that trains the text tower keeps it, beside its `best` and its `last` weights."""
    return folder / f"{which}-text.safetensors"


def noting(path: Path) -> Callable[[Path], None]:
    """What `write_atomic` calls before it moves a file to this place."""

    def note(part: Path) -> None:
        known = read_checkpoint(path.parent)
        accepted = dict.fromkeys([file_hash(part), *known.get(path.name, [])[:1]])
        write_json(path.parent / NOTES, {"format": STAGE_FORMAT, "files": {**known, path.name: [*accepted]}})

    return note


def checked(path: Path) -> Path:
    """The path of a stage's file that is as it was written. Raises RunError."""
    folder = path.parent
    noted = _noted(folder).get(path.name)
    advice = (
        f"put back a copy of it as it was, or remove {folder} and resume the run, which does this stage and those "
        "after it again"
    )
    check_noted(path, noted=noted, advice=advice)
    return path


def belongs(path: Path) -> bool:
    """Whether a file is one that its stage has written, whether it is still there or not. Raises RunError."""
    return path.name in _noted(path.parent)


def settle(folder: Path) -> None:
    """Notes for each file of a stage that goes on the hash that it has. Raises RunError for one that has another."""
    known = read_checkpoint(folder)
    there = {name: [file_hash(checked(folder / name))] for name in known if (folder / name).exists()}
    if there != known:
        write_json(folder / NOTES, {"format": STAGE_FORMAT, "files": there})


def hashes(folder: Path) -> dict[str, str]:
    """Of all weights in a stage's folder, each compared with what was noted. Raises RunError."""
    return {name: file_hash(checked(folder / name)) for name in _KEPT if (folder / name).exists()}


def forget(folder: Path) -> None:
    """Removes what another attempt left of a stage that is done from its beginning."""
    for name in ("stage.json", *_KEPT, "wise_ft.json", NOTES):
        (folder / name).unlink(missing_ok=True)


def _noted(folder: Path) -> dict[str, str] | dict[str, list[str]]:
    if (folder / "stage.json").exists():
        files: dict[str, str] = read_stage(folder)["files"]
        return files
    return read_checkpoint(folder)
