"""The stage `learn_prompts`: contexts of identities, learned with CLIP frozen."""

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from handreid.recipe.base import Value
from handreid.recipe.optimizer import CosineSchedule, Schedule
from handreid.recipe.stage_base import StageValue

CONTEXT = "{context}"


class PromptOptimizer(Value):
    """Optimizer of the contexts; the defaults are CLIP-ReID's."""

    kind: Literal["adam", "adamw"] = "adam"
    """The optimizer."""
    lr: float = Field(3.5e-4, gt=0)
    """Learning rate of the contexts."""
    weight_decay: float = Field(1e-4, ge=0)
    """Weight decay of the contexts."""
    schedule: Schedule = CosineSchedule(warmup_epochs=5, warmup_factor=1 / 35, final_factor=1 / 350)
    """Schedule of the rate; stated in epochs, stepped per batch. The default rises from 1e-5 and falls to 1e-6."""

    @property
    def momentum(self) -> float:
        """For the interface of `Optimizer`: contexts are not trained with SGD."""
        return 0.0


class NearestWords(Value):
    """Contexts start from the words of the vocabulary that are nearest to the identity's mean photo."""

    kind: Literal["nearest"] = "nearest"


class AttributeWords(Value):
    """Contexts start from the identity's attributes in the manifest, in words."""

    kind: Literal["attributes"] = "attributes"
    columns: tuple[str, ...] = Field(("skin", "gender", "age", "nails"), min_length=1)
    """Columns of the manifest, such as skin (`skin_color` in 11k Hands); missing columns are left out."""


class LearnPrompts(StageValue):
    """Learns a sentence for every training identity, with both towers frozen (CLIP-ReID's first stage)."""

    kind: Literal["learn_prompts"] = "learn_prompts"
    epochs: int = Field(120, ge=1)
    """How often every training photo is used. Its features are computed once, so an epoch only has to compute text."""
    batch_size: int = Field(64, ge=2)
    """Largest number of photos in a batch."""
    optimizer: PromptOptimizer = PromptOptimizer()
    """Optimizer of the contexts."""
    templates: tuple[str, ...] = Field(("A photo of a {context} {aspect} hand.",), min_length=1)
    """Sentences with a place for the `{context}`. `{aspect}` (dorsal, palmar), `{surface}` (back, palm), `{side}` and
    columns of the manifest (`{skin}`) are filled in if all training photos of an identity agree, else left out."""
    ensemble: int = Field(1, ge=1, le=64)
    """Prompts of each identity per template, with different random initial values."""
    average: Literal["before", "after"] = "before"
    """Whether the text features of an identity are averaged before or after scaling to unit length."""
    diversity: float = Field(0.0, ge=0)
    """Weight of a term that makes the prompts of an identity differ: their mean squared cosine."""
    tokens: int = Field(4, ge=1, le=32)
    """Number of learned embeddings in a context."""
    contexts: Literal["identity", "shared", "both"] = "identity"
    """Each identity has its own context, or all share one, or both, the shared one first."""
    position: Literal["front", "middle", "end"] = "middle"
    """Where the context is placed: first, where the template has it, or last before the full stop."""
    init: Annotated[NearestWords | AttributeWords, Field(discriminator="kind")] | str | None = None
    """Initial contexts: words, such as `hand with long fingers`; `{kind: nearest}`; `{kind: attributes}`; null is
    random."""
    std: float = Field(0.02, gt=0)
    """Standard deviation of random initial values; noise with a tenth of it is added to words, so that no two prompts
    start equal."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of a context's values that are set to zero in a step."""
    image_to_text: float = Field(1.0, ge=0)
    """Weight of the loss from photo to text."""
    text_to_image: float = Field(1.0, ge=0)
    """Weight of the loss from text to photo."""
    normalise: bool = False
    """Whether features are scaled to unit length before they are compared; CLIP-ReID's are not."""
    temperature: float = Field(1.0, gt=0)
    """Divisor of the similarities."""
    clip_gradients: float | None = Field(None, gt=0)
    """Largest norm of the gradient."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision of the autocast, as in `fine_tune`."""
    validate_every: int = Field(10, ge=1)
    """Epochs between counts of how many training photos are nearest to their own identity's text."""

    @field_validator("templates")
    @classmethod
    def _templates_have_a_place(cls, templates: tuple[str, ...]) -> tuple[str, ...]:
        for template in templates:
            if template.count(CONTEXT) != 1:
                raise ValueError(f"template {template!r} must contain {CONTEXT} once, the place of the learned context")
            if re.search(r"[{}]", re.sub(r"\{\w+\}", "", template)):
                raise ValueError(f"template {template!r}: write places as {{name}}, without other braces")
        return templates

    @model_validator(mode="after")
    def _makes_sense(self) -> "LearnPrompts":
        if self.optimizer.schedule.warmup_epochs > self.epochs:
            raise ValueError(
                f"warmup_epochs {self.optimizer.schedule.warmup_epochs:g} is longer than epochs {self.epochs}"
            )
        if self.image_to_text == self.text_to_image == 0:
            raise ValueError("image_to_text and text_to_image are both 0, so nothing would be learned")
        if self.diversity and self.prompts == 1:
            raise ValueError("diversity needs several prompts, but there is only one: set ensemble, or give templates")
        if isinstance(self.init, str) and not self.init.strip():
            raise ValueError("init is empty: give words, or null for random initialisation")
        return self

    @property
    def learns_texts(self) -> bool:
        return True

    @property
    def prompts(self) -> int:
        """Prompts of each identity."""
        return self.ensemble * len(self.templates)

    @property
    def placed(self) -> tuple[str, ...]:
        """A template for each prompt, with the context where `position` says."""
        return tuple(_placed(template, self.position) for template in self.templates for _ in range(self.ensemble))


def _placed(template: str, position: str) -> str:
    if position == "middle":
        return template
    rest = " ".join(template.replace(CONTEXT, " ").split())
    if position == "front":
        return f"{CONTEXT} {rest}"
    stem = rest.rstrip(".")
    return f"{stem} {CONTEXT}{rest[len(stem) :]}"
