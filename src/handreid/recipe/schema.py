"""The values a recipe is made of. Every field is checked when the recipe is read; an unknown key is an error.

* Lengths of time are in epochs, sizes in pixels (height, width), learning rates per step of the optimizer.
* A union is told apart by `kind:`; adding a strategy means one model here, one builder in training/build.py.
* Defaults are those of the published fine-tuned CLIP baseline for hands, where it has one.
* The text below a field is its meaning in docs/recipes.md.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(gt=0, lt=1)]
Size = int | tuple[int, int]
FeatureName = Literal["joint", "pooled", "penultimate"]


class Value(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)


class Data(Value):
    """Which photos, who trains, validates and tests, and what counts as one identity."""

    manifest: Path | None = None
    """The photos; usually given as `--data`."""
    protocol: Literal["auto", "hands11k", "hd", "disjoint", "prepared"] = "auto"
    """Who trains and who is tested, see [data.md](data.md#protocols). `auto`: the data set's own, else the split that
    the manifest gives, else `disjoint`."""
    aspect: Literal["all", "dorsal-right", "dorsal-left", "palmar-right", "palmar-left"] = "all"
    """Train and search with photos of this view; the gallery keeps all views."""
    label: Literal["auto", "subject", "hand", "aspect"] = "auto"
    """What an identity is: a person, a person's left or right hand, or one view of it. `auto`: the finest of these that
    the manifest knows of every photo."""
    validation: Literal["held-back", "closed-set"] = "held-back"
    """What selects the model: training subjects held back, or one photo of each training identity (the papers')."""
    validation_share: Share = 0.2
    """Share of the training subjects held back."""
    test_share: Share = 0.5
    """Share of the subjects tested; protocol `disjoint` only."""
    seed: int = 0
    """Decides the split, the draws, and who is held back."""
    cache: Literal["auto", "memory", "disk"] = "auto"
    """Where decoded photos are kept; `auto` is memory up to 2 GiB, then disk."""


class Backbone(Value):
    """A CLIP image tower: by open_clip's name, by our name `handreid-tiny`, or by a config of its own."""

    name: str = "ViT-B-16-quickgelu"
    """A model of open_clip with a ViT or ResNet tower of its own, or `handreid-tiny`."""
    weights: str = "openai"
    """A pretrained tag of open_clip, a file (open_clip, OpenAI or safetensors), or `none` for random weights."""
    towers: Literal["both", "image"] = "both"
    """`image` for a file that holds the image tower alone; the text tower is then random."""
    image_size: Size | None = None
    """Input side, or height and width, a multiple of the patch; null is the size the weights were made for."""
    config: dict[str, object] | Path | None = None
    """Towers of one's own: open_clip's `embed_dim`, `vision_cfg` and `text_cfg`, here or in a JSON file."""

    @model_validator(mode="after")
    def _sizes_are_positive(self) -> "Backbone":
        sizes = (self.image_size,) if isinstance(self.image_size, int) else self.image_size or ()
        if any(size < 16 for size in sizes):
            raise ValueError(f"image_size {self.image_size} is under 16 pixels")
        return self


class Preprocess(Value):
    """How a photo becomes the tower's input. Stored with the model, so that training and test cannot differ."""

    normalise: Literal["clip", "imagenet", "half"] = "clip"
    """Mean and standard deviation of the channels: CLIP's, ImageNet's, or 0.5 and 0.5."""
    resize: Literal["squash", "crop", "pad"] = "squash"
    """What happens to a photo that is not of the input's shape; `crop` is at its centre, `pad` is with white."""
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    """How pixels are resized."""


class PlainHead(Value):
    """Features as the backbone gives them; the objectives' classifiers sit directly on them."""

    kind: Literal["linear"] = "linear"


class Bnneck(Value):
    """A batch normalisation without bias between feature and classifier (Luo et al. 2019, BNNeck)."""

    kind: Literal["bnneck"] = "bnneck"


class TestFeature(Value):
    """What is compared at test time: which features, before or after the head's neck; concatenated, then L2."""

    features: tuple[FeatureName, ...] = ("pooled", "joint")
    """Which features make the embedding, in this order."""
    neck: Literal["before", "after"] = "after"
    """Taken before or after the head's neck."""

    @model_validator(mode="after")
    def _some_feature(self) -> "TestFeature":
        if not self.features or len(set(self.features)) != len(self.features):
            raise ValueError(f"features {list(self.features)} must name at least one feature, each once")
        return self


class Model(Value):
    """From photo to embedding; what is saved in model.safetensors."""

    backbone: Backbone = Backbone()
    """The image tower."""
    preprocess: Preprocess = Preprocess()
    """From photo to input."""
    head: Annotated[PlainHead | Bnneck, Field(discriminator="kind")] = Bnneck()
    """What stands between features and classifiers."""
    test_feature: TestFeature = TestFeature()
    """What is compared."""


class ConstantSchedule(Value):
    """`lr` throughout, after the warm-up."""

    kind: Literal["constant"] = "constant"
    warmup_epochs: float = Field(0, ge=0)
    """Epochs over which the rate climbs in a line."""
    warmup_factor: float = Field(0.01, gt=0, le=1)
    """Share of the rate that warm-up begins with."""


class CosineSchedule(Value):
    """After the warm-up half a cosine down to `final_factor` at the stage's end."""

    kind: Literal["cosine"] = "cosine"
    warmup_epochs: float = Field(0, ge=0)
    """Epochs over which the rate climbs in a line."""
    warmup_factor: float = Field(0.01, gt=0, le=1)
    """Share of the rate that warm-up begins with."""
    final_factor: float = Field(0.0, ge=0, le=1)
    """Share of the rate that is left at the end."""


class MultistepSchedule(Value):
    """The rate is multiplied by `gamma` at each milestone."""

    kind: Literal["multistep"] = "multistep"
    warmup_epochs: float = Field(0, ge=0)
    """Epochs over which the rate climbs in a line."""
    warmup_factor: float = Field(0.01, gt=0, le=1)
    """Share of the rate that warm-up begins with."""
    milestones: tuple[float, ...]
    """Epochs, counted from the stage's beginning."""
    gamma: float = Field(0.1, gt=0, lt=1)
    """What the rate is multiplied by."""


class OneCycleSchedule(Value):
    """Up to `lr` over `warmup_epochs`, then down by a cosine (Smith and Topin 2018, without the momentum cycle)."""

    kind: Literal["one_cycle"] = "one_cycle"
    warmup_epochs: float = Field(gt=0)
    """Epochs over which the rate climbs by half a cosine."""
    warmup_factor: float = Field(0.04, gt=0, le=1)
    """Share of the rate that warm-up begins with."""
    final_factor: float = Field(1e-4, ge=0, le=1)
    """Share of the rate that is left at the end."""


Schedule = Annotated[
    ConstantSchedule | CosineSchedule | MultistepSchedule | OneCycleSchedule, Field(discriminator="kind")
]


class Optimizer(Value):
    """`lr` is the encoder's; new layers (necks, classifiers) take `lr * new_layers`. Biases and norms do not decay."""

    kind: Literal["adam", "adamw", "sgd"] = "adam"
    """The rule of the step."""
    lr: float = Field(5e-6, gt=0)
    """Learning rate of the encoder."""
    new_layers: float = Field(10.0, gt=0)
    """What the rate of new layers is multiplied by."""
    weight_decay: float = Field(5e-4, ge=0)
    """Weight decay of matrices; vectors (biases, norms, the class token) have none."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """`sgd` only."""
    schedule: Schedule = MultistepSchedule(warmup_epochs=10, milestones=(40, 60), gamma=0.5)
    """How the rate changes; stated in epochs, stepped per batch."""


class CrossEntropy(Value):
    """Identity classification, summed over one classifier per named feature."""

    kind: Literal["cross_entropy"] = "cross_entropy"
    weight: float = Field(1.0, gt=0)
    """What this term is multiplied by in the loss."""
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    """Share of the target that is spread over all identities."""
    features: tuple[FeatureName, ...] = ("pooled", "joint")
    """Features that get a classifier, behind the head's neck."""


class Crop(Value):
    """Photo enlarged by `enlarge`, then a random window of the input's size (the papers' 256 -> 224 is 8/7)."""

    kind: Literal["crop"] = "crop"
    enlarge: float = Field(8 / 7, ge=1, le=2)
    """How much larger than the input the photo is before the window is cut."""


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
    zoom: float = Field(0.1, ge=0, lt=1)
    """Largest zoom, in or out."""


class ColourJitter(Value):
    """Brightness, contrast, saturation and hue drawn anew for every photo, as torchvision's `ColorJitter`."""

    kind: Literal["colour_jitter"] = "colour_jitter"
    brightness: float = Field(0.2, ge=0)
    """Factor drawn from 1 - this to 1 + this."""
    contrast: float = Field(0.15, ge=0)
    """Factor drawn from 1 - this to 1 + this."""
    saturation: float = Field(0.1, ge=0)
    """Factor drawn from 1 - this to 1 + this."""
    hue: float = Field(0.0, ge=0, le=0.5)
    """Largest turn of the colour circle, either way."""


class RandomErasing(Value):
    """A random rectangle becomes the mean colour (Zhong et al. 2020)."""

    kind: Literal["random_erasing"] = "random_erasing"
    probability: float = Field(0.5, gt=0, le=1)
    """Share of the photos that lose a rectangle."""
    area: tuple[float, float] = (0.02, 0.33)
    """Smallest and largest rectangle, as shares of the photo."""


Augmentation = Annotated[Crop | Padding | Affine | ColourJitter | RandomErasing, Field(discriminator="kind")]


class EarlyStopping(Value):
    """Ends a stage that has stopped getting better."""

    patience: int = Field(10, ge=1)
    """Validations in a row without a better mAP."""


class FineTune(Value):
    """The encoder learns; the text encoder stays out of it."""

    kind: Literal["fine_tune"] = "fine_tune"
    epochs: int = Field(70, ge=1)
    """How often every training photo is seen."""
    batch_size: int = Field(20, ge=2)
    """Most photos in a batch; sizes within an epoch differ by one at most."""
    accumulate: int = Field(1, ge=1)
    """Batches whose gradients make one step."""
    optimizer: Optimizer = Optimizer()
    """How fast what learns."""
    objectives: tuple[CrossEntropy, ...] = (CrossEntropy(),)
    """Terms of the loss."""
    augment: tuple[Augmentation, ...] = (Crop(),)
    """What is done to a training photo, in this order."""
    chirality: Literal["none", "flip"] = "none"
    """A mirrored right hand is a left hand. `none` never flips. `flip` mirrors half of the photos and keeps the label,
    so that a hand and its mirror image become one identity: what the papers do, silently."""
    freeze_blocks: int = Field(0, ge=0)
    """The stem and this many first blocks keep their weights; 0 freezes nothing."""
    clip_gradients: float | None = Field(None, gt=0)
    """Largest norm of the gradient over all parameters."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Of the autocast; weights are always fp32. `auto` is bf16 on GPUs that have it, else fp32."""
    validate_every: int = Field(1, ge=1)
    """Epochs between validations; the last epoch is always validated."""
    keep: Literal["best", "last"] = "best"
    """Which weights the stage ends with: best validation mAP, or the last epoch's."""
    early_stopping: EarlyStopping | None = None
    """When to end before `epochs`; null is never."""

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
    """Handcrafted sentences for zero-shot aspect classification; `{aspect}`, `{surface}` and `{side}` are filled in."""

    templates: tuple[str, ...] = (
        "A photo of a {aspect} {side} hand of a person.",
        "A photo of the {surface} of a {side} hand.",
        "The {surface} of a person's {side} hand on a table.",
        "A close photo of a {side} human hand, {aspect} view.",
    )
    """Each with `{side}`, and `{aspect}` (dorsal, palmar) or `{surface}` (back, palm); also scored averaged."""

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
    """How a run is scored."""

    draws: int = Field(10, ge=1)
    """Galleries drawn; the scores are means over them."""
    mirrored: bool = False
    """Flip test-time augmentation: the features of photo and mirrored photo, summed."""
    prompts: Prompts | None = None
    """Zero-shot aspect classification by the text tower; `{}` for the built-in sentences, null for none."""
    resamples: int = Field(10_000, ge=100)
    """Resamples of the subjects behind each interval."""
    batch_size: int = Field(64, ge=1)
    """Photos embedded at a time; changes memory, not scores."""


class Recipe(Value):
    """A complete experiment."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Letters, digits, dot, dash, underscore; the run's folder in a ladder."""
    about: str = ""
    """One line for `handreid recipes`."""
    seed: int = 0
    """Decides new layers, random towers, batches and augmentation."""
    data: Data = Data()
    """Who trains and who is tested."""
    model: Model = Model()
    """What is trained."""
    stages: tuple[FineTune, ...] = ()
    """What is done to it, one after another; none is zero-shot."""
    evaluate: Evaluate = Evaluate()
    """How it is scored."""
