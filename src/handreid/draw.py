"""A draw: which photos are searched in, and which are searched with."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64


@dataclass(frozen=True, eq=False)
class Draw:
    """One evaluation: rows of the manifest to search in, and rows to search with; each in the order of the paths."""

    gallery: Int64[np.ndarray, " gallery"]
    query: Int64[np.ndarray, " query"]
