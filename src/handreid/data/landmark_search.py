"""Finds the hand on every photo of a manifest.

* Photos are searched by several processes. What was found is stored by the photo's file, its `pixel_aspect` and the
  model, in batches while the search goes on: a search that was stopped continues where it was.
* A photo is decoded at the smallest of its JPEG scales that leaves `_AT_LEAST` pixels, which is more than the model
  looks at; points are given in pixels of the file at full size.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from handreid.data.decoding import DECODER, opened
from handreid.data.landmark_columns import HandsFound, pixel_aspects, with_landmarks
from handreid.data.manifest import Manifest
from handreid.data.photo_file import photo_files
from handreid.data.photo_hashes import file_hashes
from handreid.data.processes import cores, in_processes
from handreid.data.sealed_store import SealedStore
from handreid.data.tables import raise_all
from handreid.errors import DataError, PhotoError
from handreid.files import cache_folder
from handreid.landmarks import HandLandmarks, Landmarker
from handreid.landmarks.mediapipe import VERSION, HandLandmarker, check_installed, check_model
from handreid.progress import NullProgress, Progress

_AT_LEAST = 800  # pixels of the shorter side that is searched, where the photo has as many
_BATCH = 8  # photos that a process searches before it reports
_ALONE = 48  # photos below which starting processes costs more than it saves
Model = tuple[Path, str]  # the file and its SHA-256
_BROKEN = (
    "a process that searched for hands ended early. What was found is kept: run it again to continue, with --workers 1 "
    "if memory is short or the calling script has no `if __name__ == '__main__'`"
)


@dataclass(frozen=True)
class Seen:
    """A photo as it was taken: upright, RGB, square pixels, perhaps smaller than its file."""

    picture: Image.Image
    file_size: tuple[int, int]  # width and height of the file's photo, upright, at full size

    def in_file(self, hand: HandLandmarks) -> HandLandmarks:
        """The hand in pixels of the file."""
        scale = np.array(self.file_size) / self.picture.size
        return HandLandmarks(hand.points * scale, hand.score, hand.handedness, hand.handedness_score)


def add_landmarks(
    manifest: Manifest,
    landmarker: Path | Landmarker,
    *,
    name: str = "",
    workers: int | None = None,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """The manifest with the columns of landmarks filled by a landmarker.

    `landmarker` is the file of MediaPipe's Hand Landmarker, or any function from a picture to hands; such a function is
    called here, one photo at a time, its results are not stored, and `name` says in the notes what it was. `workers` is
    the number of processes, by default one per core; `folder` is where results are stored (see `cache_folder`).

    Raises ManifestError for photos that do not exist, PhotoError for one that cannot be decoded, WeightsError if LiteRT
    or the model's file is missing.
    """
    progress = progress or NullProgress()
    if workers is not None and workers < 1:
        raise DataError(f"workers is {workers}: give 1 or more, or omit it to use one per core")
    aspects = pixel_aspects(manifest)
    if not isinstance(landmarker, Path):
        found = _by_function(manifest.paths(), aspects, landmarker, progress)
        return with_landmarks(manifest, found, name or "a function")
    check_installed()
    model = check_model(landmarker)
    hashes = file_hashes(manifest.paths(), progress)
    raise_all(
        [f"{manifest.root / path} no longer exists" for path, digest in zip(manifest.table["path"], hashes, strict=True)
         if digest is None],
        "Copy these photos again, or prepare the manifest again.",
    )  # fmt: skip
    keys = [f"{digest} {aspect!r}" for digest, aspect in zip(hashes, aspects, strict=True)]
    photos = {key: (path, aspect) for key, path, aspect in zip(keys, manifest.paths(), aspects, strict=True)}
    place = (folder or cache_folder()) / f"landmarks-{VERSION}-{DECODER}-{model[:16]}.sqlite"
    texts = _searched(photos, (landmarker, model), place, workers or cores(), progress)
    by = f"MediaPipe's Hand Landmarker (model {model[:16]}, version {VERSION})"
    return with_landmarks(manifest, [_hands(texts[key]) for key in keys], by)


def all_searched(manifest: Manifest) -> bool:
    """Whether somebody looked for a hand on every photo, or gave its landmarks."""
    return all(photo.searched for photo in photo_files(manifest))


def see(path: Path, aspect: float = 1.0) -> Seen:
    """A photo as it was taken, at a size to be searched. Raises PhotoError."""
    with opened(path, (_AT_LEAST, _AT_LEAST)) as photo:
        picture = photo.reduced((_AT_LEAST, _AT_LEAST))
        full = photo.full_size
    factor = min(picture.size) // _AT_LEAST
    picture = picture.reduce(factor) if factor > 1 else picture
    if aspect != 1:
        width = max(1, round(picture.width * aspect))
        picture = picture.resize((width, picture.height), Image.Resampling.BILINEAR)
    return Seen(picture, full)


def find(path: Path, aspect: float, landmarker: Landmarker) -> HandsFound:
    """The hands on a photo in pixels of its file, the largest first. Raises PhotoError."""
    seen = see(path, aspect)
    hands = sorted(landmarker(np.asarray(seen.picture)), key=lambda hand: -hand.size)
    return HandsFound(tuple(seen.in_file(hand) for hand in hands))


def _by_function(
    paths: Sequence[Path], aspects: Sequence[float], landmarker: Landmarker, progress: Progress
) -> list[HandsFound | None]:
    found: list[HandsFound | None] = []
    with progress.step("finding hands", len(paths), "photos") as advance:
        for path, aspect in zip(paths, aspects, strict=True):
            found.append(find(path, aspect, landmarker))
            advance(1)
    return found


def _searched(
    photos: Mapping[str, tuple[Path, float]], model: Model, place: Path, workers: int, progress: Progress
) -> dict[str, str]:
    """What was found on each photo, as text, by its key; stored batch by batch."""
    with contextlib.closing(SealedStore(place, "hands")) as store:
        texts = store.look_up(list(photos))
        new = [(key, *photo) for key, photo in photos.items() if key not in texts]
        with progress.step("finding hands", len(new), "photos") as advance:
            for batch in _batches(new, model, workers):
                store.add({key: text for key, text in batch.items() if not text.startswith("!")})
                unreadable = [text[1:] for text in batch.values() if text.startswith("!")]
                if unreadable:
                    raise PhotoError(unreadable[0])
                texts |= batch
                advance(len(batch))
    return texts


def _batches(new: Sequence[tuple[str, Path, float]], model: Model, workers: int) -> Iterator[dict[str, str]]:
    jobs = [(new[start : start + _BATCH], model) for start in range(0, len(new), _BATCH)]
    if workers == 1 or len(new) < _ALONE:
        for job in jobs:
            yield _search(*job)
        return
    yield from in_processes(_search, jobs, workers, broken=_BROKEN)


def _search(photos: Sequence[tuple[str, Path, float]], model: Model) -> dict[str, str]:
    """In a worker: JSON of each photo's hands; for one that cannot be decoded the reason, after "!"."""
    landmarker = _landmarker(*model)
    texts = {}
    for key, path, aspect in photos:
        try:
            texts[key] = _text(find(path, aspect, landmarker))
        except PhotoError as error:  # as text: an error with arguments of its own does not survive the way back
            texts[key] = f"!{error}"
    return texts


@lru_cache(maxsize=1)
def _landmarker(model: Path, _hash: str) -> Landmarker:
    return HandLandmarker(model)


def _text(found: HandsFound) -> str:
    return json.dumps(
        [[hand.score, hand.handedness, hand.handedness_score, hand.points.ravel().tolist()] for hand in found.hands]
    )


def _hands(text: str) -> HandsFound:
    return HandsFound(
        tuple(
            HandLandmarks(np.array(points).reshape(-1, 2), score, side, sure)
            for score, side, sure, points in json.loads(text)
        )
    )
