"""A hand's points as the cell `landmarks` of a table: 42 numbers, x and y of each point, separated by spaces.

One text in place of 42 columns: a CSV file and a parquet file hold the same, a table keeps its width, and the cell is
split by one expression, in polars `pl.col("landmarks").str.split(" ")`.
"""

import math

import numpy as np
from jaxtyping import Float64

from handreid import messages
from handreid.errors import DataError

COUNT = 42


def landmarks_text(points: Float64[np.ndarray, "21 2"]) -> str:
    """The cell, to a hundredth of a pixel."""
    return " ".join(f"{value:.2f}" for value in points.ravel().tolist())


def landmarks_points(text: str) -> Float64[np.ndarray, "21 2"]:
    """The points of a cell. Raises DataError for anything but 42 finite numbers."""
    values = []
    for word in text.split():
        try:
            values.append(float(word))
        except ValueError:
            raise DataError(f"{messages.shown(word)} is not a number") from None
    if len(values) != COUNT or not all(map(math.isfinite, values)):
        raise DataError(f"it holds {len(values)} numbers, not x and y of 21 points, all finite")
    return np.array(values).reshape(-1, 2)
