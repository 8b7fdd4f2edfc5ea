"""The same photo more than once among those that are tested: said, because a number may rest on it."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from handreid.data.splits import Split
from handreid.evaluation.embedding_cache import first_of_each


def distinct_photos(
    pictures: Sequence[str], rows: Int[np.ndarray, " photo"], split: Split
) -> Int[np.ndarray, " distinct"]:
    """Positions of each picture of an identity, once. `pictures` are equal for the same picture."""
    return first_of_each([(picture, split.identities[row]) for picture, row in zip(pictures, rows, strict=True)])[0]


def remarks_on_copies(pictures: Sequence[str], rows: Int[np.ndarray, " photo"], split: Split) -> list[str]:
    """How many photos are copies, and how many queries have a copy of themselves in their gallery."""
    notes = []
    different = len(set(pictures))
    if different < len(rows):
        notes.append(
            f"{len(rows):,} test photos are {different:,} different pictures: copies are embedded once and counted "
            "once in the separation"
        )
    own, others, queries = _found_themselves(dict(zip(rows.tolist(), pictures, strict=True)), split)
    of = f"of {queries:,} queries (of all draws)"
    if own:
        notes.append(
            f"LEAK: {own:,} {of} have an identical picture in their gallery, a right answer that no model can miss; "
            "remove the copies from the data"
        )
    if others:
        notes.append(
            f"{others:,} {of} have an identical picture in their gallery under another identity, which no model can "
            "rank below the right one; `handreid data check` names such photos"
        )
    return notes


def _found_themselves(pictures: dict[int, str], split: Split) -> tuple[int, int, int]:
    """Queries whose picture is in their gallery as a right answer, and as a wrong one; and how many queries there are.

    With cameras that count, a copy from the query's own camera is no answer.
    """
    own = others = queries = 0
    cameras = split.cameras
    for draw in split.test:
        queries += len(draw.query)
        there: dict[str, list[int]] = {}
        for row in draw.gallery.tolist():
            there.setdefault(pictures[row], []).append(row)
        for query in draw.query.tolist():
            same = there.get(pictures[query], [])
            alike = [row for row in same if split.identities[row] == split.identities[query]]
            own += any(cameras is None or cameras[row] != cameras[query] for row in alike)
            others += len(alike) < len(same)
    return own, others, queries
