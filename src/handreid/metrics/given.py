"""What people hand in, as arrays: lists, arrays and torch tensors of features and of labels; or one clear DataError."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Int

from handreid.errors import DataError
from handreid.messages import shown

_TEXT, _NUMBER = "texts", "whole numbers"


def as_features(given: object, name: str) -> np.ndarray:
    """A row of real numbers for each photo; one alone is a row. Raises DataError for what is none, or is empty."""
    try:
        found = np.asarray(_array(given))
    except (ValueError, TypeError, RuntimeError):
        raise DataError(f"{name} features are no array: give a row for each photo, all of one length") from None
    if found.ndim == 1 and found.dtype.kind in "fiu":
        found = found[None]
    if found.ndim != 2 or found.dtype.kind not in "fiu":
        raise DataError(
            f"{name} features have the shape {found.shape} of {found.dtype}; give an array of real numbers of shape "
            "(photos, numbers of a photo)"
        )
    if not found.size:
        raise DataError(f"{name} features are empty, of shape {found.shape}: there is nothing to compare")
    return found if found.dtype.kind == "f" else found.astype(np.float64)


def as_labels(given: object, name: str, photos: int) -> np.ndarray:
    """A text or a whole number for each photo. Raises DataError for other things, or for too few or too many."""
    array = _array(given)
    if isinstance(array, str) or not isinstance(array, Iterable):
        raise DataError(f"{name} are {shown(given)}; give one for each photo")
    found = array if isinstance(array, np.ndarray) else np.array(list(array), dtype=object)
    if found.ndim != 1 or len(found) != photos:
        raise DataError(f"{name} are of shape {found.shape} for {photos} photos: give one for each, in their order")
    if found.dtype.kind == "O":
        kinds = {_kind(value) for value in found}
        wrong = next((value for value in found if _kind(value) is None), None)
        if None in kinds or len(kinds) > 1:
            what = f"such as {shown(wrong)}" if None in kinds else "texts among whole numbers"
            raise DataError(f"{name} must be all texts or all whole numbers, and hold {what}")
        found = np.array(found.tolist())
    if found.dtype.kind not in "iuU":
        raise DataError(f"{name} are {found.dtype}; give texts or whole numbers")
    return found


def joint_numbers(
    query: np.ndarray, gallery: np.ndarray, name: str
) -> tuple[Int[np.ndarray, " query"], Int[np.ndarray, " gallery"]]:
    """Numbers for both, equal where the labels are. Raises DataError for texts on one side, numbers on the other."""
    if (query.dtype.kind == "U") != (gallery.dtype.kind == "U"):
        kinds = [_TEXT if one.dtype.kind == "U" else _NUMBER for one in (query, gallery)]
        raise DataError(f"{name} of queries are {kinds[0]}, those of the gallery {kinds[1]}: none would be equal")
    names = {label: number for number, label in enumerate(dict.fromkeys([*query.tolist(), *gallery.tolist()]))}
    numbers = [np.array([names[label] for label in one.tolist()], np.int64) for one in (query, gallery)]
    return numbers[0], numbers[1]


def _array(given: object) -> object:
    """A torch tensor as an array, wherever it lies and whatever it is part of; all else as it is."""
    detach = getattr(given, "detach", None)
    if not callable(detach):
        return given
    tensor = detach().cpu()
    return (tensor.float() if "bfloat16" in str(tensor.dtype) else tensor).numpy()


def _kind(value: object) -> str | None:
    if isinstance(value, str):
        return _TEXT
    return _NUMBER if isinstance(value, int | np.integer) and not isinstance(value, bool) else None
