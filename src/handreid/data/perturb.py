"""Copies of a manifest's photos as people take them: turned by any angle, scaled, shifted, on other backgrounds.

* Every photo has its own random numbers, from the seed and its path: neither order nor number of photos changes a copy.
* A hand on a light table is cut out (`background.find_table`). A photo whose background is not light, or whose skin is
  nearly as pale, is put on the new background whole, and its edges stay visible.
* Turn, scale and shift of a copy do not depend on what is put behind it.
* Landmarks are moved by the same transformation as pixels, and pixels are interpolated once.
"""

import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import torch
from PIL import Image

from handreid.data.background import find_table, read_backgrounds, sample_background, sample_patch
from handreid.data.decoding import opened
from handreid.data.draws import hash_key
from handreid.data.manifest import Manifest
from handreid.data.photo_file import PhotoFile, photo_files
from handreid.data.sources.hashed import hashed
from handreid.errors import DataError
from handreid.files import write_atomic
from handreid.landmarks.align import Transform, apply, compose, resize
from handreid.landmarks.text import landmarks_text
from handreid.landmarks.warp import border_colour, warp
from handreid.progress import NullProgress, Progress

SMALLEST = 0.6  # of the photo's size; the largest copy has the size of the photo
MANIFEST = "manifest.parquet"
_QUALITY = 95  # of the JPEG files
_ADVICE = "give a folder of photos, `generated` or `kept`"

Backgrounds = Literal["generated", "kept"] | Path


def perturb(
    manifest: Manifest,
    out: Path,
    *,
    seed: int,
    size: int = 512,
    backgrounds: Backgrounds = "generated",
    progress: Progress | None = None,
) -> Manifest:
    """Writes the copies and their manifest, `manifest.parquet`, into a new folder `out`; returns that manifest.

    A copy is a square of `size` pixels, the photo's longer side as taken filling 0.6 to 1 of it; turned by any angle,
    and shifted as far as an unturned photo would stay inside, so corners of a turned one may be cut off. All columns
    stay; `perturbed_from` is the photo's path in `manifest`, and `landmarks` are those of the copy.

    `backgrounds`: `generated` colours, gradients, stripes and clouds; windows of photos in a folder; or each photo's
    own one, `kept` and continued in the median colour of its edge.

    Ended early, by an error or Ctrl-C, it leaves nothing. Raises DataError if `out` is not empty, `size` is under 32 or
    the folder has no photos; PhotoError for a photo that cannot be read.
    """
    if size < 32:
        raise DataError(f"size is {size}: give the copies a side of 32 pixels or more")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} is not an empty folder: give a new one")
    behind = read_backgrounds(backgrounds, size, _ADVICE) if isinstance(backgrounds, Path) else backgrounds
    there = out.exists()
    (out / "photos").mkdir(parents=True, exist_ok=True)
    try:
        return _written(manifest, out, seed, size, behind, progress or NullProgress())
    except BaseException:
        shutil.rmtree(out / "photos" if there else out, ignore_errors=True)
        raise


Behind = Literal["generated", "kept"] | list[Image.Image]


def _written(manifest: Manifest, out: Path, seed: int, size: int, backgrounds: Behind, progress: Progress) -> Manifest:
    """The copies and their manifest, in a folder that is there."""
    names = manifest.table["path"].to_list()
    copies, cells = [], []
    with progress.step("perturbing", len(manifest), "photos") as advance:
        for row, photo in enumerate(photo_files(manifest)):
            copies.append(f"photos/{row:06d}.jpg")
            key = hash_key(seed, "perturb", 0, names[row])
            cells.append(_write_copy(photo, out / copies[-1], key, size, backgrounds))
            advance(1)
    written = hashed(_described(manifest, out, copies, cells, _note(seed, backgrounds)), progress)
    written.write(out / MANIFEST)
    return written


def _write_copy(photo: PhotoFile, path: Path, key: str, size: int, backgrounds: Behind) -> str | None:
    """Writes one copy; the cell `landmarks` of its hand, None without one."""
    with opened(photo.path) as decoded:
        picture = decoded.reduced(decoded.full_size)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(key[:15], 16))
        taken = (picture.width * photo.pixel_aspect, picture.height)
        move = _move(taken, size)
        transform = compose(resize(picture.size, taken), move)
        copy = _copied(picture, transform, size, backgrounds)
    write_atomic(path, lambda part: copy.save(part, "JPEG", quality=_QUALITY, subsampling=0))
    return None if photo.hand is None else landmarks_text(apply(move, photo.hand.points))


def _copied(picture: Image.Image, transform: Transform, size: int, backgrounds: Behind) -> Image.Image:
    """The picture transformed, on a background that torch's generator chooses."""
    if backgrounds == "kept":
        return warp(picture, transform, (size, size), fill=border_colour(picture))
    square = (size, size)
    behind = sample_background(square) if backgrounds == "generated" else sample_patch(backgrounds, square)
    table = find_table(picture)
    shown = np.full((picture.height, picture.width), 255, np.uint8) if table is None else 255 * ~table
    mask = Image.fromarray(shown.astype(np.uint8)).convert("RGB")
    cover = warp(mask, transform, square, fill=(0, 0, 0)).convert("L")
    return Image.composite(warp(picture, transform, square, fill="replicated"), behind, cover)


def _move(taken: tuple[float, int], size: int) -> Transform:
    """A random similarity from the photo as it was taken to the copy, by torch's generator."""
    angle, scale, across, down = torch.rand(4, dtype=torch.float64).tolist()
    share = SMALLEST + (1 - SMALLEST) * scale
    factor, turn = share * size / max(taken), 2 * math.pi * angle
    matrix = factor * np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    centre = size / 2 + (1 - share) * size * (np.array([across, down]) - 0.5)
    return np.column_stack([matrix, centre - matrix @ (np.array(taken) / 2)])


def _described(
    manifest: Manifest, out: Path, copies: Sequence[str], cells: Sequence[str | None], note: str
) -> Manifest:
    """The manifest of the copies, without hashes of files."""
    columns = [
        pl.Series("perturbed_from", manifest.table["path"], dtype=pl.String),
        pl.Series("path", copies, dtype=pl.String),
        pl.lit(None, dtype=pl.String).alias("sha256"),
    ]
    if "landmarks" in manifest.table.columns:
        columns.append(pl.Series("landmarks", cells, dtype=pl.String))
    table = manifest.table.with_columns(columns)
    if "pixel_aspect" in table.columns:
        table = table.drop("pixel_aspect")  # copies are as the photos were taken
    return replace(manifest, table=table, root=out, notes=(*manifest.notes, note), outside_root=False)


def _note(seed: int, backgrounds: Behind) -> str:
    behind = {"generated": "on generated backgrounds", "kept": "on their own backgrounds"}
    where = behind[backgrounds] if isinstance(backgrounds, str) else f"on parts of {len(backgrounds):,} other photos"
    return f"perturbed with seed {seed}: turned by any angle, scaled {SMALLEST:g} to 1, shifted, {where}"
