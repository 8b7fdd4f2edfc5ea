"""The augmentation that torchvision has not: everything else is torchvision.transforms.v2, put together by
`training/build.py`. On one photo at a time Pillow is three to four times faster than tensors.
"""

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F


class BackgroundAffine(nn.Module):
    """A random rotation, zoom and shift; what comes into view is filled with the colour of the photo's border.

    Black corners, torchvision's default, tell the network how far a photo was turned.
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
        moved: Image.Image = F.affine(
            photo,
            angle=angle * self.degrees,
            translate=[across * self.translate * photo.width, down * self.translate * photo.height],
            scale=1 + scale * self.zoom,
            shear=[0.0, 0.0],
            interpolation=InterpolationMode.BILINEAR,
            fill=np.median(border, axis=0).round().astype(int).tolist(),
        )
        return moved
