"""Room on a disk."""

import shutil
from pathlib import Path


def free_bytes(path: Path) -> int | None:
    """Bytes that are free on the disk of a file or folder, which need not exist yet; None if nothing of it exists."""
    existing = next((place for place in (path.absolute(), *path.absolute().parents) if place.exists()), None)
    return None if existing is None else shutil.disk_usage(existing).free


def format_bytes(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
