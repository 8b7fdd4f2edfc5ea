"""A photo's file with what a manifest knows of it: the hand's landmarks, and how the photo was squashed.

Whatever decodes photos for a model takes these, so that no caller can leave the landmarks out.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from handreid.data.landmark_columns import pixel_aspects, read_landmarks
from handreid.data.manifest import Manifest
from handreid.data.tables import format_list
from handreid.errors import DataError
from handreid.landmarks import HandLandmarks
from handreid.types import Alignment


@dataclass(frozen=True, eq=False)
class PhotoFile:
    """`hand` is in pixels of the photo as it was taken: its file at full size, upright, the width multiplied by
    `pixel_aspect`. `searched` says whether anybody looked for a hand; without a hand it tells none from not known.
    """

    path: Path
    hand: HandLandmarks | None = None
    pixel_aspect: float = 1.0
    searched: bool = False

    @property
    def marks(self) -> str:
        """Names hand and aspect: aligned pictures of the same file are equal if it is. 16 hex digits."""
        points = None if self.hand is None else self.hand.points.tolist()
        return hashlib.sha256(repr((self.pixel_aspect, points)).encode()).hexdigest()[:16]


def photo_files(manifest: Manifest, rows: Sequence[int] | Int[np.ndarray, " row"] | None = None) -> list[PhotoFile]:
    """The photos of some rows, in their order; without `rows` of all."""
    numbers = list(range(len(manifest)) if rows is None else map(int, rows))
    paths, aspects, searched = manifest.paths(), pixel_aspects(manifest), _searched(manifest)
    hands = read_landmarks(manifest, numbers)
    return [PhotoFile(paths[row], hand, aspects[row], searched[row]) for row, hand in zip(numbers, hands, strict=True)]


def check_hands(photos: Sequence[PhotoFile], alignment: Alignment | None) -> None:
    """Raises DataError if the photos are to be aligned and nobody looked for hands on some of them, or if photos
    without a hand are refused and there are some.
    """
    if alignment is None:
        return
    unknown = [photo for photo in photos if not photo.searched]
    if unknown:
        raise DataError(
            f"the model aligns hands (model.preprocess.align: {alignment.kind}), and {_counted(unknown, photos)} come "
            "without landmarks: run `handreid data landmarks` on their manifest, and give the one that it writes"
        )
    without = [photo for photo in photos if photo.hand is None]
    if without and alignment.without_hand == "refuse":
        raise DataError(
            f"the model aligns hands (model.preprocess.align: {alignment.kind}), and no hand was found on "
            f"{_counted(without, photos)}: leave them out, give their points (`handreid data landmarks --points`), or "
            "train with model.preprocess.without_hand: as_is, which takes such photos as they are"
        )


def _searched(manifest: Manifest) -> list[bool]:
    """Whether anybody looked for a hand on each row's photo."""
    table = manifest.table
    if "hands" in table.columns:
        looked = table["hands"].is_not_null()
        return (looked | table["landmarks"].is_not_null() if "landmarks" in table.columns else looked).to_list()
    return ["landmarks" in table.columns] * len(table)


def _counted(some: Sequence[PhotoFile], photos: Sequence[PhotoFile]) -> str:
    return f"{len(some):,} of {len(photos):,} photos ({format_list([str(photo.path) for photo in some], 3)})"
