"""Batches and augmentation: every photo once, the same again for the same epoch, the same on every rank."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from handreid.build import build_augment, enlargement
from handreid.data.augment import BackgroundAffine
from handreid.data.sampling import RandomBatches, TrainingPhotos
from handreid.errors import ProtocolError
from handreid.recipe import parse_recipe
from handreid.types import Preprocessing


@given(photos=st.integers(2, 300), size=st.integers(2, 40), epoch=st.integers(0, 5))
def test_every_photo_once_in_batches_of_two_or_more(photos: int, size: int, epoch: int):
    batches = list(RandomBatches(photos, size, seed=1, epoch=epoch))
    assert sorted(position for batch in batches for position, _ in batch) == list(range(photos))
    sizes = [len(batch) for batch in batches]
    assert min(sizes) >= 2
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= max(size, 3)


@given(photos=st.integers(8, 200), size=st.integers(2, 16), ranks=st.integers(1, 4))
def test_ranks_share_the_photos_and_take_as_many_steps(photos: int, size: int, ranks: int):
    shares = [RandomBatches(photos, size, seed=3, rank=rank, world_size=ranks) for rank in range(ranks)]
    assert len({len(share) for share in shares}) == 1
    assert all(len(list(share)) == len(share) for share in shares)
    assert sorted(p for share in shares for batch in share for p, _ in batch) == list(range(photos))


def test_a_single_photo_makes_no_batch():
    with pytest.raises(ProtocolError, match="photos to train on: 1, but a batch needs two: add photos"):
        RandomBatches(1, 8, seed=0)
    with pytest.raises(ProtocolError, match="photos to train on: 5, but a batch needs two on each of 3 processes"):
        RandomBatches(5, 8, seed=0, rank=1, world_size=3)


def test_order_depends_on_seed_and_epoch_alone():
    def order(seed: int, epoch: int) -> list:
        return list(RandomBatches(50, 8, seed=seed, epoch=epoch))

    assert order(0, 3) == order(0, 3)
    assert order(0, 3) != order(0, 4)
    assert order(0, 3) != order(1, 3)


def augmented(augment: list[str]) -> TrainingPhotos:
    recipe = parse_recipe(
        "name: x\nmodel: {backbone: {name: handreid-tiny, weights: none}}\n"
        f"stages: [{{kind: fine_tune, augment: [{', '.join(augment)}]}}]",
        "x",
    )
    stage = recipe.stages[0]
    side = round(32 * enlargement(stage))
    photos = np.random.default_rng(0).integers(0, 255, (6, 3, side, side), np.uint8)
    photos.flags.writeable = False  # as the cache's are
    augment_ = build_augment(stage, Preprocessing((32, 32), (0.5, 0.25, 0.75), (1.0,) * 3))
    return TrainingPhotos(photos, np.array([5, 3, 1, 0]), np.array([0, 0, 1, 1]), augment_)


EVERY = [
    "{kind: crop}",
    "{kind: padding}",
    "{kind: affine}",
    "{kind: colour_jitter, hue: 0.1}",
    "{kind: random_erasing}",
]


@pytest.mark.parametrize("step", EVERY)
def test_each_augmentation_changes_photos_by_their_seed(step: str):
    photos = augmented([step])
    drawn = [(0, seed) for seed in range(8)]
    batch = photos[drawn].photos
    assert batch.shape == (8, 3, 32, 32)
    assert batch.dtype == torch.uint8
    assert torch.equal(batch, photos[drawn].photos)
    assert len({photo.numpy().tobytes() for photo in batch}) > 1


def test_all_augmentations_together_and_the_generator_left_alone():
    photos = augmented(EVERY)
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    batch = photos[[(0, 1), (2, 2)]]
    assert torch.equal(before, torch.random.get_rng_state())
    assert batch.labels.tolist() == [0, 1]
    assert batch.rows.tolist() == [5, 1]


def test_erasing_fills_with_the_mean_that_becomes_zero():
    photos = augmented(["{kind: random_erasing, probability: 1.0, area: [0.3, 0.3]}"])
    original = torch.from_numpy(photos.photos[5].copy())
    changed = photos[[(0, 1)]].photos[0]
    erased = (changed != original).any(dim=0)
    assert 0.2 < erased.float().mean() < 0.4
    assert changed[:, erased].float().mean(dim=1).tolist() == pytest.approx([128, 64, 191], abs=1)


def test_what_a_rotation_uncovers_has_the_colour_of_the_border():
    picture = Image.new("RGB", (40, 40), (250, 240, 230))
    picture.paste((0, 0, 0), (10, 10, 30, 30))
    torch.manual_seed(0)
    moved = np.asarray(BackgroundAffine(45.0, 0.1, 0.2)(picture))
    assert (moved[0, 0] == (250, 240, 230)).all()
    assert (moved[:, :, 0] < 50).any()


def test_no_rotation_zoom_or_shift_leaves_the_photo_alone():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 50, 3), np.uint8))
    assert np.array_equal(np.asarray(BackgroundAffine(0.0, 0.0, 0.0)(picture)), np.asarray(picture))


def test_a_photo_turns_about_its_centre_and_moves_by_shares_of_its_size():
    picture = Image.new("RGB", (100, 60), (255, 255, 255))
    picture.paste((0, 0, 0), (45, 25, 55, 35))  # in the middle
    for degrees, translate in ((90.0, 0.0), (0.0, 0.2)):
        for seed in range(5):
            torch.manual_seed(seed)
            _, _, across, down = (2 * torch.rand(4) - 1).tolist()
            torch.manual_seed(seed)
            moved = np.asarray(BackgroundAffine(degrees, translate, 0.0)(picture))[:, :, 0]
            ys, xs = np.nonzero(moved < 128)
            centre = 49.5 + 100 * translate * across, 29.5 + 60 * translate * down
            assert (xs.mean(), ys.mean()) == pytest.approx(centre, abs=0.7)


def test_mirror_images_are_photos_of_as_many_more_identities():
    plain = augmented(["{kind: colour_jitter, hue: 0.1}"])
    rows, labels = plain.rows.numpy(), plain.labels.numpy()
    both = TrainingPhotos(plain.photos, rows, labels, plain.augment, mirror=True)
    assert (len(plain), plain.identities, len(both), both.identities) == (4, 2, 8, 4)
    assert both.rows.tolist() == [5, 3, 1, 0, 5, 3, 1, 0]
    assert both.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    batch, original = both[[(6, 1), (2, 1), (4, 3)]], plain[[(2, 1), (2, 1), (0, 3)]]
    assert batch.labels.tolist() == [3, 1, 2]
    assert batch.rows.tolist() == [1, 1, 5]
    assert torch.equal(batch.photos[0], original.photos[0].flip(2))
    assert torch.equal(batch.photos[1], original.photos[1])
    assert torch.equal(batch.photos[2], original.photos[2].flip(2))


def test_a_photo_is_mirrored_before_it_is_augmented():
    plain = augmented(["{kind: random_erasing, probability: 1.0, area: [0.1, 0.1]}"])
    both = TrainingPhotos(plain.photos, plain.rows.numpy(), plain.labels.numpy(), plain.augment, mirror=True)
    mirrored, augmented_then_mirrored = both[[(5, 2)]].photos[0], both[[(1, 2)]].photos[0].flip(2)
    assert not torch.equal(mirrored, augmented_then_mirrored)


def test_unaugmented_photos_come_as_they_are():
    photos = augmented([])
    assert isinstance(photos.augment, v2.Compose)
    assert torch.equal(photos[[(1, 9)]].photos[0], torch.from_numpy(photos.photos[3].copy()))
