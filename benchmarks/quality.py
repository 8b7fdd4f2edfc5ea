"""Copies of photos degraded at random, on which the rule of `quality` was chosen and is tested.

    python benchmarks/quality.py degrade MANIFEST --out FOLDER [--seed 0] [--share 0.5]

A share of the photos is blurred, shaken, darkened, overexposed, made small, cropped or seen at a slant, one of these
each; the others are copied. Every photo has its own random numbers, from seed and path, and copies keep their paths, so
that a split has the same draws. The columns `degraded` and `strength` (0 to 1) say what was done. Landmarks are left
out: search them on the copies, as on any photo.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image, ImageFilter

from handreid.data.decoding import opened
from handreid.data.draws import hash_key
from handreid.data.landmark_columns import pixel_aspects
from handreid.data.manifest import Manifest, read
from handreid.data.rows import OPTIONAL
from handreid.data.sources.hashed import hashed

Degradation = Callable[[Image.Image, float, np.random.Generator], Image.Image]


def blurred(picture: Image.Image, strength: float, _: np.random.Generator) -> Image.Image:
    """Out of focus: a Gaussian of 0.3 to 3 % of the longer side."""
    return picture.filter(ImageFilter.GaussianBlur((0.003 + 0.027 * strength) * max(picture.size)))


def shaken(picture: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """The mean over a straight movement of 1 to 10 % of the longer side, in any direction."""
    length, angle = (0.01 + 0.09 * strength) * max(picture.size), rng.uniform(0, np.pi)
    shifts = np.linspace(-length / 2, length / 2, max(3, round(length)))
    moved = [
        np.asarray(shifted(picture, s * np.cos(angle), s * np.sin(angle), Image.Resampling.BILINEAR), float)
        for s in shifts
    ]
    return as_picture(np.mean(moved, axis=0))


def dark(picture: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """2 to 6.5 stops less light, with noise of 1.5 grey levels, as a sensor has it."""
    light = linear(picture) * 2.0 ** -(2 + 4.5 * strength)
    return as_picture(encoded(light) + rng.normal(0, 1.5, (*light.shape[:2], 1)))


def bright(picture: Image.Image, strength: float, _: np.random.Generator) -> Image.Image:
    """0.8 to 3.5 stops more light, clipped."""
    return as_picture(encoded(linear(picture) * 2.0 ** (0.8 + 2.7 * strength)))


def small(picture: Image.Image, strength: float, _: np.random.Generator) -> Image.Image:
    """Resized to 55 to 8 % of its size."""
    factor = 0.55 * (0.08 / 0.55) ** strength
    return picture.resize([max(8, round(side * factor)) for side in picture.size], Image.Resampling.BOX)


def cropped(picture: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """10 to 50 % of the width or height cut off at one side."""
    share, side = 0.1 + 0.4 * strength, rng.integers(4)
    width, height = picture.size
    cut = np.array([0, 0, width, height], float)
    cut[side] += (1 if side < 2 else -1) * share * (width if side % 2 == 0 else height)
    return picture.crop(cut.round().astype(int).tolist())


def slanted(picture: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """Foreshortened along any direction as a plane is at 25 to 70 degrees, without perspective; around it the edge."""
    shrink, angle = np.cos(np.radians(25 + 45 * strength)), rng.uniform(0, np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    back = turn @ np.diag([1 / shrink, 1.0]) @ turn.T
    centre = np.array(picture.size) / 2
    room = int(max(picture.size) * 1.5)
    wide = Image.fromarray(np.pad(np.asarray(picture), ((room, room), (room, room), (0, 0)), "edge"))
    matrix = np.column_stack([back, centre - back @ centre + room])
    return wide.transform(picture.size, Image.Transform.AFFINE, matrix.ravel().tolist(), Image.Resampling.BILINEAR)


DEGRADATIONS: tuple[Degradation, ...] = (blurred, shaken, dark, bright, small, cropped, slanted)


def degrade(manifest: Manifest, out: Path, *, seed: int, share: float) -> Manifest:
    kinds, strengths = [], []
    for name, path, aspect in zip(manifest.table["path"], manifest.paths(), pixel_aspects(manifest), strict=True):
        rng = np.random.default_rng(int(hash_key(seed, "degrade", 0, name)[:15], 16))
        with opened(path) as decoded:
            picture = decoded.reduced(decoded.full_size)
        picture = picture.resize((round(picture.width * aspect), picture.height), Image.Resampling.BILINEAR)
        chosen = DEGRADATIONS[rng.integers(len(DEGRADATIONS))] if rng.random() < share else None
        strength = rng.random()
        if chosen is not None:
            picture = chosen(picture, strength, rng)
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(out / name, "JPEG", quality=95, subsampling=0)
        kinds.append("" if chosen is None else chosen.__name__)
        strengths.append(None if chosen is None else round(strength, 4))
    table = manifest.table.drop([name for name in OPTIONAL if name in manifest.table.columns]).with_columns(
        pl.lit(None, dtype=pl.String).alias("sha256"),
        pl.Series("degraded", kinds).replace("", None),
        pl.Series("strength", strengths, dtype=pl.Float64),
    )
    note = f"{len(kinds) - kinds.count(''):,} photos degraded, seed {seed}"
    copies = hashed(replace(manifest, table=table, root=out, notes=(*manifest.notes, note), outside_root=False))
    copies.write(out / "manifest.parquet")
    return copies


def linear(picture: Image.Image) -> np.ndarray:
    """Light of each channel, 0 to 1 (sRGB's curve as a power of 2.2)."""
    return (np.asarray(picture, float) / 255) ** 2.2


def encoded(light: np.ndarray) -> np.ndarray:
    return 255 * light.clip(0, 1) ** (1 / 2.2)


def as_picture(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))


def shifted(picture: Image.Image, across: float, down: float, how: Image.Resampling) -> Image.Image:
    room = int(np.ceil(max(abs(across), abs(down)))) + 1
    wide = Image.fromarray(np.pad(np.asarray(picture), ((room, room), (room, room), (0, 0)), "edge"))
    return wide.transform(picture.size, Image.Transform.AFFINE, (1, 0, room - across, 0, 1, room - down), how)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=["degrade"])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=0.5)
    given = parser.parse_args()
    copies = degrade(read(given.manifest), given.out, seed=given.seed, share=given.share)
    print(f"{given.out / 'manifest.parquet'}: {len(copies):,} photos, hash {copies.hash[:16]}")


if __name__ == "__main__":
    main()
