"""The photos of pre-training: several views of each, its row, its label if one is read, and a wording of its caption.

All randomness of a photo is a function of its drawn seed, as in `data/sampling.py`: view v is augmented from the seed
+ v, and the wording is the seed modulo their number. A repeated epoch gives the same bytes.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from handreid.data.sampling import Drawn, TrainingPhotos
from handreid.training.stages.pretrain.captions import Captions


@dataclass(frozen=True)
class Views:
    """A batch. `labels` are identities, or places of photos if no term reads identities; `places` are places among the
    training photos; `tokens` are those of captions; `measured` are the numbers that the term `measurements` predicts.
    """

    photos: UInt8[Tensor, "batch views 3 height width"]
    labels: Int[Tensor, " batch"]
    places: Int[Tensor, " batch"]
    conditions: Int[Tensor, " batch"] | None = None
    tokens: Int[Tensor, "batch length"] | None = None
    measured: Float[Tensor, "batch numbers"] | None = None

    def __len__(self) -> int:
        return len(self.photos)

    def to(self, device: torch.device) -> "Views":
        parts = (self.photos, self.labels, self.places, self.conditions, self.tokens, self.measured)
        return Views(*(None if part is None else part.to(device, non_blocking=True) for part in parts))  # type: ignore[arg-type]


class ViewedPhotos(Dataset[Views]):
    """`views` views of each photo; an item is a whole batch."""

    def __init__(
        self,
        photos: TrainingPhotos,
        views: int,
        captions: Captions | None = None,
        measured: Float[Tensor, "photos numbers"] | None = None,
    ) -> None:
        self.photos = photos
        self.views = views
        self.captions = captions
        self.measured = measured

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, drawn: list[Drawn]) -> Views:
        places = torch.tensor([place for place, _ in drawn])
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator
            views = [
                torch.stack([self.photos.augmented(place, seed + view) for view in range(self.views)])
                for place, seed in drawn
            ]
        conditions, captions = self.photos.conditions, self.captions
        return Views(
            torch.stack(views),
            self.photos.labels[places],
            places,
            None if conditions is None else conditions[places],
            None if captions is None else captions.drawn(drawn),
            None if self.measured is None else self.measured[places],
        )
