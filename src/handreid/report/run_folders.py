"""Run folders from paths on the command line; without torch, so that a wrong folder is reported at once."""

from collections.abc import Sequence
from pathlib import Path

from handreid.errors import RunError
from handreid.runs.results import read_ladder


def run_folders(paths: Sequence[Path]) -> list[Path]:
    """Run folders unchanged, and folders of runs replaced by the runs in them: a ladder's in the order of its rungs.

    Each run occurs once, at its first position. Raises RunError for a folder without runs.
    """
    folders = [folder for path in paths for folder in _runs_in(path)]
    unique: dict[Path, Path] = {}
    for folder in folders:
        unique.setdefault(folder.resolve(), folder)
    return list(unique.values())


def _runs_in(path: Path) -> list[Path]:
    if (path / "run.json").is_file():
        return [path]
    below = sorted(record.parent for record in path.glob("*/run.json"))
    if not below:
        raise RunError(f"{path} is neither a run folder nor a folder of runs; train a run with `handreid train`")
    if not (path / "ladder.json").is_file():
        return below
    order = [path / rung.recipe for rung in read_ladder(path).rungs]
    return [folder for folder in order if folder in below]
