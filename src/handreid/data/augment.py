"""Augmentations that fill uncovered corners with the colour of the photo's border. All others are those of
torchvision.transforms.v2; `build.py` composes them.

* Black corners, torchvision's default, would show the network how far a photo was turned.
* On one photo at a time Pillow is three to four times faster than tensors.
* All randomness comes from torch's global generator, which is seeded for every photo.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import nn

from handreid.landmarks.warp import border_colour


class BackgroundAffine(nn.Module):
    """A random rotation, zoom and shift. Pillow's affine transform takes two thirds of the time of torchvision's.

    `zoom` is the largest, in or out, or the smallest and the largest factor.
    """

    def __init__(self, degrees: float, translate: float, zoom: float | tuple[float, float]) -> None:
        super().__init__()
        self.degrees = degrees
        self.translate = translate
        if isinstance(zoom, tuple):
            self.zoom, self.zoom_range = (zoom[0] + zoom[1]) / 2, (zoom[1] - zoom[0]) / 2
        else:
            self.zoom, self.zoom_range = 1.0, zoom

    def forward(self, photo: Image.Image) -> Image.Image:
        angle, scale, across, down = (2 * torch.rand(4) - 1).tolist()
        return photo.transform(
            photo.size,
            Image.Transform.AFFINE,
            self._back(
                photo.size,
                math.radians(angle * self.degrees),
                self.zoom + scale * self.zoom_range,
                across,
                down,
            ),
            Image.Resampling.BILINEAR,
            fillcolor=border_colour(photo),
        )

    def _back(
        self, size: tuple[int, int], angle: float, zoom: float, across: float, down: float
    ) -> tuple[float, float, float, float, float, float]:
        """Where each pixel of the moved photo comes from: x' = a x + b y + c, y' = d x + e y + f."""
        width, height = size
        cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
        x, y = width / 2 * (1 + 2 * across * self.translate), height / 2 * (1 + 2 * down * self.translate)
        return cos, sin, width / 2 - cos * x - sin * y, -sin, cos, height / 2 + sin * x - cos * y


class BorderFilled(nn.Module):
    """A transform of torchvision, made by `make(fill=...)` for each photo with its border's colour."""

    def __init__(self, make: Callable[..., Any]) -> None:
        super().__init__()
        self.make = make

    def forward(self, photo: Image.Image) -> Image.Image:
        changed: Image.Image = self.make(fill=border_colour(photo))(photo)
        return changed
