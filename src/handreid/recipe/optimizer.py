"""Optimizers and schedules of the learning rate."""

from typing import Annotated, Literal

from pydantic import Field

from handreid.recipe.base import Value


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
    """`lr` is the encoder's; new layers (necks, classifiers, visual prompts, side information) take `lr * new_layers`.
    Biases and norms do not decay.
    """

    kind: Literal["adam", "adamw", "sgd"] = "adam"
    """The rule of the step."""
    lr: float = Field(5e-6, gt=0)
    """Learning rate of the encoder."""
    new_layers: float = Field(10.0, gt=0)
    """What the rate of new layers is multiplied by."""
    weight_decay: float = Field(5e-4, ge=0)
    """Weight decay of matrices; vectors (biases, norms, the class token) have none."""
    layer_decay: float = Field(1.0, gt=0, le=1)
    """What the encoder's rate is multiplied by from one block to the one before it; 1 is the same rate for all."""
    bias_factor: float = Field(1.0, gt=0)
    """What the rates of the encoder's and the head's biases are multiplied by; CLIP-ReID has 2 for ViTs."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """`sgd` only."""
    schedule: Schedule = MultistepSchedule(warmup_epochs=10, milestones=(40, 60), gamma=0.5)
    """How the rate changes; stated in epochs, stepped per batch."""
