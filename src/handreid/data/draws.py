"""Seeded choices that are the same on every machine, and the gallery draws made with them.

A choice is the order of SHA-256 over seed, purpose and name. It depends neither on the order of the rows, nor on the
version of Python or NumPy, and a photo that is added disturbs the choice of its own identity only.
"""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int64

from handreid.data.names import nfc
from handreid.draw import Draw


def hash_key(seed: int, purpose: str, draw: int, key: str) -> str:
    """64 hex digits by which keys are put in random order. The key is hashed in NFC, however a disk spells it."""
    return hashlib.sha256(f"{seed}/{purpose}/{draw}/{nfc(key)}".encode()).hexdigest()


def seeded_choice(keys: Iterable[str], count: int, seed: int, purpose: str) -> set[str]:
    """`count` of the keys, all choices being equally likely."""
    return set(sorted(keys, key=lambda key: hash_key(seed, purpose, 0, key))[:count])


def one_per_label(
    rows: Iterable[int], labels: Sequence[str], keys: Sequence[str], seed: int, purpose: str, draw: int
) -> set[int]:
    """One row of every label, chosen at random among `rows`. `labels` and `keys` (photo paths) are indexed by row."""
    best: dict[str, tuple[str, int]] = {}
    for row in rows:
        candidate = (hash_key(seed, purpose, draw, keys[row]), row)
        best[labels[row]] = min(best.get(labels[row], candidate), candidate)
    return {row for _, row in best.values()}


def gallery_draw(
    searched: Sequence[int],
    queried: set[int],
    always: Sequence[int],
    labels: Sequence[str],
    keys: Sequence[str],
    seed: int,
    purpose: str,
    draw: int,
) -> Draw:
    """One photo of every identity of `searched` becomes gallery; the others that are in `queried` become queries.

    An identity with queried photos is represented by one of them. `always` (distractors) is added to every gallery.
    """
    with_queries = {labels[row] for row in searched if row in queried}
    candidates = [row for row in searched if row in queried or labels[row] not in with_queries]
    enrolled = one_per_label(candidates, labels, keys, seed, purpose, draw)
    gallery = [*enrolled, *always]
    return Draw(in_path_order(gallery, keys), in_path_order(queried.intersection(searched) - enrolled, keys))


def in_path_order(rows: Iterable[int], keys: Sequence[str]) -> Int64[np.ndarray, " rows"]:
    """Rows as an array, ordered by their paths, so that the result does not depend on the order of the table."""
    return np.array(sorted(rows, key=lambda row: (nfc(keys[row]), keys[row])), dtype=np.int64)
