"""An aligned picture is read once, from the right place, and its border is as asked."""

import numpy as np
import pytest
from PIL import Image

from handreid.landmarks.align import align_hand, apply, compose, resize
from handreid.landmarks.warp import FILLS, Fill, border_colour, mean_colour, warp
from tests.landmarks.hands import hand

GREY = Image.new("RGB", (60, 40), (100, 110, 120))


def shift(x: float, y: float) -> np.ndarray:
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y]])


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8))


def test_nothing_moves_without_a_transformation():
    picture = noise(31, 17)
    assert np.array_equal(np.asarray(warp(picture, shift(0, 0), picture.size)), np.asarray(picture))


def test_whole_pixels_move_exactly():
    picture = noise(31, 17)
    moved = np.asarray(warp(picture, shift(3, -2), picture.size))
    assert np.array_equal(moved[:-2, 3:], np.asarray(picture)[2:, :-3])


@pytest.mark.parametrize("scale", [0.37, 0.13, 1.0, 2.6])
def test_a_spot_arrives_where_its_point_does(scale: float):
    found = hand(scale=90, turn=0.8)
    pixels = np.zeros((600, 700, 3), np.uint8)
    x, y = found.points[9]
    rows, cols = np.mgrid[:600, :700] + 0.5
    pixels[np.hypot(rows - y, cols - x) < 12] = 255
    transform = compose(align_hand(found, 224), resize((224, 224), (224 * scale, 224 * scale)))
    side = round(224 * scale)
    light = np.asarray(warp(Image.fromarray(pixels), transform, (side, side), fill=(0, 0, 0)))[..., 0].astype(float)
    rows, cols = np.mgrid[:side, :side] + 0.5
    centre = np.array([(light * cols).sum(), (light * rows).sum()]) / light.sum()
    assert np.linalg.norm(centre - apply(transform, found.points)[9]) < 0.25


def test_fills():
    picture = noise(20, 10)
    expected = {"blank": (255, 255, 255), "mean": mean_colour(picture), "border": border_colour(picture)}
    wide = {fill: np.asarray(warp(picture, shift(20, 10), (60, 30), fill=fill)) for fill in FILLS}
    inside = np.asarray(picture)
    for fill, pixels in wide.items():
        assert np.array_equal(pixels[10:20, 20:40], inside), fill
        if fill in expected:
            assert (pixels[:10] == expected[fill]).all(), fill
    assert np.array_equal(wide["reflected"][10:20, :20], inside[:, ::-1])
    assert np.array_equal(wide["reflected"][:10, 20:40], inside[::-1])
    assert (wide["replicated"][10:20, :20] == inside[:, :1]).all()
    assert (warp(picture, shift(20, 10), (60, 30), fill=(1, 2, 3)).getpixel((0, 0))) == (1, 2, 3)


def test_the_border_colour_is_the_median_along_the_edges():
    photo = Image.new("RGB", (40, 30), (10, 20, 30))
    photo.paste((200, 0, 0), (5, 5, 35, 25))
    photo.paste((0, 0, 255), (0, 0, 15, 5))
    assert border_colour(photo) == (10, 20, 30)


@pytest.mark.parametrize("fill", ["reflected", "replicated"])
def test_a_border_far_wider_than_the_picture_is_filled(fill: Fill):
    assert np.unique(np.asarray(warp(GREY, shift(100, 70), (260, 170), fill=fill)).reshape(-1, 3), axis=0).tolist() == [
        [100, 110, 120]
    ]


def test_a_much_smaller_picture_is_an_average():
    """Every pixel counts: a bilinear reading alone would skip most of a fine pattern."""
    pattern = np.zeros((256, 256, 3), np.uint8)
    pattern[::2, ::2] = 255  # a quarter is white
    small = np.asarray(warp(Image.fromarray(pattern), resize((256, 256), (16, 16)), (16, 16)))
    assert (np.abs(small.astype(int) - 64) <= 1).all()
