"""Random batches, and the training photos. Samplers that depend on identities are in `samplers.py`.

* Everything random is a function of (seed, epoch, position): an epoch that is repeated after a crash, with another
  number of workers or none, gives the same bytes. No state has to be saved for that.
* A batch sampler shards itself by rank; no wrapper shards it again. Every rank draws the whole epoch and takes its own
  batches: the same number on every rank and in every epoch.
* Batches of an epoch differ in size by one at most, and none has a single photo, which a batch norm cannot take, or a
  single identity, which leaves no negatives.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Int, UInt8
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from handreid.errors import ProtocolError
from handreid.types import Batch

Drawn = tuple[int, int]  # position in the photos, seed of its augmentation
Augment = Callable[[Image.Image], Tensor]  # to bytes of the shape 3 x height x width
BatchSampler = Sampler[list[Drawn]]
Batches = Callable[[int, int, int, np.ndarray | None], BatchSampler]  # of epoch, rank, world size, identity centres


class RandomBatches(Sampler[list[Drawn]]):
    """Every photo once an epoch.

    Raises ProtocolError when there are fewer than two photos per rank.
    """

    def __init__(
        self, photos: int, batch_size: int, *, seed: int, epoch: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        self.photos = photos
        self.seed = seed
        self.epoch = epoch
        self.rank = rank
        self.world_size = world_size
        self.batches = batch_count(photos, batch_size, world_size, "photos")

    def __len__(self) -> int:
        return self.batches // self.world_size

    def __iter__(self) -> Iterator[list[Drawn]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(self.photos)
        seeds = rng.integers(0, 2**62, self.photos)
        for batch in np.array_split(order, self.batches)[self.rank :: self.world_size]:
            yield [(int(position), int(seeds[position])) for position in batch]


class TrainingPhotos(Dataset[Batch]):
    """Decoded photos with their labels; an item is a whole batch, each photo augmented from its own seed.

    `photos` may hold more rows than are trained on: `rows` are the training rows, with `labels` 0 .. identities - 1.
    With `mirror` there are twice as many of both: after all photos follow their mirror images, left and right swapped
    before augmentation, in the same order; the label of a mirror image is that of its photo + the number of identities.
    `conditions` has a number for each training row, see `Batch`.
    """

    def __init__(
        self,
        photos: UInt8[np.ndarray, "photos 3 height width"],
        rows: Int[np.ndarray, " train"],
        labels: Int[np.ndarray, " train"],
        augment: Augment,
        *,
        mirror: bool = False,
        conditions: Int[np.ndarray, " train"] | None = None,
    ) -> None:
        if mirror:
            conditions = None if conditions is None else np.tile(conditions, 2)
            rows, labels = np.tile(rows, 2), np.concatenate([labels, labels + labels.max() + 1])
        self.photos = photos
        self.rows = torch.from_numpy(rows.astype(np.int64))
        self.labels = torch.from_numpy(labels.astype(np.int64))
        self.conditions = None if conditions is None else torch.from_numpy(conditions.astype(np.int64))
        self.augment = augment
        self.unmirrored = len(rows) // 2 if mirror else len(rows)
        self.identities = int(labels.max()) + 1

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, drawn: list[Drawn]) -> Batch:
        positions = torch.tensor([position for position, _ in drawn])
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator
            photos = [self.augmented(position, seed) for position, seed in drawn]
        conditions = None if self.conditions is None else self.conditions[positions]
        return Batch(torch.stack(photos), self.labels[positions], self.rows[positions], conditions)

    def augmented(self, position: int, seed: int) -> UInt8[Tensor, "3 height width"]:
        """The photo at a position, augmented from this seed; it changes torch's global generator."""
        torch.default_generator.manual_seed(seed)  # torch.manual_seed asks every kind of device, for 0.1 ms
        pixels = self.photos[int(self.rows[position])].transpose(1, 2, 0)
        if position >= self.unmirrored:
            pixels = pixels[:, ::-1]
        return self.augment(Image.fromarray(np.ascontiguousarray(pixels)))


def round_up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


def batch_count(count: int, size: int, world_size: int, what: str) -> int:
    """Number of batches of `size` for `count` photos or identities, two or more in each, equally many on every rank.

    Where a batch would hold one only, there are fewer batches, of 3 (or with several ranks 4) if `size` is less.
    """
    if count < 2 * world_size:
        where, fewer = (f" on each of {world_size} processes", ", or use fewer") if world_size > 1 else ("", "")
        raise ProtocolError(f"{what} to train on: {count}, but a batch needs two{where}: add photos{fewer}")
    batches = round_up(-(-count // size), world_size)
    return batches if count >= 2 * batches else count // 2 // world_size * world_size
