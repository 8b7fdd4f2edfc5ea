"""The cell `landmarks` of a manifest: 42 numbers, x and y of each point, separated by spaces.

One text in place of 42 columns: a CSV file and a parquet file hold the same, a table keeps its width, and the cell is
split by one expression, in polars `pl.col("landmarks").str.split(" ")`.
"""

import math

import numpy as np
import polars as pl
from jaxtyping import Float64

from handreid.data.tables import short
from handreid.errors import DataError

COUNT = 42
_NUMBER = r"-?[0-9]{1,9}(\.[0-9]{1,6})?"
_WRITTEN = rf"^({_NUMBER} ){{{COUNT - 1}}}{_NUMBER}$"
_RANGES = {
    "landmark_score": (0.0, 1.0),
    "handedness_score": (0.0, 1.0),
    "pixel_aspect": (0.1, 10.0),
    "hands": (0, None),
}


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
            raise DataError(f"{short(word)} is not a number") from None
    if len(values) != COUNT or not all(map(math.isfinite, values)):
        raise DataError(f"it holds {len(values)} numbers, not x and y of 21 points, all finite")
    return np.array(values).reshape(-1, 2)


def landmark_problems(table: pl.DataFrame) -> list[tuple[int, str]]:
    """Rows with wrong values in the columns of landmarks, and what is wrong."""
    findings: list[tuple[int, str]] = []
    for name, (lowest, highest) in _RANGES.items():
        if name in table.columns and table[name].dtype.is_numeric():
            column = table[name]
            wrong = (column < lowest) | (column > highest if highest is not None else False)
            bounds = f"from {lowest:g} to {highest:g}" if highest is not None else "a count"
            findings += [(row, f"{name} {column[row]:g} is not {bounds}") for row in wrong.arg_true()]
    if "landmarks" in table.columns and table["landmarks"].dtype == pl.String:
        # every new manifest is checked, so thousands of cells as we write them are matched at once
        for row in (~table["landmarks"].str.contains(_WRITTEN).fill_null(value=True)).arg_true():
            try:
                landmarks_points(table["landmarks"][row])
            except DataError as error:
                findings.append((row, f"landmarks {short(table['landmarks'][row])}: {error}"))
    return findings
