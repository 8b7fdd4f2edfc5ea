"""The sentences of this package that text towers read: prompts, templates of the built-in recipes, and a check's."""

import re
from collections.abc import Iterator
from functools import cache

from handreid.data.prompt_text import SURFACES, VIEWS
from handreid.recipe import LearnPrompts, Prompts, Recipe, builtin_names, load_recipe
from handreid.recipe.model import PromptSg, PromptSgGraph, SentenceValue
from handreid.training.checks.texts import TWINS

_FILLED_IN = ("years old", "no", "person", "young", "adult", "older", "painted", "bare")  # by phrases of attributes


@cache
def package_texts() -> tuple[str, ...]:
    """Each once, without the places that recipes fill in, and the words that are filled in."""
    texts = [*Prompts().templates, *LearnPrompts().templates, *_of_head(PromptSg()), *_of_head(PromptSgGraph())]
    for name in builtin_names():
        texts += _of_recipe(load_recipe(name))
    views = [word for pair in VIEWS for word in pair]
    filled_in = [*views, *SURFACES.values(), *_FILLED_IN, *TWINS]
    return tuple(sorted({re.sub(r"\{\w+\}", " ", text) for text in [*texts, *filled_in]}))


def _of_recipe(recipe: Recipe) -> Iterator[str]:
    prompts = recipe.evaluate.prompts
    yield from prompts.templates if prompts else ()
    yield from _of_head(recipe.model.head)
    for stage in recipe.stages:
        if isinstance(stage, LearnPrompts):
            yield from stage.templates
            yield from [stage.init] if isinstance(stage.init, str) else []


def _of_head(head: object) -> Iterator[str]:
    if isinstance(head, SentenceValue):
        yield from head.sentences
    if isinstance(head, PromptSgGraph):
        yield from head.phrases.values()
