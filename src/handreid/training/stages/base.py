"""A kind of stage: one subclass of `Stage` for each, named in `registry.py`.

What all kinds have in common is done around them (`run.py`): nothing is trained twice, a stage that was stopped goes
on, files prove that they are as they were written, checks come before the first step.
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
    """Stage `number` of a recipe, as its kind checks, builds, keeps and describes it."""

    def __init__(self, recipe: Recipe, number: int) -> None:
        self.recipe = recipe
        self.number = number

    @property
    def settings(self) -> Settings:
        """The stage's part of the recipe."""
        return cast(Settings, self.recipe.stages[self.number])

    @abstractmethod
    def check(self, handover: Handover, material: RunDataset) -> None:
        """Raises what building the stage would, before there is a folder; `handover` is as the run begins."""

    @abstractmethod
    def module(self, job: Job) -> Module:
        """The stage as it begins. It may change the embedder (what is frozen, low-rank changes)."""

    @abstractmethod
    def validation(self, job: Job, module: Module) -> ValidationSpec:
        """What is measured of the module's result every so many epochs, and whether the best is kept."""

    @abstractmethod
    def key(self, handover: Handover) -> bytes:
        """Of all weights that the stage begins with: with the same ones and the same recipe it is the same stage."""

    @abstractmethod
    def load(self, folder: Path, handover: Handover) -> Handover:
        """What the finished stage in `folder` leaves, of what it was left: trained here, resumed, or copied.

        Weights are read by `runs.stage_weights.checked`. Raises RunError and WeightsError.
        """

    @abstractmethod
    def probe(self, module: Module) -> Probe[Module]:
        """What the checks before the first step ask."""

    @abstractmethod
    def describe(self) -> str:
        """What is done, as the report says it after "In stage 1, "; without a full stop."""

    def counts(self, job: Job, module: Module) -> tuple[dict[str, int], int]:
        """Numbers that learn, by part, and numbers in all; as the optimizer has them where a kind does not say."""
        learning: dict[str, int] = {}
        for group in module.groups():
            name = str(group["name"]).split(",")[0]
            learning[name] = learning.get(name, 0) + sum(own.numel() for own in group["params"])
        return learning, sum(own.numel() for own in module.parameters())

    def begin(self, job: Job) -> None:
        """Called before the stage is trained or goes on, with what it was left."""

    def finish(self, job: Job) -> None:
        """Called when the last epoch is done, also where an earlier attempt has done it; may write more weights."""

    def untrained(self, module: Module, handover: Handover) -> Handover:
        """What the stage would leave had it learned nothing, for a look at the stages after it."""
        return handover


def load_text(folder: Path, which: str, handover: Handover) -> Handover:
    """With the text tower that a stage kept beside its `which` ("best" or "last") weights."""
    handover.text.read(checked(text_file(folder, which)))
    handover.text.eval()
    return replace(handover, text_trained=True)


AnyStage = Stage[Any, Any]
