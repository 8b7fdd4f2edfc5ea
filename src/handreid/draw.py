"""A draw: which photos are the gallery, and which are the queries."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64


@dataclass(frozen=True, eq=False)
class Draw:
    """One gallery and its queries, as rows of the manifest; each in the order of the paths."""

    gallery: Int64[np.ndarray, " gallery"]
    query: Int64[np.ndarray, " query"]
