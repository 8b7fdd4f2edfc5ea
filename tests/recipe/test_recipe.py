"""Recipes: complete, round-trip, and every complaint names key, line, file and the nearest right spelling."""

import subprocess
import sys
from pathlib import Path

import pytest

from handreid.errors import RecipeError
from handreid.recipe import FineTune, builtin_names, dump_recipe, load_recipe, parse_recipe
from handreid.recipe.load_sweep import parse_sweep
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
        ("name: a\nevaluate: {prompts: {templates: ['a {asspect} {side}']}}\n", "can be filled in"),
    ],
)
def test_wrong_values(text: str, part: str):
    assert part in complaint(text)


def test_overrides_are_applied_before_checking():
    recipe = parse_recipe(MICRO_RECIPE, "x", ["stages.0.optimizer.lr=5e-4", "evaluate.flip_tta=true", "seed=7"])
    assert isinstance(recipe.stages[0], FineTune)
    assert (recipe.stages[0].optimizer.lr, recipe.evaluate.flip_tta, recipe.seed) == (5e-4, True, 7)


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


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("start: rung\n", "x.yaml line 2: unknown key 'start': it is called 'init_from' now"),
        ("gates: {skip: [loss]}\n", "x.yaml line 2: unknown key 'gates': it is called 'checks' now"),
        ("data:\n  aspect: all\n", "x.yaml line 3: unknown key 'data.aspect': it is called 'data.view' now"),
        (
            "evaluate:\n  mirrored: true\n",
            "x.yaml line 3: unknown key 'evaluate.mirrored': it is called 'evaluate.flip_tta' now",
        ),
        ("data:\n  label: aspect\n", "x.yaml line 3: data.label is 'aspect': it is called 'view' now"),
        (
            "data:\n  validation: held-back\n",
            "x.yaml line 3: data.validation is 'held-back': it is called 'held-out' now",
        ),
        (
            "checks: {skip: [strangers]}\n",
            "x.yaml line 2: checks.skip.0 is 'strangers': it is called 'subject_disjoint' now",
        ),
    ],
)
def test_former_names_are_refused_with_the_present_ones(lines: str, said: str):
    assert complaint(f"name: a\n{lines}") == said


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


def test_a_key_that_is_given_twice_is_refused_with_both_lines():
    text = "name: a\ndata:\n  label: subject\n  seed: 1\n  label: hand\nname: b\nevaluate: {draws: 1, draws: 2}\n"
    assert complaint(text).splitlines() == [
        "x.yaml line 6: key 'name' is given twice, first in line 1: keep one of them",
        "x.yaml line 5: key 'data.label' is given twice, first in line 3: keep one of them",
        "x.yaml line 7: key 'evaluate.draws' is given twice, both in this line: keep one of them",
    ]
    assert "key 'label' is given twice: keep one of them" in complaint(MICRO_RECIPE, "data={label: hand, label: hand}")


def test_a_sweep_and_the_recipe_of_a_run_may_not_say_a_key_twice(tmp_path: Path):
    sweep = "name: s\nrecipe: micro.yaml\nspace:\n  seed: {choice: [1, 2]}\n  seed: {choice: [3, 4]}\n"
    (tmp_path / "micro.yaml").write_text(MICRO_RECIPE)
    with pytest.raises(RecipeError, match=r"s line 5: key 'space.seed' is given twice, first in line 4"):
        parse_sweep(sweep, "s", tmp_path)
    (tmp_path / "recipe.yaml").write_text(MICRO_RECIPE + "seed: 1\nseed: 2\n")
    with pytest.raises(RecipeError, match=r"recipe.yaml line \d+: key 'seed' is given twice"):
        load_recipe(tmp_path / "recipe.yaml")


def test_merged_keys_may_be_said_again():
    text = "name: a\ndata: &some {seed: 1, label: hand}\nmodel: {backbone: {name: x}}\n"
    assert parse_recipe(text, "x").data.seed == 1
    again = "name: a\nevaluate: {<<: &some {draws: 3}, draws: 4}\n"
    assert parse_recipe(again, "x").evaluate.draws == 4


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (BOMB, "x.yaml line 5: more than 20,000 values, counting each use of an alias"),
        ("name: " + "[" * 60 + "]" * 60, "more than 50 levels in one another"),
        ("name: " + "[" * 5000, "more than 50 levels in one another"),
        ("name: a\nx: &a [*a]\n", "x.yaml line 2: an alias that contains itself"),
        ("name: a\n1: x\n", "x.yaml line 2: key '1' is not text (a number): put it in quotes"),
        ("name: a\non: x\n", "key 'on' is not text (a truth value)"),
        ("name: a\ndata: {null: x}\n", "key 'data.null' is not text (nothing)"),
        ("[a, b]: x\n", "is not text (a list or mapping)"),
        (
            "name: a\n\tseed: 1\n",
            "x.yaml is not YAML: line 2: found character '\\t' that cannot start any token; indent",
        ),
        ("name: a\n---\nname: b\n", "line 2: expected a single document in the stream, but found another document"),
        ("name: a\nseed: " + "1" * 5000, "x.yaml line 2: '1111"),
        ("name: a\nabout: 2024-13-45\n", "x.yaml line 2: '2024-13-45' cannot be read"),
        ("name: a\nabout: !!timestamp x\n", "x.yaml line 2: 'x' cannot be read"),
        ("name: a\nabout: !!bool x\n", "x.yaml line 2: 'x' cannot be read"),
        ('name: a\nabout: "\\U99999999"\n', "x.yaml is not YAML"),
        ("name: !!python/object/apply:os.system [ls]\n", "could not determine a constructor for the tag"),
        ("name: \x00\n", "x.yaml is not YAML"),
        ("about: " + "x" * 1_000_001, "at most 1,000,000"),
    ],
)
def test_yaml_that_is_no_recipe_is_one_short_error(text: str, part: str):
    told = complaint(text)
    assert part in told
    assert len(told) < 400


@pytest.mark.parametrize(
    "override", ["data={1: a}", f"seed={'1' * 5000}", f"stages.{'9' * 5000}.epochs=1", "stages.².x=1"]
)
def test_values_of_set_are_read_as_strictly(override: str):
    told = complaint(MICRO_RECIPE, override)
    assert "--set" in told
    assert len(told) < 500
