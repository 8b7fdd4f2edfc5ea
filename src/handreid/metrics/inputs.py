"""Features and labels from callers (lists, arrays, torch tensors) as NumPy arrays, or one clear DataError."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Int

from handreid.errors import DataError
from handreid.messages import shown

_TEXT, _NUMBER = "texts", "whole numbers"


def as_features(values: object, name: str) -> np.ndarray:
    """(photos, dim) real numbers; a 1-D array is a single photo. Raises DataError for anything else, or if empty."""
    try:
        features = np.asarray(_array(values))
    except (ValueError, TypeError, RuntimeError):
        raise DataError(f"{name} features are no array: give a row for each photo, all of one length") from None
    if features.ndim == 1 and features.dtype.kind in "fiu":
        features = features[None]
    if features.ndim != 2 or features.dtype.kind not in "fiu":
        raise DataError(
            f"{name} features have the shape {features.shape} of {features.dtype}; give an array of real numbers of "
            "shape (photos, numbers of a photo)"
        )
    if not features.size:
        raise DataError(f"{name} features are empty, of shape {features.shape}: there is nothing to compare")
    return features if features.dtype.kind == "f" else features.astype(np.float64)


def as_labels(values: object, name: str, photos: int) -> np.ndarray:
    """(photos,) texts or whole numbers. Raises DataError for other types, or if there are more or fewer than photos."""
    array = _array(values)
    if isinstance(array, str) or not isinstance(array, Iterable):
        raise DataError(f"{name} are {shown(values)}; give one for each photo")
    labels = array if isinstance(array, np.ndarray) else np.array(list(array), dtype=object)
    if labels.ndim != 1 or len(labels) != photos:
        raise DataError(f"{name} are of shape {labels.shape} for {photos} photos: give one for each, in their order")
    if labels.dtype.kind == "O":
        kinds = {_kind(value) for value in labels}
        wrong = next((value for value in labels if _kind(value) is None), None)
        if None in kinds or len(kinds) > 1:
            what = f"such as {shown(wrong)}" if None in kinds else "texts among whole numbers"
            raise DataError(f"{name} must be all texts or all whole numbers, and hold {what}")
        labels = np.array(labels.tolist())
    if labels.dtype.kind not in "iuU":
        raise DataError(f"{name} are {labels.dtype}; give texts or whole numbers")
    return labels


def joint_numbers(
    query: np.ndarray, gallery: np.ndarray, name: str
) -> tuple[Int[np.ndarray, " query"], Int[np.ndarray, " gallery"]]:
    """Labels of both as integers, equal where the labels are. Raises DataError if one has texts, the other numbers."""
    if (query.dtype.kind == "U") != (gallery.dtype.kind == "U"):
        kinds = [_TEXT if labels.dtype.kind == "U" else _NUMBER for labels in (query, gallery)]
        raise DataError(f"{name} of queries are {kinds[0]}, those of the gallery {kinds[1]}: none would be equal")
    names = {label: number for number, label in enumerate(dict.fromkeys([*query.tolist(), *gallery.tolist()]))}
    numbers = [np.array([names[label] for label in labels.tolist()], np.int64) for labels in (query, gallery)]
    return numbers[0], numbers[1]


def _array(value: object) -> object:
    """A torch tensor, on any device and with or without gradients, as an array; anything else unchanged."""
    detach = getattr(value, "detach", None)
    if not callable(detach):
        return value
    tensor = detach().cpu()
    return (tensor.float() if "bfloat16" in str(tensor.dtype) else tensor).numpy()


def _kind(value: object) -> str | None:
    if isinstance(value, str):
        return _TEXT
    return _NUMBER if isinstance(value, int | np.integer) and not isinstance(value, bool) else None
