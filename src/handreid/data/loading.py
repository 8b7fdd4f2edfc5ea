"""Decodes photos once into one array of bytes that every epoch and every evaluation reads.

* Photos are decoded to the model's size (`Preprocessing`) and kept in memory, or in a memory-mapped file that later
  runs use again.
* The file's name is a hash of the photos' bytes and of the preprocessing: a photo that was changed in place gives
  another name, even with its old name and date.
"""

import contextlib
import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from handreid.data.decoding import ADVICE, DECODER, naming
from handreid.data.decoding import open_upright as open_upright
from handreid.data.photo_cache import Decoded, cached_photos
from handreid.data.photo_hashes import file_hashes
from handreid.data.pixels import WHITE
from handreid.errors import PhotoError
from handreid.files import cache_folder
from handreid.progress import NullProgress, Progress
from handreid.types import Preprocessing

MEMORY_LIMIT = 2 << 30  # bytes of decoded photos that `auto` keeps in memory
_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def decode(path: Path, preprocessing: Preprocessing, enlarge: float = 1.0) -> UInt8[np.ndarray, "3 height width"]:
    """One photo, upright, RGB, at `enlarge` times the model's input size. Raises PhotoError."""
    height, width = scaled_size(preprocessing.size, enlarge)
    # a JPEG is read at the smallest of its scales that is still twice as large as the result
    photo = open_upright(path, (2 * width, 2 * height))
    resample = _FILTERS[preprocessing.interpolation]
    with naming(path):
        match preprocessing.resize:
            case "squash":
                photo = photo.resize((width, height), resample)
            case "crop":
                photo = ImageOps.fit(photo, (width, height), resample)
            case "pad":
                photo = ImageOps.pad(photo, (width, height), resample, color=WHITE)
        return np.ascontiguousarray(np.asarray(photo).transpose(2, 0, 1))


def scaled_size(size: tuple[int, int], factor: float) -> tuple[int, int]:
    return round(size[0] * factor), round(size[1] * factor)


def decode_all(
    paths: Sequence[Path],
    preprocessing: Preprocessing,
    *,
    enlarge: float = 1.0,
    cache: Literal["auto", "memory", "disk"] = "auto",
    folder: Path | None = None,
    progress: Progress | None = None,
) -> UInt8[np.ndarray, "photos 3 height width"]:
    """All photos in the order of `paths`, read-only. Raises PhotoError at the first that cannot be decoded.

    `auto` keeps up to `MEMORY_LIMIT` bytes in memory and maps more from disk, in `folder` (see `cache_folder`).
    """
    shape = (len(paths), 3, *scaled_size(preprocessing.size, enlarge))
    progress = progress or NullProgress()

    def decoded() -> Decoded:
        return _decoded(paths, preprocessing, enlarge, progress)

    if not paths or cache == "memory" or (cache == "auto" and int(np.prod(shape)) <= MEMORY_LIMIT):
        photos = np.empty(shape, np.uint8)
        with contextlib.closing(decoded()) as stream:
            for row, photo in enumerate(stream):
                photos[row] = photo
    else:
        key = _key(paths, preprocessing, enlarge, progress)
        photos = cached_photos((folder or cache_folder()) / f"photos-{key}.npy", shape, decoded, progress)
    photos.flags.writeable = False
    return photos


def _decoded(paths: Sequence[Path], preprocessing: Preprocessing, enlarge: float, progress: Progress) -> Decoded:
    with progress.step("decoding photos", len(paths), "photos") as advance, ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            for photo in pool.map(lambda path: decode(path, preprocessing, enlarge), paths):
                yield photo
                advance(1)
        except BaseException:
            pool.shutdown(cancel_futures=True)  # an error or Ctrl-C does not wait for the remaining photos
            raise


def _key(paths: Sequence[Path], preprocessing: Preprocessing, enlarge: float, progress: Progress) -> str:
    digest = hashlib.sha256(repr((preprocessing, enlarge, DECODER)).encode())
    for path, file_digest in zip(paths, file_hashes(paths, progress), strict=True):
        if file_digest is None:
            raise PhotoError(f"{path} is missing; {ADVICE}")
        digest.update(bytes.fromhex(file_digest))
    return digest.hexdigest()[:24]
