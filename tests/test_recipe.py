"""Recipes: complete, round-trip, and every complaint names key, line, file and the nearest right spelling."""

import subprocess
import sys

import pytest

from handreid.errors import RecipeError
from handreid.recipe import FineTune, builtin_names, dump_recipe, load_recipe, parse_recipe
from tests.conftest import MICRO_RECIPE


def complaint(text: str, *overrides: str) -> str:
    with pytest.raises(RecipeError) as error:
        parse_recipe(text, "x.yaml", overrides)
    return str(error.value)


def test_misspelt_keys_name_key_line_file_and_the_nearest_right_one():
    text = "name: a\nmodel:\n  backbone:\n    weigths: none\nstages:\n  - kind: fine_tune\n    epoch: 3\n"
    assert complaint(text).splitlines() == [
        "x.yaml line 4: unknown key 'model.backbone.weigths'; did you mean 'weights'?",
        "x.yaml line 7: unknown key 'stages.0.epoch'; did you mean 'epochs'?",
    ]


def test_misspelt_kinds_name_the_known_ones():
    text = "name: a\nstages:\n  - kind: fine_tune\n    augment: [{kind: crop}, {kind: padd}]\n"
    assert complaint(text) == (
        "x.yaml line 4: stages.0.augment.1.kind 'padd' is not one of crop, padding, affine, perspective, "
        "background, colour_jitter, rand_augment, augmix, random_erasing; did you mean 'padding'?"
    )


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("- a\n", "a recipe is a mapping"),
        ("name: [", "is not YAML"),
        ("about: x\n", "key 'name' is missing"),
        ("name: a\nstages: [{kind: fine_tune, epochs: 0}]\n", "stages.0.epochs is 0"),
        ("name: a\nstages: [{kind: fine_tune, objectives: []}]\n", "objectives is empty"),
        ("name: a\nstages: [{kind: fine_tune, augment: [{enlarge: 1.1}]}]\n", "key 'kind' is missing"),
        ("name: a\nmodel: {test_feature: {features: [joint, joint]}}\n", "each once"),
        ("name: a\nevaluate: {prompts: {templates: ['a {aspect} hand']}}\n", "must use {side}"),
        ("name: a\nevaluate: {prompts: {templates: ['a {asspect} {side}']}}\n", "are filled in"),
    ],
)
def test_wrong_values(text: str, part: str):
    assert part in complaint(text)


def test_overrides_are_applied_before_checking():
    recipe = parse_recipe(MICRO_RECIPE, "x", ["stages.0.optimizer.lr=5e-4", "evaluate.mirrored=true", "seed=7"])
    assert isinstance(recipe.stages[0], FineTune)
    assert (recipe.stages[0].optimizer.lr, recipe.evaluate.mirrored, recipe.seed) == (5e-4, True, 7)


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("seed", "path.to.key=value"),
        ("stages.9.epochs=1", "not an index"),
        ("evaluate.prompts.templates.0=x", "the recipe has no evaluate.prompts.templates to change"),
        ("name.x=1", "holds 'micro', not keys"),
        ("sed=1", "did you mean 'seed'?"),
    ],
)
def test_wrong_overrides(override: str, part: str):
    assert part in complaint(MICRO_RECIPE, override)


@pytest.mark.parametrize("name", builtin_names())
def test_built_in_recipes_read_and_round_trip(name: str):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.about
    assert parse_recipe(dump_recipe(recipe), "again") == recipe


def test_unknown_recipe_names_the_nearest():
    with pytest.raises(RecipeError, match="did you mean 'zero-shot'"):
        load_recipe("zeroshot")


def test_recipes_need_no_torch():
    code = "import sys, handreid.recipe; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
