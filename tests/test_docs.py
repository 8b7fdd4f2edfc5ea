"""The docs say what is so: commands parse, recipes read, links lead somewhere, nothing is left out."""

import os
import re
import runpy
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from inspect import unwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
import yaml

from handreid import build
from handreid.build import build_towers
from handreid.cli.commands import app
from handreid.models.heads import PlainHead
from handreid.objectives.table import OBJECTIVES
from handreid.recipe import builtin_names, load_recipe, parse_recipe
from handreid.recipe.load_sweep import builtin_sweeps, parse_sweep
from handreid.sweep.checks import check_settings
from tests.conftest import MICRO_RECIPE
from tests.plain_results import evaluated

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
REFRESH = ROOT / "docs" / "refresh.py"


def blocks(page: Path, *languages: str) -> list[str]:
    found = re.findall(r"^```(\w+)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [text for language, text in found if language in languages]


def command_lines(page: Path) -> list[str]:
    lines = "\n".join(blocks(page, "sh", "bash", "console")).replace("\\\n", " ").splitlines()
    return [line.removeprefix("$ ") for line in lines if line.removeprefix("$ ").startswith("handreid ")]


COMMAND_LINES = [pytest.param(line, id=f"{page.name}: {line[:60]}") for page in PAGES for line in command_lines(page)]


def parsed(arguments: list[str]) -> tuple[str, dict[str, Any]]:
    """The command's path and parameters; nothing is run. Raises what the command line would complain with."""
    command, context = typer.main.get_command(app), None
    name = "handreid"
    while hasattr(command, "commands"):
        context = command.make_context(name, [], parent=context, resilient_parsing=True)
        name, *arguments = arguments
        assert name in command.commands, f"no command {name!r}"
        command = command.commands[name]
    found = command.make_context(name, list(arguments), parent=context)
    return found.command_path, found.params


def leaves() -> Iterator[tuple[str, Any]]:
    def below(command: Any, path: str) -> Iterator[tuple[str, Any]]:
        for name, child in getattr(command, "commands", {}).items():
            yield from below(child, f"{path} {name}")
        if not hasattr(command, "commands"):
            yield path, command

    yield from below(typer.main.get_command(app), "handreid")


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_every_command_line_is_one(line: str):
    path, parameters = parsed(shlex.split(line, comments=True)[1:])
    recipes = [parameters["recipe"]] if path.endswith("train") else parameters.get("rungs") or []
    for recipe in {name for given in recipes if given for name in given.split(",")} & set(builtin_names()):
        load_recipe(recipe, parameters["set_"] or ())


def test_a_wrong_command_line_would_be_noticed():
    with pytest.raises(Exception, match="--epochs"):
        parsed(["train", "zero-shot", "--epochs", "3"])
    with pytest.raises(Exception, match="hands12k"):
        parsed(["data", "prepare", "hands12k", "x", "--out", "y.parquet"])


def test_every_command_has_an_example_and_every_option_is_told():
    page = ROOT / "docs" / "handreid.md"
    shown = {parsed(shlex.split(line, comments=True)[1:])[0] for line in command_lines(page)}
    assert {path for path, _ in leaves()} == shown
    for path, command in leaves():
        told = (ROOT / "docs" / "commands.md").read_text().split(f"\n## {path}\n")[1].split("\n## ")[0]
        missing = {
            name for parameter in command.params for name in parameter.opts if name.strip("-") not in told.lower()
        }
        assert not missing, path


def test_every_parameter_has_help():
    silent = [f"{path} {one.name}" for path, command in leaves() for one in command.params if not one.help]
    assert not silent


def test_every_builtin_recipe_is_documented():
    page = (ROOT / "docs" / "recipes.md").read_text()
    assert not [name for name in builtin_names() if f"`{name}`" not in page]


def test_recipes_in_the_docs_are_recipes():
    texts = [text for page in PAGES for text in blocks(page, "yaml")]
    assert texts
    for text in texts:
        if "space" in yaml.safe_load(text):
            check_settings(parse_sweep(text, "docs"))
            continue
        parse_recipe(text, "docs")
        assert "config" not in text or build_towers(parse_recipe(text, "docs"))


def test_recipes_that_results_were_measured_with_are_still_read():
    files = sorted((ROOT / "docs" / "results").rglob("*.yaml"))
    assert len(files) >= 15
    for file in files:
        load_recipe(str(file))


def test_the_layout_of_the_csv_in_the_docs_is_read(tmp_path: Path):
    from handreid.data.manifest import read_csv

    (text,) = (text for text in blocks(ROOT / "docs" / "data.md", "text") if text.startswith("path,subject"))
    (tmp_path / "hands.csv").write_text(text)
    manifest = read_csv(tmp_path / "hands.csv")
    assert (len(manifest), manifest.metadata) == (2, ("age",))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text()):
        file, _, anchor = target.partition("#")
        there = page.parent / file if file else page
        assert there.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", there.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}, target


def test_the_run_folder_and_evaluation_are_described(photos: Path, tmp_path: Path):
    """Every file of a run and every key of evaluation.json is in the page."""
    from handreid.training.train import train

    overrides = ["stages.0.epochs=1", "evaluate.prompts={}", "data.label=subject"]
    run = train(parse_recipe(MICRO_RECIPE, "micro", overrides), photos, tmp_path / "run")
    _, found = evaluated(run)
    page = (ROOT / "docs" / "handreid.md").read_text()
    files = [path.relative_to(run.folder).as_posix() for path in run.folder.rglob("*") if path.is_file()]
    assert not [name for name in files if f"| `{name}` |" not in page]
    keys = {*found, "prompts", "inference"}
    assert not [key for key in keys if not re.search(rf"^\| .*`{key}`.* \|", page, re.MULTILINE)]
    assert not [key for key in (*found["metrics"], *found["counts"], *found["hashes"]) if f"`{key}`" not in page]


@pytest.mark.parametrize("surroundings", [{"COLUMNS": "40", "FORCE_COLOR": "1"}, {"TERM": "dumb", "COLUMNS": "300"}])
def test_generated_parts_are_fresh_whatever_the_terminal(surroundings: dict[str, str]):
    checked = subprocess.run([sys.executable, REFRESH, "--check"], env={**os.environ, **surroundings}, check=False)
    assert checked.returncode == 0, "run `make docs`"


def refreshed(docs: Path, *arguments: str) -> None:
    """What the script of this folder does, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["refresh.py", *arguments])
        runpy.run_path(str(docs / "refresh.py"), run_name="__main__")


def test_stale_docs_are_noticed(tmp_path: Path):
    docs = tmp_path / "docs"
    docs.mkdir()
    for name in ("refresh.py", "recipes.md", "sweeps.md"):
        (docs / name).write_text((ROOT / "docs" / name).read_text().replace("over 0", "over 1"))
    with pytest.raises(SystemExit) as left:
        refreshed(docs, "--check")
    assert (
        left.value.code == "docs/commands.md, docs/recipes.md, docs/sweeps.md: not as the code has it; run `make docs`"
    )
    refreshed(docs)
    assert (docs / "recipes.md").read_text() == (ROOT / "docs" / "recipes.md").read_text()
    assert (docs / "sweeps.md").read_text() == (ROOT / "docs" / "sweeps.md").read_text()
    assert "\x1b" not in (docs / "commands.md").read_text()


def test_every_builtin_sweep_is_documented():
    page = (ROOT / "docs" / "sweeps.md").read_text()
    assert not [name for name in builtin_sweeps() if f"| `{name}` |" not in page]


def test_every_key_of_a_recipe_has_a_meaning():
    page = (ROOT / "docs" / "recipes.md").read_text()
    rows = [line for line in page.splitlines() if re.match(r"\| `\w+` \| .* \| .* \|", line)]
    assert len(rows) > 60
    assert not [row for row in rows if row.endswith("|  |")]


@pytest.fixture(scope="module")
def worked_example() -> list[dict[str, Any]]:
    """CONTRIBUTING's three blocks, run: the objective, its recipe model, its test."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    code = [textwrap.dedent(block) for block in re.findall(r"^   ```python\n(.*?)^   ```", text, re.M | re.S)]
    assert len(code) == 3
    objective, model = ModuleType("handreid.objectives.uniformity"), ModuleType("model")
    exec(code[0], objective.__dict__)
    exec(code[1], model.__dict__)
    test = {"Uniformity": objective.__dict__["Uniformity"]}
    exec(code[2], test)
    return [objective.__dict__, model.__dict__, test]


class TestTheWorkedExampleOfAnObjective:
    def test_its_test_passes(self, worked_example: list[dict[str, Any]]):
        worked_example[2]["test_uniformity_is_its_definition"]()

    def test_a_recipes_term_becomes_the_objective(
        self, worked_example: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setitem(OBJECTIVES, "uniformity", worked_example[0]["Uniformity"])
        term = worked_example[1]["Uniformity"].model_validate({"kind": "uniformity", "t": 3.0, "features": ["joint"]})
        made = unwrap(build._objective)(term, PlainHead({"joint": 8}, ()), 4)
        assert isinstance(made, worked_example[0]["Uniformity"])
        assert (made.t, made.features, made.neck) == (3.0, ("joint",), "before")
