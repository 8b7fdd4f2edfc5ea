"""Copies of photos, turned, with their landmarks turned exactly."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from handreid.data.manifest import Manifest
from handreid.data.photo_file import photo_files
from handreid.landmarks.align import apply
from handreid.landmarks.text import landmarks_text
from handreid.landmarks.warp import warp


def turned(manifest: Manifest, folder: Path, degrees: float) -> Manifest:
    """The photos of `manifest` turned clockwise on larger canvases, as PNG files below `folder`."""
    angle = np.radians(degrees)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    names, cells = [], []
    for number, photo in enumerate(photo_files(manifest)):
        picture = Image.open(photo.path).convert("RGB")
        width, height = np.ceil(np.abs(matrix) @ picture.size - 1e-6).astype(int).tolist()
        shift = np.array([width, height]) / 2 - matrix @ (np.array(picture.size) / 2)
        transform = np.column_stack([matrix, shift])
        names.append(f"{number}.png")
        folder.mkdir(parents=True, exist_ok=True)
        warp(picture, transform, (width, height), fill="replicated").save(folder / names[-1])
        cells.append(None if photo.hand is None else landmarks_text(apply(transform, photo.hand.points)))
    columns = [pl.Series("path", names), pl.Series("landmarks", cells, dtype=pl.String)]
    return replace(manifest, table=manifest.table.with_columns(*columns, pl.lit(None, pl.String).alias("sha256")),
                   root=folder)  # fmt: skip
