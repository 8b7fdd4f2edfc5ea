"""Measures the quality of every hand of a manifest with landmarks, and writes it into columns.

* `quality` is 0 for a photo in which no hand was found, and empty where nobody looked for one.
* The parts, `quality_*`, are empty where they cannot be measured. They are metadata, not core columns: a manifest may
  have a `quality` of its own, which is not replaced.
* Photos are measured by several processes. Nothing is cached: a photo costs about what decoding it costs.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from handreid.data.decoding import opened
from handreid.data.manifest import Manifest
from handreid.data.photo_file import PhotoFile, photo_files
from handreid.data.processes import cores, in_processes
from handreid.errors import DataError, ManifestError, PhotoError
from handreid.landmarks.quality import SCALE, HandQuality, hand_quality
from handreid.landmarks.quality_rule import quality_of
from handreid.progress import NullProgress, Progress

QUALITY = "quality"
NOTE = "quality: "  # begins the notes that measuring again replaces
POINTS = ("size", "inside", "tilt", "slant")
PIXELS = ("sharpness", "brightness", "contrast", "underexposed", "overexposed")
PARTS = tuple(f"{QUALITY}_{name}" for name in (*POINTS, *PIXELS))
_DIGITS = {"size": 1, "tilt": 1, "brightness": 1, "contrast": 1}
_BATCH = 16  # photos that a process measures before it reports
_ALONE = 300  # photos below which starting processes costs more than it saves
_BROKEN = "a process that measured photos ended early: run it again, with --workers 1 if memory is short"


def add_quality(manifest: Manifest, *, workers: int | None = None, progress: Progress | None = None) -> Manifest:
    """The manifest with the columns of quality. `workers` is the number of processes, by default one per core.

    Raises ManifestError for a manifest without landmarks, or with a column `quality` that is not from here; PhotoError
    for a photo that is missing or cannot be decoded; DataError for a hand whose points coincide.
    """
    if workers is not None and workers < 1:
        raise DataError(f"workers is {workers}: give 1 or more, or omit it to use one per core")
    photos = photo_files(manifest)
    check_columns(manifest)
    rows = [row for row, photo in enumerate(photos) if photo.hand is not None]
    measured: dict[int, HandQuality] = {}
    with (progress or NullProgress()).step("measuring quality", len(rows), "photos") as advance:
        for batch in _batches([(row, photos[row]) for row in rows], workers or cores()):
            for row, found in batch:
                if isinstance(found, str):
                    raise PhotoError(found)
                measured[row] = found
            advance(len(batch))
    return _with_columns(manifest, photos, measured)


def check_columns(manifest: Manifest) -> None:
    """Raises ManifestError where `add_quality` would, before anything is measured."""
    table = manifest.table
    told = [name for name in ("landmarks", "hands") if name in table.columns and table[name].is_not_null().any()]
    if not told:
        raise ManifestError("no photo has landmarks: run `handreid data landmarks` on the manifest first")
    if QUALITY in table.columns and not set(PARTS) <= set(table.columns):
        raise ManifestError(
            "the manifest has a column quality that `handreid data quality` did not write: rename it, so that it is "
            "not replaced"
        )


def measure(photo: PhotoFile) -> HandQuality:
    """Of a photo with a hand. Raises PhotoError, and DataError if its points coincide."""
    hand = photo.hand
    if hand is None:
        raise DataError(f"{photo.path} has no landmarks of a hand; run `handreid data landmarks` on its manifest")

    def at_least(full: tuple[int, int]) -> tuple[int, int]:
        scale = min(1.0, 2 * SCALE / max(hand.size, 1e-6))  # twice as many pixels as are looked at
        return math.ceil(scale * full[0]), math.ceil(scale * full[1])

    with opened(photo.path, at_least) as decoded:
        full = decoded.full_size
        picture = decoded.reduced(at_least(full))
    try:
        return hand_quality(picture, hand, (full[0] * photo.pixel_aspect, full[1]))
    except DataError as error:
        raise DataError(f"{photo.path}: {error}; correct its landmarks") from None


def parts_of(found: HandQuality) -> dict[str, float | None]:
    """The measures by the names of their columns, rounded as they are written."""
    values: dict[str, float | None] = {name: getattr(found, name) for name in POINTS}
    values |= {name: None if found.pixels is None else getattr(found.pixels, name) for name in PIXELS}
    return {
        f"{QUALITY}_{name}": None if value is None else round(value, _DIGITS.get(name, 4))
        for name, value in values.items()
    }


Batch = list[tuple[int, HandQuality | str]]


def _batches(photos: Sequence[tuple[int, PhotoFile]], workers: int) -> Iterator[Batch]:
    jobs = [(photos[start : start + _BATCH],) for start in range(0, len(photos), _BATCH)]
    if workers == 1 or len(photos) < _ALONE:
        for job in jobs:
            yield _measure_all(*job)
        return
    yield from in_processes(_measure_all, jobs, workers, broken=_BROKEN)


def _measure_all(photos: Sequence[tuple[int, PhotoFile]]) -> Batch:
    """In a worker; errors as text, as those with arguments of their own do not survive the way back."""
    found: Batch = []
    for row, photo in photos:
        try:
            found.append((row, measure(photo)))
        except (PhotoError, DataError) as error:
            found.append((row, str(error)))
    return found


def _with_columns(manifest: Manifest, photos: Sequence[PhotoFile], measured: dict[int, HandQuality]) -> Manifest:
    every = range(len(photos))
    numbers = [quality_of(measured[row]) if row in measured else 0.0 if photos[row].searched else None for row in every]
    parts = {row: parts_of(found) for row, found in measured.items()}
    columns = [pl.Series(QUALITY, [None if n is None else round(n, 1) for n in numbers], dtype=pl.Float64)]
    for name in PARTS:
        values = [parts[row][name] if row in parts else None for row in every]
        columns.append(pl.Series(name, values, dtype=pl.Int64 if name == "quality_inside" else pl.Float64))
    notes = [note for note in manifest.notes if not note.startswith(NOTE)]
    return replace(
        manifest, table=manifest.table.with_columns(columns), notes=(*notes, *_summary(manifest, photos, numbers))
    )


def _summary(manifest: Manifest, photos: Sequence[PhotoFile], numbers: Sequence[float | None]) -> list[str]:
    known = np.array([number for number in numbers if number is not None])
    low, middle, high = np.quantile(known, (0.1, 0.5, 0.9))
    lines = [f"median {middle:.0f}, a tenth of {len(known):,} photos below {low:.0f} and a tenth above {high:.0f}"]
    without = sum(photo.searched and photo.hand is None for photo in photos)
    if without:
        lines.append(f"{without:,} photos without a hand have quality 0")
    if len(known) < len(numbers):
        lines.append(f"{len(numbers) - len(known):,} photos that nobody searched for a hand have none")
    return [f"{NOTE}{line}" for line in lines]
