"""A run reads no weights file but the one that it began with, whatever the recipe in its folder names."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from handreid.build import build_towers
from handreid.errors import RunError
from handreid.evaluation.evaluate import evaluate
from handreid.files import file_hash, read_json
from handreid.models.clip_weights import read_weights
from handreid.recipe import Recipe, parse_recipe
from handreid.runs.folder import Run
from handreid.training.train import train
from tests.cli.test_commands import complaint
from tests.conftest import MICRO_RECIPE
from tests.edits import edit, edit_recipe

UNSEEN = "is not the weights file that the run started from"


def micro(*overrides: str) -> Recipe:
    return parse_recipe(MICRO_RECIPE, "micro", ["evaluate.prompts={}", *overrides])


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    save_file({name: value + 0.01 for name, value in build_towers(micro()).image.state_dict().items()}, path)
    return path


@pytest.fixture(scope="module")
def begun(weights: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with a weights file, killed after its first epoch."""

    def stop(_: object) -> None:
        raise KeyboardInterrupt

    recipe = micro(f"model.backbone.weights={weights}", "model.backbone.towers=image", "stages.0.epochs=2")
    folder = tmp_path_factory.mktemp("runs") / "run"
    with pytest.raises(KeyboardInterrupt):
        train(recipe, photos, folder, watch=[stop])
    return Run(folder)


def copy(run: Run, to: Path, weights: Path, hash_: str | None) -> Run:
    """The run as somebody else might hand it on: its recipe names `weights`, run.json this hash."""
    shutil.copytree(run.folder, to)
    edit(to / "run.json", without=["weights_hash"], **({} if hash_ is None else {"weights_hash": hash_}))
    edit_recipe(to, str(run.recipe.model.backbone.weights), str(weights))
    return Run(to)


def test_run_json_notes_the_hash_and_the_run_resumes(begun: Run, weights: Path, tmp_path: Path):
    assert read_json(begun.folder / "run.json")["weights_hash"] == file_hash(weights)
    run = copy(begun, tmp_path / "run", weights, file_hash(weights))
    assert train(None, None, run.folder, resume=True).finished


def test_other_weights_are_not_read(begun: Run, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    other = tmp_path / "w.safetensors"
    save_file({name: value * 2 for name, value in load_file(weights).items()}, other)
    run = copy(begun, tmp_path / "run", other, file_hash(weights))
    monkeypatch.setattr("handreid.models.clip_weights.read_weights", lambda path: pytest.fail(f"{path} was read"))
    with pytest.raises(RunError, match=UNSEEN):
        train(None, None, run.folder, resume=True)
    shutil.copy(other, run.model)  # as if it were finished: prompts need the text tower
    with pytest.raises(RunError, match=UNSEEN):
        evaluate(run)
    assert UNSEEN in complaint("doctor", run.folder / "recipe.yaml", "--json")


def test_nothing_is_read_where_no_hash_was_noted(begun: Run, weights: Path, tmp_path: Path):
    run = copy(begun, tmp_path / "run", weights, None)
    with pytest.raises(RunError, match=r"its run\.json has no hash of it"):
        train(None, None, run.folder, resume=True)


def test_a_weights_file_that_changes_between_kill_and_resume_is_another(begun: Run, weights: Path, tmp_path: Path):
    changed = tmp_path / "w.safetensors"
    shutil.copy(weights, changed)
    run = copy(begun, tmp_path / "run", changed, file_hash(changed))
    state, _ = read_weights(changed)
    save_file({name: value + torch.full((), 0.1) for name, value in state.items()}, changed)
    with pytest.raises(RunError, match=UNSEEN):
        train(None, None, run.folder, resume=True)


def test_random_and_pretrained_towers_have_no_file(photos: Path, tmp_path: Path):
    run = train(micro("stages=[]"), photos, tmp_path / "run")
    assert "weights_hash" not in run.facts
