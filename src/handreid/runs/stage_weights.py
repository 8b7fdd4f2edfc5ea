"""Weights of a stage: their hashes are noted before the files are moved into place, and compared when they are opened.

* While a stage is running, `checkpoint.json` holds two hashes per file: that of the new content and that of the old.
  Whenever the process is killed, the file has one of them; `settle` notes which when the run is resumed.
* When the stage is finished, the hashes are in `stage.json`.
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
    """The file of the text tower's weights, if the stage trains it; `which` is `best` or `last`."""
    return folder / f"{which}-text.safetensors"


def noting(path: Path) -> Callable[[Path], None]:
    """A function for `write_atomic` to call before it moves a file to `path`: it notes the hash."""

    def note(part: Path) -> None:
        noted = read_checkpoint(path.parent)
        accepted = dict.fromkeys([file_hash(part), *noted.get(path.name, [])[:1]])
        write_json(path.parent / NOTES, {"format": STAGE_FORMAT, "files": {**noted, path.name: [*accepted]}})

    return note


def checked(path: Path) -> Path:
    """Returns the path of a stage's file after comparing its hash. Raises RunError."""
    folder = path.parent
    noted = _noted(folder).get(path.name)
    advice = (
        f"put back a copy of it as it was, or remove {folder} and resume the run, which does this stage and those "
        "after it again"
    )
    check_noted(path, noted=noted, advice=advice)
    return path


def belongs(path: Path) -> bool:
    """Whether the stage has written this file, even if it was removed since. Raises RunError."""
    return path.name in _noted(path.parent)


def settle(folder: Path) -> None:
    """Notes the present hash of each file of a resumed stage. Raises RunError if it is none of the accepted ones."""
    noted = read_checkpoint(folder)
    present = {name: [file_hash(checked(folder / name))] for name in noted if (folder / name).exists()}
    if present != noted:
        write_json(folder / NOTES, {"format": STAGE_FORMAT, "files": present})


def hashes(folder: Path) -> dict[str, str]:
    """Hashes of all weights in a stage's folder, each compared with the noted one. Raises RunError."""
    return {name: file_hash(checked(folder / name)) for name in _KEPT if (folder / name).exists()}


def forget(folder: Path) -> None:
    """Removes the files of an earlier attempt before a stage is started again."""
    for name in ("stage.json", *_KEPT, "wise_ft.json", NOTES):
        (folder / name).unlink(missing_ok=True)


def _noted(folder: Path) -> dict[str, str] | dict[str, list[str]]:
    if (folder / "stage.json").exists():
        files: dict[str, str] = read_stage(folder)["files"]
        return files
    return read_checkpoint(folder)
