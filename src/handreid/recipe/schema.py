"""The recipe as frozen values; every field is checked when the recipe is read.

* Durations are in epochs, sizes in pixels (height, width), learning rates per step of the optimizer.
* `kind:` selects the model of a union; an unknown key is an error.
* Combinations of fields are checked by the smallest model that holds both.
* Defaults are those of the published fine-tuned CLIP baseline for hands, where it has one.
* The text below a field is its meaning in docs/recipes.md.
"""

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from handreid.recipe.base import Name, Seed, Value
from handreid.recipe.checks import Checks
from handreid.recipe.chirality import keys_about_side
from handreid.recipe.data import Data
from handreid.recipe.evaluate import Evaluate
from handreid.recipe.model import Model
from handreid.recipe.pretrain import Pretrain
from handreid.recipe.prompts import LearnPrompts
from handreid.recipe.stages import FineTune
from handreid.recipe.tracking import Tracker, check_one_each, with_keys

# Every kind of stage; `training/stages/registry.py` has what trains each.
Stage = Annotated[FineTune | LearnPrompts | Pretrain, Field(discriminator="kind")]


class Recipe(Value):
    """A complete experiment."""

    name: Name
    """At most 100 letters, digits, dot, dash, underscore; the run's folder in a ladder."""
    about: str = ""
    """One line for `handreid recipes`."""
    seed: Seed = 0
    """Random seed of new layers, random towers, batches and augmentation."""
    data: Data = Data()
    """Photos, split and identities."""
    init_from: str | None = None
    """The run whose encoder, and head if it fits, the first stage starts from: its folder, or its name if it is in the
    same parent folder, like an earlier rung of a ladder. null starts from the backbone's weights."""
    model: Model = Model()
    """The model."""
    stages: tuple[Stage, ...] = ()
    """The stages of training, in order; an empty list is zero-shot."""
    evaluate: Evaluate = Evaluate()
    """How the run is evaluated."""
    tracking: Annotated[tuple[Tracker, ...], BeforeValidator(with_keys), AfterValidator(check_one_each)] = ()
    """Trackers that the run is logged to: `mlflow`, `tensorboard`, `wandb`, or keys; see [tracking](tracking.md). They
    change no weight and no score."""
    checks: Checks = Checks()
    """What is checked before the first step of a stage."""

    @property
    def experiment(self) -> "Recipe":
        """What decides weights and scores: the recipe without tracking and checks."""
        return self.model_copy(update={"tracking": (), "checks": Checks()})

    @property
    def fine_tunes(self) -> list[tuple[int, FineTune]]:
        """The stages of kind `fine_tune`, with their numbers."""
        return [(number, stage) for number, stage in enumerate(self.stages) if isinstance(stage, FineTune)]

    @property
    def photo_stages(self) -> list[FineTune | Pretrain]:
        """The stages that read augmented photos."""
        return [stage for stage in self.stages if isinstance(stage, FineTune | Pretrain)]

    @property
    def reads_identities(self) -> bool:
        """Whether a stage reads identities; if none does, photos without a subject can be trained on."""
        return not self.stages or any(stage.reads_identities for stage in self.stages)

    @property
    def validated(self) -> list[tuple[int, Stage]]:
        """The stages that are validated by identification, with their numbers."""
        return [(number, stage) for number, stage in enumerate(self.stages) if stage.validated_weights]

    @model_validator(mode="after")
    def _texts_are_there(self) -> "Recipe":
        for number, stage in enumerate(self.stages):
            if stage.reads_texts and not any(earlier.learns_texts for earlier in self.stages[:number]):
                raise ValueError(
                    f"stages.{number}.{stage.reads_texts[0]} reads the texts of identities, but no earlier stage "
                    "learns them: put {kind: learn_prompts} before it"
                )
        return self

    @model_validator(mode="after")
    def _texts_are_of_the_last_text_tower(self) -> "Recipe":
        for number, stage in enumerate(self.stages):
            earlier = [at for at, other in enumerate(self.stages[:number]) if other.learns_texts]
            if isinstance(stage, Pretrain) and stage.learns != "image" and earlier:
                raise ValueError(
                    f"stages.{number} trains the text tower, but stages.{earlier[0]} ({self.stages[earlier[0]].kind}) "
                    "has learned texts with the one of before: put it after the pre-training"
                )
        return self

    @model_validator(mode="after")
    def _what_is_added_learns(self) -> "Recipe":
        added = {
            "model.backbone.visual_prompts": self.model.backbone.visual_prompts is not None,
            "model.side_information": self.model.side_information is not None,
        }
        names = [name for name, present in added.items() if present]
        if names and not any(stage.trains_encoder for stage in self.stages) and self.init_from is None:
            raise ValueError(f"{' and '.join(names)} starts from random weights, but no stage trains it: remove it")
        return self

    @model_validator(mode="after")
    def _side_information_is_true_of_every_photo(self) -> "Recipe":
        if self.model.side_information is None:
            return self
        for number, stage in self.fine_tunes:
            if stage.chirality != "none" and "side" in self.model.side_information.columns:
                raise ValueError(
                    f"stages.{number}.chirality {stage.chirality!r} mirrors right hands into left ones, but "
                    "model.side_information would still use the original `side`: remove one of them"
                )
            if stage.mix:
                raise ValueError(
                    f"stages.{number}.mix mixes two photos, which may differ in model.side_information: "
                    "remove one of them"
                )
        return self

    @model_validator(mode="after")
    def _side_is_not_told_where_no_photo_shows_it(self) -> "Recipe":
        keys = keys_about_side(self.model, self.stages, self.evaluate) if self.model.preprocess.mirrors else []
        if keys:
            raise ValueError(
                f"{' and '.join(keys)} tell left hands from right ones, but model.preprocess.chirality 'canonical' "
                "mirrors photos of left hands to right ones: remove `side` there, or use 'as_is'"
            )
        return self

    @model_validator(mode="after")
    def _parts_are_made_and_read(self) -> "Recipe":
        readers = {"model.test_feature": self.model.test_feature.features}
        for number, stage in self.fine_tunes:
            readers |= {f"stages.{number}.objectives.{i}": term.features for i, term in enumerate(stage.objectives)}
        readers = {reader: features for reader, features in readers.items() if "parts" in features}
        head = self.model.head
        if readers and not head.makes_parts:
            raise ValueError(
                f"{', '.join(readers)} reads `parts`, but model.head {head.kind!r} has none: "
                "use pcb, mgn, gem, attention or promptsg"
            )
        if head.makes_parts and not any(reader.startswith("stages") for reader in readers):
            raise ValueError(
                f"model.head {head.kind!r} has parts that no objective reads, so they would not be trained: "
                "add `parts` to the features of an objective"
            )
        return self

    @model_validator(mode="after")
    def _head_and_stages_go_together(self) -> "Recipe":
        head = self.model.head
        for number, stage in self.fine_tunes:
            wanting = [i for i, term in enumerate(stage.objectives) if term.needs_texts]
            if wanting and not head.makes_texts:
                raise ValueError(
                    f"stages.{number}.objectives.{wanting[0]} ({stage.objectives[wanting[0]].kind}) compares photos "
                    f"with sentences, but model.head {head.kind!r} has none: use promptsg or promptsg_graph"
                )
            if head.keeps_prototypes and (stage.mix or stage.wise_ft):
                raise ValueError(
                    f"model.head {head.kind!r} keeps prototypes of identities computed by the trained tower: remove "
                    f"`mix` and `wise_ft` from stages.{number}, or the graph (edges: none)"
                )
        return self
