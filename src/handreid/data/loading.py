"""Decoded photos, once: from JPEG files to one array of bytes that every epoch and every evaluation reads.

* A photo is decoded to the size the model asks for (`Preprocessing`), never twice: in memory, or in a memory-mapped
  file that later runs find again.
* The file's name is a hash of the photos' own bytes and of the preprocessing: a changed photo, in place and under its
  old name and date, is another key.
"""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from numpy.lib.format import open_memmap
from PIL import Image, ImageOps, UnidentifiedImageError

from handreid.errors import PhotoError
from handreid.files import cache_folder, write_atomic
from handreid.progress import Advance, Progress, Silent
from handreid.types import Preprocessing

MEMORY_LIMIT = 2 << 30  # bytes of decoded photos that `auto` keeps in memory
_WHITE = (255, 255, 255)
_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def decode(path: Path, preprocessing: Preprocessing, enlarge: float = 1.0) -> UInt8[np.ndarray, "3 height width"]:
    """One photo, upright (EXIF), RGB, at `enlarge` times the model's input size. Raises PhotoError."""
    height, width = enlarged(preprocessing.size, enlarge)
    # a JPEG is read at the smallest of its scales that is still twice as large as what is wanted
    photo = upright(path, (2 * width, 2 * height))
    resample = _FILTERS[preprocessing.interpolation]
    match preprocessing.resize:
        case "squash":
            photo = photo.resize((width, height), resample)
        case "crop":
            photo = ImageOps.fit(photo, (width, height), resample)
        case "pad":
            photo = ImageOps.pad(photo, (width, height), resample, color=_WHITE)
    return np.ascontiguousarray(np.asarray(photo).transpose(2, 0, 1))


def upright(path: Path, at_least: tuple[int, int]) -> Image.Image:
    """One photo as EXIF turns it, RGB, of any size: a JPEG at the smallest of its scales that is not below `at_least`.

    Raises PhotoError.
    """
    try:
        with Image.open(path) as image:
            image.draft("RGB", at_least)
            return ImageOps.exif_transpose(image).convert("RGB")
    except FileNotFoundError:
        raise PhotoError(f"{path} is missing; run `handreid data check` on the manifest") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise PhotoError(
            f"{path} cannot be read as an image ({error}); run `handreid data check` on the manifest"
        ) from None


def enlarged(size: tuple[int, int], factor: float) -> tuple[int, int]:
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
    shape = (len(paths), 3, *enlarged(preprocessing.size, enlarge))
    progress = progress or Silent()
    if cache == "memory" or (cache == "auto" and int(np.prod(shape)) <= MEMORY_LIMIT):
        photos = np.empty(shape, np.uint8)
        _fill(photos, paths, preprocessing, enlarge, progress)
    else:
        photos = _mapped(shape, paths, preprocessing, enlarge, folder or cache_folder(), progress)
    photos.flags.writeable = False
    return photos


def _mapped(
    shape: tuple[int, ...],
    paths: Sequence[Path],
    preprocessing: Preprocessing,
    enlarge: float,
    folder: Path,
    progress: Progress,
) -> UInt8[np.ndarray, "photos 3 height width"]:
    with progress.step("hashing photos", len(paths), "photos") as advance:
        key = _key(paths, preprocessing, enlarge, advance)
    path = folder / f"photos-{key}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)

        def write(part: Path) -> None:
            photos = open_memmap(part, mode="w+", dtype=np.uint8, shape=shape)
            _fill(photos, paths, preprocessing, enlarge, progress)
            photos.flush()

        write_atomic(path, write)
    return open_memmap(path, mode="r")


def _fill(
    photos: UInt8[np.ndarray, "photos 3 height width"],
    paths: Sequence[Path],
    preprocessing: Preprocessing,
    enlarge: float,
    progress: Progress,
) -> None:
    with progress.step("decoding photos", len(paths), "photos") as advance, ThreadPoolExecutor(os.cpu_count()) as pool:
        decoded = pool.map(lambda path: decode(path, preprocessing, enlarge), paths)
        try:
            for row, photo in enumerate(decoded):
                photos[row] = photo
                advance(1)
        except BaseException:
            pool.shutdown(cancel_futures=True)  # an error or Ctrl-C does not wait for all the others
            raise


def _key(paths: Sequence[Path], preprocessing: Preprocessing, enlarge: float, advance: Advance) -> str:
    digest = hashlib.sha256(repr((preprocessing, enlarge, 1)).encode())
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for content in pool.map(_content, paths):
            digest.update(content)
            advance(1)
    return digest.hexdigest()[:24]


def _content(path: Path) -> bytes:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError as error:
        raise PhotoError(f"{path} cannot be read: {error.strerror}") from None
