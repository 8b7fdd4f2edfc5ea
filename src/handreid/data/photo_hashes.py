"""Hashes that identify a photo by its content, whatever its file and its subject are called.

* `file` is the SHA-256 of a file's bytes. `pixels` is that of the decoded photo: size and RGB bytes as `decoding.py`
  gives them, so that a copy saved as PNG, turned by EXIF, or with an alpha channel has the same hash.
* Pixels are decoded at full size once for each file on a machine: their hashes are stored by the file's hash, in a
  small database in the cache folder. A damaged database is replaced by a new one.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from handreid.data.decoding import ADVICE, DECODER, Photo, check_regular, opened
from handreid.data.sealed_store import SealedStore
from handreid.errors import PhotoError
from handreid.files import cache_folder, file_hash
from handreid.progress import NullProgress, Progress


@dataclass(frozen=True)
class PhotoHash:
    """The hashes of one photo, 64 hex digits each."""

    file: str
    pixels: str


def file_hashes(paths: Sequence[Path], progress: Progress | None = None) -> list[str | None]:
    """SHA-256 of each file's bytes, in order; None where there is no such file. Raises PhotoError for one that cannot
    be read.
    """
    with (progress or NullProgress()).step("hashing photos", len(paths), "photos") as advance, _threads() as pool:
        digests = []
        for digest in pool.map(_file_hash, paths):
            digests.append(digest)
            advance(1)
        return digests


def photo_hashes(
    paths: Sequence[Path], *, folder: Path | None = None, progress: Progress | None = None
) -> list[PhotoHash | None]:
    """The hashes of each photo, in order; None where there is no such file. Raises PhotoError for one that cannot be
    decoded.

    `folder` is where known hashes are stored (see `cache_folder`).
    """
    progress = progress or NullProgress()
    files = file_hashes(paths, progress)
    by_file = {digest: path for digest, path in zip(files, paths, strict=True) if digest is not None}
    with contextlib.closing(_store(folder or cache_folder())) as store:
        pixels = store.look_up(list(by_file))
        new = [digest for digest in by_file if digest not in pixels]
        with progress.step("decoding photos to know them again", len(new), "photos") as advance, _threads() as pool:
            hashes = pool.map(lambda digest: _pixels(by_file[digest]), new)
            for digest, value in zip(new, hashes, strict=True):
                pixels[digest] = value
                advance(1)
        store.add({digest: pixels[digest] for digest in new})
    return [None if digest is None else PhotoHash(digest, pixels[digest]) for digest in files]


def pixel_hash(photo: Image.Image | Photo) -> str:
    """SHA-256 of the size and the RGB bytes of a photo; the photo is not copied as a whole."""
    digest = digest_of(photo.size)
    for strip in photo.strips() if isinstance(photo, Photo) else _strips(photo):
        digest.update(strip.tobytes())
    return digest.hexdigest()


def digest_of(size: tuple[int, int]) -> "hashlib._Hash":
    """The hash to start from for an RGB picture of this width and height; the bytes of its rows follow."""
    return hashlib.sha256(f"RGB {size[0]}x{size[1]}".encode())


def _store(folder: Path) -> SealedStore:
    return SealedStore(folder / f"photo-hashes-{DECODER}.sqlite", "pixels")


def _strips(photo: Image.Image) -> Iterator[Image.Image]:
    rows = max(1, (1 << 22) // max(1, photo.width))
    for top in range(0, photo.height, rows):
        yield photo.crop((0, top, photo.width, min(photo.height, top + rows))).convert("RGB")


def _pixels(path: Path) -> str:
    with opened(path) as photo:
        return pixel_hash(photo)


@contextlib.contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    """One thread per core; an error or Ctrl-C does not wait for the remaining photos."""
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _file_hash(path: Path) -> str | None:
    try:
        check_regular(path)
        return file_hash(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise PhotoError(f"{path} cannot be read ({reason}); {ADVICE}") from None
