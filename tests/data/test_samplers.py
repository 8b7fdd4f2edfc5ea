"""Samplers that look at whose photos they are: their rules for any labels, and what two processes get."""

import json
from collections import Counter
from datetime import timedelta
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, DistributedSampler

from handreid.data.samplers import BalancedBatches, HardIdentityBatches, PkBatches
from handreid.data.sampling import BatchSampler, Drawn, RandomBatches, TrainingPhotos
from handreid.errors import ProtocolError

counts_of_photos = st.lists(st.integers(1, 11), min_size=2, max_size=30)


def labels_of(counts: list[int]) -> np.ndarray:
    """In any order, for photos are in no order."""
    return np.random.default_rng(len(counts)).permutation(np.repeat(np.arange(len(counts)), counts))


def owners(labels: np.ndarray, batch: list[Drawn]) -> Counter:
    return Counter(int(labels[position]) for position, _ in batch)


def spread(counts: Counter, of: object) -> int:
    """How far apart the most and the least used are."""
    used = [counts[one] for one in of]
    return max(used) - min(used)


def all_ranks(make, ranks: int) -> list[list[Drawn]]:
    """Batches of an epoch over all ranks, which have as many of them."""
    shares = [make(rank=rank, world_size=ranks) for rank in range(ranks)]
    drawn = [list(share) for share in shares]
    assert {len(share) for share in shares} == {len(batches) for batches in drawn}
    assert len({len(batches) for batches in drawn}) == 1
    assert len(drawn[0]) >= 1
    return [batch for batches in drawn for batch in batches]


def check_pairs(labels: np.ndarray, batches: list[list[Drawn]], images: int, most: int) -> None:
    """Every photo has a positive and a negative beside it, and batches are of a size."""
    sizes = []
    for batch in batches:
        held = owners(labels, batch)
        assert set(held.values()) == {images}
        sizes.append(len(held))
    assert min(sizes) >= 2
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= most
    seeds = [seed for batch in batches for _, seed in batch]
    assert len(set(seeds)) == len(seeds)


@settings(deadline=None, max_examples=60)
@given(counts_of_photos, st.integers(2, 9), st.integers(2, 5), st.integers(1, 4), st.integers(0, 40))
def test_every_identity_once_an_epoch_with_k_of_its_photos(
    counts: list[int], identities: int, images: int, ranks: int, epoch: int
):
    labels = labels_of(counts)

    def make(**rank: int) -> PkBatches:
        return PkBatches(labels, identities, images, seed=5, epoch=epoch, **rank)

    if len(counts) < 2 * ranks:
        with pytest.raises(
            ProtocolError, match=f"identities to train on: {len(counts)}, but a batch needs two on each of {ranks}"
        ):
            make(rank=0, world_size=ranks)
        return
    batches = all_ranks(make, ranks)
    check_pairs(labels, batches, images, max(identities, 3 if ranks == 1 else 4))
    assert sum((owners(labels, batch) for batch in batches), Counter()) == dict.fromkeys(range(len(counts)), images)
    used = Counter(position for batch in batches for position, _ in batch)
    for identity in range(len(counts)):
        assert spread(used, np.flatnonzero(labels == identity)) <= 1  # so none twice while another was not used


@settings(deadline=None, max_examples=60)
@given(counts_of_photos, st.integers(2, 5), st.integers(1, 25))
def test_photos_of_an_identity_take_turns_over_the_epochs(counts: list[int], images: int, epochs: int):
    labels = labels_of(counts)
    used: Counter = Counter()
    for epoch in range(epochs):
        used.update(position for batch in PkBatches(labels, 4, images, seed=0, epoch=epoch) for position, _ in batch)
        for identity, count in enumerate(counts):
            photos = np.flatnonzero(labels == identity)
            assert spread(used, photos) <= 1
            assert epoch + 1 < -(-count // images) or min(used[photo] for photo in photos) >= 1


@pytest.mark.parametrize("every", ["identity", "photo"])
def test_photos_that_meet_change_when_all_had_their_turn(every: str):
    labels = np.repeat([0, 1], 8)
    hands = set()
    for epoch in range(20):
        batch = next(iter(PkBatches(labels, 2, 4, every=every, seed=0, epoch=epoch)))
        hands.add(frozenset(position for position, _ in batch if position < 8))
    assert len(hands) > 10


@settings(deadline=None, max_examples=60)
@given(counts_of_photos, st.integers(2, 9), st.integers(2, 5), st.integers(1, 4), st.integers(0, 40))
def test_every_photo_once_an_epoch_and_the_last_hand_filled_up(
    counts: list[int], identities: int, images: int, ranks: int, epoch: int
):
    labels = labels_of(counts)
    batches = all_ranks(
        lambda **rank: PkBatches(labels, identities, images, every="photo", seed=5, epoch=epoch, **rank), ranks
    )
    check_pairs(labels, batches, images, identities)  # an identity's hands meet in none
    used = Counter(position for batch in batches for position, _ in batch)
    assert set(used) == set(range(len(labels)))
    held = sum((owners(labels, batch) for batch in batches), Counter())
    needed = {identity: -(-count // images) * images for identity, count in enumerate(counts)}
    more = {identity: held[identity] - needed[identity] for identity in needed}
    assert min(more.values()) >= 0
    if any(more.values()):  # only as many as it takes for two identities in every batch
        assert sum(held.values()) == 2 * images * len(batches)
    for identity in needed:
        assert spread(used, np.flatnonzero(labels == identity)) <= 1


def test_an_identity_that_has_most_photos_meets_the_others_again():
    labels = np.repeat([0, 1, 2], [40, 3, 3])
    batches = list(PkBatches(labels, 8, 4, every="photo", seed=0))
    assert len(batches) == 10
    assert sum((owners(labels, batch) for batch in batches), Counter()) == {0: 40, 1: 20, 2: 20}


def test_one_identity_has_nothing_to_be_told_from():
    for every in ("identity", "photo"):
        with pytest.raises(ProtocolError, match="identities to train on: 1, but a batch needs two: add"):
            PkBatches(np.zeros(9, np.int64), 4, 4, every=every, seed=0)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(2, 16), st.integers(1, 4), st.integers(0, 40))
def test_groups_come_equally_often_and_mixed(counts: list[int], size: int, ranks: int, epoch: int):
    groups = 3 * labels_of(counts) - 2  # any numbers

    def make(**rank: int) -> BalancedBatches:
        return BalancedBatches(groups, size, seed=5, epoch=epoch, **rank)

    each = max(1, round(len(groups) / len(counts)))
    if each * len(counts) < 2 * ranks:
        with pytest.raises(ProtocolError, match="photos to train on"):
            make(rank=0, world_size=ranks)
        return
    batches = all_ranks(make, ranks)
    names = np.unique(groups).tolist()
    assert sum((owners(groups, batch) for batch in batches), Counter()) == dict.fromkeys(names, each)
    assert all(spread(owners(groups, batch), names) <= 1 for batch in batches)
    sizes = [len(batch) for batch in batches]
    assert min(sizes) >= 2
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= max(size, 3 if ranks == 1 else 4)
    seeds = [seed for batch in batches for _, seed in batch]
    assert len(set(seeds)) == len(seeds)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 40), min_size=2, max_size=5), st.integers(1, 12))
def test_all_photos_of_a_group_are_used_before_any_again(counts: list[int], epochs: int):
    groups = labels_of(counts)
    used: Counter = Counter()
    for epoch in range(epochs):
        drawn = [position for batch in BalancedBatches(groups, 8, seed=1, epoch=epoch) for position, _ in batch]
        used.update(drawn)
        for group, count in enumerate(counts):
            photos = [position for position in drawn if groups[position] == group]
            assert len(set(photos[:count])) == len(photos[:count])
            assert spread(used, np.flatnonzero(groups == group)) <= 1


def test_a_small_group_is_shuffled_anew_for_each_turn():
    groups = np.repeat([0, 1], [5, 95])
    drawn = [position for batch in BalancedBatches(groups, 10, seed=1) for position, _ in batch if position < 5]
    turns = {tuple(drawn[at : at + 5]) for at in range(0, 50, 5)}
    assert len(turns) > 5


@settings(deadline=None, max_examples=60)
@given(
    counts_of_photos,
    st.integers(2, 9),
    st.integers(1, 6),
    st.integers(1, 3),
    st.sampled_from(["random", "equal", "some unknown", "none known"]),
)
def test_every_identity_once_whatever_the_centres(
    counts: list[int], identities: int, neighbours: int, ranks: int, kind: str
):
    labels = labels_of(counts)
    centres = np.random.default_rng(0).normal(size=(len(counts), 6)).astype(np.float32)
    if kind == "equal":
        centres[:] = 1
    elif kind == "some unknown":
        centres[::2], centres[::3] = 0, np.nan
    elif kind == "none known":
        centres[:] = 0
    if len(counts) < 2 * ranks:
        return
    batches = all_ranks(
        lambda **rank: HardIdentityBatches(labels, centres, identities, 3, neighbours=neighbours, seed=2, **rank), ranks
    )
    check_pairs(labels, batches, 3, max(identities, 3 if ranks == 1 else 4))
    assert sum((owners(labels, batch) for batch in batches), Counter()) == dict.fromkeys(range(len(counts)), 3)


@pytest.mark.parametrize("neighbours", [1, 3, 4, 30])
def test_an_identity_is_followed_by_its_nearest_of_those_that_are_left(neighbours: int):
    centres = np.random.default_rng(1).normal(size=(19, 5))
    labels = np.repeat(np.arange(19), 2)
    (batch,) = HardIdentityBatches(labels, centres, 19, 2, neighbours=neighbours, seed=0)
    order = [int(labels[position]) for position, _ in batch[::2]]
    left = set(range(19))
    while order:
        first, order = order[0], order[1:]
        left.remove(first)
        cosine = {
            other: centres[first] @ centres[other] / np.linalg.norm(centres[first]) / np.linalg.norm(centres[other])
            for other in left
        }
        nearest = sorted(left, key=cosine.__getitem__, reverse=True)[:neighbours]
        assert order[: len(nearest)] == nearest
        order = order[len(nearest) :]
        left -= set(nearest)


def test_identities_that_confuse_each_other_share_a_batch():
    families = np.repeat(np.random.default_rng(0).normal(size=(150, 8)), 4, axis=0)
    centres = families + np.random.default_rng(1).normal(0, 0.001, families.shape)
    labels = np.repeat(np.arange(600), 3)
    for epoch in (1, 2):
        for batch in HardIdentityBatches(labels, centres, 8, 2, neighbours=3, seed=0, epoch=epoch):
            assert set(Counter(identity // 4 for identity in owners(labels, batch)).values()) == {4}


def test_an_identity_without_a_centre_is_a_neighbour_for_want_of_others_only():
    centres = np.random.default_rng(1).normal(size=(40, 5))
    centres[20:30], centres[30:] = 0, np.nan
    labels = np.repeat(np.arange(40), 2)
    known_together = 0
    for epoch in range(30):
        (batch,) = HardIdentityBatches(labels, centres, 40, 2, neighbours=1, seed=0, epoch=epoch)
        order = [int(labels[position]) for position, _ in batch[::2]]
        pairs = [(one < 20, other < 20) for one, other in zip(order[::2], order[1::2], strict=True)]
        ran_out = max(at for at, pair in enumerate(pairs) if any(pair))
        assert (True, False) not in pairs[:ran_out]
        known_together += pairs.count((True, True))
    assert known_together > 30


def test_hard_batches_are_more_alike_than_random_ones():
    centres = np.random.default_rng(3).normal(size=(96, 12))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    labels = np.repeat(np.arange(96), 2)

    def alike(sampler: BatchSampler) -> float:
        cosines = []
        for batch in sampler:
            held = centres[list(owners(labels, batch))]
            cosines.append((held @ held.T)[np.triu_indices(len(held), 1)].mean())
        return float(np.mean(cosines))

    hard = alike(HardIdentityBatches(labels, centres, 8, 2, neighbours=3, seed=0))
    assert hard > alike(HardIdentityBatches(labels, None, 8, 2, neighbours=3, seed=0)) + 0.1


def test_without_centres_hard_identities_are_plain_p_by_k():
    labels = labels_of([4, 9, 2, 6, 5])
    plain = PkBatches(labels, 2, 3, seed=4, epoch=6)
    assert list(HardIdentityBatches(labels, None, 2, 3, neighbours=3, seed=4, epoch=6)) == list(plain)


LABELS = labels_of([3, 9, 2, 6, 5, 4, 7, 1, 8])
CENTRES = np.random.default_rng(0).normal(size=(9, 4))
SAMPLERS = {
    "random": lambda **of: RandomBatches(len(LABELS), 6, **of),
    "pk identity": lambda **of: PkBatches(LABELS, 3, 2, **of),
    "pk photo": lambda **of: PkBatches(LABELS, 3, 2, every="photo", **of),
    "balanced": lambda **of: BalancedBatches(LABELS // 3, 6, **of),
    "hard_identity": lambda **of: HardIdentityBatches(LABELS, CENTRES, 3, 2, neighbours=1, **of),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_batches_depend_on_seed_and_epoch_alone(name: str):
    make = SAMPLERS[name]
    third = list(make(seed=0, epoch=3))
    sampler = make(seed=0, epoch=3)
    assert third == list(sampler) == list(sampler)  # a resumed epoch is the same epoch
    for other in (make(seed=0, epoch=4), make(seed=1, epoch=3)):
        assert [{position for position, _ in batch} for batch in other] != [{p for p, _ in batch} for batch in third]
        assert not {seed for batch in other for _, seed in batch} & {seed for batch in third for _, seed in batch}


def draw_on_a_rank(rank: int, folder: str) -> None:
    """Two epochs with each sampler, loaded as `FineTuneModule` does, and the same sharded again by a wrapper."""
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2, timeout=timedelta(seconds=30)
    )
    pixels = np.zeros((len(LABELS), 3, 2, 2), np.uint8)
    photos = TrainingPhotos(pixels, np.arange(len(LABELS)), LABELS, lambda photo: torch.zeros(3, 2, 2).byte())
    got: dict[str, list] = {}
    for name, make in SAMPLERS.items():
        for epoch in range(2):
            sampler = make(seed=0, epoch=epoch, rank=dist.get_rank(), world_size=dist.get_world_size())
            rows = []
            for batch in DataLoader(photos, sampler=sampler, batch_size=None):
                dist.all_reduce(torch.ones(1))  # waits for the other rank, as gradients do
                rows += batch.rows.tolist()
            batches = list(sampler)
            again = [position for at in DistributedSampler(batches, shuffle=False) for position, _ in batches[at]]
            got[f"{name} {epoch}"] = [rows, again]
    dist.barrier()
    Path(folder, f"{rank}.json").write_text(json.dumps(got))
    dist.destroy_process_group()


def test_two_processes_share_an_epoch_and_a_second_sharding_would_lose_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Lightning's wrapper is torch's DistributedSampler over the list of batches; `build_trainer` turns it off."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    mp.start_processes(draw_on_a_rank, (str(tmp_path),), nprocs=2, start_method="fork")
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    everyone = list(range(9))
    for epoch in range(2):
        rows = {name: [rank[f"{name} {epoch}"][0] for rank in ranks] for name in SAMPLERS}
        held = {name: Counter(LABELS[row] for share in both for row in share) for name, both in rows.items()}
        assert sorted(chain(*rows["random"])) == list(range(len(LABELS)))
        for name in ("pk identity", "hard_identity"):
            assert held[name] == dict.fromkeys(everyone, 2)
            assert sorted(identity for share in rows[name] for identity in {LABELS[row] for row in share}) == everyone
        assert set(chain(*rows["pk photo"])) == set(range(len(LABELS)))
        assert held["pk photo"] == {identity: 2 * -(-count // 2) for identity, count in Counter(LABELS).items()}
        assert set(Counter(LABELS[row] // 3 for share in rows["balanced"] for row in share).values()) == {15}
        for name in SAMPLERS:
            twice = sum(len(rank[f"{name} {epoch}"][1]) for rank in ranks)
            assert twice <= 0.67 * sum(held[name].values())
