"""Measures of a hand's quality: each changes with its fault, and with no other."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from handreid.landmarks.align import PLACES, RIGID
from handreid.landmarks.hand import HandLandmarks
from handreid.landmarks.quality import HandQuality, PixelQuality, hand_quality
from handreid.landmarks.quality_rule import RULE, factors_of, quality_of
from tests.landmarks.hands import hand

SIZE = (400, 400)
HAND = hand(scale=96.0, at=(200.0, 300.0))


@pytest.fixture(scope="module")
def skin() -> Image.Image:
    """Fine and coarse noise around middle grey."""
    rng = np.random.default_rng(0)
    coarse = np.kron(rng.normal(0, 14, (50, 50)), np.ones((8, 8)))
    pixels = 140 + coarse + rng.normal(0, 10, SIZE)
    return Image.fromarray(np.repeat(pixels.clip(0, 255).astype(np.uint8)[:, :, None], 3, axis=2))


def pixels_of(picture: Image.Image, found: HandLandmarks = HAND) -> PixelQuality:
    measured = hand_quality(picture, found, SIZE).pixels
    assert measured is not None
    return measured


def test_points():
    turned = hand_quality(Image.new("RGB", SIZE), hand(scale=80.0, turn=0.5, at=(200.0, 300.0)), SIZE)
    assert turned.size == pytest.approx(80)
    assert turned.tilt == pytest.approx(np.degrees(0.5))
    assert turned.inside == 20
    low = replace(HAND, points=HAND.points - [0, 250])  # the wrist is at y = 50
    cut = hand_quality(Image.new("RGB", SIZE), low, SIZE)
    assert cut.inside == int((low.points[1:, 1] >= 0).sum()) < 20


def test_slant_is_how_far_proportions_are_from_a_flat_hand():
    points = HAND.points.copy()
    points[list(RIGID)] = 400 * PLACES
    flat = hand_quality(Image.new("RGB", SIZE), HandLandmarks(points), SIZE)
    assert flat.slant == pytest.approx(0, abs=1e-9)
    shares = [
        hand_quality(Image.new("RGB", SIZE), HandLandmarks(points * [narrow, 1]), SIZE).slant for narrow in (0.8, 0.5)
    ]
    assert 0.02 < shares[0] < shares[1]


def test_blur_lowers_sharpness_and_darkness_does_not(skin: Image.Image):
    sharp = pixels_of(skin)
    blurred = [pixels_of(skin.filter(ImageFilter.GaussianBlur(sigma))).sharpness for sigma in (1, 3)]
    assert sharp.sharpness > blurred[0] + 0.1
    assert blurred[0] > blurred[1] + 0.1
    dark = pixels_of(skin.point(lambda grey: grey / 2))
    assert dark.sharpness == pytest.approx(sharp.sharpness, abs=0.02)
    assert dark.brightness == pytest.approx(sharp.brightness / 2, abs=1)
    assert dark.contrast == pytest.approx(sharp.contrast / 2, abs=1)


def test_exposure_counts_pixels_of_the_hand():
    halves = Image.new("RGB", SIZE, (255, 255, 255))
    halves.paste((20, 20, 20), (0, 0, 200, 400))  # the middle finger points up along the border
    found = pixels_of(halves)
    assert found.overexposed + found.underexposed == pytest.approx(1, abs=0.02)
    assert 0.3 < found.overexposed < 0.7
    assert pixels_of(Image.new("RGB", SIZE, (246, 246, 246))).overexposed == 0
    assert pixels_of(Image.new("RGB", SIZE, (26, 26, 26))).underexposed == 0


def test_the_background_is_not_measured(skin: Image.Image):
    everywhere = np.asarray(skin).copy()
    everywhere[:, :60] = 0  # far from the hand
    everywhere[350:] = 255
    assert pixels_of(Image.fromarray(everywhere)) == pixels_of(skin)


def test_what_lies_outside_the_photo_is_not_measured(skin: Image.Image):
    white = Image.new("RGB", SIZE, (255, 255, 255))
    white.paste(skin.crop((0, 0, 400, 200)), (0, 0))
    top = hand_quality(skin.crop((0, 0, 400, 200)), HAND, (400, 200)).pixels
    assert top is not None
    assert top.overexposed == 0
    assert pixels_of(white).overexposed > 0.1
    away = replace(HAND, points=HAND.points + 1000)
    assert hand_quality(skin, away, SIZE).pixels is None


def test_a_photo_at_another_scale_has_the_same_measures(skin: Image.Image):
    large = skin.resize((1600, 1600), Image.Resampling.BICUBIC)
    quarter = hand_quality(large, replace(HAND, points=4 * HAND.points), (1600, 1600))
    assert quarter.size == pytest.approx(4 * 96)
    assert quarter.pixels is not None
    assert quarter.pixels.contrast == pytest.approx(pixels_of(skin).contrast, rel=0.15)
    # the picture may have been decoded smaller than the photo
    assert hand_quality(skin, replace(HAND, points=4 * HAND.points), (1600, 1600)).pixels == pixels_of(skin)


def test_the_number_is_the_product_of_its_factors():
    best = HandQuality(50.0, 20, 0.0, 0.0, PixelQuality(0.6, 150.0, 20.0, 0.0, 0.0))
    assert quality_of(best) == 100
    half = replace(best, slant=(RULE["slant"].bad + RULE["slant"].good) / 2)
    assert factors_of(half)["slant"] == pytest.approx(0.5)
    small = replace(half, size=np.sqrt(RULE["size"].bad * RULE["size"].good))
    assert quality_of(small) == pytest.approx(25)
    assert quality_of(replace(best, size=1.0)) == 0
    assert quality_of(replace(best, pixels=None)) == 0
    assert quality_of(replace(best, inside=0, tilt=180.0)) == 100
