"""Optimizers and schedules of the learning rate."""

from typing import Annotated, Literal

from pydantic import Field

from handreid.recipe.base import Value


class ConstantSchedule(Value):
    """`lr` throughout, after the warm-up."""

    kind: Literal["constant"] = "constant"
    warmup_epochs: float = Field(0, ge=0)
    """Epochs over which the rate rises linearly."""
    warmup_factor: float = Field(0.01, gt=0, le=1)
    """Share of the rate at the start of the warm-up."""


class CosineSchedule(Value):
    """After the warm-up, half a cosine down to `final_factor` at the end of the stage."""

    kind: Literal["cosine"] = "cosine"
    warmup_epochs: float = Field(0, ge=0)
    """Epochs over which the rate rises linearly."""
    warmup_factor: float = Field(0.01, gt=0, le=1)
    """Share of the rate at the start of the warm-up."""
    final_factor: float = Field(0.0, ge=0, le=1)
    """Share of the rate at the end."""


class MultistepSchedule(Value):
    """The rate is multiplied by `gamma` at each milestone."""

    kind: Literal["multistep"] = "multistep"
    warmup_epochs: float = Field(0, ge=0)
    """Epochs over which the rate rises linearly."""
    warmup_factor: float = Field(0.01, gt=0, le=1)
    """Share of the rate at the start of the warm-up."""
    milestones: tuple[float, ...]
    """Epochs, counted from the start of the stage."""
    gamma: float = Field(0.1, gt=0, lt=1)
    """Factor of the rate."""


class OneCycleSchedule(Value):
    """Up to `lr` over `warmup_epochs`, then down along a cosine (Smith and Topin 2018, without the momentum cycle)."""

    kind: Literal["one_cycle"] = "one_cycle"
    warmup_epochs: float = Field(gt=0)
    """Epochs over which the rate rises along half a cosine."""
    warmup_factor: float = Field(0.04, gt=0, le=1)
    """Share of the rate at the start of the warm-up."""
    final_factor: float = Field(1e-4, ge=0, le=1)
    """Share of the rate at the end."""


Schedule = Annotated[
    ConstantSchedule | CosineSchedule | MultistepSchedule | OneCycleSchedule, Field(discriminator="kind")
]


class Optimizer(Value):
    """`lr` is the encoder's rate; new layers (necks, classifiers, visual prompts, side information) use `lr *
    new_layers`. Biases and norms have no weight decay.
    """

    kind: Literal["adam", "adamw", "sgd"] = "adam"
    """The optimizer."""
    lr: float = Field(5e-6, gt=0)
    """Learning rate of the encoder."""
    new_layers: float = Field(10.0, gt=0)
    """Factor of the rate for new layers."""
    weight_decay: float = Field(5e-4, ge=0)
    """Weight decay of matrices; vectors (biases, norms, the class token) have none."""
    layer_decay: float = Field(1.0, gt=0, le=1)
    """Factor of the encoder's rate from one block to the block before it; 1 is the same rate for all."""
    bias_factor: float = Field(1.0, gt=0)
    """Factor of the rates for the encoder's and the head's biases; CLIP-ReID uses 2 for ViTs."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Momentum; `sgd` only."""
    schedule: Schedule = MultistepSchedule(warmup_epochs=10, milestones=(40, 60), gamma=0.5)
    """Schedule of the rate; stated in epochs, stepped per batch."""
