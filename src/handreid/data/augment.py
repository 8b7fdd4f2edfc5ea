"""The augmentation that torchvision has not: everything else is torchvision.transforms.v2, put together by
`training/build.py`. On one photo at a time Pillow is three to four times faster than tensors.
"""

import math

import numpy as np
import torch
from PIL import Image
from torch import nn


class BackgroundAffine(nn.Module):
    """A random rotation, zoom and shift; what comes into view is filled with the colour of the photo's border.

    Black corners, torchvision's default, tell the network how far a photo was turned. Straight through Pillow it takes
    two thirds of the time.
    """

    def __init__(self, degrees: float, translate: float, zoom: float) -> None:
        super().__init__()
        self.degrees = degrees
        self.translate = translate
        self.zoom = zoom

    def forward(self, photo: Image.Image) -> Image.Image:
        angle, scale, across, down = (2 * torch.rand(4) - 1).tolist()
        pixels = np.asarray(photo)
        border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        red, green, blue = np.median(border, axis=0).round().astype(int).tolist()
        return photo.transform(
            photo.size,
            Image.Transform.AFFINE,
            self._back(photo.size, math.radians(angle * self.degrees), 1 + scale * self.zoom, across, down),
            Image.Resampling.BILINEAR,
            fillcolor=(red, green, blue),
        )

    def _back(
        self, size: tuple[int, int], angle: float, zoom: float, across: float, down: float
    ) -> tuple[float, float, float, float, float, float]:
        """Where each pixel of the moved photo comes from: x' = a x + b y + c, y' = d x + e y + f."""
        width, height = size
        cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
        x, y = width / 2 * (1 + 2 * across * self.translate), height / 2 * (1 + 2 * down * self.translate)
        return cos, sin, width / 2 - cos * x - sin * y, -sin, cos, height / 2 + sin * x - cos * y
