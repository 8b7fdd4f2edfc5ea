"""Which photos make a batch, and the photos of a batch.

* Everything random is a function of (seed, epoch, position): an epoch that is run again after a kill, with other
  workers or none, gives the same bytes. No state has to be saved for that.
* A batch sampler shards itself by rank; no wrapper shards it again.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Int, UInt8
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from handreid.types import Batch

Drawn = tuple[int, int]  # position in the photos, seed of its augmentation
Augment = Callable[[Image.Image], Tensor]  # to bytes of the shape 3 x height x width


class RandomBatches(Sampler[list[Drawn]]):
    """Every photo once an epoch, in batches whose sizes differ by one at most: no photo is dropped, and no batch is
    left with a single photo, which a batch norm cannot take.
    """

    def __init__(
        self, photos: int, batch_size: int, *, seed: int, epoch: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        self.photos = photos
        self.seed = seed
        self.epoch = epoch
        self.rank = rank
        self.world_size = world_size
        batches = -(-photos // batch_size)
        self.batches = -(-batches // world_size) * world_size  # the same number on every rank
        if photos < 2 * self.batches:
            self.batches = max(1, photos // 2 // world_size * world_size)

    def __len__(self) -> int:
        return self.batches // self.world_size

    def __iter__(self) -> Iterator[list[Drawn]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(self.photos)
        seeds = rng.integers(0, 2**62, self.photos)
        for batch in np.array_split(order, self.batches)[self.rank :: self.world_size]:
            yield [(int(position), int(seeds[position])) for position in batch]


class TrainingPhotos(Dataset[Batch]):
    """Decoded photos with their labels; a batch is asked for as a whole, each photo augmented from its own seed.

    `photos` may hold more rows than are trained on: `rows` are the trained ones, `labels` theirs (0 .. identities - 1).
    """

    def __init__(
        self,
        photos: UInt8[np.ndarray, "photos 3 height width"],
        rows: Int[np.ndarray, " train"],
        labels: Int[np.ndarray, " train"],
        augment: Augment,
    ) -> None:
        self.photos = photos
        self.rows = torch.from_numpy(rows.astype(np.int64))
        self.labels = torch.from_numpy(labels.astype(np.int64))
        self.augment = augment

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, drawn: list[Drawn]) -> Batch:
        positions = torch.tensor([position for position, _ in drawn])
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator
            photos = [self._photo(position, seed) for position, seed in drawn]
        return Batch(torch.stack(photos), self.labels[positions], self.rows[positions])

    def _photo(self, position: int, seed: int) -> UInt8[Tensor, "3 height width"]:
        torch.default_generator.manual_seed(seed)  # torch.manual_seed asks every kind of device, for 0.1 ms
        pixels = np.ascontiguousarray(self.photos[int(self.rows[position])].transpose(1, 2, 0))
        return self.augment(Image.fromarray(pixels))
