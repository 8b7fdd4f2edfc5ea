"""Terms of the stage `pretrain`: what makes two views, two photos or a photo and its caption alike."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from handreid.recipe.base import Share, Value


class PretrainTerm(Value):
    """What all terms of pre-training have."""

    weight: float = Field(1.0, gt=0)
    """Factor of this term in the loss."""

    @property
    def compares_views(self) -> bool:
        """Whether the term needs a second view of every photo."""
        return False

    @property
    def reads_identities(self) -> bool:
        """Whether the term reads the photos' identities."""
        return False

    @property
    def compares_photos(self) -> bool:
        """Whether the term needs several photos of an identity in a batch."""
        return False


class ViewTerm(PretrainTerm):
    """A term between views of photos, behind a projection that is discarded after the stage."""

    feature: Literal["joint", "pooled"] = "joint"
    """The tower's feature that is projected."""
    hidden: int = Field(512, ge=1)
    """Width of the projection's hidden layers."""
    width: int = Field(128, ge=2)
    """Width of the projected feature."""

    @property
    def compares_views(self) -> bool:
        return True


class MocoTerm(ViewTerm):
    """Momentum contrast: a view finds the other view of its photo among those of other photos, encoded by a slowly
    moving copy of the tower. It reads no labels.
    """

    kind: Literal["moco"] = "moco"
    version: Literal["queue", "v3"] = "queue"
    """`queue`: negatives are the keys of earlier batches (He et al. 2020; the projection is that of Chen et al. 2020,
    version 2). `v3`: negatives are the batch's, both views are queries, with a prediction head (Chen, Xie, He 2021),
    for ViTs and large batches."""
    queue: int = Field(4096, ge=2)
    """Number of keys that are kept; version `queue` only."""
    momentum: Share = 0.99
    """Share of the key encoder that is kept after a step; the papers' 0.99 to 0.999 are for 10^5 steps and more."""
    temperature: float = Field(0.2, gt=0)
    """Divisor of the cosines."""


class SupConTerm(ViewTerm):
    """Both views of a photo, and those of photos of the same label, are pulled together, away from the other views of
    the batch.
    """

    kind: Literal["supcon"] = "supcon"
    labels: Literal["identity", "photo"] = "identity"
    """`identity`: positives are all views of an identity (Khosla et al. 2020). `photo`: each photo is a label of its
    own, and no identity is read (SimCLR's NT-Xent, Chen et al. 2020)."""
    views: Literal[1, 2] = 2
    """Views of every photo in the batch. With 1 positives are other photos of the identity alone, for half the time;
    that needs `labels: identity`."""
    projected: bool = True
    """Whether features are compared behind the projection, as published; without it the tower's own feature is."""
    temperature: float = Field(0.1, gt=0)
    """Divisor of the cosines."""

    @property
    def compares_views(self) -> bool:
        return self.views == 2

    @property
    def compares_photos(self) -> bool:
        return self.labels == "identity"

    @property
    def reads_identities(self) -> bool:
        return self.labels == "identity"

    @model_validator(mode="after")
    def _there_are_positives(self) -> "SupConTerm":
        if self.labels == "photo" and self.views == 1:
            raise ValueError("labels is 'photo', so the only positive is the photo's other view: use views: 2")
        return self


class CrossEntropyTerm(PretrainTerm):
    """Classification of the training identities, behind a batch norm (Luo et al. 2019); batch norm and classifier are
    discarded after the stage.
    """

    kind: Literal["cross_entropy"] = "cross_entropy"
    feature: Literal["joint", "pooled"] = "joint"
    """The tower's feature that is classified."""
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    """Share of the target that is spread over all identities."""

    @property
    def reads_identities(self) -> bool:
        return True


class MeasurementsTerm(PretrainTerm):
    """Numbers that the manifest states of every photo are predicted by a linear layer, such as the lengths of the
    fingers, which rendered hands have in the column `anatomy`. The layer is discarded after the stage.

    The loss is the mean squared error after each number was scaled to variance 1 over the training photos, so 1 is the
    error of their mean.
    """

    kind: Literal["measurements"] = "measurements"
    columns: tuple[str, ...] = Field(("anatomy",), min_length=1)
    """Columns of the manifest, each with a number for every photo, or with several separated by spaces."""
    feature: Literal["joint", "pooled"] = "joint"
    """The tower's feature that predicts them."""


class ImageTextTerm(PretrainTerm):
    """A photo and its caption find each other in the batch; captions are in the manifest's column `caption`."""

    kind: Literal["image_text"] = "image_text"
    loss: Literal["clip", "siglip"] = "clip"
    """`clip`: the symmetric softmax (Radford et al. 2021); `siglip`: a sigmoid for every pair (Zhai et al. 2023)."""
    temperature: float | None = Field(None, ge=0.01, le=1)
    """Initial divisor of the cosines; null is the text tower's own with `clip`, and 0.1 with `siglip`. It is learned
    with the text tower."""

    @property
    def starting_temperature(self) -> float | None:
        """The initial temperature; None keeps the text tower's own."""
        return 0.1 if self.temperature is None and self.loss == "siglip" else self.temperature


AnyPretrainTerm = Annotated[
    MocoTerm | SupConTerm | CrossEntropyTerm | MeasurementsTerm | ImageTextTerm, Field(discriminator="kind")
]


class Collapse(Value):
    """When features count as collapsed: an epoch beyond one of the limits ends the run with an error."""

    spread: float = Field(0.02, ge=0, lt=1)
    """Smallest allowed spread: the root of the variance, summed over the dimensions, of features of unit length. It is
    0 if all features are equal, and 1 if they cover the sphere evenly."""
    effective_rank: float = Field(1.2, ge=1)
    """Smallest allowed effective rank: the number of directions that features vary in (Roy and Vetterli 2007)."""
    temperature: float = Field(0.9, gt=0)
    """Largest allowed temperature of `image_text`; it is learned between 0.01 and 1."""
    after_epochs: int = Field(1, ge=0)
    """Epochs that are not judged: features of random towers are nearly equal."""
