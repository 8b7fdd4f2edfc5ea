"""Identical test photos: counted and reported, because they can change a result."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from handreid.data.splits import Split
from handreid.evaluation.embedding_cache import first_of_each


def distinct_photos(
    pictures: Sequence[str], rows: Int[np.ndarray, " photo"], split: Split
) -> Int[np.ndarray, " distinct"]:
    """Position of each distinct picture of each identity. Equal `pictures` are identical pictures."""
    return first_of_each([(picture, split.identities[row]) for picture, row in zip(pictures, rows, strict=True)])[0]


def remarks_on_copies(pictures: Sequence[str], rows: Int[np.ndarray, " photo"], split: Split) -> list[str]:
    """Notes on how many photos are copies, and how many queries have a copy of themselves in their gallery."""
    notes = []
    different = len(set(pictures))
    if different < len(rows):
        notes.append(
            f"{len(rows):,} test photos are {different:,} different pictures: copies are embedded once and counted "
            "once in the separation"
        )
    matching, impostors, queries = _count_copies(dict(zip(rows.tolist(), pictures, strict=True)), split)
    share = f"of {queries:,} queries (of all draws)"
    if matching:
        notes.append(
            f"LEAK: {matching:,} {share} have an identical picture in their gallery, a right answer that no model can "
            "miss; remove the copies from the data"
        )
    if impostors:
        notes.append(
            f"{impostors:,} {share} have an identical picture in their gallery under another identity, which no model "
            "can rank below the right one; `handreid data check` names such photos"
        )
    return notes


def _count_copies(pictures: dict[int, str], split: Split) -> tuple[int, int, int]:
    """Queries whose picture is in their gallery as a right answer, and as a wrong one; and the number of queries.

    Where cameras count, a copy from the query's own camera is not an answer.
    """
    matching = impostors = queries = 0
    cameras = split.cameras
    for draw in split.test:
        queries += len(draw.query)
        rows_of: dict[str, list[int]] = {}
        for row in draw.gallery.tolist():
            rows_of.setdefault(pictures[row], []).append(row)
        for query in draw.query.tolist():
            same = rows_of.get(pictures[query], [])
            genuine = [row for row in same if split.identities[row] == split.identities[query]]
            matching += any(cameras is None or cameras[row] != cameras[query] for row in genuine)
            impostors += len(genuine) < len(same)
    return matching, impostors, queries
