"""What travels between the floors, with shapes.

Photos are unsigned bytes until the model: augmentation, caches and transfers stay four times smaller, and the model
alone knows mean and standard deviation.
"""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float, Int, UInt8
from torch import Tensor

FeatureName = Literal["joint", "pooled", "penultimate", "parts"]  # `parts`: what the head makes of the patch grid
Neck = Literal["before", "after"]
Inference = Literal["composed", "fixed"]  # a sentence for every photo, or one for all
Labels = Int[Tensor, " batch"]  # index of the training identity
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Preprocessing:
    """How a photo becomes the tower's input; stored with the model and used in training and at test alike.

    `size` is (height, width) in pixels; `mean` and `std` are of channels in [0, 1]. A photo of another shape is
    squashed, cropped at its centre, or padded with white.
    """

    size: tuple[int, int]
    mean: Triple
    std: Triple
    resize: Literal["squash", "crop", "pad"] = "squash"
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"


@dataclass(frozen=True)
class Batch:
    photos: UInt8[Tensor, "batch 3 height width"]
    labels: Int[Tensor, " batch"]  # index of the training identity; -1 where there is none
    rows: Int[Tensor, " batch"]  # row in the manifest
    conditions: Int[Tensor, " batch"] | None = None  # combination of side information, -1 unknown; None without any

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Features:
    """What the backbone makes of a photo. Every head and objective reads from this; none runs the tower again."""

    joint: Float[Tensor, "batch joint"]  # CLIP's joint image-text space
    pooled: Float[Tensor, "batch pooled"]  # ViT: class token after the last norm; ResNet: mean of the last map
    penultimate: Float[Tensor, "batch penultimate"]  # class token one block earlier; ResNet: mean of the map before
    patches: Float[Tensor, "batch rows cols width"]  # last layer, for part heads, attention and explanation


@dataclass(frozen=True)
class Outputs:
    """Features by name, `before` and `after` the head's neck; heads may add parts of their own to both.

    `texts` are features of the sentences that a head composed of the photos, in the joint space; None if it has none.
    """

    features: Features
    before: dict[str, Tensor]
    after: dict[str, Tensor]
    texts: Float[Tensor, "batch joint"] | None = None

    def at(self, neck: Neck) -> dict[str, Tensor]:
        return self.before if neck == "before" else self.after


@dataclass(frozen=True)
class Mixed:
    """Photos that are of two identities each: `shares` of `labels`, the rest of `partners`."""

    partners: Int[Tensor, " batch"]
    shares: Float[Tensor, " batch"]


@dataclass(frozen=True)
class Targets:
    labels: Int[Tensor, " batch"]
    mixed: Mixed | None = None

    def parts(self) -> list[tuple[Tensor, Tensor | None]]:
        """Labels, with the share of the photo that is theirs; None is all of it."""
        if self.mixed is None:
            return [(self.labels, None)]
        return [(self.labels, self.mixed.shares), (self.mixed.partners, 1 - self.mixed.shares)]
