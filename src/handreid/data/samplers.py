"""Batch samplers that depend on the identity or group of each photo.

The rules of `sampling.py` hold here too. Where an epoch takes only some photos of an identity or group, they take
turns: they stand in a ring in a random order, and an epoch continues where the one before ended. When a lap of the ring
is complete, a new order is drawn. So the numbers of times that two of them were used never differ by more than one.
"""

from collections.abc import Iterator
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from torch.utils.data import Sampler

from handreid.data.sampling import Drawn, batch_count, round_up

Every = Literal["identity", "photo"]


class PkBatches(Sampler[list[Drawn]]):
    """P `identities` by K `images` of each (Hermans et al. 2017), the K of an identity side by side.

    `every` "identity": each identity once an epoch, with K of its photos, which take turns. One that has fewer than K
    gives all, and some again. A single identity that would be left over makes another batch larger than P.

    `every` "photo": each photo at least once an epoch. An identity's photos are shuffled and divided into chunks of K,
    the last filled up with its first photos; two chunks of one identity are never in the same batch. Where one identity
    has so many chunks that some batches would hold no second identity, those with the fewest chunks are repeated.

    `labels` has one number per photo. Raises ProtocolError when there are fewer than two identities (per rank, for
    `every` "identity").
    """

    def __init__(
        self,
        labels: Int[np.ndarray, " photos"],
        identities: int,
        images: int,
        *,
        every: Every = "identity",
        seed: int,
        epoch: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.photos = _Photos(labels)
        self.images = images
        self.every = every
        self.seed = seed
        self.epoch = epoch
        self.rank = rank
        self.world_size = world_size
        self.chunks = -(-self.photos.counts // images)  # of each identity, where every photo is seen
        self.batches = batch_count(len(self.chunks), identities, world_size if every == "identity" else 1, "identities")
        if every == "photo":
            self.batches = round_up(max(-(-int(self.chunks.sum()) // identities), int(self.chunks.max())), world_size)

    def __len__(self) -> int:
        return self.batches // self.world_size

    def __iter__(self) -> Iterator[list[Drawn]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        if self.every == "identity":
            chunks = self.photos.in_turn(self.images, self.seed, self.epoch)
            batches = np.array_split(rng.permutation(len(chunks)), self.batches)
        else:
            counts = _filled_up(self.chunks, 2 * self.batches, rng)
            chunks = self.photos.dealt(counts, self.images, rng)
            batches = _spread(counts, self.batches, rng)
        return _drawn(chunks, batches[self.rank :: self.world_size], rng)


class HardIdentityBatches(Sampler[list[Drawn]]):
    """P x K with similar identities in each batch; each identity once an epoch, as in `PkBatches`.

    An unused identity is drawn at random and followed by its `neighbours` nearest among the unused, by the cosine of
    centres, until the batch is full. `centres` has a row for each label, the same on every rank; zeros or NaN for an
    identity without a centre: it becomes a neighbour only if no other is left, and its own neighbours are random.
    Without `centres` batches are random.
    """

    def __init__(
        self,
        labels: Int[np.ndarray, " photos"],
        centres: Float[np.ndarray, "identities dim"] | None,
        identities: int,
        images: int,
        *,
        neighbours: int,
        seed: int,
        epoch: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.photos = _Photos(labels)
        self.centres = None if centres is None else centres[self.photos.names]
        self.images = images
        self.neighbours = neighbours
        self.seed = seed
        self.epoch = epoch
        self.rank = rank
        self.world_size = world_size
        self.batches = batch_count(len(self.photos.counts), identities, world_size, "identities")

    def __len__(self) -> int:
        return self.batches // self.world_size

    def __iter__(self) -> Iterator[list[Drawn]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        chunks = self.photos.in_turn(self.images, self.seed, self.epoch)
        batches = np.array_split(rng.permutation(len(chunks)), self.batches)
        if self.centres is not None:
            sizes = [len(batch) for batch in batches]
            batches = _neighbourhoods(self.centres, np.concatenate(batches), sizes, self.neighbours)
            batches = [batches[number] for number in rng.permutation(self.batches)]  # the last were the least confused
        return _drawn(chunks, batches[self.rank :: self.world_size], rng)


class BalancedBatches(Sampler[list[Drawn]]):
    """Groups of photos equally often: of each group photos / groups, rounded, in an epoch.

    Photos of a group take turns: a large group leaves some to the next epochs, a small one gives all before any is
    repeated, in a new order. The numbers of photos that a batch holds of two groups differ by one at most. `groups` has
    a number for each photo. Raises ProtocolError when there are fewer than two photos per rank.
    """

    def __init__(
        self,
        groups: Int[np.ndarray, " photos"],
        batch_size: int,
        *,
        seed: int,
        epoch: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.photos = _Photos(groups)
        self.seed = seed
        self.epoch = epoch
        self.rank = rank
        self.world_size = world_size
        self.each = max(1, round(len(groups) / max(1, len(self.photos.counts))))
        self.batches = batch_count(self.each * len(self.photos.counts), batch_size, world_size, "photos")

    def __len__(self) -> int:
        return self.batches // self.world_size

    def __iter__(self) -> Iterator[list[Drawn]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        counts = self.photos.counts
        photos = self.photos.in_turn(self.each, self.seed, self.epoch)
        turns = np.arange(self.each) // counts[:, None]
        order = np.argsort(turns + rng.random(turns.shape), axis=1)
        photos = np.take_along_axis(photos, order, axis=1).reshape(-1, 1)
        batches = _spread(np.full(len(counts), self.each), self.batches, rng)
        return _drawn(photos, batches[self.rank :: self.world_size], rng)


class _Photos:
    """Positions of photos by owner: the identity or group that they are of."""

    def __init__(self, labels: Int[np.ndarray, " photos"]) -> None:
        self.names, self.owners = np.unique(labels, return_inverse=True)
        self.counts = np.bincount(self.owners, minlength=len(self.names))
        self.first = np.cumsum(self.counts) - self.counts

    def in_turn(self, each: int, seed: int, epoch: int) -> Int[np.ndarray, "owners each"]:
        """The epoch's photos of every owner, from its ring."""
        laps = (epoch // (self.counts // np.gcd(self.counts, each)))[self.owners]
        keys = np.empty(len(laps))
        for lap in np.unique(laps):
            mask = laps == lap
            keys[mask] = np.random.default_rng([seed, int(lap), 1]).random(len(laps))[mask]
        return self._from_rings(np.lexsort((keys, self.owners)), np.arange(len(self.counts)), epoch * each, each)

    def dealt(
        self, chunks: Int[np.ndarray, " owners"], each: int, rng: np.random.Generator
    ) -> Int[np.ndarray, "chunks each"]:
        """`chunks` chunks of every owner, one owner after the other; no photo is repeated before all were used."""
        rings = np.lexsort((rng.random(len(self.owners)), self.owners))
        number = np.arange(chunks.sum()) - np.repeat(np.cumsum(chunks) - chunks, chunks)
        return self._from_rings(rings, np.repeat(np.arange(len(chunks)), chunks), number * each, each)

    def _from_rings(
        self,
        rings: Int[np.ndarray, " photos"],
        owners: Int[np.ndarray, " chunks"],
        starts: Int[np.ndarray, " chunks"] | int,
        each: int,
    ) -> Int[np.ndarray, "chunks each"]:
        places = (np.reshape(starts, (-1, 1)) + np.arange(each)) % self.counts[owners, None]
        return rings[self.first[owners, None] + places]


def _filled_up(counts: Int[np.ndarray, " owners"], total: int, rng: np.random.Generator) -> Int[np.ndarray, " owners"]:
    """Counts that sum to `total` at least: the owners with the fewest get more."""
    counts = counts.copy()
    while (missing := total - int(counts.sum())) > 0:
        fewest = np.flatnonzero(counts == counts.min())
        counts[rng.permutation(fewest)[:missing]] += 1
    return counts


def _spread(counts: Int[np.ndarray, " owners"], batches: int, rng: np.random.Generator) -> list[Int[np.ndarray, " _"]]:
    """Distributes every owner's items over all batches as evenly as possible; items are numbered owner by owner.

    An owner's remainder goes to the smallest batches, ties at random: so the sizes of batches differ by one at most.
    """
    sizes = np.zeros(batches)
    assigned = [np.empty(0, np.int64)] * len(counts)
    for owner in rng.permutation(len(counts)):
        whole, rest = divmod(int(counts[owner]), batches)
        smallest = np.argpartition(sizes + rng.random(batches), rest - 1)[:rest]
        sizes[smallest] += 1
        assigned[owner] = np.sort(np.concatenate([np.repeat(np.arange(batches), whole), smallest]))
    numbers = np.concatenate(assigned)
    ends = np.cumsum(np.bincount(numbers, minlength=batches))
    return np.split(np.argsort(numbers, kind="stable"), ends[:-1])


def _neighbourhoods(
    centres: Float[np.ndarray, "identities dim"], order: Int[np.ndarray, " identities"], sizes: list[int], limit: int
) -> list[Int[np.ndarray, " _"]]:
    """Identities in batches of `sizes`: the first unused of `order` with its `limit` nearest, and so on."""
    directions = centres[order].astype(np.float64)  # so that machines that round otherwise find the same neighbours
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    valid = np.isfinite(lengths) & (lengths > 0)
    directions = np.where(valid, directions, 0) / np.where(valid, lengths, 1)
    unused = np.ones(len(order), bool)
    turns = _turns(directions, valid[:, 0], unused)
    batches = []
    for size in sizes:
        batch: list[int] = []
        while len(batch) < size:
            anchor, cosines = next(turns)
            unused[anchor] = False
            candidates = np.flatnonzero(unused)
            ranked = candidates[np.argsort(-cosines[candidates], kind="stable")]
            near = ranked[: min(limit, size - len(batch) - 1)]
            unused[near] = False
            batch += [anchor, *near.tolist()]
        batches.append(order[batch])
    return batches


def _turns(
    directions: Float[np.ndarray, "identities dim"],
    valid: Bool[np.ndarray, " identities"],
    unused: Bool[np.ndarray, " identities"],
) -> Iterator[tuple[int, Float[np.ndarray, " identities"]]]:
    """Each identity that is still `unused` at its turn, with its cosines to all."""
    while unused.any():
        ahead = np.flatnonzero(unused)[:64]  # one matrix product for many
        cosines = np.where(valid, np.round(directions[ahead] @ directions.T, 12), -2)
        for identity, row in zip(ahead.tolist(), cosines, strict=True):
            if unused[identity]:
                yield identity, row


def _drawn(
    chunks: Int[np.ndarray, "chunks each"], batches: list[Int[np.ndarray, " _"]], rng: np.random.Generator
) -> Iterator[list[Drawn]]:
    """The photos of each batch's chunks, every one with a seed of its own."""
    seeds = rng.integers(0, 2**62, chunks.shape)
    for batch in batches:
        yield list(zip(chunks[batch].ravel().tolist(), seeds[batch].ravel().tolist(), strict=True))
