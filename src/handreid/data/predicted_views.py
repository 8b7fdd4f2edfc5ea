"""Fills empty `side` and `aspect` of a manifest from the hand's landmarks, and from a classifier's answers if given.

* `side_probability` and `aspect_probability` mark what was predicted. They are the probability that the photo shows the
  view stated, and empty where the value is known. What is known is never changed; what was predicted before is
  predicted anew.
* Without landmarks nothing is filled: a photo in which no hand was found need not show one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from handreid.data.landmark_columns import read_landmarks
from handreid.data.manifest import Manifest
from handreid.data.rows import PROBABILITIES
from handreid.data.tables import format_list
from handreid.errors import DataError
from handreid.landmarks import HandLandmarks
from handreid.landmarks.view import ASPECTS, SIDES, contradicts, view_probabilities

NOTE = "views: "  # begins the notes that a later prediction replaces
THRESHOLD = 0.9  # chosen on people for fitting, see docs/landmarks.md


def fill_views(
    manifest: Manifest,
    dorsal: Mapping[int, float] | None = None,
    *,
    threshold: float = THRESHOLD,
    by: str = "landmarks",
) -> Manifest:
    """The manifest with empty sides and aspects filled where the probability is at least `threshold` (0.5 to 1).

    `dorsal` is a classifier's probability that a row's photo shows the back; rows that it lacks are judged by landmarks
    alone. `by` says in the notes what was used. Raises DataError for a threshold outside its range.
    """
    check_threshold(threshold)
    manifest = without_predictions(manifest)
    hands = read_landmarks(manifest)
    filled = {name: manifest.table[name].to_list() for name in PROBABILITIES}
    sure: dict[str, list[float | None]] = {name: [None] * len(manifest) for name in PROBABILITIES}
    for row, hand in enumerate(hands):
        side, aspect = filled["side"][row], filled["aspect"][row]
        if hand is None or (side and aspect):
            continue
        views = view_probabilities(hand, side=side, aspect=aspect, dorsal=(dorsal or {}).get(row, 0.5))
        best = np.unravel_index(views.argmax(), views.shape)
        probability = float(views[best])
        if probability < threshold:
            continue
        for name, value in (("aspect", ASPECTS[best[0]]), ("side", SIDES[best[1]])):
            if filled[name][row] is None:
                filled[name][row], sure[name][row] = value, round(probability, 4)
    columns = [pl.Series(name, values, dtype=pl.String) for name, values in filled.items()]
    columns += [pl.Series(PROBABILITIES[name], values, dtype=pl.Float64) for name, values in sure.items()]
    changed = replace(manifest, table=manifest.table.with_columns(columns))
    return replace(changed, notes=(*changed.notes, *_notes(manifest, changed, hands, threshold, by)))


def check_threshold(threshold: float) -> None:
    """Raises DataError for a number that is no probability of 0.5 or more."""
    if not 0.5 <= threshold <= 1:
        raise DataError(f"the threshold is {threshold:g}: give a probability from 0.5 to 1")


def without_predictions(manifest: Manifest) -> Manifest:
    """The manifest as it was before anything was predicted."""
    table = manifest.table
    for name, probability in PROBABILITIES.items():
        if probability in table.columns:
            given = pl.when(pl.col(probability).is_null()).then(pl.col(name))
            table = table.with_columns(given.alias(name)).drop(probability)
    notes = tuple(note for note in manifest.notes if not note.startswith(NOTE))
    return replace(manifest, table=table, notes=notes)


def rows_to_judge(manifest: Manifest) -> list[int]:
    """Rows with a hand whose aspect neither the manifest nor the thumb and a known side tell: for a classifier."""
    plain = without_predictions(manifest).table
    if "landmarks" not in plain.columns:
        return []
    unknown = plain["landmarks"].is_not_null() & plain["side"].is_null() & plain["aspect"].is_null()
    return [int(row) for row in unknown.arg_true()]


def view_notes(manifest: Manifest) -> list[str]:
    """The notes about predicted views."""
    return [note for note in manifest.notes if note.startswith(NOTE)]


def predicted(manifest: Manifest) -> dict[str, int]:
    """How many sides and aspects were predicted."""
    columns = manifest.table.columns
    return {
        name: manifest.table[probability].count() if probability in columns else 0
        for name, probability in PROBABILITIES.items()
    }


def predicted_notes(manifest: Manifest) -> list[str]:
    """What to say of results that rest on predicted values; nothing if there are none."""
    told = [f"{name} of {count:,}" for name, count in predicted(manifest).items() if count]
    return (
        [f"predicted, not known, are {' and '.join(told)} of {len(manifest):,} photos with a subject"] if told else []
    )


def contradicting(manifest: Manifest) -> list[int]:
    """Rows whose known side and aspect do not fit the side on which the thumb lies."""
    table, hands = without_predictions(manifest).table, read_landmarks(manifest)
    return [
        row
        for row, (hand, side, aspect) in enumerate(zip(hands, table["side"], table["aspect"], strict=True))
        if hand is not None and side and aspect and contradicts(hand, side, aspect)
    ]


def _notes(
    before: Manifest, after: Manifest, hands: Sequence[HandLandmarks | None], threshold: float, by: str
) -> list[str]:
    """What was filled; and the rows that were left as they are, by reason."""
    names = after.table["path"].to_list()
    given, kept = before.table, after.table
    empty = (kept["side"].is_null() | kept["aspect"].is_null()).to_list()
    unsure = [row for row, hand in enumerate(hands) if empty[row] and hand is not None]
    without = [row for row, hand in enumerate(hands) if empty[row] and hand is None]
    counts = predicted(after)
    known = f"{given['side'].count():,} and {given['aspect'].count():,} of {len(after):,}"
    told = [f"side of {counts['side']:,} and aspect of {counts['aspect']:,} photos predicted, by {by}; known: {known}"]
    for rows, what in (
        (unsure, f"left without side or aspect, as it is less than {threshold:.1%} probable"),
        (without, "left without side or aspect, as no hand was found"),
        (contradicting(before), "whose known side and aspect do not fit where the thumb lies, left as they are"),
    ):
        if rows:
            told.append(f"{len(rows):,} photos {what}: {format_list([names[row] for row in rows], 20)}")
    return [f"{NOTE}{line}" for line in told]
