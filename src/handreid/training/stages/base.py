"""The interface of a kind of stage: one subclass of `Stage` for each, listed in `registry.py`.

What all kinds have in common is in `run.py`: reuse of finished stages, resuming, verification of files, checks before
the first step.
"""

from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from handreid.recipe import Recipe
from handreid.recipe.stage_base import StageValue
from handreid.runs.dataset import RunDataset
from handreid.runs.stage_weights import checked, text_file
from handreid.training.checks import Probe
from handreid.training.context import Handover, Job
from handreid.training.epoch_callback import ValidationSpec
from handreid.training.stage_module import StageModule

Settings = TypeVar("Settings", bound=StageValue)
Module = TypeVar("Module", bound=StageModule)


class Stage(ABC, Generic[Settings, Module]):
    """Stage `number` of a recipe: how its kind checks, builds, loads and describes it."""

    def __init__(self, recipe: Recipe, number: int) -> None:
        self.recipe = recipe
        self.number = number

    @property
    def settings(self) -> Settings:
        """The stage's part of the recipe."""
        return cast(Settings, self.recipe.stages[self.number])

    @abstractmethod
    def check(self, handover: Handover, material: RunDataset) -> None:
        """Raises what building the stage would, before there is a folder; `handover` is that of the run's start."""

    @abstractmethod
    def module(self, job: Job) -> Module:
        """The untrained stage. It may change the embedder (freezing, LoRA adapters)."""

    @abstractmethod
    def validation(self, job: Job, module: Module) -> ValidationSpec:
        """What is measured of the module's result and how often, and whether the best is saved."""

    @abstractmethod
    def key(self, handover: Handover) -> bytes:
        """Identifies all initial weights of the stage: with the same ones and the same recipe it is the same stage."""

    @abstractmethod
    def load(self, folder: Path, handover: Handover) -> Handover:
        """The handover after the finished stage in `folder`, whether trained here, resumed, or copied.

        `handover` is the one before the stage. Weights are read with `runs.stage_weights.checked`. Raises RunError and
        WeightsError.
        """

    @abstractmethod
    def probe(self, module: Module) -> Probe[Module]:
        """The stage's interface for the checks before the first step."""

    @abstractmethod
    def describe(self) -> str:
        """A description to follow "In stage 1, " in the report; without a full stop."""

    def counts(self, job: Job, module: Module) -> tuple[dict[str, int], int]:
        """Trainable parameters by part, and all parameters; by default those in the module's groups."""
        learning: dict[str, int] = {}
        for group in module.groups():
            name = str(group["name"]).split(",")[0]
            learning[name] = learning.get(name, 0) + sum(parameter.numel() for parameter in group["params"])
        return learning, sum(parameter.numel() for parameter in module.parameters())

    def begin(self, job: Job) -> None:
        """Called before the stage is trained or resumed."""

    def finish(self, job: Job) -> None:
        """Called after the last epoch, even if an earlier attempt trained it; may write more weights."""

    def untrained(self, module: Module, handover: Handover) -> Handover:
        """The handover after the stage without any training, used to check the stages after it."""
        return handover


def load_text(folder: Path, which: str, handover: Handover) -> Handover:
    """`handover` with the text tower that a stage saved beside its `which` ("best" or "last") weights."""
    handover.text.read(checked(text_file(folder, which)))
    handover.text.eval()
    return replace(handover, text_trained=True)


AnyStage = Stage[Any, Any]
