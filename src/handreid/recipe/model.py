"""The model: from photo to embedding."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from handreid.recipe.base import FeatureName, Inference, Neck, Share, Size, Value


class VisualPrompts(Value):
    """Learned tokens between a ViT's class token and its patches (Jia et al. 2022); saved as part of the model."""

    tokens: int = Field(5, ge=1)
    """How many."""
    depth: Literal["shallow", "deep"] = "shallow"
    """`shallow` goes in once, before the first block; with `deep` each block has its own in the place of the last
    one's."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the prompts' values that are zero at a step of training."""


class Backbone(Value):
    """A CLIP image tower: by open_clip's name, by our name `handreid-tiny`, or by a config of its own."""

    name: str = "ViT-B-16-quickgelu"
    """A model of open_clip with a ViT or ResNet tower of its own, or `handreid-tiny`."""
    weights: str = "openai"
    """A pretrained tag of open_clip, a file (open_clip, OpenAI or safetensors), or `none` for random weights."""
    towers: Literal["both", "image"] = "both"
    """`image` for a file that holds the image tower alone; the text tower is then random."""
    image_size: Size | None = None
    """Input side, or height and width, a multiple of the patch unless there is a `stride`; null is the size the weights
    were made for."""
    stride: int | None = Field(None, ge=1)
    """Pixels from one patch to the next, of a ViT; less than the patch makes them overlap. null is the patch's side."""
    visual_prompts: VisualPrompts | None = None
    """Learned tokens among the tower's own; null is none."""
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
    """Features as the backbone gives them; the objectives' classifiers sit directly on them."""

    kind: Literal["linear"] = "linear"


class Bnneck(HeadValue):
    """A batch normalisation without bias between feature and classifier (Luo et al. 2019); they compare after it."""

    kind: Literal["bnneck"] = "bnneck"


class Mlp(HeadValue):
    """A projection of two layers, then a batch normalisation, on each feature that is read behind the neck.

    SimCLR (Chen et al. 2020) and SupCon (Khosla et al. 2020) train with it and compare before it.
    """

    kind: Literal["mlp"] = "mlp"
    hidden: int = Field(512, ge=1)
    """Width of the hidden layer."""
    width: int = Field(256, ge=2)
    """Width of the projected feature."""


class Pcb(PartsValue):
    """Horizontal stripes of the patch grid, each a feature with a classifier, beside BNNecks.

    Sun et al. 2018; they compare all stripes concatenated, before the neck. Parts: `stripe_1` at the top and on.
    """

    kind: Literal["pcb"] = "pcb"
    stripes: int = Field(6, ge=2)
    """Stripes from top to bottom, no more than the grid has rows; where rows do not divide, neighbours share one."""
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
    """Where the learned power begins; 1 is the mean, and the more, the nearer to the maximum."""


class AttentionPooling(PartsValue):
    """A learned query attends to the patch grid of its photo, beside BNNecks; one part, `attention`."""

    kind: Literal["attention"] = "attention"
    heads: int = Field(4, ge=1)
    """Heads of the attention; a divisor of the width of the tower's patches."""


CONTEXT = "{context}"


class SentenceValue(PartsValue):
    """A head that composes a sentence for every photo, and looks at the photo with its feature."""

    template: str = "A photo of a {context} hand."
    """The sentence; `{context}` is where the pseudo-words go."""
    inference: Inference = "composed"
    """What the photo is looked at with at test: its own sentence, or one for all, whose feature is cached. Evaluations
    report both."""
    fixed: str = "A photo of a hand."
    """The sentence for all."""
    heads: int = Field(8, ge=1)
    """Heads of every attention; a divisor of the joint width."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of what attention and MLP give that is dropped in training."""
    hidden: int = Field(512, ge=1)
    """Width of the inversion network's hidden layers."""

    @property
    def makes_texts(self) -> bool:
        return True

    @model_validator(mode="after")
    def _sentences_have_their_places(self) -> "SentenceValue":
        if self.template.count(CONTEXT) != 1:
            raise ValueError(f"template {self.template!r} must contain {CONTEXT} once, the place of the pseudo-words")
        if CONTEXT in self.fixed:
            raise ValueError(f"fixed {self.fixed!r} is one sentence for all photos: remove {CONTEXT}")
        return self


class PromptSg(SentenceValue):
    """A photo's joint feature becomes a word of a sentence, whose feature attends to the photo's tokens (Yang et al.
    2024). BNNecks on everything; one part, `semantic`. Needs a text tower: see [PromptSG](promptsg.md).
    """

    kind: Literal["promptsg"] = "promptsg"


class PromptSgGraph(SentenceValue):
    """PromptSG with words from a graph of prototypes: ours, the paper has no graph. See [PromptSG](promptsg.md)."""

    kind: Literal["promptsg_graph"] = "promptsg_graph"
    tokens: int = Field(4, ge=1)
    """Pseudo-words in the sentence."""
    edges: Literal["none", "identity", "attributes"] = "attributes"
    """`none` is without the graph, `identity` with identities alone, `attributes` with those of the manifest too."""
    neighbours: int = Field(5, ge=1)
    """Identities that a node is joined to."""
    layers: int = Field(2, ge=1, le=2)
    """How far a photo hears: from its neighbours, or from theirs too."""
    temperature: float = Field(0.1, gt=0)
    """What cosines are divided by before the softmax over a node's neighbours."""
    decay: Share = 0.8
    """Share of an identity's prototype that is left when photos of it are in a batch."""
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
    """Columns of the manifest that give attributes, and a phrase for each; those that it lacks are ignored."""

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
    """What is compared at test time: features, before or after the head's neck, concatenated and made of unit length.

    The papers: BNNeck (Luo et al.) `[pooled]` after; CLIP-ReID `[pooled, joint]` before; PCB and MGN `[parts]` before;
    the hands' CLIP baseline `[pooled, joint]` after, which is the default.
    """

    features: tuple[FeatureName, ...] = ("pooled", "joint")
    """Which features make the embedding, in this order; `parts` is all that the head makes of the patch grid."""
    neck: Neck = "after"
    """Taken before or after the head's neck."""

    @model_validator(mode="after")
    def _some_feature(self) -> "TestFeature":
        if not self.features or len(set(self.features)) != len(self.features):
            raise ValueError(f"features {list(self.features)} must name at least one feature, each once")
        return self


_NAMES_SOMEONE = ("path", "subject", "split", "draw", "caption", "origin")


class SideInformation(Value):
    """What the manifest says of how a photo was taken, as a vector in the tower (TransReID, CLIP-ReID)."""

    columns: tuple[str, ...] = Field(("camera",), min_length=1)
    """Columns of the manifest; every combination of their values in the training photos has a vector of its own."""
    strength: float = Field(3.0, gt=0)
    """What the vector is multiplied by; 3 is CLIP-ReID's."""

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
    """From photo to embedding; what is saved in model.safetensors."""

    backbone: Backbone = Backbone()
    """The image tower."""
    side_information: SideInformation | None = None
    """What the embedder reads beside the pixels; null is nothing."""
    preprocess: Preprocess = Preprocess()
    """From photo to input."""
    head: Annotated[
        PlainHead | Bnneck | Mlp | Pcb | Mgn | Gem | AttentionPooling | PromptSg | PromptSgGraph,
        Field(discriminator="kind"),
    ] = Bnneck()
    """What stands between features and classifiers."""
    test_feature: TestFeature = TestFeature()
    """What is compared."""
