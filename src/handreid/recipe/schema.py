"""The values a recipe is made of. Every field is checked when the recipe is read; an unknown key is an error.

* Lengths of time are in epochs, sizes in pixels (height, width), learning rates per step of the optimizer.
* A union is told apart by `kind:`; adding a strategy means one model here, one builder in training/build.py.
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
    def _parts_exist(self) -> "Recipe":
        if self.model.head.makes_parts:
            return self
        readers = {
            f"stages.{n}.objectives.{i}": term.features
            for n, stage in enumerate(self.stages)
            for i, term in enumerate(stage.objectives)
        }
        for reader, features in {"model.test_feature": self.model.test_feature.features, **readers}.items():
            if "parts" in features:
                raise ValueError(
                    f"{reader} reads `parts`, but model.head {self.model.head.kind!r} makes none: "
                    "use pcb, mgn, gem or attention"
                )
        return self
