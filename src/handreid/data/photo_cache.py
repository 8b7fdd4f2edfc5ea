"""Decoded photos on disk: an array of bytes that is mapped, never read whole, and made anew where it is not as written.

The array's file has its hash noted beside it, and is compared with it once in a process: one that is damaged, cut short
or somebody else's is decoded again, and said.
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


def kept(
    path: Path, shape: tuple[int, ...], decoded: Callable[[], Decoded], progress: Progress
) -> UInt8[np.ndarray, "photos 3 height width"]:
    """What `decoded` gives, from the file if it is there. Raises OutputError where it cannot be written."""
    trouble = _trouble(path, shape) if path.exists() else ""
    if trouble:
        progress.say(f"{path} {trouble}: decoding the photos again")
    if trouble is not None:
        _write(path, shape, decoded)
    return open_memmap(path, mode="r")


def _trouble(path: Path, shape: tuple[int, ...]) -> str | None:
    """Why the file is not used; None where it is as it was written."""
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
    """Written, not mapped: a full disk is an error then, and would end the process otherwise."""
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
