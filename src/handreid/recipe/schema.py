"""The values a recipe is made of. Every field is checked when the recipe is read; an unknown key is an error.

* Lengths of time are in epochs, sizes in pixels (height, width), learning rates per step of the optimizer.
* A union is told apart by `kind:`; adding a strategy means one model here, one builder in training/build.py.
* Defaults are those of the published fine-tuned CLIP baseline for hands, where it has one.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(gt=0, lt=1)]
Size = int | tuple[int, int]
FeatureName = Literal["joint", "pooled", "penultimate"]


class Value(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Data(Value):
    """Which photos, who trains, validates and tests, and what counts as one identity."""

    manifest: Path | None = None  # usually given as --data
    protocol: Literal["hands11k", "hd", "disjoint", "prepared"] = "disjoint"
    aspect: Literal["all", "dorsal-right", "dorsal-left", "palmar-right", "palmar-left"] = "all"
    label: Literal["subject", "hand", "aspect"] = "aspect"
    validation: Literal["held-back", "closed-set"] = "held-back"
    validation_share: Share = 0.2
    test_share: Share = 0.5
    seed: int = 0
    cache: Literal["auto", "memory", "disk"] = "auto"


class Backbone(Value):
    """A CLIP image tower: by open_clip's name, by our name `handreid-tiny`, or by a config of its own."""

    name: str = "ViT-B-16-quickgelu"
    weights: str = "openai"  # a pretrained tag, a file, or "none"
    towers: Literal["both", "image"] = "both"
    image_size: Size | None = None  # None: the size the model was made for
    config: dict[str, object] | Path | None = None  # open_clip's embed_dim, vision_cfg, text_cfg

    @model_validator(mode="after")
    def _sizes_are_positive(self) -> "Backbone":
        sizes = (self.image_size,) if isinstance(self.image_size, int) else self.image_size or ()
        if any(size < 16 for size in sizes):
            raise ValueError(f"image_size {self.image_size} is under 16 pixels")
        return self


class Preprocess(Value):
    """How a photo becomes the tower's input. Stored with the model, so that training and test cannot differ."""

    normalise: Literal["clip", "imagenet", "half"] = "clip"
    resize: Literal["squash", "crop", "pad"] = "squash"  # of photos that are not of the input's shape
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"


class PlainHead(Value):
    """Features as the backbone gives them; the objectives' classifiers sit directly on them."""

    kind: Literal["linear"] = "linear"


class Bnneck(Value):
    """A batch normalisation without bias between feature and classifier (Luo et al. 2019, BNNeck)."""

    kind: Literal["bnneck"] = "bnneck"


class TestFeature(Value):
    """What is compared at test time: which features, before or after the head's neck; concatenated, then L2."""

    features: tuple[FeatureName, ...] = ("pooled", "joint")
    neck: Literal["before", "after"] = "after"

    @model_validator(mode="after")
    def _some_feature(self) -> "TestFeature":
        if not self.features or len(set(self.features)) != len(self.features):
            raise ValueError(f"features {list(self.features)} must name at least one feature, each once")
        return self


class Model(Value):
    backbone: Backbone = Backbone()
    preprocess: Preprocess = Preprocess()
    head: Annotated[PlainHead | Bnneck, Field(discriminator="kind")] = Bnneck()
    test_feature: TestFeature = TestFeature()


class ConstantSchedule(Value):
    kind: Literal["constant"] = "constant"
    warmup_epochs: float = Field(0, ge=0)
    warmup_factor: float = Field(0.01, gt=0, le=1)


class CosineSchedule(Value):
    kind: Literal["cosine"] = "cosine"
    warmup_epochs: float = Field(0, ge=0)
    warmup_factor: float = Field(0.01, gt=0, le=1)
    final_factor: float = Field(0.0, ge=0, le=1)


class MultistepSchedule(Value):
    kind: Literal["multistep"] = "multistep"
    warmup_epochs: float = Field(0, ge=0)
    warmup_factor: float = Field(0.01, gt=0, le=1)
    milestones: tuple[float, ...]
    gamma: float = Field(0.1, gt=0, lt=1)


class OneCycleSchedule(Value):
    """Up to `lr` over `warmup_epochs`, then down by a cosine (Smith and Topin 2018, without the momentum cycle)."""

    kind: Literal["one_cycle"] = "one_cycle"
    warmup_epochs: float = Field(gt=0)
    warmup_factor: float = Field(0.04, gt=0, le=1)
    final_factor: float = Field(1e-4, ge=0, le=1)


Schedule = Annotated[
    ConstantSchedule | CosineSchedule | MultistepSchedule | OneCycleSchedule, Field(discriminator="kind")
]


class Optimizer(Value):
    """`lr` is the encoder's; new layers (necks, classifiers) take `lr * new_layers`. Biases and norms do not decay."""

    kind: Literal["adam", "adamw", "sgd"] = "adam"
    lr: float = Field(5e-6, gt=0)
    new_layers: float = Field(10.0, gt=0)
    weight_decay: float = Field(5e-4, ge=0)
    momentum: float = Field(0.9, ge=0, lt=1)  # sgd only
    schedule: Schedule = MultistepSchedule(warmup_epochs=10, milestones=(40, 60), gamma=0.5)


class CrossEntropy(Value):
    """Identity classification, summed over one classifier per named feature."""

    kind: Literal["cross_entropy"] = "cross_entropy"
    weight: float = Field(1.0, gt=0)
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    features: tuple[FeatureName, ...] = ("pooled", "joint")


class Crop(Value):
    """Photo enlarged by `enlarge`, then a random window of the input's size (the papers' 256 -> 224 is 8/7)."""

    kind: Literal["crop"] = "crop"
    enlarge: float = Field(8 / 7, ge=1, le=2)


class Padding(Value):
    """`pixels` of background on every side, then a random window of the input's size."""

    kind: Literal["padding"] = "padding"
    pixels: int = Field(10, ge=1)


class Affine(Value):
    """Rotation by up to `degrees`, zoom and shift as shares of the size."""

    kind: Literal["affine"] = "affine"
    degrees: float = Field(10, ge=0, le=180)
    translate: float = Field(0.05, ge=0, le=0.5)
    zoom: float = Field(0.1, ge=0, lt=1)


class ColourJitter(Value):
    kind: Literal["colour_jitter"] = "colour_jitter"
    brightness: float = Field(0.2, ge=0)
    contrast: float = Field(0.15, ge=0)
    saturation: float = Field(0.1, ge=0)
    hue: float = Field(0.0, ge=0, le=0.5)


class RandomErasing(Value):
    """A random rectangle becomes the mean colour (Zhong et al. 2020)."""

    kind: Literal["random_erasing"] = "random_erasing"
    probability: float = Field(0.5, gt=0, le=1)
    area: tuple[float, float] = (0.02, 0.33)


Augmentation = Annotated[Crop | Padding | Affine | ColourJitter | RandomErasing, Field(discriminator="kind")]


class EarlyStopping(Value):
    patience: int = Field(10, ge=1)  # validations without a better value


class FineTune(Value):
    """The encoder learns; the text encoder stays out of it."""

    kind: Literal["fine_tune"] = "fine_tune"
    epochs: int = Field(70, ge=1)
    batch_size: int = Field(20, ge=2)
    accumulate: int = Field(1, ge=1)
    optimizer: Optimizer = Optimizer()
    objectives: tuple[CrossEntropy, ...] = (CrossEntropy(),)
    augment: tuple[Augmentation, ...] = (Crop(),)
    # A flipped right hand is a left hand. `none`: never flip. `flip`: flip half of the photos and keep the label, so
    # that a hand and its mirror image become one identity: what the papers do, silently.
    chirality: Literal["none", "flip"] = "none"
    freeze_blocks: int = Field(0, ge=0)  # the stem and the first n blocks keep their weights
    clip_gradients: float | None = Field(None, gt=0)  # norm over all parameters
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"  # autocast only: the weights are always fp32
    validate_every: int = Field(1, ge=1)
    keep: Literal["best", "last"] = "best"  # by validation mAP
    early_stopping: EarlyStopping | None = None

    @model_validator(mode="after")
    def _makes_sense(self) -> "FineTune":
        if not self.objectives:
            raise ValueError("objectives is empty: nothing would be learned")
        if self.optimizer.schedule.warmup_epochs > self.epochs:
            raise ValueError(
                f"warmup_epochs {self.optimizer.schedule.warmup_epochs:g} is longer than epochs {self.epochs}"
            )
        return self


class Prompts(Value):
    """Handcrafted sentences for zero-shot aspect classification; `{aspect}` and `{side}` are filled in."""

    templates: tuple[str, ...] = (
        "A photo of a {aspect} {side} hand of a person.",
        "A photo of the {surface} of a {side} hand.",
        "The {surface} of a person's {side} hand on a table.",
        "A close photo of a {side} human hand, {aspect} view.",
    )

    @model_validator(mode="after")
    def _templates_have_places(self) -> "Prompts":
        for template in self.templates:
            try:
                sides = {template.format(aspect=a, side=s, surface=a) for a in ("x", "y") for s in ("u", "v")}
            except (KeyError, IndexError, ValueError) as error:
                places = "{aspect}, {surface} and {side}"
                raise ValueError(f"template {template!r}: only {places} are filled in") from error
            if len(sides) < 4:
                raise ValueError(f"template {template!r} must use {{side}}, and {{aspect}} or {{surface}}")
        return self


class Evaluate(Value):
    draws: int = Field(10, ge=1)
    mirrored: bool = False  # flip test-time augmentation: the feature of photo + mirrored photo, summed
    prompts: Prompts | None = None
    resamples: int = Field(10_000, ge=100)
    batch_size: int = Field(64, ge=1)


class Recipe(Value):
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    about: str = ""
    seed: int = 0
    data: Data = Data()
    model: Model = Model()
    stages: tuple[FineTune, ...] = ()
    evaluate: Evaluate = Evaluate()
