"""Input arrays of the metrics: checks with clear errors, and features rounded so that similarities are exact.

* Checks take `object`: a caller may pass a list instead of an array, and NumPy's own messages then name neither the
  argument nor what to do.
* Unit features are rounded to multiples of 2**-26; their dot products then fit a float64 without rounding, whatever the
  block, the order of the gallery or the BLAS, and equal photos have equal similarity to the last bit.
* This step is as fine as float32 for entries of 1/8 and more, and coarser for smaller ones (float32 steps there are
  2**-27 and less), which is what most entries of an embedding of some hundred numbers are. Rounding changes a cosine by
  at most 2**-26 * sqrt(dim) (3e-7 for 512 numbers), typically by 1e-8. Float32 features are themselves exact only to
  2**-24 of their length (6e-8). So photos whose cosines differ by less than that may tie or change places.
"""

import numpy as np
from jaxtyping import Float

from handreid.errors import DataError

UNIT = 2.0**26  # squared it is 2**52: any sum of products of two unit features stays below 2**53
_NUMBERED = "np.unique(names, return_inverse=True)[1] makes numbers of names"


def exact_unit_vectors(
    features: Float[np.ndarray, "photo dim"], name: str, unit: float = UNIT
) -> Float[np.ndarray, "photo dim"]:
    """Unit features times `unit`, rounded to whole numbers, as float64. `name` ("query", "gallery") is for errors.

    Raises `DataError` for a feature that is zero or not finite.
    """
    units = np.array(features, dtype=np.float64, order="C")
    largest = np.abs(units).max(axis=1, initial=0.0)
    bad = np.flatnonzero(~np.isfinite(largest) | (largest == 0))
    if len(bad):
        what = "all zero" if largest[bad[0]] == 0 else "not finite"
        raise DataError(
            f"the feature of {name} photo {bad[0]} (counted from 0) is {what}, one of {len(bad)} that cannot be "
            "compared: check the photo, and the model's weights and precision"
        )
    units /= largest[:, None]  # squares of the largest and smallest floats would not fit
    units *= unit / np.sqrt(np.square(units).sum(axis=1, keepdims=True))
    return np.rint(units, out=units)


def check_features(query: object, gallery: object) -> None:
    """Raises `DataError` unless both are 2-D arrays of real numbers with rows of the same width."""
    widths = []
    for name, features in (("query", query), ("gallery", gallery)):
        if not isinstance(features, np.ndarray) or features.ndim != 2 or features.dtype.kind not in "fiu":
            raise DataError(
                f"{name} features are {_describe(features)}; give a NumPy array of numbers, a row for each photo"
            )
        widths.append(features.shape[1])
    if widths[0] != widths[1]:
        raise DataError(
            f"query features have {widths[0]} numbers per photo, gallery features {widths[1]}: features of two models "
            "or layers cannot be compared"
        )


def check_labels(
    queries: int,
    gallery: int,
    query_labels: object,
    gallery_labels: object,
    query_cameras: object,
    gallery_cameras: object,
) -> None:
    """Raises `DataError` unless labels are whole numbers, one for each photo, and cameras too, or None for all."""
    if (query_cameras is None) != (gallery_cameras is None):
        missing = "query" if query_cameras is None else "gallery"
        raise DataError(
            f"the {missing} photos have no cameras, but the others do: give cameras for both, or for neither"
        )
    _check_numbers("query labels", query_labels, queries)
    _check_numbers("gallery labels", gallery_labels, gallery)
    _check_comparable("labels", query_labels, gallery_labels)
    if query_cameras is not None:
        _check_numbers("query cameras", query_cameras, queries)
        _check_numbers("gallery cameras", gallery_cameras, gallery)
        _check_comparable("cameras", query_cameras, gallery_cameras)


def check_matrix(similarity: object) -> None:
    """Raises `DataError` unless it is a matrix of floating-point numbers."""
    if not isinstance(similarity, np.ndarray) or similarity.ndim != 2 or similarity.dtype.kind != "f":
        raise DataError(
            f"similarities are {_describe(similarity)}; give a NumPy array of floating-point numbers, a row for each "
            "query and a column for each gallery photo (whole numbers: .astype(np.float64))"
        )


def check_finite(similarity: Float[np.ndarray, "block gallery"], first_query: int) -> None:
    """Raises `DataError` for a similarity that is not finite; `first_query` is the number of the query in row 0."""
    if not np.isfinite(similarity).all():
        row, column = np.argwhere(~np.isfinite(similarity))[0]
        raise DataError(
            f"the similarity of query {first_query + row} and gallery photo {column} (counted from 0) is "
            f"{similarity[row, column]}: it cannot be ranked; check the features that it was computed from"
        )


def block_size(block: object, cells: int, columns: int) -> int:
    """How many rows of `columns` numbers to process at a time: `block`, or as many as fit in `cells` if it is None.

    Raises `DataError` for a block that is not a whole number above 0.
    """
    if block is None:
        return max(1, cells // max(1, columns))
    if not isinstance(block, int | np.integer) or isinstance(block, bool) or block < 1:
        raise DataError(f"block is {block!r}; give the number of queries to compare at a time, 1 or more, or None")
    return int(block)


def _check_numbers(name: str, values: object, photos: int) -> None:
    if not isinstance(values, np.ndarray) or values.ndim != 1 or values.dtype.kind not in "iu":
        raise DataError(
            f"{name} are {_describe(values)}; give a one-dimensional NumPy array of whole numbers, one for each photo "
            f"({_NUMBERED})"
        )
    if len(values) != photos:
        raise DataError(f"{len(values)} {name} for {photos} photos: give one for each photo, in the same order")


def _check_comparable(name: str, query: object, gallery: object) -> None:
    """NumPy compares int64 with uint64 as floats, in which different large numbers can be equal."""
    assert isinstance(query, np.ndarray)  # noqa: S101 - for the type checker
    assert isinstance(gallery, np.ndarray)  # noqa: S101
    if np.result_type(query, gallery).kind == "f":
        raise DataError(
            f"query {name} are {query.dtype}, gallery {name} {gallery.dtype}, and no integer type holds both: "
            "convert both to one, such as np.int64"
        )


def _describe(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} with {value.ndim} dimension{'' if value.ndim == 1 else 's'}"
    return f"of type {type(value).__name__}"
