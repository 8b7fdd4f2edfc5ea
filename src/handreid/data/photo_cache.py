"""Decoded photos on disk, as a memory-mapped array that is never read whole.

The hash of the array's file is stored beside it and compared when the file is opened. If the file is damaged, truncated
or not ours, the photos are decoded again, with a message.
"""

import contextlib
import hashlib
import io
from collections.abc import Callable, Generator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy.lib.format import open_memmap, write_array_header_1_0

from handreid.errors import HandreidError, OutputError
from handreid.files import file_hash, read_json, write_atomic, write_json
from handreid.progress import Progress

Decoded = Generator[UInt8[np.ndarray, "3 height width"], None, None]


def cached_photos(
    path: Path, shape: tuple[int, ...], decoded: Callable[[], Decoded], progress: Progress
) -> UInt8[np.ndarray, "photos 3 height width"]:
    """The photos that `decoded` yields, from the file if it exists. Raises OutputError if it cannot be written."""
    trouble = _trouble(path, shape) if path.exists() else ""
    if trouble:
        progress.say(f"{path} {trouble}: decoding the photos again")
    if trouble is not None:
        _write(path, shape, decoded)
    return open_memmap(path, mode="r")


def _trouble(path: Path, shape: tuple[int, ...]) -> str | None:
    """Why the file is not used; None if it is intact."""
    note = _note_of(path)
    if not note.is_file():
        return "has no note of what was written"
    try:
        if read_json(note).get("sha256") != file_hash(path):
            return "is not as it was written"
        array = open_memmap(path, mode="r")  # never unpickles
    except (HandreidError, OSError, ValueError) as error:
        return f"cannot be used ({error})"
    fits = array.dtype == np.uint8 and array.shape == shape and array.flags.c_contiguous
    return None if fits else "holds something else than these photos"


def _write(path: Path, shape: tuple[int, ...], decoded: Callable[[], Decoded]) -> None:
    """Raises OutputError. The file is written, not mapped: on a full disk writing to a map would end the process."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        advice = "set HANDREID_CACHE to a folder that can be written, or `data.cache: memory`"
        raise OutputError(
            f"{path.parent}: decoded photos cannot be cached there ({error.strerror}); {advice}"
        ) from None

    def write(part: Path) -> None:
        digest, header = hashlib.sha256(), io.BytesIO()
        write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
        with part.open("wb") as file, contextlib.closing(decoded()) as photos:
            digest.update(header.getvalue())
            file.write(header.getvalue())
            for photo in photos:
                digest.update(photo.data)
                file.write(photo.data)
        write_json(_note_of(path), {"sha256": digest.hexdigest()})  # first: a file without its note would not be used

    write_atomic(path, write)


def _note_of(path: Path) -> Path:
    return path.with_suffix(".json")
