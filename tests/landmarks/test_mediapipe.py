"""MediaPipe's models on rendered hands. Skipped without LiteRT or the model's file."""

import importlib.util
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from handreid.data import landmark_search, sources
from handreid.data.landmark_columns import pixel_aspects, read_landmarks, with_pixel_aspect
from handreid.data.landmark_search import add_landmarks
from handreid.data.manifest import Manifest
from handreid.data.rendered import render
from handreid.landmarks import HandLandmarks, Landmarker
from handreid.landmarks.align import apply
from handreid.landmarks.mediapipe import HandLandmarker, check_model
from handreid.landmarks.warp import warp

BESIDE = Path(__file__).parents[3] / "shared" / "weights" / "hand_landmarker.task"
MODEL = Path(os.environ.get("HANDREID_LANDMARKER") or BESIDE)
pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("ai_edge_litert") is None, reason="LiteRT is not installed"),
    pytest.mark.skipif(not MODEL.is_file(), reason="no hand_landmarker.task: set HANDREID_LANDMARKER"),
]


@pytest.fixture(scope="module")
def landmarker() -> HandLandmarker:
    return HandLandmarker(MODEL)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    folder = tmp_path_factory.mktemp("hands") / "all"
    return sources.csv(render(folder, identities=3, photos=4, size=256, seed=2, workers=1))


@pytest.fixture(scope="module")
def photo(rendered: Manifest) -> tuple[Image.Image, HandLandmarks]:
    exact = read_landmarks(rendered)[0]
    assert exact is not None
    with Image.open(rendered.paths()[0]) as image:
        return image.convert("RGB"), exact


def first(manifest: Manifest, rows: int) -> Manifest:
    return replace(manifest, table=manifest.table.head(rows))


def error(found: HandLandmarks, exact: HandLandmarks) -> float:
    """Mean distance of the points as a share of the hand's size."""
    return float(np.linalg.norm(found.points - exact.points, axis=1).mean() / exact.size)


def test_rendered_hands_are_found_where_they_are(rendered: Manifest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """By two processes, which give what one gives."""
    monkeypatch.setattr(landmark_search, "_ALONE", 1)
    found = add_landmarks(rendered, MODEL, folder=tmp_path, workers=2)
    hands, exact = read_landmarks(found), read_landmarks(rendered)
    pairs = [(hand, true) for hand, true in zip(hands, exact, strict=True) if hand and true]
    assert len(pairs) == len(rendered)
    errors = [error(hand, true) for hand, true in pairs]
    assert max(errors) < 0.12
    assert np.median(errors) < 0.06
    palms = (rendered.table["aspect"] == "palmar").to_numpy()
    assert [hand.handedness for hand, palm in zip(hands, palms, strict=True) if palm and hand] == (
        rendered.table.filter(palms)["side"].to_list()
    )
    assert all(hand.score > 0.8 for hand, _ in pairs)
    alone = add_landmarks(first(rendered, 2), MODEL, folder=tmp_path / "other")
    assert alone.table["landmarks"].to_list() == found.table["landmarks"][:2].to_list()


@pytest.mark.parametrize("degrees", [90, 145, 220, 270])
def test_a_turned_and_smaller_hand_is_found(
    landmarker: Landmarker, photo: tuple[Image.Image, HandLandmarks], degrees: int
):
    image, exact = photo
    angle = np.deg2rad(degrees)
    turn = 0.6 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    transform = np.column_stack([turn, np.array([200.0, 150.0]) - turn @ [128, 128]])
    (hand,) = landmarker(np.asarray(warp(image, transform, (400, 300))))
    assert error(hand, HandLandmarks(apply(transform, exact.points))) < 0.12


def test_a_hand_that_the_edge_cuts_is_found(landmarker: Landmarker, photo: tuple[Image.Image, HandLandmarks]):
    image, exact = photo
    cut = round(exact.points[[5, 9, 13, 17], 1].min()) - 8  # the photo begins just above the knuckles
    hands = landmarker(np.asarray(image)[cut:])
    assert hands
    assert error(hands[0], HandLandmarks(exact.points - [0, cut])) < 0.35


def test_two_hands_are_two(landmarker: Landmarker, photo: tuple[Image.Image, HandLandmarks]):
    both = np.concatenate([np.asarray(photo[0])] * 2, axis=1)
    first, second = sorted(landmarker(both), key=lambda hand: hand.points[0, 0])
    assert np.linalg.norm(second.points - first.points - [256, 0], axis=1).max() < 15


def test_no_hand_on_an_empty_picture(landmarker: Landmarker):
    assert landmarker(np.full((120, 160, 3), 200, np.uint8)) == ()


def test_a_squashed_photo_needs_its_pixel_aspect(rendered: Manifest, tmp_path: Path):
    """Squashed by half, hands are measured as they are once the manifest says so."""
    (tmp_path / "Hands").mkdir()
    for path in rendered.paths()[:4]:
        with Image.open(path) as image:
            image.resize((128, 256)).save(tmp_path / "Hands" / path.name)
    squashed = with_pixel_aspect(replace(first(rendered, 4), root=tmp_path), 2.0)
    assert pixel_aspects(squashed) == [2.0] * 4
    hands = read_landmarks(add_landmarks(squashed, MODEL, folder=tmp_path / "cache"))
    exact = read_landmarks(rendered)[:4]
    assert max(error(hand, true) for hand, true in zip(hands, exact, strict=True) if hand and true) < 0.12


def test_the_model_file_is_checked():
    assert len(check_model(MODEL)) == 64
