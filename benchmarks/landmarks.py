"""How well hands are found: time, side, error on rendered hands, and agreement with the same photo turned.

    python benchmarks/landmarks.py MANIFEST --photos 240 --seed 0 [--scale 0.6 1] [--landmarker FILE] [--mediapipe]

Errors are mean distances over the 21 points, as a share of the hand's size (wrist to the knuckle of the middle finger).
A turned photo is turned by any angle and put on a white square, its longer side 0.8 times `--scale` of the square's;
its points are brought back.
`--mediapipe` runs the package mediapipe (1.2 or newer, installed beside handreid) on the same pictures.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from handreid.data.landmark_columns import pixel_aspects, read_landmarks
from handreid.data.landmark_search import see
from handreid.data.manifest import Manifest, read
from handreid.landmarks import HandLandmarks, Landmarker, Picture
from handreid.landmarks.align import RIGID, apply
from handreid.landmarks.mediapipe import HandLandmarker
from handreid.landmarks.model_file import landmarker_file
from handreid.landmarks.warp import warp

SIDE = 640


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--photos", type=int, default=240)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, nargs=2, default=(0.6, 1.0))
    parser.add_argument("--landmarker", type=Path)
    parser.add_argument("--mediapipe", action="store_true")
    given = parser.parse_args()
    manifest = read(given.manifest)
    rng = np.random.default_rng(given.seed)
    rows = np.sort(rng.permutation(len(manifest))[: given.photos]).tolist()
    few = replace(manifest, table=manifest.table[rows])
    model = landmarker_file(given.landmarker)
    began = time.perf_counter()
    landmarker: Landmarker = MediaPipe(model) if given.mediapipe else HandLandmarker(model)
    print(f"loaded in {time.perf_counter() - began:.2f} s")
    report(few, landmarker, rng, given.scale)


def report(manifest: Manifest, landmarker: Landmarker, rng: np.random.Generator, scale: Sequence[float]) -> None:
    exact, aspects = read_landmarks(manifest), pixel_aspects(manifest)
    sides = manifest.table["side"].to_list()
    seconds, right, errors, turned, missed = [], [], [], [], [0, 0]
    for path, aspect, side, true in zip(manifest.paths(), aspects, sides, exact, strict=True):
        seen = see(path, aspect)
        began = time.process_time()
        hand = first(landmarker(np.asarray(seen.picture)))
        seconds.append(time.process_time() - began)
        transform = turn(seen.picture, rng, scale)
        again = first(landmarker(np.asarray(warp(seen.picture, transform, (SIDE, SIDE)))))
        missed[0] += hand is None
        missed[1] += again is None
        if hand is None:
            continue
        right.append(hand.handedness == side)
        if true is not None:
            smaller = np.array(seen.picture.size) / (np.array(seen.file_size) * [aspect, 1])
            errors.append(distances(hand.points, true.points * smaller))
        if again is not None:
            turned.append(distances(again.points, apply(transform, hand.points)))
    print(f"{len(manifest)} photos, {np.mean(seconds):.3f} s of one core each")
    print(f"without a hand: {missed[0]}, turned {missed[1]}")
    print(f"side right: {sum(right)} of {len(right)}")
    for what, shares in (("error", errors), ("turned", turned)):
        if shares:
            every = np.array(shares)
            print(
                f"{what}: mean {every.mean():.4f}, median {np.median(every):.4f}, 95 % below "
                f"{np.percentile(every, 95):.4f}; wrist and knuckles {every[:, list(RIGID)].mean():.4f}, "
                f"fingertips {every[:, 4::4].mean():.4f}"
            )


def first(hands: Sequence[HandLandmarks]) -> HandLandmarks | None:
    return max(hands, key=lambda hand: hand.size, default=None)


def distances(points: np.ndarray, true: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points - true, axis=1) / np.linalg.norm(true[9] - true[0])


def turn(picture: Image.Image, rng: np.random.Generator, scale: Sequence[float]) -> np.ndarray:
    angle, factor = rng.uniform(0, 2 * np.pi), rng.uniform(*scale) * SIDE / max(picture.size) * 0.8
    matrix = factor * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    place = SIDE / 2 + rng.uniform(-40, 40, 2)
    return np.column_stack([matrix, place - matrix @ (np.array(picture.size) / 2)])


class MediaPipe:
    """The package's own landmarker, with its defaults for pictures."""

    def __init__(self, path: Path) -> None:
        import mediapipe
        from mediapipe.tasks.python import BaseOptions, vision

        self._image = lambda pixels: mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=pixels)
        options = vision.HandLandmarkerOptions(base_options=BaseOptions(model_asset_path=str(path)), num_hands=2)
        self._landmarker = vision.HandLandmarker.create_from_options(options)

    def __call__(self, picture: Picture, /) -> Sequence[HandLandmarks]:
        found = self._landmarker.detect(self._image(np.ascontiguousarray(picture)))
        size = np.array(picture.shape[1::-1])
        return [
            HandLandmarks(
                np.array([[point.x, point.y] for point in points]) * size,
                sides[0].score,
                "right" if sides[0].category_name == "Right" else "left",
            )
            for points, sides in zip(found.hand_landmarks, found.handedness, strict=True)
        ]


if __name__ == "__main__":
    main()
