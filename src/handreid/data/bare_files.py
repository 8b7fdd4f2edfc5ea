"""Photos that come as files and folders, without a manifest."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import polars as pl

from handreid.data.manifest import Manifest
from handreid.data.sources.files import files_below
from handreid.data.tables import format_list
from handreid.errors import PhotoError


def photos_at(places: Iterable[Path]) -> list[Path]:
    """Files as they are given, and for a folder all photos below it, sorted by path. Raises ManifestError for a folder
    that cannot be listed.
    """
    paths: list[Path] = []
    for place in places:
        paths += [place / path for path in files_below(place).photos] if place.is_dir() else [place]
    return paths


def manifest_of_files(paths: Sequence[Path]) -> Manifest:
    """A manifest of files, each once, of unknown subjects. Raises PhotoError for files that do not exist."""
    missing = [str(path) for path in paths if not path.exists()]
    if missing:
        raise PhotoError(
            f"{missing[0]} is missing"
            if len(missing) == 1
            else f"{len(missing):,} of {len(paths):,} photos are missing: {format_list(missing, 3)}"
        )
    names = [str(path) for path in dict.fromkeys(paths)]
    return Manifest(pl.DataFrame({"path": names}, schema={"path": pl.String}), Path(), "files", outside_root=True)
