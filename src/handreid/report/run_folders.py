"""Which run folders are meant; it needs no torch, so a folder that is none is told at once."""

from collections.abc import Sequence
from pathlib import Path

from handreid.errors import RunError
from handreid.runs.results import read_ladder


def run_folders(paths: Sequence[Path]) -> list[Path]:
    """Run folders as they are; in the place of a folder that holds some, those: a ladder's in the order of its rungs.

    Each comes once, where it is named first. Raises RunError for a folder without runs.
    """
    found = [folder for path in paths for folder in _runs_in(path)]
    first: dict[Path, Path] = {}
    for folder in found:
        first.setdefault(folder.resolve(), folder)
    return list(first.values())


def _runs_in(path: Path) -> list[Path]:
    if (path / "run.json").is_file():
        return [path]
    below = sorted(found.parent for found in path.glob("*/run.json"))
    if not below:
        raise RunError(f"{path} is neither a run folder nor a folder of runs; train a run with `handreid train`")
    if not (path / "ladder.json").is_file():
        return below
    order = [path / rung.recipe for rung in read_ladder(path).rungs]
    return [folder for folder in order if folder in below]
