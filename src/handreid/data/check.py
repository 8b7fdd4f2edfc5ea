"""What is wrong with these photos: found all at once, each with its place, before hours are spent on training.

An error makes results wrong (a photo that is missing, one person under two names, a person on both sides of a split);
a warning is something to know about.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl
from PIL import Image, ImageFile

from handreid.data.manifest import LABEL_KINDS, Manifest, read
from handreid.data.protocols import hands11k_leak
from handreid.data.similar_names import similar_names
from handreid.data.tables import listed
from handreid.errors import DataError, ManifestError

Kind = Literal["value", "missing", "unreadable", "same-pixels", "both-sides", "similar-names", "single-photo"]


@dataclass(frozen=True)
class Finding:
    """Something wrong, in words, with the rows of the manifest that it is about."""

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
    """Everything found, errors first. A manifest may be given as its file, so that wrong values become findings too.

    With `pixels` every photo that is there is decoded, by `workers` threads (default: one per core), and told to
    `progress`.
    """
    if not isinstance(manifest, Manifest):
        try:
            manifest = read(manifest)
        except ManifestError as error:
            return [Finding("error", "value", str(error))]
    missing = _missing_rows(manifest)
    found = [*_missing(manifest, missing), *_both_sides(manifest), *_hands11k(manifest), *_single(manifest)]
    found += [Finding("error", "similar-names", *one) for one in similar_names(manifest.table["subject"].to_list())]
    if pixels:
        rows = sorted(set(range(len(manifest))) - set(missing))
        found += _pixels(manifest, rows, workers or os.cpu_count() or 1, progress)
    return sorted(found, key=lambda finding: finding.severity)


def _missing_rows(manifest: Manifest) -> list[int]:
    return [row for row, path in enumerate(manifest.paths()) if not os.path.isfile(path)]  # noqa: PTH113


def _missing(manifest: Manifest, rows: Sequence[int]) -> Iterator[Finding]:
    if rows:
        names = listed(_named(manifest, row) for row in rows)
        what = f"{len(rows):,} of {len(manifest):,} photos are not below {manifest.root}: {names}"
        yield Finding("error", "missing", what, tuple(rows))


def _both_sides(manifest: Manifest) -> Iterator[Finding]:
    """Subjects in training or validation who are tested as well. Distractors are nobody's right answer."""
    split = manifest.table["split"]
    sides = {"train": ["train"], "validation": ["validation"], "test": ["test", "query", "gallery"]}
    subjects = {side: set(manifest.table["subject"].filter(split.is_in(names))) for side, names in sides.items()}
    for side, verb in (("train", "train"), ("validation", "choose the model")):
        both = subjects[side] & subjects["test"]
        if both:
            rows = (manifest.table["subject"].is_in(both) & split.is_in([*sides[side], *sides["test"]])).arg_true()
            message = f"{len(both)} subjects {verb} and are tested: {listed(sorted(both))}"
            yield Finding("error", "both-sides", message, tuple(rows))


def _hands11k(manifest: Manifest) -> Iterator[Finding]:
    if manifest.dataset != "hands11k":
        return
    try:
        both = hands11k_leak(manifest)
    except DataError as error:
        yield Finding("error", "value", str(error))
        return
    if both:
        message = (
            f"{len(both)} subjects of 11k Hands train in one view and test in another: {', '.join(sorted(both))}; "
            "the protocol hands11k drops them from training where views are pooled"
        )
        yield Finding("warning", "both-sides", message, tuple(manifest.table["subject"].is_in(both).arg_true()))


def _single(manifest: Manifest) -> Iterator[Finding]:
    """Identities with one photo can be found by nobody; told for every meaning of identity that the rows allow."""
    known = {"hand": ["side"], "aspect": ["aspect", "side"]}
    for kind in LABEL_KINDS:
        if any(manifest.table[column].null_count() for column in known.get(kind, [])):
            continue
        labels = manifest.labels(kind)
        count = Counter(labels)
        rows = [row for row, label in enumerate(labels) if count[label] == 1]
        if rows:
            names = listed(labels[row] for row in rows)
            message = f"{len(rows)} of {len(count)} identities (label {kind}) have one photo only: {names}"
            yield Finding("warning", "single-photo", message, tuple(rows))


def _pixels(
    manifest: Manifest, rows: Sequence[int], workers: int, progress: Callable[[int], None] | None
) -> list[Finding]:
    paths = manifest.paths()
    found: list[Finding] = []
    same: dict[str, list[int]] = {}
    tolerant, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    try:
        with ThreadPoolExecutor(workers) as pool:
            results = pool.map(_fingerprint, (paths[row] for row in rows))
            for row, (digest, trouble) in zip(rows, results, strict=True):
                if trouble:
                    what = f"{_named(manifest, row)} cannot be decoded: {trouble}"
                    found.append(Finding("error", "unreadable", what, (row,)))
                else:
                    same.setdefault(digest, []).append(row)
                if progress:
                    progress(1)
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = tolerant
    for group in same.values():
        found += _same_pixels(manifest.table, group)
    return found


def _fingerprint(path: Path) -> tuple[str, str]:
    """A hash of the decoded pixels, or what is wrong with the file (one of the two is empty)."""
    try:
        with Image.open(path) as image:
            # palettes differ between files with equal pixels
            picture = image.convert("RGBA") if image.mode in ("P", "PA", "LA", "1") else image
            digest = hashlib.sha256(f"{picture.mode} {picture.size}".encode())
            digest.update(picture.tobytes())
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        return "", str(error).replace(str(path), "the file") or type(error).__name__
    return digest.hexdigest(), ""


def _same_pixels(table: pl.DataFrame, rows: Sequence[int]) -> Iterator[Finding]:
    if len(rows) < 2:
        return
    subjects = sorted({table["subject"][row] for row in rows})
    names = listed(f"{table['path'][row]} ({table['origin'][row]})" for row in rows)
    if len(subjects) > 1:
        message = f"the same pixels under {len(subjects)} subjects ({', '.join(subjects)}): {names}"
        yield Finding("error", "same-pixels", message, tuple(rows))
    elif _twice_in_one_place(table, rows):
        yield Finding(
            "warning", "same-pixels", f"the same pixels twice under subject {subjects[0]}: {names}", tuple(rows)
        )


def _twice_in_one_place(table: pl.DataFrame, rows: Sequence[int]) -> bool:
    """Prepared trees hold a photo once per draw, which is no repetition."""
    places = [None if table["draw"][row] is None else (table["split"][row], table["draw"][row]) for row in rows]
    return len(set(places)) < len(places)


def _named(manifest: Manifest, row: int) -> str:
    return f"{manifest.table['path'][row]} ({manifest.table['origin'][row]})"
