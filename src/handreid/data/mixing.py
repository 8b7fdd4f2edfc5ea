"""Two photos of a batch into one: Mixup and CutMix.

* Partners are the batch rolled by a random number of places: no photo is mixed with itself, but it may be mixed with
  one of its own identity.
* Randomness comes from torch's global generator on the CPU wherever the photos are, and is the same for both.
* A batch of one photo has no partner and stays as it is.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from handreid.types import Mixed

Photos = UInt8[Tensor, "batch 3 height width"]
Labels = Int[Tensor, " batch"]


class Mixup:
    """x = s x_i + (1 - s) x_j in bytes, rounded to the nearest, s ~ Beta(alpha, alpha) once per batch (Zhang et al.
    2018, section 2), for the given share of the batches.
    """

    def __init__(self, alpha: float, probability: float) -> None:
        self.alpha = alpha
        self.probability = probability

    def __call__(self, photos: Photos, labels: Labels) -> tuple[Photos, Mixed | None]:
        shift = _shift(len(photos), self.probability)
        if not shift:
            return photos, None
        share = _share(self.alpha)
        pixels = photos.float()
        blended = torch.lerp(pixels.roll(shift, 0), pixels, share).round().to(torch.uint8)
        return blended, _mixed(labels, shift, share)


class CutMix:
    """A rectangle of x_i is x_j's, of the share 1 - s of its area, s ~ Beta(alpha, alpha) once per batch, about a
    centre anywhere in the photo (Yun et al. 2019, equations 1 and 2). The rectangle is clipped to the photo: the share
    in the targets is that of the pixels actually kept.
    """

    def __init__(self, alpha: float, probability: float) -> None:
        self.alpha = alpha
        self.probability = probability

    def __call__(self, photos: Photos, labels: Labels) -> tuple[Photos, Mixed | None]:
        shift = _shift(len(photos), self.probability)
        if not shift:
            return photos, None
        height, width = photos.shape[2:]
        side = math.sqrt(1 - _share(self.alpha))
        top, bottom = _span(height, side)
        left, right = _span(width, side)
        cut = photos.clone()
        cut[:, :, top:bottom, left:right] = photos.roll(shift, 0)[:, :, top:bottom, left:right]
        return cut, _mixed(labels, shift, 1 - (bottom - top) * (right - left) / (height * width))


def _shift(photos: int, probability: float) -> int:
    """Places by which a batch is rolled, 1 or more; 0 for a batch that is not mixed."""
    mixes = torch.rand(()).item() < probability
    return int(torch.randint(1, photos, ())) if mixes and photos > 1 else 0


def _share(alpha: float) -> float:
    return torch.distributions.Beta(alpha, alpha).sample().item()


def _span(length: int, share: float) -> tuple[int, int]:
    """`share` of a length about a random centre, within the length."""
    centre, half = int(torch.randint(length, ())), share * length / 2
    return max(0, round(centre - half)), min(length, round(centre + half))


def _mixed(labels: Labels, shift: int, share: float) -> Mixed:
    return Mixed(labels.roll(shift), torch.full((len(labels),), share, device=labels.device))


Mix = Callable[[Tensor, Tensor], tuple[Tensor, Mixed | None]]  # photos and labels of a batch
