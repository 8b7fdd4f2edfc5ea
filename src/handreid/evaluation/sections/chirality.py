"""How many photos were mirrored to right hands, whose side was predicted, and whose side nobody knew."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from handreid.data.manifest import Manifest
from handreid.data.photo_file import PhotoFile, photo_files
from handreid.evaluation.sections.context import EvaluationContext
from handreid.runs.results import ChiralityResult, SideCounts
from handreid.types import Preprocessing


class ChiralitySection:
    name = "chirality"

    def __call__(self, context: EvaluationContext) -> ChiralityResult | None:
        """None for a model that mirrors no photos."""
        if not context.embedder.preprocessing.mirrors:
            return None
        draws = context.split.test
        gallery, query = (
            side_counts(photo_files(context.manifest, np.unique(np.concatenate(rows))))
            for rows in ([draw.gallery for draw in draws], [draw.query for draw in draws])
        )
        context.notes.append(f"left hands mirrored: gallery photos, {_told(gallery)}; query photos, {_told(query)}")
        return ChiralityResult(gallery=gallery, query=query)


def chirality_remarks(
    manifest: Manifest, rows: Int[np.ndarray, " photo"], preprocessing: Preprocessing, name: str
) -> list[str]:
    """A sentence about photos that a model mirrored, if it mirrors; `name` is that of the data set."""
    if not preprocessing.mirrors:
        return []
    return [f"left hands mirrored: photos of {name}, {_told(side_counts(photo_files(manifest, rows)))}"]


def side_counts(photos: Sequence[PhotoFile]) -> SideCounts:
    sides = [photo.side for photo in photos]
    predicted = sum(photo.side_from in ("prediction", "landmarks") for photo in photos)
    mirrored, right = sides.count("left"), sides.count("right")
    return SideCounts(mirrored=mirrored, right=right, unknown=len(sides) - mirrored - right, predicted=predicted)


def _told(counts: SideCounts) -> str:
    total = counts.mirrored + counts.right + counts.unknown
    words = f"{counts.mirrored:,} of {total:,}, side predicted of {counts.predicted:,}"
    return words + (f", unknown and as it is of {counts.unknown:,}" if counts.unknown else "")
