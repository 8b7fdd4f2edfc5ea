"""The model: from photo to embedding."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from handreid.recipe.base import FeatureName, Inference, Neck, Share, Size, Value
from handreid.recipe.preprocess import Preprocess


class VisualPrompts(Value):
    """Learned tokens between a ViT's class token and its patches (Jia et al. 2022); saved as part of the model."""

    tokens: int = Field(5, ge=1)
    """Number of prompts."""
    depth: Literal["shallow", "deep"] = "shallow"
    """`shallow` prompts are inserted once, before the first block; with `deep`, each block has its own instead of those
    of the block before."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the prompts' values that are set to zero in a training step."""


class Backbone(Value):
    """A CLIP image tower: by open_clip's name, by `handreid-tiny` or `handreid-small`, or by your own config."""

    name: str = "ViT-B-16-quickgelu"
    """A model of open_clip with a native ViT or ResNet tower; `handreid-tiny`, a ViT; or `handreid-small`, a ResNet."""
    weights: str = "openai"
    """A pretrained tag of open_clip, or for `handreid-small` the [weights in this
    package](pretraining.md#the-embedded-weights), `handreid`; a file (open_clip, OpenAI or safetensors); the folder of
    a run that has [pre-trained](pretraining.md) (for both its towers); or `none` for random weights."""
    towers: Literal["both", "image"] = "both"
    """`image` for a file that holds only the image tower; the text tower is then random."""
    image_size: Size | None = None
    """Side of the input in pixels, or height and width; a multiple of the patch (16 for a ResNet) unless `stride` is
    set; null is the size that the weights were trained at."""
    stride: int | None = Field(None, ge=1)
    """Pixels from one patch of a ViT to the next; if less than the patch's side, patches overlap. null is the patch's
    side."""
    visual_prompts: VisualPrompts | None = None
    """Learned tokens in addition to the tower's own; null is none."""
    config: dict[str, object] | Path | None = None
    """Your own towers: open_clip's `embed_dim`, `vision_cfg` and `text_cfg`, here or in a JSON file."""

    @model_validator(mode="after")
    def _sizes_are_positive(self) -> "Backbone":
        sizes = (self.image_size,) if isinstance(self.image_size, int) else self.image_size or ()
        if any(size < 16 for size in sizes):
            raise ValueError(f"image_size {self.image_size} is under 16 pixels")
        return self


class HeadValue(Value):
    """What all heads have."""

    @property
    def makes_parts(self) -> bool:
        """Whether the head makes features of its own from the patch grid."""
        return False

    @property
    def makes_texts(self) -> bool:
        """Whether the head composes a sentence for every photo."""
        return False

    @property
    def keeps_prototypes(self) -> bool:
        """Whether the head stores means of the training identities' features."""
        return False


class PartsValue(HeadValue):
    """A head that makes features of its own of the patch grid."""

    @property
    def makes_parts(self) -> bool:
        return True


class PlainHead(HeadValue):
    """The backbone's features, unchanged; the objectives' classifiers read them directly."""

    kind: Literal["linear"] = "linear"


class Bnneck(HeadValue):
    """A batch normalisation without bias between feature and classifier (Luo et al. 2019); the paper compares features
    after it.
    """

    kind: Literal["bnneck"] = "bnneck"


class Mlp(HeadValue):
    """A projection of two layers, then a batch normalisation, on each feature that is read behind the neck.

    SimCLR (Chen et al. 2020) and SupCon (Khosla et al. 2020) train with it and compare features before it.
    """

    kind: Literal["mlp"] = "mlp"
    hidden: int = Field(512, ge=1)
    """Width of the hidden layer."""
    width: int = Field(256, ge=2)
    """Width of the projected feature."""


class Pcb(PartsValue):
    """Horizontal stripes of the patch grid, each a feature with a classifier, beside BNNecks.

    Sun et al. 2018, who compare all stripes concatenated, before the neck. Parts: `stripe_1` at the top, `stripe_2` ...
    """

    kind: Literal["pcb"] = "pcb"
    stripes: int = Field(6, ge=2)
    """Number of stripes from top to bottom, at most the number of rows of the grid; if the rows do not divide evenly,
    neighbouring stripes share a row."""
    width: int = Field(256, ge=2)
    """Width that each stripe is reduced to."""


class Mgn(PartsValue):
    """Maxima of the whole patch grid, its halves and its thirds, each a feature, beside BNNecks.

    Wang et al. 2018, on one shared tower; they compare all eight concatenated, before the neck. Parts: `global_1`;
    `global_2`, `half_1`, `half_2`; `global_3`, `third_1`, `third_2`, `third_3`.
    """

    kind: Literal["mgn"] = "mgn"
    width: int = Field(256, ge=2)
    """Width that each part is reduced to."""


class Gem(PartsValue):
    """Generalised-mean pooling of the patch grid (Radenovic et al. 2018), beside BNNecks; one part, `gem`."""

    kind: Literal["gem"] = "gem"
    power: float = Field(3.0, ge=1, allow_inf_nan=False)
    """Initial value of the learned power; 1 is the mean, larger values are closer to the maximum."""


class AttentionPooling(PartsValue):
    """A learned query attends to the patch grid of its photo, beside BNNecks; one part, `attention`."""

    kind: Literal["attention"] = "attention"
    heads: int = Field(4, ge=1)
    """Number of attention heads; a divisor of the width of the tower's patches."""


CONTEXT = "{context}"


class SentenceValue(PartsValue):
    """A head that composes a sentence for every photo, and looks at the photo with its feature."""

    template: str = "A photo of a {context} hand."
    """The sentence; `{context}` is where the pseudo-words go."""
    inference: Inference = "composed"
    """The sentence used at test: the photo's own, or one for all photos, whose feature is cached. Evaluations report
    both."""
    fixed: str = "A photo of a hand."
    """The sentence for all photos."""
    heads: int = Field(8, ge=1)
    """Number of heads of every attention; a divisor of the joint width."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout after attention and MLP in training."""
    hidden: int = Field(512, ge=1)
    """Width of the inversion network's hidden layers."""

    @property
    def makes_texts(self) -> bool:
        return True

    @property
    def sentences(self) -> tuple[str, str]:
        """The words of both sentences."""
        return self.template.replace(CONTEXT, " "), self.fixed

    @model_validator(mode="after")
    def _sentences_have_their_places(self) -> "SentenceValue":
        if self.template.count(CONTEXT) != 1:
            raise ValueError(f"template {self.template!r} must contain {CONTEXT} once, the place of the pseudo-words")
        if CONTEXT in self.fixed:
            raise ValueError(f"fixed {self.fixed!r} is one sentence for all photos: remove {CONTEXT}")
        return self


class PromptSg(SentenceValue):
    """Pseudo-words are computed from a photo's joint feature; the text feature of their sentence attends to the photo's
    tokens (Yang et al. 2024). BNNecks on all features; one part, `semantic`. Needs a text tower: see
    [PromptSG](promptsg.md).
    """

    kind: Literal["promptsg"] = "promptsg"


class PromptSgGraph(SentenceValue):
    """PromptSG with pseudo-words from a graph of prototypes: ours, not in the paper. See [PromptSG](promptsg.md)."""

    kind: Literal["promptsg_graph"] = "promptsg_graph"
    tokens: int = Field(4, ge=1)
    """Pseudo-words in the sentence."""
    edges: Literal["none", "identity", "attributes"] = "attributes"
    """`none`: no graph; `identity`: identities only; `attributes`: also attributes from the manifest."""
    neighbours: int = Field(5, ge=1)
    """Number of identities that a node is joined to."""
    layers: int = Field(2, ge=1, le=2)
    """Message passing steps: 1 from a photo's neighbours, 2 also from their neighbours."""
    temperature: float = Field(0.1, gt=0)
    """Divisor of the cosines before the softmax over a node's neighbours."""
    decay: Share = 0.8
    """Share of an identity's prototype that is kept when a batch has photos of it."""
    phrases: dict[str, str] = Field(
        {
            "aspect": "a photo of a {value} hand",
            "side": "a photo of a {value} hand",
            "skin": "a photo of a hand with {value} skin",
            "nails": "a photo of a hand with {value} nails",
            "nail_polish": "a photo of a hand with {value} nails",
            "gender": "a photo of the hand of a {value} person",
            "age": "a photo of the hand of a {value} person",
        }
    )
    """Columns of the manifest that give attributes, and a phrase for each; missing columns are ignored."""

    @property
    def keeps_prototypes(self) -> bool:
        return self.edges != "none"

    @model_validator(mode="after")
    def _phrases_have_their_places(self) -> "PromptSgGraph":
        for column, phrase in self.phrases.items():
            if phrase.count("{value}") != 1:
                raise ValueError(f"phrases.{column} {phrase!r} must contain {{value}} once")
        return self


class TestFeature(Value):
    """What is compared at test time: features, before or after the head's neck, concatenated and scaled to unit length.

    The papers: BNNeck (Luo et al.) `[pooled]` after; CLIP-ReID `[pooled, joint]` before; PCB and MGN `[parts]` before;
    the hands' CLIP baseline `[pooled, joint]` after, which is the default.
    """

    features: tuple[FeatureName, ...] = ("pooled", "joint")
    """Features of the embedding, in this order; `parts` are all features that the head computes from the patch grid."""
    neck: Neck = "after"
    """Whether features are taken before or after the head's neck."""

    @model_validator(mode="after")
    def _some_feature(self) -> "TestFeature":
        if not self.features or len(set(self.features)) != len(self.features):
            raise ValueError(f"features {list(self.features)} must name at least one feature, each once")
        return self


_NAMES_SOMEONE = ("path", "subject", "split", "draw", "caption", "origin", "perturbed_from")


class SideInformation(Value):
    """Manifest columns about how a photo was taken, as a learned vector in the tower (TransReID, CLIP-ReID)."""

    columns: tuple[str, ...] = Field(("camera",), min_length=1)
    """Columns of the manifest; every combination of their values in the training photos has its own vector."""
    strength: float = Field(3.0, gt=0)
    """Factor of the vector; CLIP-ReID uses 3."""

    @model_validator(mode="after")
    def _says_nothing_of_who_it_is(self) -> "SideInformation":
        telling = [name for name in self.columns if name in _NAMES_SOMEONE]
        if telling:
            raise ValueError(
                f"columns {', '.join(telling)} would reveal who is on a photo, or its split: "
                "use columns about how it was taken, such as camera"
            )
        if len(set(self.columns)) != len(self.columns):
            raise ValueError(f"columns {list(self.columns)} must not repeat a name")
        return self


class Model(Value):
    """From photo to embedding; saved in model.safetensors."""

    backbone: Backbone = Backbone()
    """The image tower."""
    side_information: SideInformation | None = None
    """Manifest columns that the embedder reads in addition to the pixels; null is none."""
    preprocess: Preprocess = Preprocess()
    """How a photo becomes the tower's input."""
    head: Annotated[
        PlainHead | Bnneck | Mlp | Pcb | Mgn | Gem | AttentionPooling | PromptSg | PromptSgGraph,
        Field(discriminator="kind"),
    ] = Bnneck()
    """Layers between the backbone's features and the classifiers."""
    test_feature: TestFeature = TestFeature()
    """The features that are compared at test."""
