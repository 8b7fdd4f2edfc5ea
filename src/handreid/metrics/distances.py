"""Distances of every photo to its own and to other identities, without a matrix of all pairs in memory.

Distances are Euclidean between embeddings of unit length, 0 to 2. Photos nearer than 1e-6 count as one point: the
embeddings are float32 and not more precise than that.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from handreid.errors import DataError

_ENTRIES = 1 << 22  # distances held at once: 32 MiB
SAME_POINT = 1e-12  # squared distance


@dataclass(frozen=True, eq=False)
class GroupedPhotos:
    """Photos sorted by identity; identities and subjects are numbered from 0."""

    unit: Float[np.ndarray, "photo dim"]
    identity: Int[np.ndarray, " photo"]
    owner: Int[np.ndarray, " identity"]  # the subject of each identity
    names: list[str]  # of the subjects

    @property
    def sizes(self) -> Int[np.ndarray, " identity"]:
        return np.bincount(self.identity)

    @property
    def subject(self) -> Int[np.ndarray, " photo"]:
        owners: Int[np.ndarray, " photo"] = self.owner[self.identity]
        return owners


@dataclass(frozen=True, eq=False)
class PhotoDistances:
    """Per photo; NaN where it is alone in its identity (within) or its identity is the only one (nearest)."""

    within: Float[np.ndarray, " photo"]  # mean distance to the other photos of its identity
    squared: Float[np.ndarray, " photo"]  # sum of squared distances to them
    nearest: Float[np.ndarray, " photo"]  # distance to the nearest photo of another identity
    silhouette: Float[np.ndarray, " photo"]
    kernel: Float[np.ndarray, "identity identity"]  # sums of exp(-2 d^2) over ordered pairs of different photos


def group_photos(
    embeddings: Float[np.ndarray, "photo dim"], identities: Sequence[str], subjects: Sequence[str]
) -> GroupedPhotos:
    """Raises DataError for an identity of two subjects, or no photos."""
    if not len(embeddings):
        raise DataError("there are no photos to measure")
    distinct, identity = np.unique(np.array(identities), return_inverse=True)
    names, subject = np.unique(np.array(subjects), return_inverse=True)
    order = np.argsort(identity, kind="stable")
    identity, subject = identity[order], subject[order]
    owner = subject[np.searchsorted(identity, np.arange(len(distinct)))]
    torn = np.flatnonzero(owner[identity] != subject)
    if len(torn):
        raise DataError(
            f"identity {str(distinct[identity[torn[0]]])!r} has photos of two subjects: an identity must belong to one "
            "subject"
        )
    unit = embeddings[order].astype(np.float64)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    return GroupedPhotos(unit, identity, owner, names.tolist())


def photo_distances(photos: GroupedPhotos) -> PhotoDistances:
    """Computed some rows of the matrix of all pairs at a time: for 20,000 photos it would need 3 GB."""
    count = len(photos.unit)
    rows = max(1, _ENTRIES // count)
    identities = len(photos.owner)
    kernel = np.zeros((identities, identities))
    parts = []
    for start in range(0, count, rows):
        part, near = _rows_of_distances(photos, slice(start, start + rows))
        np.add.at(kernel, photos.identity[start : start + rows], near)
        parts.append(part)
    within, squared, nearest, silhouette = np.concatenate(parts, axis=1)
    return PhotoDistances(within, squared, nearest, silhouette, kernel)


def _rows_of_distances(
    photos: GroupedPhotos, rows: slice
) -> tuple[Float[np.ndarray, "4 row"], Float[np.ndarray, "row identity"]]:
    """`within`, `squared`, `nearest` and `silhouette` of some photos; and their sums of the kernel by identity."""
    identity = photos.identity[rows]
    starts = np.searchsorted(photos.identity, np.arange(len(photos.owner)))
    index = np.arange(len(identity))
    squared = 2 - 2 * (photos.unit[rows] @ photos.unit.T)
    squared[squared < SAME_POINT] = 0
    near = np.exp(-2 * squared)
    near[index, index + rows.start] = 0  # a photo is no pair with itself
    distance = np.sqrt(squared)
    total, nearest = np.add.reduceat(distance, starts, axis=1), np.minimum.reduceat(distance, starts, axis=1)
    other_photos = np.where(photos.sizes[identity] > 1, photos.sizes[identity] - 1.0, np.nan)
    within = total[index, identity] / other_photos
    mean = total / photos.sizes
    nearest[index, identity] = mean[index, identity] = np.inf  # leaves the other identities to the minima below
    silhouette = np.full(len(index), np.nan)
    if len(photos.owner) > 1:
        nearest_mean = mean.min(axis=1)
        larger = np.maximum(within, nearest_mean)
        silhouette = (nearest_mean - within) / np.where(larger == 0, 1, larger)
    per_photo = (
        within,
        np.add.reduceat(squared, starts, axis=1)[index, identity],
        np.where(len(photos.owner) > 1, nearest.min(axis=1), np.nan),
        silhouette,
    )
    return np.stack(per_photo), np.add.reduceat(near, starts, axis=1)
