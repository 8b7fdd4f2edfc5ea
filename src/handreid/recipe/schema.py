"""A recipe is frozen values, one file of models per question; every field is checked when the recipe is read.

* Lengths of time are in epochs, sizes in pixels (height, width), learning rates per step of the optimizer.
* A union is told apart by `kind:`; an unknown key is an error.
* What only makes sense together is checked by the smallest model that holds both.
* Defaults are those of the published fine-tuned CLIP baseline for hands, where it has one.
* The text below a field is its meaning in docs/recipes.md.
"""

from pydantic import Field, model_validator

from handreid.recipe.data import Data
from handreid.recipe.evaluate import Evaluate
from handreid.recipe.model import Model
from handreid.recipe.stages import FineTune
from handreid.recipe.values import Value


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

    @model_validator(mode="after")
    def _parts_are_made_and_read(self) -> "Recipe":
        readers = {"model.test_feature": self.model.test_feature.features}
        for number, stage in enumerate(self.stages):
            readers |= {f"stages.{number}.objectives.{i}": term.features for i, term in enumerate(stage.objectives)}
        readers = {reader: features for reader, features in readers.items() if "parts" in features}
        head = self.model.head
        if readers and not head.makes_parts:
            raise ValueError(
                f"{', '.join(readers)} reads `parts`, but model.head {head.kind!r} makes none: "
                "use pcb, mgn, gem, attention or promptsg"
            )
        if head.makes_parts and not any(reader.startswith("stages") for reader in readers):
            raise ValueError(
                f"model.head {head.kind!r} makes parts that no objective reads, so they would learn nothing: "
                "name `parts` in the features of an objective"
            )
        return self

    @model_validator(mode="after")
    def _head_and_stages_go_together(self) -> "Recipe":
        head = self.model.head
        for number, stage in enumerate(self.stages):
            wanting = [i for i, term in enumerate(stage.objectives) if term.needs_texts]
            if wanting and not head.makes_texts:
                raise ValueError(
                    f"stages.{number}.objectives.{wanting[0]} ({stage.objectives[wanting[0]].kind}) compares photos "
                    f"with sentences, but model.head {head.kind!r} composes none: use promptsg or promptsg_graph"
                )
            if head.keeps_prototypes and (stage.mix or stage.wise_ft):
                raise ValueError(
                    f"model.head {head.kind!r} keeps prototypes of identities as the trained tower sees them: leave "
                    f"`mix` and `wise_ft` out of stages.{number}, or the graph (edges: none)"
                )
        return self
