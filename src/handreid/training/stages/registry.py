"""Every kind of stage, by its `kind` in a recipe."""

from handreid.recipe import Recipe
from handreid.training.stages.base import AnyStage
from handreid.training.stages.fine_tune.stage import FineTuneStage
from handreid.training.stages.learn_prompts.stage import LearnPromptsStage
from handreid.training.stages.pretrain.stage import PretrainStage

STAGES: dict[str, type[AnyStage]] = {
    "fine_tune": FineTuneStage,
    "learn_prompts": LearnPromptsStage,
    "pretrain": PretrainStage,
}


def stage_of(recipe: Recipe, number: int) -> AnyStage:
    return STAGES[recipe.stages[number].kind](recipe, number)
