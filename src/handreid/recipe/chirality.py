"""What a recipe tells or asks about left and right, which photos do not show where left hands are mirrored."""

from collections.abc import Sequence

from handreid.recipe.evaluate import Evaluate
from handreid.recipe.model import Model, PromptSgGraph
from handreid.recipe.prompts import AttributeWords, LearnPrompts
from handreid.recipe.stage_base import StageValue


def keys_about_side(model: Model, stages: Sequence[StageValue], evaluate: Evaluate) -> list[str]:
    """Keys of a recipe by which a model, a text or a score depends on the manifest's `side`."""
    keys = []
    if model.side_information is not None and "side" in model.side_information.columns:
        keys.append("model.side_information.columns")
    if isinstance(model.head, PromptSgGraph) and model.head.edges == "attributes" and "side" in model.head.phrases:
        keys.append("model.head.phrases")
    for number, stage in enumerate(stages):
        if not isinstance(stage, LearnPrompts):
            continue
        if any("{side}" in template for template in stage.templates):
            keys.append(f"stages.{number}.templates")
        if isinstance(stage.init, AttributeWords) and "side" in stage.init.columns:
            keys.append(f"stages.{number}.init.columns")
    if evaluate.prompts is not None:
        keys.append("evaluate.prompts")
    return keys
