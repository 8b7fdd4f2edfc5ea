"""Decodes photos once into one array of bytes that every epoch and every evaluation reads.

* Photos are decoded to the model's size (`Preprocessing`) and kept in memory, or in a memory-mapped file that later
  runs use again.
* The file's name is a hash of the photos' bytes, of the preprocessing, and of the landmarks where it aligns hands and
  the sides where it mirrors left ones: a photo that was changed in place gives another name, even with its old name and
  date.
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

from handreid.data.aligned import read_aligned
from handreid.data.decoding import ADVICE, DECODER, naming
from handreid.data.decoding import open_upright as open_upright
from handreid.data.photo_cache import Decoded, cached_photos
from handreid.data.photo_file import PhotoFile, check_hands
from handreid.data.photo_hashes import file_hashes
from handreid.data.pixels import WHITE
from handreid.errors import PhotoError
from handreid.files import cache_folder
from handreid.progress import NullProgress, Progress
from handreid.types import Preprocessing

MEMORY_LIMIT = 2 << 30  # bytes of decoded photos that `auto` keeps in memory
_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def decode(photo: PhotoFile, preprocessing: Preprocessing, enlarge: float = 1.0) -> UInt8[np.ndarray, "3 height width"]:
    """One photo, upright, RGB, aligned and mirrored as the model has it, at `enlarge` times the model's input size.

    Raises PhotoError, and DataError as `check_hands`.
    """
    check_hands([photo], preprocessing)
    height, width = scaled_size(preprocessing.size, enlarge)
    mirror = photo.is_mirrored(preprocessing)
    if preprocessing.alignment is not None and photo.hand is not None:
        picture = read_aligned(photo, preprocessing.alignment, preprocessing.resize, (width, height), mirror=mirror)
    else:
        picture = _resized(photo.path, preprocessing, (width, height))
        picture = ImageOps.mirror(picture) if mirror else picture
    return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))


def _resized(path: Path, preprocessing: Preprocessing, size: tuple[int, int]) -> Image.Image:
    """The whole photo at `size` (width, height)."""
    # a JPEG is read at the smallest of its scales that is still twice as large as the result
    photo = open_upright(path, (2 * size[0], 2 * size[1]))
    resample = _FILTERS[preprocessing.interpolation]
    with naming(path):
        match preprocessing.resize:
            case "squash":
                return photo.resize(size, resample)
            case "crop":
                return ImageOps.fit(photo, size, resample)
            case "pad":
                return ImageOps.pad(photo, size, resample, color=WHITE)


def scaled_size(size: tuple[int, int], factor: float) -> tuple[int, int]:
    return round(size[0] * factor), round(size[1] * factor)


def decode_all(
    photos: Sequence[PhotoFile],
    preprocessing: Preprocessing,
    *,
    enlarge: float = 1.0,
    cache: Literal["auto", "memory", "disk"] = "auto",
    folder: Path | None = None,
    progress: Progress | None = None,
) -> UInt8[np.ndarray, "photos 3 height width"]:
    """All photos in their order, read-only. Raises PhotoError at the first that cannot be decoded, and DataError before
    any is where hands are to be aligned or mirrored that are not known (`check_hands`).

    `auto` keeps up to `MEMORY_LIMIT` bytes in memory and maps more from disk, in `folder` (see `cache_folder`).
    """
    check_hands(photos, preprocessing)
    shape = (len(photos), 3, *scaled_size(preprocessing.size, enlarge))
    progress = progress or NullProgress()

    def decoded() -> Decoded:
        return _decoded(photos, preprocessing, enlarge, progress)

    if not photos or cache == "memory" or (cache == "auto" and int(np.prod(shape)) <= MEMORY_LIMIT):
        pixels = np.empty(shape, np.uint8)
        with contextlib.closing(decoded()) as stream:
            for row, photo in enumerate(stream):
                pixels[row] = photo
    else:
        key = _key(photos, preprocessing, enlarge, progress)
        pixels = cached_photos((folder or cache_folder()) / f"photos-{key}.npy", shape, decoded, progress)
    pixels.flags.writeable = False
    return pixels


def _decoded(photos: Sequence[PhotoFile], preprocessing: Preprocessing, enlarge: float, progress: Progress) -> Decoded:
    with progress.step("decoding photos", len(photos), "photos") as advance, ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            for pixels in pool.map(lambda photo: decode(photo, preprocessing, enlarge), photos):
                yield pixels
                advance(1)
        except BaseException:
            pool.shutdown(cancel_futures=True)  # an error or Ctrl-C does not wait for the remaining photos
            raise


def _key(photos: Sequence[PhotoFile], preprocessing: Preprocessing, enlarge: float, progress: Progress) -> str:
    digest = hashlib.sha256(repr((preprocessing, enlarge, DECODER)).encode())
    for photo, file_digest in zip(photos, file_hashes([photo.path for photo in photos], progress), strict=True):
        if file_digest is None:
            raise PhotoError(f"{photo.path} is missing; {ADVICE}")
        digest.update(bytes.fromhex(file_digest))
        digest.update(photo.marks(preprocessing).encode())
    return digest.hexdigest()[:24]
