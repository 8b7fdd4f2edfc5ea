"""Small pictures of photos, for pages and figures.

* A photo is scaled whole into the centre of a square with a neutral border, as a crop might cut off a finger.
* It is upright and in colour as the model sees it, and decoded at the smallest JPEG scale that is large enough.
* Only pixels are kept: no EXIF data, location, comment or colour profile.
"""

import base64
import io
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from handreid.data.decoding import open_upright
from handreid.errors import DataError
from handreid.progress import NullProgress, Progress

Kind = Literal["webp", "jpeg", "png"]
BORDER = (236, 236, 236)
LARGEST = 16383  # pixels of width or height that WebP allows


@dataclass(frozen=True)
class Sheet:
    """A picture of many thumbnails as a data URL; thumbnail i is in row i // columns, column i % columns."""

    url: str
    columns: int
    side: int


def thumbnails(
    paths: Sequence[Path], side: int, workers: int = 2, *, progress: Progress | None = None
) -> list[Image.Image]:
    """A square of `side` pixels per photo. Raises PhotoError with the photo's name if one cannot be read."""
    with (progress or NullProgress()).step("reading photos", len(paths), "photos") as advance:
        with ThreadPoolExecutor(workers) as pool:
            images = []
            try:
                for image in pool.map(lambda path: thumbnail(path, side), paths):
                    images.append(image)
                    advance(1)
            except BaseException:
                pool.shutdown(cancel_futures=True)  # on an error or Ctrl-C, do not wait for the remaining photos
                raise
        return images


def thumbnail(path: Path, side: int) -> Image.Image:
    return in_square(open_upright(path, (2 * side, 2 * side)), side)


def in_square(photo: Image.Image, side: int) -> Image.Image:
    """The whole picture in the centre of a square of `side` pixels."""
    share = side / max(photo.size)
    width, height = (max(1, round(length * share)) for length in photo.size)
    square = Image.new("RGB", (side, side), BORDER)
    square.paste(
        photo.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0),
        ((side - width) // 2, (side - height) // 2),
    )
    return square


def data_url(image: Image.Image, kind: Kind = "webp", quality: int = 72) -> str:
    return as_url(*encoded(image, kind, quality))


def as_url(content: bytes, mime: str) -> str:
    return f"data:{mime};base64,{base64.b64encode(content).decode('ascii')}"


def sprite(images: Sequence[Image.Image], columns: int | None = None, quality: int = 60) -> tuple[bytes, str]:
    """All thumbnails in one picture, row by row, and its MIME type; image i is in row i // columns.

    Images have one size; by default `columns` makes the picture about square (see `columns_of`). Raises DataError if it
    would be larger than WebP allows.
    """
    if not images:
        raise DataError("no photos to show as thumbnails")
    columns = columns or columns_of(len(images))
    width, height = images[0].size
    rows = -(-len(images) // columns)
    if max(columns * width, rows * height) > LARGEST:
        raise DataError(
            f"{len(images)} thumbnails of {width} x {height} in {columns} columns exceed the size of a WebP image "
            f"({LARGEST} pixels): show fewer photos, or smaller ones"
        )
    sheet = Image.new("RGB", (columns * width, rows * height), BORDER)
    for number, image in enumerate(images):
        sheet.paste(image, (number % columns * width, number // columns * height))
    return encoded(sheet, "webp", quality)


def sheet_of(paths: Sequence[Path], *, progress: Progress | None = None) -> Sheet:
    """Thumbnails, as large as possible for a page of about a megabyte. Raises PhotoError."""
    side = 128 if len(paths) <= 300 else 96 if len(paths) <= 900 else 56
    content, mime = sprite(thumbnails(paths, side, progress=progress))
    return Sheet(as_url(content, mime), columns_of(len(paths)), side)


def columns_of(count: int) -> int:
    """Columns of a grid that is about square."""
    return max(1, round(math.sqrt(count)))


def encoded(image: Image.Image, kind: Kind, quality: int) -> tuple[bytes, str]:
    """The file's bytes and its MIME type."""
    bare = Image.frombytes("RGB", image.size, image.convert("RGB").tobytes())  # without metadata
    into = io.BytesIO()
    match kind:
        case "webp":
            bare.save(into, "WEBP", quality=quality, method=4)
        case "jpeg":
            bare.save(into, "JPEG", quality=quality, optimize=True)
        case "png":
            bare.save(into, "PNG", optimize=True)
    return into.getvalue(), f"image/{kind}"
