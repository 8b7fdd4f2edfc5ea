"""The stage `fine_tune`, and its parts."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from handreid.recipe.augmentations import Augmentation, Crop, Mix
from handreid.recipe.base import Share, Value
from handreid.recipe.objectives import AnyTerm, CrossEntropy, TextTerm
from handreid.recipe.optimizer import Optimizer
from handreid.recipe.photo_stage import PhotoStage
from handreid.recipe.samplers import AnySampler, HardIdentitySampler, PkSampler, RandomSampler


class EarlyStopping(Value):
    """Stops a stage that does not improve any more."""

    patience: int = Field(10, ge=1)
    """Validations in a row without a better mAP."""


class Ema(Value):
    """An exponential moving average of the weights, updated per batch; validated and kept instead of the last."""

    kind: Literal["ema"] = "ema"
    decay: Share = 0.99
    """Share of the average that is kept after a step."""


class Swa(Value):
    """The mean of the weights after each of the last epochs (Izmailov et al. 2018)."""

    kind: Literal["swa"] = "swa"
    start: Share = 0.75
    """Share of the epochs after which averaging begins."""


class WiseFt(Value):
    """The stage ends with an interpolation between the tower it started from and the trained one (Wortsman et al.
    2022).
    """

    alphas: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field((0.2, 0.4, 0.6, 0.8, 1.0), min_length=1)
    """Shares of the trained weights that are tried, in addition to the trained model itself; the best by validation mAP
    is taken, among equals the largest, and the curve is printed."""


class Lora(Value):
    """LoRA adapters for frozen matrices of the encoder (Hu et al. 2022), merged when the model is saved."""

    rank: int = Field(8, ge=1)
    """Rank of each adapter."""
    alpha: float = Field(16.0, gt=0)
    """The adapter's output is multiplied by alpha / rank."""
    layers: tuple[Literal["attention", "mlp"], ...] = Field(("attention", "mlp"), min_length=1)
    """Which matrices get an adapter."""


class FineTune(PhotoStage):
    """The image encoder is trained; the text encoder is not used."""

    BATCH: ClassVar[int] = 20

    kind: Literal["fine_tune"] = "fine_tune"
    epochs: int = Field(70, ge=1)
    """How often every training photo is used."""
    batch_size: int | None = Field(None, ge=2)
    """Largest number of photos in a batch; sizes within an epoch differ by at most one. null is 20, or identities times
    images of the sampler."""
    sampler: AnySampler = RandomSampler()
    """Which photos make a batch."""
    accumulate: int = Field(1, ge=1)
    """Number of batches whose gradients are accumulated for one step."""
    optimizer: Optimizer = Optimizer()
    """Optimizer and learning rates."""
    objectives: tuple[AnyTerm, ...] = (CrossEntropy(),)
    """Terms of the loss."""
    augment: tuple[Augmentation, ...] = (Crop(),)
    """Augmentation of a training photo, in this order; erasing always last."""
    mix: Mix | None = None
    """Mixes two photos of a batch, with soft targets; null is never."""
    chirality: Literal["none", "flip", "mirror_as_new_identity"] = "none"
    """A mirrored right hand is a left hand. `none` never flips. `flip` mirrors half of the photos and keeps the label,
    so that a hand and its mirror image become one identity; the papers do this without saying so.
    `mirror_as_new_identity` also trains on the mirror image of every photo, as another identity: twice the
    identities."""
    lora: Lora | None = None
    """Trains LoRA adapters instead of the encoder's own weights; null trains the weights."""
    freeze_blocks: int = Field(0, ge=0)
    """The stem and this number of first blocks keep their weights; 0 freezes nothing."""
    freeze_encoder: bool = False
    """The whole encoder keeps its weights and statistics; what was added to it (visual prompts, side information), head
    and terms are trained."""
    unfreeze_every: float | None = Field(None, gt=0)
    """Gradual unfreezing (Howard and Ruder 2018): the encoder starts frozen, and one more block, from the last to the
    stem, is trained each time this number of epochs has passed; null trains all from the start."""
    clip_gradients: float | None = Field(None, gt=0)
    """Largest norm of the gradient over all parameters."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision of the autocast; weights are always fp32. `auto` is bf16 on GPUs that support it and on CPUs with
    AVX512-BF16 or AMX-BF16, else fp32; `fp16` needs a GPU. run.json and metrics.jsonl state what was used."""
    validate_every: int = Field(1, ge=1)
    """Epochs between validations; the last epoch is always validated."""
    averaging: Annotated[Ema | Swa, Field(discriminator="kind")] | None = None
    """Averages the weights over steps or epochs; null does not."""
    wise_ft: WiseFt | None = None
    """Interpolates with the weights that the stage started from; null uses the trained weights."""
    keep: Literal["best", "last"] = "best"
    """Weights that the stage ends with: those with the best validation mAP, or those of the last epoch."""
    early_stopping: EarlyStopping | None = None
    """When to stop before `epochs`; null is never."""

    @property
    def trains_encoder(self) -> bool:
        return True

    @property
    def validated_weights(self) -> Literal["best", "last"]:
        return self.keep

    @property
    def reads_texts(self) -> tuple[str, ...]:
        terms = enumerate(self.objectives)
        return tuple(f"objectives.{i} ({term.kind})" for i, term in terms if isinstance(term, TextTerm))

    @property
    def feature_terms(self) -> tuple[AnyTerm, ...]:
        return self.objectives

    @model_validator(mode="after")
    def _makes_sense(self) -> "FineTune":
        if not self.objectives:
            raise ValueError("objectives is empty, so nothing would be learned")
        if self.unfreeze_every and (self.freeze_blocks or self.lora):
            raise ValueError("unfreeze_every unfreezes the whole encoder block by block: remove freeze_blocks and lora")
        return self

    @model_validator(mode="after")
    def _frozen_is_frozen(self) -> "FineTune":
        moving = {
            "lora": self.lora,
            "freeze_blocks": self.freeze_blocks,
            "unfreeze_every": self.unfreeze_every,
            "wise_ft": self.wise_ft,
            "optimizer.layer_decay": self.optimizer.layer_decay != 1,
        }
        names = [name for name, value in moving.items() if value]
        if self.freeze_encoder and names:
            raise ValueError(f"freeze_encoder freezes the whole encoder: remove {' and '.join(names)}")
        return self

    @model_validator(mode="after")
    def _terms_get_what_they_need(self) -> "FineTune":
        for number, term in enumerate(self.objectives):
            if term.needs_pairs and not isinstance(self.sampler, PkSampler | HardIdentitySampler):
                raise ValueError(
                    f"objectives.{number} ({term.kind}) compares photos of one identity within a batch, but sampler "
                    f"{self.sampler.kind!r} rarely puts two in one: use sampler: {{kind: pk}}"
                )
            if self.mix and not term.takes_mixed_photos:
                raise ValueError(
                    f"objectives.{number} ({term.kind}) compares identities, but a photo mixed by {self.mix.kind} has "
                    "two: remove `mix`, or use terms that classify (cross_entropy, arcface, cosface) or center"
                )
            if isinstance(term, TextTerm) and self.chirality == "mirror_as_new_identity":
                raise ValueError(
                    f"objectives.{number} ({term.kind}) has no texts for the identities of mirrored photos: "
                    "remove chirality"
                )
        return self
