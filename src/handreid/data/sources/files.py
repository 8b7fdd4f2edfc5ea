"""Which files below a folder are photos."""

import os
from dataclasses import dataclass
from pathlib import Path

from handreid.data.tables import listed
from handreid.errors import ManifestError

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Files:
    """Paths below a folder, with forward slashes and relative to it, in order."""

    photos: tuple[str, ...]
    others: tuple[str, ...]

    def note(self) -> tuple[str, ...]:
        found = f"{len(self.others)} files that are not photos left out: {listed(self.others, 3)}"
        return (found,) if self.others else ()


def files_below(folder: Path) -> Files:
    """All files below a folder, at any depth. Hidden ones (`._1.jpg` of a Mac) count as no photos."""
    if not folder.is_dir():
        raise ManifestError(f"{folder}: no such folder")
    found = sorted(
        os.path.relpath(Path(here) / name, folder).replace(os.sep, "/")
        for here, _, names in os.walk(folder, followlinks=True)
        for name in names
    )
    photos = tuple(path for path in found if _is_photo(path))
    return Files(photos, tuple(path for path in found if not _is_photo(path)))


def _is_photo(path: str) -> bool:
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.split("/"))
    return not hidden and path.lower().endswith(PHOTO_SUFFIXES)
