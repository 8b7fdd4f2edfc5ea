"""Run folders from paths on the command line; without torch, so that a wrong folder is reported at once."""

from collections.abc import Sequence
from pathlib import Path

from handreid.errors import RunError
from handreid.runs.results import read_ladder


def run_folders(paths: Sequence[Path], *, every_seed: bool = True) -> list[Path]:
    """Run folders unchanged, and folders of runs replaced by the runs in them: a ladder's in the order of its rungs,
    of a rung over several seeds all runs, or only the first.

    Each run occurs once, at its first position. Raises RunError for a folder without runs.
    """
    folders = [folder for path in paths for folder in _runs_in(path, every_seed)]
    unique: dict[Path, Path] = {}
    for folder in folders:
        unique.setdefault(folder.resolve(), folder)
    return list(unique.values())


def _runs_in(path: Path, every_seed: bool) -> list[Path]:
    if (path / "run.json").is_file():
        return [path]
    below = sorted(record.parent for record in path.glob("*/run.json"))
    if not below:
        raise RunError(f"{path} is neither a run folder nor a folder of runs; train a run with `handreid train`")
    if not (path / "ladder.json").is_file():
        return below
    runs = [rung.runs if every_seed else rung.runs[:1] for rung in read_ladder(path).rungs]
    order = [path / name for names in runs for name in names]
    return [folder for folder in order if folder in below]
