"""The stage `fine_tune`, and its parts."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from handreid.recipe.augmentations import Augmentation, Crop, Mix
from handreid.recipe.base import Share, Value
from handreid.recipe.objectives import AnyTerm, CrossEntropy, TextTerm
from handreid.recipe.optimizer import Optimizer
from handreid.recipe.samplers import AnySampler, HardIdentitySampler, PkSampler, RandomSampler
from handreid.recipe.stage_base import StageValue


class EarlyStopping(Value):
    """Ends a stage that has stopped getting better."""

    patience: int = Field(10, ge=1)
    """Validations in a row without a better mAP."""


class Ema(Value):
    """An exponential moving average of the weights, stepped per batch; validated and kept in the place of the last."""

    kind: Literal["ema"] = "ema"
    decay: Share = 0.99
    """Share of the average that is left after a step."""


class Swa(Value):
    """The mean of the weights after each of the last epochs (Izmailov et al. 2018)."""

    kind: Literal["swa"] = "swa"
    start: Share = 0.75
    """Share of the epochs after which averaging begins."""


class WiseFt(Value):
    """The stage ends between the tower it began with and the one it trained (Wortsman et al. 2022)."""

    alphas: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field((0.2, 0.4, 0.6, 0.8, 1.0), min_length=1)
    """Shares of the trained weights that are tried, beside the trained model as it is; the best by validation mAP is
    taken, of equals the largest, and the curve printed."""


class Lora(Value):
    """Low-rank changes to frozen matrices of the encoder (Hu et al. 2022), merged when the model is saved."""

    rank: int = Field(8, ge=1)
    """Rank of each change."""
    alpha: float = Field(16.0, gt=0)
    """The change is multiplied by alpha / rank."""
    layers: tuple[Literal["attention", "mlp"], ...] = Field(("attention", "mlp"), min_length=1)
    """Which matrices are changed."""


class FineTune(StageValue):
    """The encoder learns; the text encoder stays out of it."""

    kind: Literal["fine_tune"] = "fine_tune"
    epochs: int = Field(70, ge=1)
    """How often every training photo is seen."""
    batch_size: int | None = Field(None, ge=2)
    """Most photos in a batch; sizes within an epoch differ by one at most. null is 20, or what the sampler's
    identities and images come to."""
    sampler: AnySampler = RandomSampler()
    """Which photos make a batch."""
    accumulate: int = Field(1, ge=1)
    """Batches whose gradients make one step."""
    optimizer: Optimizer = Optimizer()
    """How fast what learns."""
    objectives: tuple[AnyTerm, ...] = (CrossEntropy(),)
    """Terms of the loss."""
    augment: tuple[Augmentation, ...] = (Crop(),)
    """What is done to a training photo, in this order; erasing always last."""
    mix: Mix | None = None
    """Two photos of a batch into one, with soft targets; null is never."""
    chirality: Literal["none", "flip", "mirror_as_new_identity"] = "none"
    """A mirrored right hand is a left hand. `none` never flips. `flip` mirrors half of the photos and keeps the label,
    so that a hand and its mirror image become one identity: what the papers do, silently. `mirror_as_new_identity`
    trains on every photo and on its mirror image as another identity's: twice the identities."""
    lora: Lora | None = None
    """Low-rank changes in the place of the encoder's own weights; null trains those."""
    freeze_blocks: int = Field(0, ge=0)
    """The stem and this many first blocks keep their weights; 0 freezes nothing."""
    freeze_encoder: bool = False
    """The whole encoder keeps its weights and statistics; what was added to it (visual prompts, side information), head
    and terms learn."""
    unfreeze_every: float | None = Field(None, gt=0)
    """Gradual unfreezing (Howard and Ruder 2018): the encoder begins frozen, and from the last block to the stem one
    more learns after every so many epochs; null is all from the start."""
    clip_gradients: float | None = Field(None, gt=0)
    """Largest norm of the gradient over all parameters."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Of the autocast; weights are always fp32. `auto` is bf16 on GPUs that have it, else fp32; `fp16` needs a GPU.
    run.json and metrics.jsonl say what it was."""
    validate_every: int = Field(1, ge=1)
    """Epochs between validations; the last epoch is always validated."""
    averaging: Annotated[Ema | Swa, Field(discriminator="kind")] | None = None
    """Weights averaged over steps or epochs; null is the weights as they are."""
    wise_ft: WiseFt | None = None
    """Interpolation with the weights that the stage began with; null is the trained weights."""
    keep: Literal["best", "last"] = "best"
    """Which weights the stage ends with: best validation mAP, or the last epoch's."""
    early_stopping: EarlyStopping | None = None
    """When to end before `epochs`; null is never."""

    @property
    def photos_per_batch(self) -> int:
        """Most photos in a batch."""
        if isinstance(self.sampler, PkSampler | HardIdentitySampler):
            return self.sampler.identities * self.sampler.images
        return self.batch_size or 20

    @property
    def batches_per_step(self) -> int:
        return self.accumulate

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
    def terms(self) -> tuple[AnyTerm, ...]:
        return self.objectives

    @property
    def augmentations(self) -> tuple[Augmentation, ...]:
        return self.augment

    @model_validator(mode="after")
    def _makes_sense(self) -> "FineTune":
        if not self.objectives:
            raise ValueError("objectives is empty, so nothing would be learned")
        if self.optimizer.schedule.warmup_epochs > self.epochs:
            raise ValueError(
                f"warmup_epochs {self.optimizer.schedule.warmup_epochs:g} is longer than epochs {self.epochs}"
            )
        if self.batch_size not in (None, self.photos_per_batch):
            raise ValueError(
                f"batch_size {self.batch_size} is not the sampler's identities x images = {self.photos_per_batch}: "
                "leave it out"
            )
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
