"""Checks of a manifest and its photos before training: all problems at once, each with its rows.

An error makes results wrong (a photo that is missing, one person under two names, a person on both sides of a split);
a warning may not.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from handreid.data.decoding import check_regular
from handreid.data.manifest import LABEL_KINDS, Manifest, read
from handreid.data.photo_checks import TAIL, Looked, look
from handreid.data.predicted_views import contradicting
from handreid.data.protocols import hands11k_leak
from handreid.data.rows import PROBABILITIES
from handreid.data.similar_names import similar_names
from handreid.data.tables import format_list
from handreid.errors import DataError, ManifestError

Kind = Literal[
    "value",
    "missing",
    "unreadable",
    "changed",
    "damaged",
    "flat",
    "profile",
    "same-pixels",
    "both-sides",
    "similar-names",
    "single-photo",
    "unlabelled",
    "predicted",
    "contradiction",
]


@dataclass(frozen=True)
class Finding:
    """One problem, described in `message`, with the rows of the manifest that it concerns."""

    severity: Literal["error", "warning"]
    kind: Kind
    message: str
    rows: tuple[int, ...] = ()


def check(
    manifest: Manifest | Path | str,
    *,
    pixels: bool = True,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Finding]:
    """All findings, errors first. Given the path of a manifest, wrong values in it become findings too.

    With `pixels` every photo that exists is read and decoded, by `workers` threads (default: one per core), and
    `progress` is called with 1 for each; without, only the table is checked, and whether the photos exist.
    """
    if not isinstance(manifest, Manifest):
        try:
            manifest = read(manifest)
        except ManifestError as error:
            return [Finding("error", "value", str(error))]
    absent = _absent(manifest)
    findings = [*_missing(manifest, absent), *_both_sides(manifest), *_hands11k(manifest), *_single(manifest)]
    names = similar_names(manifest.table["subject"].to_list())
    findings += [Finding("error", "similar-names", message, rows) for message, rows in names]
    findings += [*_unlabelled(manifest), *_views(manifest)]
    if pixels:
        rows = [row for row in range(len(manifest)) if row not in absent]
        findings += _pixels(manifest, rows, workers or os.cpu_count() or 1, progress)
    return sorted(findings, key=lambda finding: finding.severity)


def _absent(manifest: Manifest) -> dict[int, str]:
    """Rows without a file to read, and why; an empty reason for a file that does not exist."""
    reasons = {}
    for row, path in enumerate(manifest.paths()):
        try:
            check_regular(path)
        except (FileNotFoundError, NotADirectoryError):
            reasons[row] = ""
        except (OSError, ValueError) as error:
            reasons[row] = str(error.strerror if isinstance(error, OSError) else error)
    return reasons


def _missing(manifest: Manifest, absent: Mapping[int, str]) -> Iterator[Finding]:
    rows = tuple(row for row, reason in absent.items() if not reason)
    if rows:
        names = format_list(_row_name(manifest, row) for row in rows)
        what = f"{len(rows):,} of {len(manifest):,} photos are not below {manifest.root}: {names}"
        yield Finding("error", "missing", what, rows)
    for row, reason in absent.items():
        if reason:
            yield Finding("error", "unreadable", f"{_row_name(manifest, row)} cannot be decoded: {reason}", (row,))


def _both_sides(manifest: Manifest) -> Iterator[Finding]:
    """Subjects in training or validation who are tested as well. Distractors do not count: no query matches them."""
    split = manifest.table["split"]
    sides = {"train": ["train"], "validation": ["validation"], "test": ["test", "query", "gallery"]}
    column = manifest.table["subject"]
    subjects = {side: set(column.filter(split.is_in(names)).drop_nulls()) for side, names in sides.items()}
    for side, verb in (("train", "training"), ("validation", "validation")):
        overlap = subjects[side] & subjects["test"]
        if overlap:
            rows = (manifest.table["subject"].is_in(overlap) & split.is_in([*sides[side], *sides["test"]])).arg_true()
            message = f"{len(overlap)} subjects are both in {verb} and in the test: {format_list(sorted(overlap))}"
            yield Finding("error", "both-sides", message, tuple(rows))


def _hands11k(manifest: Manifest) -> Iterator[Finding]:
    if manifest.dataset != "hands11k":
        return
    try:
        leaking = hands11k_leak(manifest)
    except DataError as error:
        yield Finding("error", "value", str(error))
        return
    if leaking:
        message = (
            f"{len(leaking)} subjects of 11k Hands train in one view and test in another: "
            f"{', '.join(sorted(leaking))}; the protocol hands11k drops them from training where views are pooled"
        )
        yield Finding("warning", "both-sides", message, tuple(manifest.table["subject"].is_in(leaking).arg_true()))


def _single(manifest: Manifest) -> Iterator[Finding]:
    """Identities with one photo have no match to find; reported for every kind of label that the rows allow."""
    required = {"hand": ["side"], "view": ["aspect", "side"]}
    for kind in LABEL_KINDS:
        if any(manifest.labelled.table[column].null_count() for column in required.get(kind, [])):
            continue
        labels = manifest.labels(kind)
        count = Counter(labels)
        rows = [row for row, label in enumerate(labels) if label is not None and count[label] == 1]
        if rows:
            names = format_list(str(labels[row]) for row in rows)
            message = (
                f"{len(rows)} of {len(count.keys() - {None})} identities (label {kind}) have one photo only: {names}"
            )
            yield Finding("warning", "single-photo", message, tuple(rows))


def _unlabelled(manifest: Manifest) -> Iterator[Finding]:
    rows = manifest.table["subject"].is_null().arg_true().to_list()
    if rows:
        names = format_list((_row_name(manifest, row) for row in rows), 3)
        message = f"{len(rows):,} photos without a subject, used neither for training nor for testing: {names}"
        yield Finding("warning", "unlabelled", message, tuple(rows))


def _views(manifest: Manifest) -> Iterator[Finding]:
    """Sides and aspects that were predicted, and known ones that do not fit the landmarks."""
    for name, probability in PROBABILITIES.items():
        if probability not in manifest.table.columns:
            continue
        column = manifest.table[probability]
        rows = tuple(column.is_not_null().arg_true())
        if rows:
            lowest = min(column.drop_nulls().to_list())
            what = f"{name} is predicted for {len(rows):,} of {len(manifest):,} photos, with a probability of"
            yield Finding("warning", "predicted", f"{what} {lowest:.2f} or more", rows)
    rows = tuple(contradicting(manifest))
    if rows:
        names = format_list(_row_name(manifest, row) for row in rows)
        message = f"{len(rows):,} photos whose side and aspect do not fit where their landmarks have the thumb: {names}"
        yield Finding("warning", "contradiction", message, rows)


def _pixels(
    manifest: Manifest, rows: Sequence[int], workers: int, progress: Callable[[int], None] | None
) -> Iterator[Finding]:
    paths = manifest.paths()
    looks: dict[int, Looked] = {}
    with ThreadPoolExecutor(workers) as pool:
        try:
            for row, looked in zip(rows, pool.map(look, (paths[row] for row in rows)), strict=True):
                looks[row] = looked
                if progress:
                    progress(1)
        except BaseException:
            pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for the remaining photos
            raise
    for row, looked in looks.items():
        yield from _damaged(_row_name(manifest, row), row, looked)
    yield from _warnings(manifest, looks)
    yield from _changed(manifest, looks)
    by_pixels: dict[str, list[int]] = {}
    for row, looked in looks.items():
        if not looked.unreadable:
            by_pixels.setdefault(looked.pixels, []).append(row)
    for group in by_pixels.values():
        yield from _same_pixels(manifest.table, group)


def _damaged(name: str, row: int, looked: Looked) -> Iterator[Finding]:
    tail = looked.tail
    if looked.unreadable:
        yield Finding("error", "unreadable", f"{name} cannot be decoded: {looked.unreadable}", (row,))
    elif looked.damage:
        what = f"{name} is damaged: {looked.damage}; copy it from its source again"
        yield Finding("error", "damaged", what, (row,))
    elif tail and tail.grey:
        what = f"{name} was cut short before it was saved: its last {tail.rows} rows are grey; copy it from its source"
        yield Finding("error", "damaged", what, (row,))


def _warnings(manifest: Manifest, looks: Mapping[int, Looked]) -> Iterator[Finding]:
    """Photos that look wrong but may be intended."""

    def warn(rows: list[int], kind: Kind, what: str) -> Iterator[Finding]:
        if rows:
            names = format_list(_row_name(manifest, row) for row in rows)
            yield Finding("warning", kind, f"{len(rows):,} photos {what}: {names}", tuple(rows))

    yield from warn([row for row, looked in looks.items() if looked.flat], "flat", "are of one colour only")
    tails = [row for row, looked in looks.items() if looked.tail and not looked.tail.grey and not looked.damage]
    yield from warn(tails, "damaged", f"end with {TAIL} rows or more of one colour, as if cut short")
    for reason in dict.fromkeys(looked.profile for looked in looks.values() if looked.profile):
        rows = [row for row, looked in looks.items() if looked.profile == reason]
        yield from warn(rows, "profile", f"have a colour profile that is ignored ({reason})")


def _changed(manifest: Manifest, looks: Mapping[int, Looked]) -> Iterator[Finding]:
    """Photos whose file is not the one that the manifest was prepared with."""
    stated = manifest.table["sha256"].to_list()
    rows = tuple(row for row, looked in looks.items() if stated[row] and looked.file != stated[row].lower())
    if rows:
        names = format_list(_row_name(manifest, row) for row in rows)
        what = (
            f"{len(rows):,} of {len(manifest):,} photos are not the files that the manifest was prepared with: {names}"
        )
        yield Finding("error", "changed", f"{what}; if this is intended, prepare the manifest again", rows)


def _same_pixels(table: pl.DataFrame, rows: Sequence[int]) -> Iterator[Finding]:
    if len(rows) < 2:
        return
    subjects = sorted({who for row in rows if (who := table["subject"][row]) is not None})  # None: unknown
    names = format_list(f"{table['path'][row]} ({table['origin'][row]})" for row in rows)
    if len(subjects) > 1:
        message = f"the same pixels under {len(subjects)} subjects ({', '.join(subjects)}): {names}"
        yield Finding("error", "same-pixels", message, tuple(rows))
    elif subjects and any(table["subject"][row] is None for row in rows):
        message = f"the same pixels under subject {subjects[0]} and under no subject: {names}"
        yield Finding("warning", "same-pixels", message, tuple(rows))
    elif _twice_in_one_place(table, rows):
        whose = f"under subject {subjects[0]}" if subjects else "without a subject"
        yield Finding("warning", "same-pixels", f"the same pixels twice {whose}: {names}", tuple(rows))


def _twice_in_one_place(table: pl.DataFrame, rows: Sequence[int]) -> bool:
    """Prepared folders hold a photo once per draw; that is not counted as a repetition."""
    places = [None if table["draw"][row] is None else (table["split"][row], table["draw"][row]) for row in rows]
    return len(set(places)) < len(places)


def _row_name(manifest: Manifest, row: int) -> str:
    return f"{manifest.table['path'][row]} ({manifest.table['origin'][row]})"
