"""Values of the columns of landmarks and of predictions: what they may be."""

import polars as pl

from handreid.data.tables import short
from handreid.errors import DataError
from handreid.landmarks.text import COUNT, landmarks_points

_NUMBER = r"-?[0-9]{1,9}(\.[0-9]{1,6})?"
_WRITTEN = rf"^({_NUMBER} ){{{COUNT - 1}}}{_NUMBER}$"
_RANGES = {
    "landmark_score": (0.0, 1.0),
    "handedness_score": (0.0, 1.0),
    "side_probability": (0.0, 1.0),
    "aspect_probability": (0.0, 1.0),
    "pixel_aspect": (0.1, 10.0),
    "hands": (0, None),
}


def landmark_problems(table: pl.DataFrame) -> list[tuple[int, str]]:
    """Rows with wrong values in the columns of landmarks and of predictions, and what is wrong."""
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
