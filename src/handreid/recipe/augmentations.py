"""Augmentations of single training photos, and mixing of two photos of a batch."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from handreid.recipe.base import Value


class Crop(Value):
    """Photo enlarged by `enlarge`, then a random window of the input's size (the papers' 256 -> 224 is 8/7)."""

    kind: Literal["crop"] = "crop"
    enlarge: float = Field(8 / 7, ge=1, le=2)
    """Factor by which the photo is larger than the input before the window is cut."""


class Padding(Value):
    """`pixels` of border on every side, then a random window of the input's size."""

    kind: Literal["padding"] = "padding"
    pixels: int = Field(10, ge=1)
    """Width of the border, which repeats the photo's edge."""


class Affine(Value):
    """A random rotation, zoom and shift, filled with the colour of the photo's border."""

    kind: Literal["affine"] = "affine"
    degrees: float = Field(10, ge=0, le=180)
    """Largest angle, either way."""
    translate: float = Field(0.05, ge=0, le=0.5)
    """Largest shift, as a share of the size."""
    zoom: float | tuple[float, float] = 0.1
    """Largest zoom, in or out; or the smallest and the largest factor, such as `[0.6, 1]`."""

    @model_validator(mode="after")
    def _zoom_in_range(self) -> "Affine":
        if isinstance(self.zoom, tuple):
            smallest, largest = self.zoom
            if not 0.1 <= smallest <= largest <= 10:
                raise ValueError(f"zoom {list(self.zoom)} must be two factors from 0.1 to 10, the smaller one first")
        elif not 0 <= self.zoom < 1:
            raise ValueError(f"zoom {self.zoom} must be from 0 to under 1, or two factors such as [0.6, 1]")
        return self


class ColourJitter(Value):
    """Random brightness, contrast, saturation and hue for every photo, as torchvision's `ColorJitter`."""

    kind: Literal["colour_jitter"] = "colour_jitter"
    brightness: float = Field(0.2, ge=0)
    """Factor drawn from 1 - this to 1 + this."""
    contrast: float = Field(0.15, ge=0)
    """Factor drawn from 1 - this to 1 + this."""
    saturation: float = Field(0.1, ge=0)
    """Factor drawn from 1 - this to 1 + this."""
    hue: float = Field(0.0, ge=0, le=0.5)
    """Largest rotation of the colour circle, either way."""


class RandomErasing(Value):
    """A random rectangle is filled with the mean colour (Zhong et al. 2020), always after all other steps."""

    kind: Literal["random_erasing"] = "random_erasing"
    probability: float = Field(0.5, gt=0, le=1)
    """Share of the photos that lose a rectangle."""
    area: tuple[float, float] = (0.02, 0.33)
    """Smallest and largest rectangle, as shares of the photo."""


class Perspective(Value):
    """A random change of the camera's view, filled with the colour of the photo's border."""

    kind: Literal["perspective"] = "perspective"
    distortion: float = Field(0.2, gt=0, le=1)
    """How far corners move inwards at most, as a share of half the photo."""
    probability: float = Field(0.5, gt=0, le=1)
    """Share of the photos that are changed."""


class Background(Value):
    """Replaces a light background (11k Hands were taken on white), so that the network uses the hand and not the table.
    A photo whose border is not light, or whose skin is nearly as pale, is left unchanged.
    """

    kind: Literal["background"] = "background"
    probability: float = Field(0.5, gt=0, le=1)
    """Share of the photos that get another background."""
    folder: Path | None = None
    """Photos to take backgrounds from, at any depth, all kept in memory; null draws colours, gradients, stripes and
    clouds."""


class RandAugment(Value):
    """`operations` random changes of colour and geometry for every photo (Cubuk et al. 2020); none mirrors."""

    kind: Literal["rand_augment"] = "rand_augment"
    operations: int = Field(2, ge=1)
    """Number of changes applied one after another."""
    magnitude: int = Field(7, ge=0, le=30)
    """Strength, from 0 to 30."""


class AugMix(Value):
    """Several chains of changes, mixed with the photo (Hendrycks et al. 2020); none mirrors. The paper's loss between
    differently mixed copies is not included.
    """

    kind: Literal["augmix"] = "augmix"
    severity: int = Field(3, ge=1, le=10)
    """Strength of the changes."""
    chains: int = Field(3, ge=1)
    """Number of chains that are mixed."""


Augmentation = Annotated[
    Crop | Padding | Affine | Perspective | Background | ColourJitter | RandAugment | AugMix | RandomErasing,
    Field(discriminator="kind"),
]


class Mixup(Value):
    """A photo is blended with another one of the batch, and so are their targets (Zhang et al. 2018)."""

    kind: Literal["mixup"] = "mixup"
    alpha: float = Field(0.2, gt=0)
    """The share is drawn from Beta(alpha, alpha), once per batch."""
    probability: float = Field(1.0, gt=0, le=1)
    """Share of the batches that are mixed."""


class CutMix(Value):
    """A rectangle of a photo is replaced by that of another photo of the batch, and the same share of its target (Yun
    et al. 2019).
    """

    kind: Literal["cutmix"] = "cutmix"
    alpha: float = Field(1.0, gt=0)
    """The share is drawn from Beta(alpha, alpha), once per batch."""
    probability: float = Field(0.5, gt=0, le=1)
    """Share of the batches that are mixed."""


Mix = Annotated[Mixup | CutMix, Field(discriminator="kind")]
