"""Precision: what a recipe asks for is what is computed, or it is refused before any work; what it was is noted."""

from pathlib import Path

import pytest
import torch

from handreid.errors import HandreidError, RecipeError
from handreid.progress import NullProgress
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


class Said(NullProgress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def processor(monkeypatch: pytest.MonkeyPatch, instructions: set[str], torch_uses: str = "AVX512") -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: torch_uses)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    known = dict.fromkeys(("avx512_f", "avx512_bf16", "amx_tile", "amx_bf16"), False)
    found = known | dict.fromkeys(instructions, True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)


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


@pytest.mark.usefixtures("no_gpu")
class TestOnAProcessor:
    @pytest.mark.parametrize(
        ("instructions", "torch_uses", "automatic"),
        [
            ({"avx2"}, "AVX2", "fp32"),
            ({"avx512_f"}, "AVX512", "fp32"),
            ({"avx512_f", "avx512_bf16"}, "AVX512", "bf16"),
            ({"avx512_f", "amx_tile", "amx_bf16"}, "AVX512", "bf16"),
            ({"avx512_f", "avx512_bf16"}, "AVX2", "fp32"),  # ATEN_CPU_CAPABILITY
            ({"bf16"}, "DEFAULT", "fp32"),  # ARM, not measured
        ],
    )
    def test_auto_is_bf16_where_torch_has_instructions_for_it(
        self, instructions: set[str], torch_uses: str, automatic: str, monkeypatch: pytest.MonkeyPatch
    ):
        processor(monkeypatch, instructions, torch_uses)
        asked = micro()
        assert precision.precisions(asked) == [automatic]
        assert precision.precisions(micro("stages.0.precision=fp32")) == ["fp32"]
        notes = precision.precision_notes(asked)
        assert [note.startswith("stages.0.precision: auto is bf16") for note in notes] == [True] * (automatic == "bf16")
        with pytest.raises(RecipeError, match=rf"use auto \({automatic} here\)"):
            precision.check_precision(micro("stages.0.precision=fp16"))

    def test_without_onednn_it_is_fp32(self, monkeypatch: pytest.MonkeyPatch):
        processor(monkeypatch, {"avx512_bf16"})
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
        assert precision.precisions(micro()) == ["fp32"]

    @pytest.mark.parametrize("name", ["_is_avx512_bf16_supported", "_is_amx_tile_supported"])
    def test_before_torch_had_a_table_of_instructions(self, name: str, monkeypatch: pytest.MonkeyPatch):
        processor(monkeypatch, set())
        monkeypatch.delattr(torch.cpu, "get_capabilities")
        for other in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
            monkeypatch.setattr(torch.cpu, other, lambda other=other: other == name, raising=False)
        assert precision.precisions(micro()) == ["bf16"]
        monkeypatch.delattr(torch.cpu, name)
        assert precision.precisions(micro()) == ["fp32"]

    def test_bf16_that_is_asked_for_is_noted_where_it_is_slow(self, monkeypatch: pytest.MonkeyPatch):
        asked = micro("stages.0.precision=bf16")
        processor(monkeypatch, {"avx512_bf16"})
        assert precision.precision_notes(asked) == []
        processor(monkeypatch, {"avx512_f"})
        (note,) = precision.precision_notes(asked)
        assert note.startswith("stages.0.precision: bf16 is probably slower than fp32 here")
        assert precision.precisions(asked) == ["bf16"]

    @pytest.mark.parametrize(
        ("asked", "instructions", "was", "note"),
        [
            ("auto", {"avx512_bf16"}, "bf16", "note: stages.0.precision: auto is bf16"),
            ("fp32", {"avx512_bf16"}, "fp32", None),
            ("bf16", set(), "bf16", "note: stages.0.precision: bf16 is probably slower than fp32"),
        ],
    )
    def test_a_run_says_and_records_what_it_was(
        self, asked: str, instructions: set[str], was: str, note: str | None, photos: Path, tmp_path: Path, monkeypatch
    ):
        processor(monkeypatch, instructions)
        said = Said()
        run = train(micro(f"stages.0.precision={asked}"), photos, tmp_path / "run", progress=said)
        assert run.facts["precision"] == [was]
        assert [entry["precision"] for entry in read_metrics(run)] == [was]
        found = [line for line in said.lines if "precision" in line]
        assert len(found) == (note is not None)
        assert note is None or found[0].startswith(note)


def test_with_a_gpu_fp16_is_what_it_says(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    asked = micro("stages.0.precision=fp16")
    precision.check_precision(asked)
    assert precision.precisions(asked) == ["fp16"]
    assert precision.precisions(micro()) == ["bf16"]
