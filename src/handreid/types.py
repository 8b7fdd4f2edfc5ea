"""Values passed between the layers, with shapes.

Photos are unsigned bytes up to the model: augmentation, caches and transfers take a quarter of the memory of float32,
and only the model has to know mean and standard deviation.
"""

from dataclasses import dataclass, fields
from typing import Any, Literal, Protocol, runtime_checkable

from jaxtyping import Float, Int, UInt8
from torch import Tensor

FeatureName = Literal["joint", "pooled", "penultimate", "parts"]  # `parts`: computed by the head from the patch grid
Neck = Literal["before", "after"]
Inference = Literal["composed", "fixed"]  # one sentence per photo, or one for all
Labels = Int[Tensor, " batch"]  # index of the training identity
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Alignment:
    """How the hand on a photo is brought to a place before the photo is resized.

    `hand`: by a similarity, wrist and knuckles to fixed places in a square; `upright`: turned and centred in a square
    of the photo's longer side, keeping its size. `fill` is what lies outside the photo: white, its mean colour, the
    median colour of its edge, or its own pixels. `margin` is the share of the square (0 to 0.4) that is left free on
    each side. A photo in which no hand was found is refused, or taken as it is, without alignment.
    """

    kind: Literal["upright", "hand"]
    fill: Literal["blank", "mean", "border", "reflected", "replicated"] = "border"
    margin: float = 0.0
    without_hand: Literal["refuse", "as_is"] = "refuse"


@dataclass(frozen=True)
class Chirality:
    """Photos of left hands are mirrored, so that every photo shows a right hand.

    A photo whose side neither its manifest nor a landmarker states is refused, or taken as it is.
    """

    unknown_side: Literal["refuse", "as_is"] = "refuse"


@runtime_checkable
class Reading(Protocol):
    """Which knowledge of a photo's hand changes the model's input: its points, its side."""

    @property
    def aligns(self) -> bool: ...

    @property
    def mirrors(self) -> bool: ...


@dataclass(frozen=True, repr=False)
class Preprocessing:
    """How a photo becomes the tower's input; stored with the model, the same in training and at test.

    `size` is (height, width) in pixels; `mean` and `std` are of channels in [0, 1]. A photo of another shape is
    squashed, cropped at its centre, or padded with white. Without `alignment` the photo is resized as its file has it;
    without `chirality` no photo is mirrored.
    """

    size: tuple[int, int]
    mean: Triple
    std: Triple
    resize: Literal["squash", "crop", "pad"] = "squash"
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    alignment: Alignment | None = None
    chirality: Chirality | None = None

    @property
    def aligns(self) -> bool:
        return self.alignment is not None

    @property
    def mirrors(self) -> bool:
        return self.chirality is not None

    @property
    def settings(self) -> dict[str, Any]:
        """The fields by name; alignment and chirality only where there is one.

        Hashed for caches and finished stages, written to model files: those made before there was either stay valid.
        """
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def __repr__(self) -> str:
        return f"Preprocessing({', '.join(f'{name}={value!r}' for name, value in self.settings.items())})"


@dataclass(frozen=True)
class Batch:
    photos: UInt8[Tensor, "batch 3 height width"]
    labels: Int[Tensor, " batch"]  # index of the training identity; -1 for none
    rows: Int[Tensor, " batch"]  # row in the manifest
    conditions: Int[Tensor, " batch"] | None = None  # combination of side information, -1 unknown; None without any

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Features:
    """The backbone's features of a photo. Heads and objectives read these; none runs the tower again."""

    joint: Float[Tensor, "batch joint"]  # CLIP's joint image-text space
    pooled: Float[Tensor, "batch pooled"]  # ViT: class token after the last norm; ResNet: mean of the last map
    penultimate: Float[Tensor, "batch penultimate"]  # class token one block earlier; ResNet: mean of the map before
    patches: Float[Tensor, "batch rows cols width"]  # last layer, for part heads, attention and explanation


@dataclass(frozen=True)
class Outputs:
    """Features by name, `before` and `after` the head's neck; heads may add parts of their own to both.

    `texts` are features, in the joint space, of the sentences that a head composed for the photos; None without any.
    """

    features: Features
    before: dict[str, Tensor]
    after: dict[str, Tensor]
    texts: Float[Tensor, "batch joint"] | None = None

    def at(self, neck: Neck) -> dict[str, Tensor]:
        return self.before if neck == "before" else self.after


@dataclass(frozen=True)
class Mixed:
    """Photos mixed of two identities each: a share `shares` of `labels`, the rest of `partners`."""

    partners: Int[Tensor, " batch"]
    shares: Float[Tensor, " batch"]


@dataclass(frozen=True)
class Targets:
    labels: Int[Tensor, " batch"]
    mixed: Mixed | None = None

    def parts(self) -> list[tuple[Tensor, Tensor | None]]:
        """Labels, each with its share of the photo; None is the whole photo."""
        if self.mixed is None:
            return [(self.labels, None)]
        return [(self.labels, self.mixed.shares), (self.mixed.partners, 1 - self.mixed.shares)]
