"""Side information: known conditions of a photo, such as the camera, as a vector beside the pixels.

CAM-ID: TransReID's side information embedding (He et al. 2021, section 3.3, camera x viewpoint), as CLIP-ReID adds it.

* A vector for each combination of values seen in training, times `strength`; see `tower.image_features` for where it is
  added. Combinations that training does not have get none: they would never be learned.
* A combination that was not seen, or a missing value, gets the mean of all vectors, each counted once. The papers have
  no such case, since their test photos are from the training cameras.
* Initialised as in CLIP-ReID, normal with a standard deviation of 0.02 (truncated at +-2, which has no effect).
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

UNKNOWN = -1
_MIRRORED = {"left": "right", "right": "left"}
Values = Sequence[str | None]


class SideInformation(nn.Module):
    """`combinations` are the values of the manifest's `columns` that have a vector, each once."""

    def __init__(
        self, columns: Sequence[str], strength: float, combinations: Sequence[Sequence[str]], *, width: int
    ) -> None:
        super().__init__()
        self.columns = tuple(columns)
        self.strength = strength
        self.combinations = tuple(tuple(values) for values in combinations)
        if not self.combinations:
            raise ValueError("side information needs at least one combination of values, those of the training photos")
        self.vectors = nn.Parameter(nn.init.trunc_normal_(torch.empty(len(self.combinations), width), std=0.02))
        self.mirror: Tensor
        self.register_buffer("mirror", torch.from_numpy(self._mirrors()), persistent=False)

    def forward(self, conditions: Int[Tensor, " batch"]) -> Float[Tensor, "batch width"]:
        """`conditions` are positions in `combinations`, UNKNOWN (-1) for all others."""
        vectors = self.vectors[conditions.clamp(min=0)]
        unknown = (conditions == UNKNOWN).unsqueeze(1)
        return self.strength * torch.where(unknown, self.vectors.mean(dim=0), vectors)

    def look_up(self, values: Sequence[Values]) -> Int[np.ndarray, " photos"]:
        """Conditions of photos by their values, a sequence per column; a missing value makes a photo unknown."""
        numbers: dict[tuple[str | None, ...], int] = {values: n for n, values in enumerate(self.combinations)}
        return np.array([numbers.get(photo, UNKNOWN) for photo in zip(*values, strict=True)], np.int64)

    def mirrored(self, conditions: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """Conditions of the mirror images: the other `side`, unknown if that combination was not seen."""
        return torch.where(conditions == UNKNOWN, conditions, self.mirror[conditions.clamp(min=0)])

    def _mirrors(self) -> Int[np.ndarray, " combinations"]:
        columns = list(zip(*self.combinations, strict=True))
        turned = [
            [_MIRRORED.get(value, value) for value in values] if name == "side" else list(values)
            for name, values in zip(self.columns, columns, strict=True)
        ]
        return self.look_up(turned)


def combinations_of(values: Sequence[Values]) -> tuple[tuple[str, ...], ...]:
    """Every combination without a missing value, once, in order; `values` holds a sequence per column."""
    return tuple(sorted({photo for photo in zip(*values, strict=True) if None not in photo}))
