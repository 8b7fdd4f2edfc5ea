"""The stage `pretrain`: the towers learn from two views of a photo, from identities, or from captions."""

from collections import Counter
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from handreid.recipe.augmentations import (
    Affine,
    Augmentation,
    Background,
    ColourJitter,
    Crop,
    Perspective,
    RandomErasing,
)
from handreid.recipe.optimizer import Optimizer
from handreid.recipe.photo_stage import PhotoStage
from handreid.recipe.pretrain_terms import AnyPretrainTerm, Collapse, ImageTextTerm, MeasurementsTerm
from handreid.recipe.samplers import BalancedSampler, PkSampler, RandomSampler

SMALLEST_VIEW = 0.25  # share of the photo's area that every view shows at least


class Pretrain(PhotoStage):
    """The towers are trained before any identification, without labels, with identities, or with captions."""

    BATCH: ClassVar[int] = 64

    kind: Literal["pretrain"] = "pretrain"
    epochs: int = Field(30, ge=1)
    """How often every training photo is used."""
    terms: tuple[AnyPretrainTerm, ...] = Field(min_length=1)
    """Terms of the loss, each kind once."""
    learns: Literal["image", "text", "both"] = "image"
    """The towers that are trained. `text` alone with `image_text` is LiT (Zhai et al. 2022): words are found for an
    image tower that stays as it is."""
    batch_size: int | None = Field(None, ge=2)
    """Largest number of photos in a batch; null is 64, or identities times images of the sampler."""
    sampler: Annotated[RandomSampler | PkSampler | BalancedSampler, Field(discriminator="kind")] = RandomSampler()
    """Which photos make a batch."""
    accumulate: int = Field(1, ge=1)
    """Number of batches whose gradients are accumulated for one step; negatives are those of one batch."""
    optimizer: Optimizer = Optimizer()
    """Optimizer and learning rates; `lr` is that of both towers, projections and prediction heads are new layers."""
    augment: tuple[Augmentation, ...] = (
        Background(),
        Perspective(probability=0.3),
        Affine(degrees=15, translate=0.05, zoom=0.15),
        Crop(enlarge=1.25),
        ColourJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.05),
    )
    """Augmentation of every view, in this order; both views of a photo are drawn from it. See
    [views](pretraining.md#views) for why each is there."""
    chirality: Literal["none", "flip"] = "none"
    """`flip` mirrors half of the views, so that a hand and its mirror image are alike: right and left can then not be
    told apart."""
    clip_gradients: float | None = Field(None, gt=0)
    """Largest norm of the gradient over all parameters."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision of the autocast, as in `fine_tune`."""
    validate_every: int = Field(1, ge=1)
    """Epochs between validations by identification, which read labels but change no weight unless `keep` is best; the
    last epoch is always validated. There is none without identities, and with `learns: text`."""
    keep: Literal["best", "last"] = "last"
    """Weights that the stage ends with: those of the last epoch, or those with the best validation mAP."""
    collapse: Collapse | None = Collapse()
    """Limits beyond which features count as collapsed; null never ends a run."""

    @property
    def trains_encoder(self) -> bool:
        return self.learns != "text"

    @property
    def validated_weights(self) -> Literal["best", "last"] | None:
        return None if self.learns == "text" else self.keep

    @property
    def gives_towers(self) -> bool:
        return True

    @property
    def reads_identities(self) -> bool:
        sampler = self.sampler
        by_identity = isinstance(sampler, PkSampler) or (
            isinstance(sampler, BalancedSampler) and "subject" in sampler.by
        )
        return by_identity or any(term.reads_identities for term in self.terms)

    @property
    def compares_views(self) -> bool:
        """Whether a term needs two views of every photo."""
        return any(term.compares_views for term in self.terms)

    @property
    def image_text(self) -> ImageTextTerm | None:
        return next((term for term in self.terms if isinstance(term, ImageTextTerm)), None)

    @property
    def measurements(self) -> MeasurementsTerm | None:
        return next((term for term in self.terms if isinstance(term, MeasurementsTerm)), None)

    @model_validator(mode="after")
    def _makes_sense(self) -> "Pretrain":
        twice = [kind for kind, count in Counter(term.kind for term in self.terms).items() if count > 1]
        if twice:
            raise ValueError(f"terms has {twice[0]} more than once: keep one of them")
        return self

    @model_validator(mode="after")
    def _towers_and_terms_go_together(self) -> "Pretrain":
        if self.learns == "text" and self.keep == "best":
            raise ValueError("learns is 'text', so no epoch changes the identification that keep: best chooses by")
        without_text = [term.kind for term in self.terms if not isinstance(term, ImageTextTerm)]
        if self.learns == "text" and without_text:
            raise ValueError(f"learns is 'text', but {without_text[0]} trains the image tower: use image or both")
        if self.learns != "image" and self.image_text is None:
            raise ValueError(f"learns is {self.learns!r}, but no term reads captions: add {{kind: image_text}}")
        identities = any(term.reads_identities for term in self.terms)
        if isinstance(self.sampler, PkSampler) and not identities:
            raise ValueError("sampler pk draws by identity, but no term reads identities: use sampler: {kind: random}")
        if any(term.compares_photos for term in self.terms) and not isinstance(self.sampler, PkSampler):
            raise ValueError(
                f"supcon with labels: identity compares photos of one identity within a batch, but sampler "
                f"{self.sampler.kind!r} rarely puts two in one: use sampler: {{kind: pk}}, or labels: photo"
            )
        return self

    @model_validator(mode="after")
    def _views_keep_the_hand(self) -> "Pretrain":
        if self.chirality == "flip" and self.image_text:
            raise ValueError(
                "chirality 'flip' mirrors a right hand into a left one, but its caption would still say right: "
                "remove chirality, or image_text"
            )
        if self.compares_views and not self.augment:
            raise ValueError("augment is empty, so both views of a photo would be the same: add augmentations")
        share = 1.0
        for step in self.augment:
            if isinstance(step, Crop):
                share /= step.enlarge**2
            elif isinstance(step, Affine):
                share /= max(1.0, step.zoom[1] if isinstance(step.zoom, tuple) else 1 + step.zoom) ** 2
            elif isinstance(step, RandomErasing):
                share *= 1 - step.area[1]
        if share < SMALLEST_VIEW:
            raise ValueError(
                f"augment may leave {share:.0%} of a photo in a view, so little that two views may show different "
                f"parts of a hand, or none: lower crop.enlarge, affine.zoom or random_erasing.area, until "
                f"{SMALLEST_VIEW:.0%} or more is left"
            )
        return self
