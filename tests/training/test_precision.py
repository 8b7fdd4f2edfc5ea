"""Precision: what a recipe asks for is what is computed, or it is refused before any work; what it was is noted."""

from pathlib import Path

import pytest
import torch

from handreid.errors import HandreidError, RecipeError
from handreid.recipe import Recipe, parse_recipe
from handreid.recipe.load_sweep import parse_sweep
from handreid.runs.dataset import load_dataset
from handreid.runs.epoch_metrics import read_metrics
from handreid.sweep.checks import check_builds
from handreid.training import precision
from handreid.training.train import train
from handreid.workflows.doctor import diagnose
from handreid.workflows.ladder import run_ladder
from tests.conftest import MICRO_RECIPE
from tests.edits import edit_recipe

ON_A_CPU = r"stages.0.precision is fp16, but a CPU only trains in fp32 or bf16: use auto \(fp32 here\), fp32 or bf16"
SWEEP = "name: s\nrecipe: micro.yaml\nspace:\n  stages.0.precision: {choice: [fp16, fp32]}\n"


def micro(*overrides: str) -> Recipe:
    return parse_recipe(
        MICRO_RECIPE, "micro", ["stages.0.epochs=1", "stages.0.optimizer.schedule={kind: constant}", *overrides]
    )


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.usefixtures("no_gpu")
class TestWithoutAGpu:
    def test_fp16_is_refused_before_any_work(self, tmp_path: Path):
        """The manifest does not exist: nobody has looked for it yet."""
        nowhere, asked = tmp_path / "none.parquet", micro("stages.0.precision=fp16")
        for begin in (
            lambda: train(asked, nowhere, tmp_path / "run"),
            lambda: diagnose(asked, nowhere),
            lambda: run_ladder([asked], nowhere, tmp_path / "ladder"),
        ):
            with pytest.raises(RecipeError, match=ON_A_CPU):
                begin()
        assert not (tmp_path / "run").exists()

    def test_it_is_refused_in_prompts_too(self):
        recipe = parse_recipe("name: p\nstages: [{kind: learn_prompts, precision: fp16}]\n", "p")
        with pytest.raises(RecipeError, match=ON_A_CPU):
            precision.check_precision(recipe)

    def test_a_run_that_began_on_a_gpu_does_not_go_on(self, photos: Path, tmp_path: Path, monkeypatch):
        run = train(micro(), photos, tmp_path / "run")
        run.model.unlink()
        edit_recipe(run.folder, "precision: auto", "precision: fp16")
        with pytest.raises(RecipeError, match=ON_A_CPU):
            train(None, photos, run.folder, resume=True)

    @pytest.mark.parametrize(("asked", "was"), [("auto", "fp32"), ("fp32", "fp32"), ("bf16", "bf16")])
    def test_what_it_was_is_noted(self, asked: str, was: str, photos: Path, tmp_path: Path):
        run = train(micro(f"stages.0.precision={asked}"), photos, tmp_path / "run")
        assert run.facts["precision"] == [was]
        assert [entry["precision"] for entry in read_metrics(run)] == [was]

    def test_a_sweep_is_refused_here_and_not_on_a_cluster(self, photos: Path, tmp_path: Path):
        (tmp_path / "micro.yaml").write_text(MICRO_RECIPE)
        design = parse_sweep(SWEEP, "s", tmp_path)
        material = load_dataset(micro(), photos)
        with pytest.raises(HandreidError, match=ON_A_CPU):
            check_builds(design, photos, material, tmp_path)
        check_builds(design, photos, material, tmp_path, elsewhere=True)
        without = parse_sweep(SWEEP + "gpus: 0\n", "s", tmp_path)
        with pytest.raises(HandreidError, match=ON_A_CPU):
            check_builds(without, photos, material, tmp_path, elsewhere=True)


def test_with_a_gpu_fp16_is_what_it_says(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    asked = micro("stages.0.precision=fp16")
    precision.check_precision(asked)
    assert precision.precisions(asked) == ["fp16"]
    assert precision.precisions(micro()) == ["bf16"]
