"""Terms of the loss. `objectives/table.py` has the class that computes each.

`weight`, `lr` and `features` are read by `build.py`; every other field is an argument of that class.
"""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from handreid.recipe.base import FeatureName, Neck, Share
from handreid.recipe.custom_term import CUSTOM, CustomTerm, kind_of
from handreid.recipe.term import LearnedTerm, Term


class CrossEntropy(LearnedTerm):
    """Identity classification, summed over one classifier per named feature."""

    kind: Literal["cross_entropy"] = "cross_entropy"
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    """Share of the target that is distributed over all identities."""
    features: tuple[FeatureName, ...] = Field(("pooled", "joint"), min_length=1)
    """Features that get a classifier, behind the head's neck."""


class ArcFace(LearnedTerm):
    """Classification by angle, with a margin that is added to the right identity's angle (Deng et al. 2019)."""

    kind: Literal["arcface"] = "arcface"
    scale: float = Field(30.0, gt=0)
    """Factor of the cosines."""
    margin: float = Field(0.5, ge=0, le=1.5)
    """Added to the angle, in radians."""
    margin_warmup_epochs: float = Field(0, ge=0)
    """Epochs over which the margin grows linearly from 0."""
    features: tuple[FeatureName, ...] = Field(("pooled", "joint"), min_length=1)
    """Features that get a classifier, behind the head's neck."""


class CosFace(LearnedTerm):
    """Classification by angle, with a margin that is subtracted from the right identity's cosine (Wang et al. 2018)."""

    kind: Literal["cosface"] = "cosface"
    scale: float = Field(30.0, gt=0)
    """Factor of the cosines."""
    margin: float = Field(0.35, ge=0, le=1)
    """Subtracted from the cosine."""
    margin_warmup_epochs: float = Field(0, ge=0)
    """Epochs over which the margin grows linearly from 0."""
    features: tuple[FeatureName, ...] = Field(("pooled", "joint"), min_length=1)
    """Features that get a classifier, behind the head's neck."""


class Triplet(Term):
    """A photo should be nearer to photos of its identity than to others, by a margin (Hermans et al. 2017)."""

    kind: Literal["triplet"] = "triplet"
    mining: Literal["batch_all", "batch_hard", "semi_hard", "hard_only"] = "batch_hard"
    """Which triplets of the batch count."""
    margin: float | Literal["soft"] = 0.3
    """In units of the distance; `soft` is ln(1 + e^x) instead of the hinge."""
    distance: Literal["euclidean", "cosine"] = "euclidean"
    """Euclidean distance of unnormalised features, or 1 - cosine."""
    quantile: Share = 0.5
    """`hard_only`: of the triplets that violate the margin, only those harder than this quantile count."""
    features: tuple[FeatureName, ...] = Field(("pooled",), min_length=1)
    """Features whose losses are summed."""
    neck: Neck = "before"
    """Whether features are read before or after the head's neck."""

    @property
    def needs_pairs(self) -> bool:
        return True

    @property
    def takes_mixed_photos(self) -> bool:
        return False

    @model_validator(mode="after")
    def _margin_is_positive(self) -> "Triplet":
        if self.margin != "soft" and not self.margin > 0:
            raise ValueError(f"margin {self.margin} must be over 0, or `soft`")
        return self


class Center(LearnedTerm):
    """Photos are pulled towards a centre of their identity (Wen et al. 2016)."""

    kind: Literal["center"] = "center"
    weight: float = Field(0.0005, gt=0)
    """Factor of this term in the loss."""
    centres: Literal["learnable", "running_mean"] = "learnable"
    """Parameters of the optimizer, or running means of the photos by the paper's equation 4."""
    alpha: float = Field(0.5, gt=0, le=1)
    """`running_mean`: how fast centres follow (the paper's alpha)."""
    push: float = Field(0.0, ge=0)
    """Weight, within this term, of pushing the centres of different identities apart; 0 does not."""
    push_margin: float = Field(1.0, gt=0)
    """Distance up to which centres push each other."""
    features: tuple[FeatureName, ...] = Field(("pooled",), min_length=1)
    """Features that get centres; their losses are summed."""
    neck: Neck = "before"
    """Whether features are read before or after the head's neck."""


class SupCon(Term):
    """Supervised contrastive learning (Khosla et al. 2020)."""

    kind: Literal["supcon"] = "supcon"
    temperature: float = Field(0.1, gt=0)
    """Divisor of the cosines."""
    features: tuple[FeatureName, ...] = Field(("pooled",), min_length=1)
    """Features whose losses are summed."""
    neck: Neck = "before"
    """Whether features are read before or after the head's neck."""

    @property
    def needs_pairs(self) -> bool:
        return True

    @property
    def takes_mixed_photos(self) -> bool:
        return False


class SymmetricContrast(Term):
    """Contrastive loss between photos and the sentences that the head composed from them, in both directions (Yang et
    al. 2024); photos in the joint space, before the neck.
    """

    kind: Literal["symmetric_contrast"] = "symmetric_contrast"
    weight: float = Field(0.5, gt=0)
    """Factor of this term in the loss."""
    temperature: float = Field(1.0, gt=0)
    """Divisor of the similarities."""
    normalise: bool = False
    """True compares cosines, false products of unnormalised features."""

    @property
    def features(self) -> tuple[FeatureName, ...]:
        return ("joint",)

    @property
    def neck(self) -> Neck:
        return "before"

    @property
    def takes_mixed_photos(self) -> bool:
        return False

    @property
    def needs_texts(self) -> bool:
        return True


CLASSIFYING = (
    "ArcFaceLoss",
    "CosFaceLoss",
    "LargeMarginSoftmaxLoss",
    "NormalizedSoftmaxLoss",
    "P2SGradLoss",
    "ProxyAnchorLoss",
    "ProxyNCALoss",
    "SoftTripleLoss",
    "SphereFaceLoss",
    "SubCenterArcFaceLoss",
)
"""Losses of pytorch-metric-learning that learn something per identity and need no pairs."""


class MetricLearning(LearnedTerm):
    """Any loss of pytorch-metric-learning, by its name there, with or without one of its miners."""

    kind: Literal["metric_learning"] = "metric_learning"
    loss: str
    """Name of a class in `pytorch_metric_learning.losses`."""
    arguments: dict[str, object] = Field({})
    """Its arguments, except distance, reducer, and what follows from the data (classes, embedding size)."""
    miner: str | None = None
    """Name of a class in `pytorch_metric_learning.miners`; null is none."""
    miner_arguments: dict[str, object] = Field({})
    """Its arguments, except the distance."""
    distance: Literal[
        "cosine", "dot_product", "euclidean", "squared_euclidean", "normalised_euclidean", "signal_to_noise"
    ] = "euclidean"
    """Distance of loss and miner; always set explicitly, never the library's default."""
    reducer: Literal["mean", "sum", "mean_of_positive"] = "mean"
    """How the values of a batch are reduced to one number; the library's own default is mostly `mean_of_positive`,
    which leaves out values of 0. A few of its losses (PNPLoss, P2SGradLoss) have their own reduction."""
    memory: int | None = Field(None, ge=2)
    """Number of photos whose features are stored from earlier batches and compared too (cross-batch memory, Wang et al.
    2020); null is none."""
    features: tuple[FeatureName, ...] = Field(("pooled",), min_length=1)
    """Features whose losses are summed."""
    neck: Neck = "before"
    """Whether features are read before or after the head's neck."""

    @property
    def needs_pairs(self) -> bool:
        return self.loss not in CLASSIFYING and self.memory is None

    @property
    def takes_mixed_photos(self) -> bool:
        return False


class TextTerm(Term):
    """A term that compares photos, in the joint space, with the texts of an earlier stage `learn_prompts`."""

    normalise: bool = False
    """Whether features are scaled to unit length before they are compared; CLIP-ReID's are not."""
    temperature: float = Field(1.0, gt=0)
    """Divisor of the similarities."""

    @property
    def features(self) -> tuple[FeatureName, ...]:
        return ("joint",)

    @property
    def neck(self) -> Neck:
        return "before"


class ImageToText(TextTerm):
    """Classification of a photo among the texts of all identities (Li et al. 2023, CLIP-ReID)."""

    kind: Literal["image_to_text"] = "image_to_text"
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    """Share of the target that is distributed over all identities."""


class TextToImage(TextTerm):
    """Retrieval of an identity's photos by its text, among the photos of the batch (Li et al. 2023, equation 4)."""

    kind: Literal["text_to_image"] = "text_to_image"

    @property
    def takes_mixed_photos(self) -> bool:
        return False


AnyTerm = Annotated[
    Annotated[CrossEntropy, Tag("cross_entropy")]
    | Annotated[ArcFace, Tag("arcface")]
    | Annotated[CosFace, Tag("cosface")]
    | Annotated[Triplet, Tag("triplet")]
    | Annotated[Center, Tag("center")]
    | Annotated[SupCon, Tag("supcon")]
    | Annotated[SymmetricContrast, Tag("symmetric_contrast")]
    | Annotated[MetricLearning, Tag("metric_learning")]
    | Annotated[ImageToText, Tag("image_to_text")]
    | Annotated[TextToImage, Tag("text_to_image")]
    | Annotated[CustomTerm, Tag(CUSTOM)],
    Discriminator(kind_of),
]


def term_name(term: AnyTerm) -> str:
    """The term's name in logs: its kind, or the name of a user's class."""
    return term.kind.rpartition(":")[2].rpartition(".")[2]
