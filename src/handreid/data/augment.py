"""The augmentation that torchvision has not: everything else is torchvision.transforms.v2, put together by
`training/build.py`.
"""

import torch
from jaxtyping import UInt8
from torch import Tensor, nn
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

    def forward(self, photo: UInt8[Tensor, "3 height width"]) -> UInt8[Tensor, "3 height width"]:
        angle, scale, across, down = (2 * torch.rand(4) - 1).tolist()
        height, width = photo.shape[1:]
        border = torch.cat([photo[:, 0], photo[:, -1], photo[:, :, 0], photo[:, :, -1]], dim=1)
        moved: Tensor = F.affine(
            photo,
            angle=angle * self.degrees,
            translate=[across * self.translate * width, down * self.translate * height],
            scale=1 + scale * self.zoom,
            shear=[0.0, 0.0],
            interpolation=InterpolationMode.BILINEAR,
            fill=border.float().median(dim=1).values.tolist(),
        )
        return moved
