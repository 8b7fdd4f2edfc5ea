"""The columns of landmarks in a manifest: read, written, and taken from a table of another landmarker.

* `landmarks` (see `landmarks/text.py`) is in pixels of the photo's file as a viewer shows it, at full size and turned
  upright by EXIF, from its upper left corner: whoever opens the photo can draw the points onto it.
* `pixel_aspect` is what the photo's width is multiplied by to see it as it was taken: 4/3 for a photo of 4:3 that was
  squashed to a square. No number means 1. Geometry is read after that (`read_landmarks`).
* `hands` counts the hands found: 0 for none, empty where nobody looked. Of several, the largest one is in the row.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from handreid.data.manifest import Manifest
from handreid.data.rows import OPTIONAL
from handreid.data.tables import (
    TextTable,
    closest_match,
    format_list,
    raise_all,
    read_text_table,
    require_columns,
    short,
)
from handreid.errors import DataError
from handreid.landmarks import POINTS, HandLandmarks, Side
from handreid.landmarks.text import landmarks_points, landmarks_text

NOTE = "landmarks: "  # begins the notes that a later search replaces
COORDINATES = tuple(f"{axis}{number}" for number in range(len(POINTS)) for axis in "xy")
_ADVICE = "a table of landmarks has the columns path, x0, y0 to x20, y20, in pixels of the photo's file"
_SIDES: dict[str, Side] = {"left": "left", "right": "right"}


@dataclass(frozen=True)
class HandsFound:
    """The hands of one photo, in pixels of its file; the largest first."""

    hands: tuple[HandLandmarks, ...]


def read_landmarks(manifest: Manifest, rows: Sequence[int] | None = None) -> list[HandLandmarks | None]:
    """The hand of each row, or of `rows`, in pixels of the photo as it was taken, so with square pixels; None without
    landmarks.
    """
    table = manifest.table if rows is None else manifest.table[rows]
    if "landmarks" not in table.columns:
        return [None] * len(table)
    every = pixel_aspects(manifest)
    aspects = every if rows is None else [every[row] for row in rows]
    columns = [
        table[name].to_list() if name in table.columns else [None] * len(table)
        for name in ("landmarks", "landmark_score", "handedness", "handedness_score")
    ]
    return [
        None
        if text is None
        else HandLandmarks(
            landmarks_points(text) * [aspect, 1.0], 1.0 if score is None else score, _SIDES.get(side or ""), sure
        )
        for aspect, text, score, side, sure in zip(aspects, *columns, strict=True)
    ]


def pixel_aspects(manifest: Manifest) -> list[float]:
    """The `pixel_aspect` of each row, 1 where there is none."""
    if "pixel_aspect" not in manifest.table.columns:
        return [1.0] * len(manifest)
    values: list[float] = manifest.table["pixel_aspect"].fill_null(1.0).to_list()
    return values


def with_pixel_aspect(manifest: Manifest, aspect: float | None) -> Manifest:
    """The manifest with the same `pixel_aspect` in every row; unchanged without one. Raises ManifestError."""
    if aspect is None:
        return manifest
    return replace(manifest, table=manifest.table.with_columns(pl.lit(aspect, dtype=pl.Float64).alias("pixel_aspect")))


def with_landmarks(manifest: Manifest, found: Sequence[HandsFound | None], by: str) -> Manifest:
    """The manifest with the columns of landmarks; None leaves a row empty. `by` says in the notes who found them."""
    first = [photo.hands[0] if photo and photo.hands else None for photo in found]
    columns: dict[str, list[int | float | str | None]] = {
        "hands": [None if photo is None else len(photo.hands) for photo in found],
        "landmarks": [None if hand is None else landmarks_text(hand.points) for hand in first],
        "landmark_score": [None if hand is None else round(hand.score, 4) for hand in first],
        "handedness": [None if hand is None else hand.handedness for hand in first],
        "handedness_score": [
            None if hand is None or hand.handedness_score is None else round(hand.handedness_score, 4) for hand in first
        ],
    }
    series = [pl.Series(name, values, dtype=OPTIONAL[name]) for name, values in columns.items()]
    notes = [note for note in manifest.notes if not note.startswith(NOTE)]
    return replace(
        manifest,
        table=manifest.table.with_columns(series),
        notes=(*notes, *(f"{NOTE}{line}" for line in _summary(manifest, found, by))),
    )


def landmark_notes(manifest: Manifest) -> list[str]:
    """The notes about landmarks."""
    return [note for note in manifest.notes if note.startswith(NOTE)]


def landmarks_from_table(manifest: Manifest, path: Path) -> Manifest:
    """The manifest with the landmarks of a CSV file: `path` as in the manifest, and x0, y0 to x20, y20 in pixels of the
    photo's file; `score` and `handedness` if there are any. Empty coordinates mean that no hand was found; photos that
    the table does not name stay without.

    Raises ManifestError for photos that are not in the manifest or named twice, and for wrong values, all at once.
    """
    text = read_text_table(path, _ADVICE)
    require_columns(text.columns, ("path", *COORDINATES), text.file)
    rows = {name: row for row, name in enumerate(manifest.table["path"])}
    found: list[HandsFound | None] = [None] * len(manifest)
    problems = []
    for line, (where, name) in enumerate(zip(text.where(), text.columns["path"], strict=True)):
        row = rows.get(name.strip())
        if row is None:
            problems.append(f"{where}: path {short(name)} is not in the manifest{closest_match(name, rows)}")
        elif found[row] is not None:
            problems.append(f"{where}: path {short(name)} was already given")
        else:
            try:
                found[row] = _of_line(text, line)
            except DataError as error:
                problems.append(f"{where}: {error}")
                found[row] = HandsFound(())
    raise_all(problems, _ADVICE)
    return with_landmarks(manifest, found, text.file)


def _of_line(text: TextTable, line: int) -> HandsFound:
    cells = [text.columns[name][line].strip() for name in COORDINATES]
    if not any(cells):
        return HandsFound(())
    points = landmarks_points(" ".join(cell or "(empty)" for cell in cells))
    score = _score(text, line)
    side = text.columns["handedness"][line].strip() if "handedness" in text.columns else ""
    if side and side not in _SIDES:
        raise DataError(f"handedness {short(side)} is not one of left, right{closest_match(side, _SIDES)}")
    return HandsFound((HandLandmarks(points, score, _SIDES.get(side)),))


def _score(text: TextTable, line: int) -> float:
    cell = text.columns["score"][line].strip() if "score" in text.columns else ""
    try:
        score = float(cell) if cell else 1.0
    except ValueError:
        score = -1.0
    if not 0 <= score <= 1:
        raise DataError(f"score {short(cell)} is not a number from 0 to 1")
    return score


def _summary(manifest: Manifest, found: Sequence[HandsFound | None], by: str) -> list[str]:
    counts = np.array([-1 if photo is None else len(photo.hands) for photo in found])
    lines = [f"{int((counts == 1).sum()):,} of {len(counts):,} photos show one hand, by {by}"]
    for which, what in ((counts == 0, "without a hand"), (counts > 1, "with several hands"), (counts < 0, "not told")):
        names = manifest.table["path"].filter(pl.Series(which)).to_list()
        if names:
            largest = ", the largest is taken" if what == "with several hands" else ""
            lines.append(f"{len(names):,} photos {what}{largest}: {format_list(names, 20)}")
    return lines
