"""Replaces a light background by another.

* 11k Hands are shot on a white table, often over-exposed: table and skin differ less in brightness than in how warm
  they are (blue against red), so warmth decides, measured against the photo's own skin. Where red is over-exposed,
  skin looks paler than it is and the limit is stricter.
* The table is the light area connected to the photo's edges. Fingernails and rings may be as white as the table, but
  skin or a sharp edge surrounds them. Narrow gaps between closed fingers stay white for the same reason.
* The table's shadows are put on the new background too: the remains of a shadow would show that there was a table.
* A photo is returned unchanged when its border is not light and nearly grey, when no hand is found on it, or when
  its skin is nearly as pale as the table.
"""

import math
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float32
from PIL import Image, ImageChops, ImageFilter
from scipy import ndimage
from torch import nn

from handreid.data.decoding import open_upright
from handreid.data.sources.files import files_below
from handreid.errors import DataError
from handreid.landmarks.warp import border_colour

LIGHTEST, GREY = 180, 25  # a light border's darkest channel at least, and its largest difference of channels
WARM = 0.12  # 1 - blue / red of what is surely skin, the table being 0
PALEST = 0.19  # the median of it: paler skin cannot be told from a table; of 800 photos of 11k Hands, none has less
PALE, SHADED = 0.25, 0.5  # the table's warmth at most, as shares of the skin's: where red is full, where it is not
DARKEST = 0.45  # a shadow on the table, as a share of the table
EDGE = 0.18  # change over two pixels that a shadow's edge does not reach and a nail's does
HAND = (0.04, 0.85)  # shares of the photo that a hand covers

Mask = Bool[np.ndarray, "height width"]
Plane = Float32[np.ndarray, "height width"]


class ChangeBackground(nn.Module):
    """Puts the hand before a generated background, or before a part of one of `photos`, with the given probability."""

    def __init__(self, probability: float, photos: list[Image.Image] | None = None) -> None:
        super().__init__()
        self.probability = probability
        self.photos = photos

    def forward(self, photo: Image.Image) -> Image.Image:
        if torch.rand(()) >= self.probability:
            return photo
        table = find_table(photo)
        if table is None:
            return photo
        return composite(
            photo, table, sample_patch(self.photos, photo.size) if self.photos else sample_background(photo.size)
        )


def find_table(photo: Image.Image) -> Mask | None:
    """True where the light background shows, shadows included; None where it cannot be separated from the hand."""
    white = border_colour(photo)
    if min(white) < LIGHTEST or max(white) - min(white) > GREY:
        return None
    red, green, blue = (
        np.asarray(plane, np.float32) / level for plane, level in zip(photo.split(), white, strict=True)
    )
    warmth = 1 - blue / np.maximum(red, 0.05)
    skin = warmth[warmth > WARM]
    if skin.size < warmth.size * HAND[0] / 2 or (typical := np.median(skin)) < PALEST:
        return None
    limit = np.clip(PALE + (SHADED - PALE) * 10 * (1 - red), PALE, SHADED) * typical
    level = np.minimum(np.minimum(red, green), blue)
    table = _connected((level > DARKEST) & (warmth < limit), level)
    return table if HAND[0] <= 1 - np.count_nonzero(table) / table.size <= HAND[1] else None


def _connected(light: Mask, level: Plane) -> Mask:
    """Light pixels reached from the edges by ways that are three pixels wide and cross no sharp edge, and those
    within three pixels of them.
    """
    way = ~_dilated(~light)
    way[:, 1:-1] &= np.abs(level[:, 2:] - level[:, :-2]) < EDGE
    way[1:-1] &= np.abs(level[2:] - level[:-2]) < EDGE
    pieces, count = ndimage.label(way)
    outer = np.zeros(count + 1, bool)
    for side in (pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]):
        outer[side] = True
    outer[0] = False
    table: Mask = outer[pieces]
    for _ in range(3):
        table = _dilated(table) & light
    return table


def _dilated(mask: Mask) -> Mask:
    """Dilation by the four direct neighbours; slices are four times faster than scipy's dilation."""
    dilated = mask.copy()
    dilated[1:] |= mask[:-1]
    dilated[:-1] |= mask[1:]
    dilated[:, 1:] |= mask[:, :-1]
    dilated[:, :-1] |= mask[:, 1:]
    return dilated


def composite(photo: Image.Image, table: Mask, behind: Image.Image) -> Image.Image:
    """The hand before `behind`, which gets the table's shadows. The hand's outermost pixel is half transparent, as
    it already holds some of the table.
    """
    cover = Image.fromarray(np.where(table, 0, 255).astype(np.uint8)).filter(ImageFilter.BoxBlur(1))
    grey = photo.convert("L")
    lit = max(1, int(np.median(np.asarray(grey)[table])))
    shade = grey.point([min(255, 255 * level // lit) for level in range(256)])
    shaded = ImageChops.multiply(behind, Image.merge("RGB", (shade, shade, shade)))
    return Image.composite(photo, shaded, cover.point([max(0, 2 * level - 255) for level in range(256)]))


def sample_background(size: tuple[int, int]) -> Image.Image:
    """Two random colours, and how they share a picture of (width, height): one alone, a gradient, stripes, or clouds
    that may be as fine as grain.
    """
    base, second = (Image.new("RGB", size, _colour()) for _ in range(2))
    match int(torch.randint(4, ())):
        case 0:
            return base
        case 1:
            share = _along(size) + 0.5
        case 2:
            number, phase, sharpness = torch.rand(3).tolist()
            wave = np.sin(2 * math.pi * ((3 + 17 * number) * _along(size) + phase))
            share = 0.5 + (0.5 + 3 * sharpness) * wave
        case _:
            cells = int(2 * (min(size) / 4) ** torch.rand(()).item())  # a side; at most one for every two pixels
            noise = Image.fromarray((255 * torch.rand(cells, cells)).byte().numpy())
            return Image.composite(base, second, noise.resize(size, Image.Resampling.BICUBIC))
    return Image.composite(base, second, Image.fromarray((255 * np.clip(share, 0, 1)).astype(np.uint8)))


def _colour() -> tuple[int, int, int]:
    """Any brightness and hue, from grey to as strong as can be."""
    colour = 255 * torch.rand(3)
    red, green, blue = torch.lerp(colour.mean(), colour, torch.rand(())).int().tolist()
    return red, green, blue


def _along(size: tuple[int, int]) -> Plane:
    """How far each pixel lies in a random direction, the picture being from -0.5 to 0.5 wide and high."""
    angle = 2 * math.pi * torch.rand(()).item()
    x, y = np.linspace(-0.5, 0.5, size[0], dtype=np.float32), np.linspace(-0.5, 0.5, size[1], dtype=np.float32)
    return np.float32(math.cos(angle)) * x + np.float32(math.sin(angle)) * y[:, None]


def sample_patch(photos: list[Image.Image], size: tuple[int, int]) -> Image.Image:
    """A random window of a random photo, in the shape of (width, height), half to all as large as fits."""
    photo = photos[int(torch.randint(len(photos), ()))]
    zoom, across, down = torch.rand(3).tolist()
    scale = min(photo.width / size[0], photo.height / size[1]) * (0.5 + 0.5 * zoom)
    width, height = size[0] * scale, size[1] * scale
    left, top = across * (photo.width - width), down * (photo.height - height)
    return photo.resize(size, Image.Resampling.BILINEAR, (left, top, left + width, top + height))


AUGMENTATION = "correct `folder` of the background augmentation, or omit it for generated backgrounds"


def read_backgrounds(folder: Path, side: int, advice: str = AUGMENTATION) -> list[Image.Image]:
    """The photos in a folder and below it, in the order of their names, the shorter side reduced to 2 x `side` pixels,
    so that half of it is sharp enough. All stay in memory: 0.8 MB each for a side of 224.

    Raises DataError, which ends with `advice`, when there is no such folder or no photo in it, PhotoError for a photo
    that cannot be read.
    """
    return [_read(path, 2 * side) for path in background_paths(folder, advice)]


def background_paths(folder: Path, advice: str = AUGMENTATION) -> list[Path]:
    """The photos in a folder and below it, in the order of their names. Raises DataError as `read_backgrounds` does."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of backgrounds; {advice}")
    paths = files_below(folder).photos
    if not paths:
        raise DataError(f"{folder} holds no photos to use as backgrounds; {advice}")
    return [folder / path for path in paths]


def _read(path: Path, side: int) -> Image.Image:
    photo = open_upright(path, (side, side), advice="take it out of the folder of backgrounds")
    scale = side / min(photo.size)
    if scale < 1:
        photo = photo.resize((round(photo.width * scale), round(photo.height * scale)), Image.Resampling.BICUBIC)
    return photo
