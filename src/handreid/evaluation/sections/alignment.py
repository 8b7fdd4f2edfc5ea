"""How many of the photos were aligned, and how many had no hand and were taken as they are."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from handreid.data.manifest import Manifest
from handreid.data.photo_file import PhotoFile, photo_files
from handreid.evaluation.sections.context import EvaluationContext
from handreid.runs.results import AlignedCounts, AlignmentResult
from handreid.types import Preprocessing


class AlignmentSection:
    name = "alignment"

    def __call__(self, context: EvaluationContext) -> AlignmentResult | None:
        """None for a model that does not align hands."""
        alignment = context.embedder.preprocessing.alignment
        if alignment is None:
            return None
        draws = context.split.test
        gallery, query = (
            _counts(photo_files(context.manifest, np.unique(np.concatenate(rows))))
            for rows in ([draw.gallery for draw in draws], [draw.query for draw in draws])
        )
        context.notes.append(
            f"hands aligned ({alignment.kind}): {_told(gallery)} gallery photos and {_told(query)} query photos; "
            f"taken as they are, without a hand: {gallery.as_is:,} and {query.as_is:,}"
        )
        return AlignmentResult(kind=alignment.kind, gallery=gallery, query=query)


def alignment_remarks(
    manifest: Manifest, rows: Int[np.ndarray, " photo"], preprocessing: Preprocessing, name: str
) -> list[str]:
    """A sentence about photos that a model aligned, or took as they are, if it aligns; `name` is the data set's."""
    if preprocessing.alignment is None:
        return []
    counts = _counts(photo_files(manifest, rows))
    aligned = f"hands aligned ({preprocessing.alignment.kind}): {_told(counts)} photos of {name}"
    return [f"{aligned}; taken as they are, without a hand: {counts.as_is:,}"]


def _counts(photos: Sequence[PhotoFile]) -> AlignedCounts:
    aligned = sum(photo.hand is not None for photo in photos)
    return AlignedCounts(aligned=aligned, as_is=len(photos) - aligned)


def _told(counts: AlignedCounts) -> str:
    return f"{counts.aligned:,} of {counts.aligned + counts.as_is:,}"
