"""What is done to training photos: decided by the seed alone, never mirrored, and as exact as it claims to be."""

import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter
from torchvision.transforms import v2

from handreid.build import build_augment, enlargement
from handreid.data.background import ChangeBackground, find_table, read_backgrounds, sample_background, sample_patch
from handreid.data.mixing import CutMix, Mixup
from handreid.errors import DataError, PhotoError, RecipeError
from handreid.recipe import parse_recipe
from handreid.types import Preprocessing

SKIN, TABLE, NAIL = (205, 150, 120), (252, 253, 255), (250, 249, 250)
SINGLE = [
    "{kind: crop}",
    "{kind: padding}",
    "{kind: affine}",
    "{kind: perspective}",
    "{kind: background}",
    "{kind: colour_jitter, hue: 0.1}",
    "{kind: rand_augment}",
    "{kind: augmix}",
    "{kind: random_erasing}",
]


def steps(*augment: str, size: int = 96) -> tuple[v2.Compose, int]:
    """Augmentation and the size of the photos that it takes."""
    recipe = parse_recipe(
        "name: x\nmodel: {backbone: {name: handreid-tiny, weights: none}}\n"
        f"stages: [{{kind: fine_tune, augment: [{', '.join(augment)}]}}]",
        "x",
    )
    stage = recipe.stages[0]
    wanted = Preprocessing((size, size), (0.5, 0.25, 0.75), (1.0,) * 3)
    return build_augment(stage, wanted), round(size * enlargement(stage))


def seeded(augment: object, photo: object, seed: int) -> torch.Tensor:
    torch.manual_seed(seed)
    return augment(photo)


def hand(side: int, *, table: tuple[int, int, int] = TABLE) -> tuple[Image.Image, np.ndarray]:
    """A palm with five fingers and an arm that leaves the picture, and where it is."""
    scale = 4 * side
    drawing = Image.new("L", (scale, scale))
    pen = ImageDraw.Draw(drawing)
    pen.rectangle([int(0.38 * scale), 0, int(0.6 * scale), int(0.3 * scale)], 255)
    pen.ellipse([int(0.3 * scale), int(0.15 * scale), int(0.68 * scale), int(0.58 * scale)], 255)
    for across, length in ((0.34, 0.8), (0.45, 0.88), (0.56, 0.85), (0.66, 0.72)):
        line = [int(0.49 * scale), int(0.4 * scale), int(across * scale), int(length * scale)]
        pen.line(line, 255, int(0.07 * scale))
        pen.ellipse([v + d * 0.035 * scale for v, d in zip([*line[2:], *line[2:]], (-1, -1, 1, 1), strict=True)], 255)
    pen.line([int(0.4 * scale), int(0.3 * scale), int(0.14 * scale), int(0.5 * scale)], 255, int(0.08 * scale))
    mask = drawing.resize((side, side), Image.Resampling.BOX)
    photo = Image.composite(Image.new("RGB", mask.size, SKIN), Image.new("RGB", mask.size, table), mask)
    noise = np.random.default_rng(0).normal(0, 3, (side, side, 3))
    noisy = (np.asarray(photo) + noise).clip(0, 255).astype(np.uint8)
    return Image.fromarray(noisy), np.asarray(mask) > 127


@pytest.mark.parametrize("step", SINGLE)
def test_an_augmentation_is_a_function_of_the_seed(step: str):
    augment, side = steps(step)
    photo, _ = hand(side)
    photos = [seeded(augment, photo, seed) for seed in range(12)]
    again = []
    for seed in range(12):
        random.seed(seed + 100)
        np.random.seed(seed + 100)  # noqa: NPY002 - that nobody draws from it is what is tested
        again.append(seeded(augment, photo, seed))
    assert all(torch.equal(one, other) for one, other in zip(photos, again, strict=True))
    assert len({one.numpy().tobytes() for one in photos}) > 2
    assert {(one.shape, one.dtype) for one in photos} == {((3, 96, 96), torch.uint8)}


@pytest.mark.parametrize("order", [SINGLE, SINGLE[::-1], SINGLE[4:] + SINGLE[:4]])
def test_augmentations_work_in_any_order(order: list[str]):
    augment, side = steps(*order)
    for seed in range(3):
        assert seeded(augment, hand(side)[0], seed).shape == (3, 96, 96)
    assert isinstance(augment.transforms[-1], v2.RandomErasing)


@pytest.mark.parametrize(("zoom", "smallest", "largest"), [("0.3", 0.7, 1.3), ("[0.6, 1]", 0.6, 1.0)])
def test_a_zoom_is_a_share_or_a_range(zoom: str, smallest: float, largest: float):
    """By the area of a square that is turned by any angle."""
    augment, side = steps(f"{{kind: affine, degrees: 180, translate: 0, zoom: {zoom}}}")
    photo = Image.new("RGB", (side, side), (200, 200, 200))
    photo.paste((0, 0, 0), (32, 32, 64, 64))
    dark = [(seeded(augment, photo, seed)[0] < 100).sum().item() for seed in range(80)]
    scales = np.sqrt(np.array(dark)) / 32
    assert scales.min() == pytest.approx(smallest, abs=0.06)
    assert scales.max() == pytest.approx(largest, abs=0.06)


@pytest.mark.parametrize(
    ("zoom", "complaint"),
    [
        ("1.5", "zoom 1.5 must be from 0 to under 1"),
        ("[1, 0.6]", "the smaller one first"),
        ("[0, 1]", "from 0.1 to 10"),
    ],
)
def test_a_zoom_out_of_range_is_refused(zoom: str, complaint: str):
    with pytest.raises(RecipeError, match=complaint):
        steps(f"{{kind: affine, zoom: {zoom}}}")


@pytest.mark.parametrize("step", ["{kind: rand_augment}", "{kind: augmix}", "{kind: perspective}"])
def test_nothing_mirrors(step: str):
    augment, side = steps(step)
    wedge = Image.new("RGB", (side, side), (200, 200, 200))
    ImageDraw.Draw(wedge).polygon([(8, 8), (8, 88), (85, 88)], (40, 60, 50))
    original = np.asarray(wedge, float).mean(axis=2)
    for seed in range(60):
        changed = seeded(augment, wedge, seed).numpy().mean(axis=0)
        if changed.std() > 1:
            alike, mirrored = (
                abs(np.corrcoef(changed.ravel(), one.ravel())[0, 1]) for one in (original, original[:, ::-1])
            )
            assert alike > mirrored, seed


def test_the_operations_that_are_drawn_from_hold_no_flip():
    for kind in (v2.RandAugment, v2.AugMix):
        assert {
            "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Posterize", "Solarize",
            "AutoContrast", "Equalize", "Brightness", "Color", "Contrast", "Sharpness",
        } == set(kind._AUGMENTATION_SPACE) - {"Identity"}  # fmt: skip


@pytest.mark.parametrize("step", ["{kind: perspective, probability: 1.0}", "{kind: rand_augment, operations: 4}"])
def test_what_comes_into_view_has_the_colour_of_the_border(step: str):
    augment, side = steps(step)
    plain = Image.new("RGB", (side, side), (90, 160, 120))
    for seed in range(10):
        changed = seeded(augment, plain, seed)
        assert torch.equal(changed.amax((1, 2)), changed.amin((1, 2)))


def test_what_comes_into_augmix_has_the_colour_that_the_border_had():
    augment, side = steps("{kind: augmix, severity: 5}")
    plain = Image.new("RGB", (side, side), (90, 160, 120))
    changed = [seeded(augment, plain, seed) for seed in range(40)]
    ranges = [(one.amax((1, 2)) - one.amin((1, 2))).float().mean().item() for one in changed]
    assert np.median(ranges) < 6  # chains also change colours, and are rounded down


def homography(points: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """The 3 x 3 matrix that takes four points to four others."""
    rows = []
    for (x, y), (u, v) in zip(points, moved, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    return np.append(np.linalg.solve(np.array(rows), moved.ravel()), 1).reshape(3, 3)


def test_perspective_moves_corners_inwards_by_the_distortion_at_most():
    side, distortion = 200, 0.4
    augment, _ = steps(f"{{kind: perspective, distortion: {distortion}, probability: 1.0}}", size=side)
    spots = np.array([(10, 10), (189, 10), (189, 189), (10, 189), (100, 60)])
    corners = np.array([(0, 0), (199, 0), (199, 199), (0, 199)])
    most = 0.0
    for seed in range(10):
        found = []
        for x, y in spots:
            photo = Image.new("RGB", (side, side))
            photo.paste((255, 255, 255), (x - 3, y - 3, x + 4, y + 4))
            light = seeded(augment, photo, seed)[0].double().numpy()
            found.append([(light.sum(axis) * np.arange(side)).sum() / light.sum() for axis in (0, 1)])
        matrix = homography(spots[:4], np.array(found[:4]))
        places = np.c_[[*corners, spots[4]], np.ones(5)] @ matrix.T
        places = places[:, :2] / places[:, 2:]
        assert places[4] == pytest.approx(found[4], abs=0.7)  # a perspective, all over the photo
        inwards = np.abs(places[:4] - corners)
        assert (np.sign(100 - corners) * (places[:4] - corners) > -1).all()
        assert inwards.max() < distortion * side / 2 + 1
        most = max(most, inwards.max())
    assert most > 0.8 * distortion * side / 2


@pytest.mark.parametrize("side", [112, 176])
def test_a_hand_on_a_light_table_is_separated(side: int):
    photo, where = hand(side)
    table = find_table(photo)
    assert table is not None
    assert (where & ~table).sum() / (where | ~table).sum() > 0.95


def test_white_nails_stay_with_the_hand_and_shadows_with_the_table():
    photo, where = hand(176)
    ImageDraw.Draw(photo).ellipse([75, 145, 83, 155], NAIL)
    lit = np.asarray(photo).astype(float)
    shadow = np.asarray(Image.fromarray(where).convert("L").filter(ImageFilter.GaussianBlur(8)), float) / 255
    lit[~where] *= (1 - 0.45 * shadow)[~where][:, None]
    table = find_table(Image.fromarray(lit.astype(np.uint8)))
    assert table is not None
    assert not table[145:156, 75:84].any()
    assert table[~where].mean() > 0.97
    assert table[where].mean() < 0.03


def test_the_hand_keeps_its_pixels_and_the_table_none_of_its_own():
    photo, where = hand(176)
    changed = np.asarray(seeded(ChangeBackground(1.0, [Image.new("RGB", (300, 200), (20, 40, 90))]), photo, 0))
    inner, outer = (
        np.asarray(Image.fromarray(mask).convert("L").filter(ImageFilter.MinFilter(7))) > 0 for mask in (where, ~where)
    )
    assert np.array_equal(changed[inner], np.asarray(photo)[inner])
    assert np.abs(changed[outer].astype(int) - (20, 40, 90)).max() <= 3
    rim = ~inner & ~outer
    assert (changed[rim].min(axis=1) > 170).mean() < 0.03  # no light ring: only the ends of gaps between fingers


def spread(grey: int) -> Image.Image:
    return Image.new("RGB", (96, 96), (grey, grey, grey))


@pytest.mark.parametrize(
    "photo",
    [
        hand(96, table=(40, 60, 50))[0],
        hand(96, table=(250, 210, 170))[0],
        spread(250),
        hand(96)[0].crop((36, 20, 60, 44)),
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (96, 96, 3), np.uint8)),
    ],
    ids=["dark", "warm", "no hand", "nothing but skin", "noise"],
)
def test_a_photo_without_a_light_table_stays_as_it_is(photo: Image.Image):
    changed = seeded(ChangeBackground(1.0), photo, 0)
    assert np.array_equal(np.asarray(changed), np.asarray(photo))


def test_backgrounds_change_as_often_as_is_asked():
    photo, _ = hand(64)
    augment = ChangeBackground(0.3)
    torch.manual_seed(0)
    changed = [augment(photo) is not photo for _ in range(400)]
    assert np.mean(changed) == pytest.approx(0.3, abs=0.06)


@pytest.mark.parametrize("size", [(32, 32), (50, 80), (201, 176)])
def test_drawn_backgrounds_differ_and_fill_any_shape(size: tuple[int, int]):
    pictures = [seeded(sample_background, size, seed) for seed in range(30)]
    assert {picture.size for picture in pictures} == {size}
    assert len({picture.tobytes() for picture in pictures}) == 30
    plain = [len(set(picture.get_flattened_data())) == 1 for picture in pictures]
    assert 2 <= sum(plain) <= 15


def test_a_part_of_a_photo_keeps_its_proportions(tmp_path: Path):
    across, down = np.meshgrid(np.arange(300), np.arange(200))
    ramp = Image.fromarray(np.stack([across * 0.5, down * 0.5, across * 0], 2).astype(np.uint8))
    for seed in range(10):
        torch.manual_seed(seed)
        part = np.asarray(sample_patch([ramp], (40, 80)), float)
        slopes = (part[40, 35, 0] - part[40, 5, 0]) / 30, (part[75, 20, 1] - part[5, 20, 1]) / 70
        assert slopes[0] == pytest.approx(slopes[1], rel=0.12)
        assert 0.5 * 1.25 - 0.1 <= slopes[1] <= 1.25 + 0.1  # 200 rows of 0.5 in 80 pixels, or half of them


def test_a_folder_gives_its_photos_upright_and_no_larger_than_needed(tmp_path: Path):
    (tmp_path / "below").mkdir()
    Image.new("RGB", (640, 400), (10, 200, 10)).save(tmp_path / "below" / "b.jpg", exif=turned())
    Image.new("L", (60, 40), 7).save(tmp_path / "a.png")
    (tmp_path / "notes.txt").write_text("no photo")
    small, large = read_backgrounds(tmp_path, 100)
    assert (small.size, small.mode) == ((60, 40), "RGB")
    assert large.size == (200, 320)
    augment, side = steps(f"{{kind: background, probability: 1.0, folder: {tmp_path}}}")
    corners = [seeded(augment, hand(side)[0], seed)[:, -4:, :4].amax((1, 2)).tolist() for seed in range(6)]
    assert {corner[1] > 100 for corner in corners} == {True, False}
    assert all(max(corner[0], corner[2]) < 20 for corner in corners)


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def test_a_folder_without_photos_is_refused_when_training_is_built(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("no photo")
    with pytest.raises(DataError, match="holds no photos to use as backgrounds"):
        steps(f"{{kind: background, folder: {tmp_path}}}")
    with pytest.raises(DataError, match="nowhere: no such folder of backgrounds"):
        steps(f"{{kind: background, folder: {tmp_path / 'nowhere'}}}")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(
        PhotoError, match=r"broken\.jpg cannot be read as an image .*take it out of the folder of backgrounds"
    ):
        steps(f"{{kind: background, folder: {tmp_path}}}")


def batch(size: int, side: tuple[int, int] = (12, 20)) -> tuple[torch.Tensor, torch.Tensor]:
    """Photos of one value each, which is ten times their label."""
    labels = torch.arange(size)
    return (10 * labels.to(torch.uint8))[:, None, None, None].expand(-1, 3, *side).contiguous(), labels


@given(seed=st.integers(0, 2**31), size=st.integers(2, 20), alpha=st.sampled_from([0.1, 0.2, 1.0, 4.0]))
def test_mixup_shares_match_the_pixels(seed: int, size: int, alpha: float):
    photos, labels = batch(size)
    torch.manual_seed(seed)
    made, mixed = Mixup(alpha, 1.0)(photos, labels)
    assert mixed is not None
    assert (mixed.partners != labels).all()
    assert sorted(mixed.partners.tolist()) == labels.tolist()
    wanted = 10 * (mixed.shares * labels + (1 - mixed.shares) * mixed.partners)
    assert made.dtype == torch.uint8
    assert (made - wanted[:, None, None, None]).abs().max() <= 0.501
    assert torch.equal(photos, batch(size)[0])


@given(seed=st.integers(0, 2**31), size=st.integers(2, 20), alpha=st.sampled_from([0.2, 1.0, 4.0]))
def test_cutmix_shares_are_the_shares_of_the_pixels(seed: int, size: int, alpha: float):
    photos, labels = batch(size)
    torch.manual_seed(seed)
    made, mixed = CutMix(alpha, 1.0)(photos, labels)
    assert mixed is not None
    own = made == photos
    assert torch.equal(torch.where(own, photos, 10 * mixed.partners.to(torch.uint8)[:, None, None, None]), made)
    assert own.float().mean((1, 2, 3)).tolist() == pytest.approx(mixed.shares.tolist(), abs=1e-6)
    rows, columns = (~own[0, 0]).any(1).sum(), (~own[0, 0]).any(0).sum()
    assert rows * columns == (~own[0, 0]).sum()  # a rectangle
    assert torch.equal(photos, batch(size)[0])


@pytest.mark.parametrize("mix", [Mixup, CutMix])
def test_batches_are_mixed_as_often_as_is_asked_and_by_the_seed(mix: type[Mixup] | type[CutMix]):
    photos, labels = batch(6)

    def run() -> list[bytes | None]:
        torch.manual_seed(4)
        made = [mix(1.0, 0.4)(photos, labels) for _ in range(400)]
        assert all(photos is one for one, mixed in made if mixed is None)
        return [mixed and one.numpy().tobytes() + mixed.shares.numpy().tobytes() for one, mixed in made]

    once = run()
    assert once == run()
    assert np.mean([one is not None for one in once]) == pytest.approx(0.4, abs=0.07)


@pytest.mark.parametrize(("alpha", "variance"), [(0.2, 0.25 / 1.4), (1.0, 1 / 12), (4.0, 0.25 / 9)])
def test_shares_follow_the_beta_distribution(alpha: float, variance: float):
    photos, labels = batch(2, (1, 1))
    torch.manual_seed(0)
    shares = [mixed.shares[0].item() for _ in range(1500) if (mixed := Mixup(alpha, 1.0)(photos, labels)[1])]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.04)
    assert np.var(shares) == pytest.approx(variance, rel=0.12)


def test_cutmix_keeps_the_share_that_was_drawn_where_nothing_leaves_the_photo():
    photos, labels = batch(2, (100, 100))
    whole = 0
    for seed in range(150):
        torch.manual_seed(seed)
        _, blended = Mixup(1.0, 1.0)(photos, labels)  # draws its share at the same place
        torch.manual_seed(seed)
        made, _ = CutMix(1.0, 1.0)(photos, labels)
        other = (made != photos)[0, 0]
        rows, columns = np.nonzero(other.any(1).numpy())[0], np.nonzero(other.any(0).numpy())[0]
        if len(rows) and rows[0] > 0 and rows[-1] < 99 and columns[0] > 0 and columns[-1] < 99:
            assert blended is not None
            side = 100 * math.sqrt(1 - blended.shares[0].item())
            assert (len(rows), len(columns)) == pytest.approx((side, side), abs=1)
            whole += 1
    assert whole > 20


@pytest.mark.parametrize("mix", [Mixup(0.2, 1.0), CutMix(1.0, 1.0)])
def test_a_photo_alone_is_not_mixed(mix: Mixup | CutMix):
    photos, labels = batch(1)
    assert mix(photos, labels) == (photos, None)
