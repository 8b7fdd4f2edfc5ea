"""A photo's file with what a manifest knows of it: the hand's landmarks and side, and how the photo was squashed.

Whatever decodes photos for a model takes these, so that no caller can leave landmarks or side out.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int

from handreid.data.landmark_columns import pixel_aspects, read_landmarks
from handreid.data.manifest import Manifest
from handreid.data.rows import PROBABILITIES
from handreid.data.tables import format_list
from handreid.errors import DataError
from handreid.landmarks import HandLandmarks, Side
from handreid.types import Alignment, Chirality, Preprocessing, Reading

_CANONICAL = "model.preprocess.chirality: canonical"
SideSource = Literal["manifest", "prediction", "landmarks"]


@dataclass(frozen=True, eq=False)
class PhotoFile:
    """`hand` is in pixels of the photo as it was taken: its file at full size, upright, the width multiplied by
    `pixel_aspect`. `searched` says whether anybody looked for a hand; without a hand it tells none from not known.
    `stated_side` is the person's hand as the manifest states it, known or predicted (`data landmarks --fill-views`).
    """

    path: Path
    hand: HandLandmarks | None = None
    pixel_aspect: float = 1.0
    searched: bool = False
    stated_side: Side | None = None
    side_predicted: bool = False

    @property
    def side(self) -> Side | None:
        """The person's hand: as stated, else as the landmarker predicted it; None if neither is known."""
        return self.stated_side or (None if self.hand is None else self.hand.handedness)

    @property
    def side_from(self) -> SideSource | None:
        """Who gave `side`: the manifest's column `side`, where it is known or predicted, or a landmarker."""
        if self.stated_side:
            return "prediction" if self.side_predicted else "manifest"
        return "landmarks" if self.side else None

    def is_mirrored(self, reading: Reading) -> bool:
        """Whether the model sees the photo's mirror image."""
        return reading.mirrors and self.side == "left"

    def marks(self, reading: Reading) -> str:
        """Names what changes the model's input beside the file: inputs from the same file are equal if it is.

        Empty where nothing does; hand and aspect, 16 hex digits, for a model that aligns.
        """
        words = ["mirrored"] if self.is_mirrored(reading) else []
        if reading.aligns:
            points = None if self.hand is None else self.hand.points.tolist()
            words.insert(0, hashlib.sha256(repr((self.pixel_aspect, points)).encode()).hexdigest()[:16])
        return " ".join(words)


def photo_files(manifest: Manifest, rows: Sequence[int] | Int[np.ndarray, " row"] | None = None) -> list[PhotoFile]:
    """The photos of some rows, in their order; without `rows` of all."""
    numbers = list(range(len(manifest)) if rows is None else map(int, rows))
    paths, aspects, searched = manifest.paths(), pixel_aspects(manifest), _searched(manifest)
    hands, sides = read_landmarks(manifest, numbers), manifest.table["side"].to_list()
    predicted = _predicted(manifest)
    return [
        PhotoFile(paths[row], hand, aspects[row], searched[row], sides[row], predicted[row])
        for row, hand in zip(numbers, hands, strict=True)
    ]


def marks_of(manifest: Manifest, rows: Int[np.ndarray, " row"], reading: Reading) -> tuple[str, ...]:
    """`PhotoFile.marks` of some rows."""
    if not (reading.aligns or reading.mirrors):
        return ("",) * len(rows)
    return tuple(photo.marks(reading) for photo in photo_files(manifest, rows))


def check_hands(photos: Sequence[PhotoFile], preprocessing: Preprocessing) -> None:
    """Raises DataError if the model needs to know more of the photos' hands than is known.

    That is, if photos are to be aligned and nobody looked for hands on some of them, or if photos without a hand are
    refused and there are some; and the same for photos that are to show right hands, and their side.
    """
    _check_aligned(photos, preprocessing.alignment)
    _check_sides(photos, preprocessing.chirality)


def _check_aligned(photos: Sequence[PhotoFile], alignment: Alignment | None) -> None:
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


def _check_sides(photos: Sequence[PhotoFile], chirality: Chirality | None) -> None:
    if chirality is None:
        return
    unknown = [photo for photo in photos if photo.side is None]
    unsearched = [photo for photo in unknown if not photo.searched]
    if unsearched:
        raise DataError(
            f"the model mirrors left hands ({_CANONICAL}), and {_counted(unsearched, photos)} come without side: "
            "fill in the manifest's column `side`, or run `handreid data landmarks` on it, which predicts sides"
        )
    if unknown and chirality.unknown_side == "refuse":
        raise DataError(
            f"the model mirrors left hands ({_CANONICAL}), and neither the manifest nor landmarks give the "
            f"side of {_counted(unknown, photos)}: fill in the manifest's column `side`, leave them out, or train with "
            "model.preprocess.unknown_side: as_is, which takes such photos as they are"
        )


def _searched(manifest: Manifest) -> list[bool]:
    """Whether anybody looked for a hand on each row's photo."""
    table = manifest.table
    if "hands" in table.columns:
        looked = table["hands"].is_not_null()
        return (looked | table["landmarks"].is_not_null() if "landmarks" in table.columns else looked).to_list()
    return ["landmarks" in table.columns] * len(table)


def _predicted(manifest: Manifest) -> list[bool]:
    """Whether each row's side was predicted."""
    column = PROBABILITIES["side"]
    table = manifest.table
    return table[column].is_not_null().to_list() if column in table.columns else [False] * len(table)


def _counted(some: Sequence[PhotoFile], photos: Sequence[PhotoFile]) -> str:
    return f"{len(some):,} of {len(photos):,} photos ({format_list([str(photo.path) for photo in some], 3)})"
