"""Training: what learns, what does not, when, and that a killed run ends as if it had not been."""

import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from torch import nn

from handreid.build import (
    build_augment,
    build_batches,
    build_embedder,
    build_mix,
    build_objectives,
    build_towers,
    enlargement,
)
from handreid.data.sampling import TrainingPhotos
from handreid.errors import RunError, WeightsError
from handreid.files import read_json
from handreid.models.backbone import Backbone
from handreid.models.embedder import Embedder
from handreid.progress import NullProgress
from handreid.recipe import (
    ConstantSchedule,
    CosineSchedule,
    FineTune,
    MultistepSchedule,
    OneCycleSchedule,
    Recipe,
    parse_recipe,
)
from handreid.runs.dataset import load_dataset
from handreid.runs.epoch_metrics import read_metrics
from handreid.runs.folder import Run
from handreid.training.epoch_callback import EpochCallback, ValidationSpec, read_checkpoint_progress
from handreid.training.optimizers import Part, parameter_groups, rate_factor
from handreid.training.stages.fine_tune.module import FineTuneModule
from handreid.training.train import train
from handreid.training.trainer import build_trainer
from handreid.types import Preprocessing
from tests.conftest import MICRO_RECIPE
from tests.forks import CommandLine


def micro(*overrides: str) -> Recipe:
    return parse_recipe(MICRO_RECIPE, "micro", overrides)


def made_up(recipe: Recipe, identities: int = 4, each: int = 4) -> TrainingPhotos:
    towers = build_towers(recipe)
    stage, size = recipe.fine_tunes[0][1], Backbone(towers.image, towers.config).size
    big = round(size[0] * enlargement(stage))
    count = identities * each
    photos = np.random.default_rng(0).integers(0, 255, (count, 3, big, big), np.uint8)
    preprocessing = Preprocessing(size, (0.5,) * 3, (0.5,) * 3)
    labels, augment = np.arange(count) % identities, build_augment(stage, preprocessing)
    return TrainingPhotos(photos, np.arange(count), labels, augment, mirror=stage.chirality == "mirror_as_new_identity")


def module_of(recipe: Recipe, identities: int = 4) -> FineTuneModule:
    embedder, stage = build_embedder(recipe, build_towers(recipe)), recipe.fine_tunes[0][1]
    photos = made_up(recipe, identities)
    texts = torch.randn(
        photos.identities, embedder.backbone.widths["joint"], generator=torch.Generator().manual_seed(0)
    )
    objectives = build_objectives(stage, embedder.head, photos.identities, recipe.seed, texts)
    labels = photos.labels.numpy()
    batches = build_batches(stage, labels, labels, seed=0)
    return FineTuneModule(embedder, objectives, stage, photos, batches, seed=0, mix=build_mix(stage)).train()


def fit(module: FineTuneModule, *callbacks: L.Callback) -> L.Trainer:
    trainer = build_trainer(module.stage, list(callbacks))
    trainer.fit(module)
    return trainer


pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*")


class TestWhatLearns:
    """Trap 3: classifiers and necks in no optimizer group, or frozen parameters in one."""

    @pytest.mark.parametrize("frozen", [0, 1, 2])
    def test_trainable_equals_optimised(self, frozen: int):
        module = module_of(micro(f"stages.0.freeze_blocks={frozen}"))
        groups = module.groups()
        optimised = [id(p) for group in groups for p in group["params"]]
        trainable = [id(p) for p in module.parameters() if p.requires_grad]
        assert len(optimised) == len(set(optimised))
        assert set(optimised) == set(trainable)

    def test_classifiers_and_necks_learn_faster_and_vectors_do_not_decay(self):
        module = module_of(micro())
        rate = {id(p): (group["lr"], group["weight_decay"]) for group in module.groups() for p in group["params"]}
        decay = module.stage.optimizer.weight_decay
        classifier = module.objectives["0_cross_entropy"].classifiers["pooled"].weight
        assert rate[id(classifier)] == (pytest.approx(2e-3), decay)
        assert rate[id(module.embedder.head.necks["pooled"].weight)] == (pytest.approx(2e-3), 0.0)
        assert rate[id(module.embedder.backbone.visual.conv1.weight)] == (pytest.approx(1e-3), decay)
        assert rate[id(module.embedder.backbone.visual.ln_post.bias)] == (pytest.approx(1e-3), 0.0)

    def test_frozen_parameters_are_bit_identical_after_training_and_the_others_move(self):
        module = module_of(micro("stages.0.freeze_blocks=1", "stages.0.epochs=1"))
        before = {name: p.detach().clone() for name, p in module.named_parameters()}
        fit(module)
        for name, parameter in module.named_parameters():
            assert torch.equal(parameter, before[name]) != parameter.requires_grad, name

    def test_every_configured_objective_changes_the_gradient(self):
        one = micro("stages.0.objectives=[{kind: cross_entropy, features: [pooled]}]")
        two = micro(
            "stages.0.objectives=[{kind: cross_entropy, features: [pooled]}, {kind: cross_entropy, features: [joint]}]"
        )
        gradients = []
        for recipe in (one, two):
            module = module_of(recipe)
            batch = module.photos[[(i, i) for i in range(8)]]
            module.training_step(batch, 0).backward()
            gradients.append(module.embedder.backbone.visual.conv1.weight.grad.clone())
        assert not torch.allclose(gradients[0], gradients[1])

    def test_frozen_batch_norm_keeps_its_statistics(self):
        recipe = micro(
            "model.backbone.config.vision_cfg="
            "{image_size: 64, layers: [1, 1, 1, 1], width: 8, patch_size: null, head_width: 32}",
            "stages.0.freeze_blocks=2",
        )
        backbone = module_of(recipe).embedder.backbone
        assert not backbone.visual.bn1.training
        assert not backbone.visual.layer2[0].bn1.training
        assert backbone.visual.layer3[0].bn1.training

    def test_an_untrained_classifiers_loss_is_ln_of_the_identities(self):
        module = module_of(micro())
        loss = module.training_step(module.photos[[(i, i) for i in range(16)]], 0)
        assert loss.item() == pytest.approx(2 * math.log(4), rel=0.02)  # two classifiers


class TestWhen:
    """Trap 12: clipping after the step, the best kept by reference, schedules counted in the wrong unit."""

    def test_gradients_are_clipped_before_the_step(self):
        """With plain SGD and no momentum a step is lr x gradient: its length shows what the optimizer saw."""
        recipe = micro(
            "stages.0.optimizer={kind: sgd, lr: 1, new_layers: 1, momentum: 0, weight_decay: 0}",
            "stages.0.optimizer.schedule={kind: constant}",
            "stages.0.clip_gradients=0.001",
            "stages.0.batch_size=16",
            "stages.0.epochs=1",
        )
        module = module_of(recipe)
        before = [p.detach().clone() for p in module.parameters() if p.requires_grad]
        fit(module)
        moved = torch.cat(
            [
                (p - b).flatten()
                for p, b in zip((p for p in module.parameters() if p.requires_grad), before, strict=True)
            ]
        )
        assert module.epoch_means()["gradient_norm"] > 0.01
        assert moved.norm().item() == pytest.approx(0.001, rel=1e-2)

    @pytest.mark.parametrize(
        ("schedule", "expected"),
        [
            (ConstantSchedule(warmup_epochs=1, warmup_factor=0.1), {0: 0.1, 5: 0.55, 10: 1, 99: 1}),
            (CosineSchedule(), {0: 1, 50: 0.5, 100: 0}),
            (
                CosineSchedule(warmup_epochs=2, warmup_factor=0.01, final_factor=0.1),
                {0: 0.01, 20: 1, 60: 0.55, 100: 0.1},
            ),
            (MultistepSchedule(milestones=(4, 6), gamma=0.5), {0: 1, 39: 1, 40: 0.5, 59: 0.5, 60: 0.25, 99: 0.25}),
            (
                OneCycleSchedule(warmup_epochs=3, warmup_factor=0.04, final_factor=0),
                {0: 0.04, 15: 0.52, 30: 1, 65: 0.5},
            ),
        ],
    )
    def test_schedules_are_stated_in_epochs_and_stepped_per_batch(self, schedule, expected):
        factor = rate_factor(schedule, epochs=10, steps_per_epoch=10)
        assert {step: pytest.approx(factor(step)) for step in expected} == expected

    @pytest.mark.parametrize("accumulate", [1, 2, 3])
    def test_the_schedule_ends_when_training_does(self, accumulate: int):
        """16 photos in batches of 4: 4 batches an epoch."""
        recipe = micro(
            f"stages.0.accumulate={accumulate}",
            "stages.0.batch_size=4",
            "stages.0.epochs=1",
            "stages.0.optimizer.schedule={kind: cosine}",
        )
        module = module_of(recipe)
        trainer = fit(module)
        assert trainer.global_step == module.steps_per_epoch == math.ceil(4 / accumulate)
        assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)

    def test_the_best_model_is_kept_though_training_goes_on(self, tmp_path: Path):
        """Validation says the first epoch is the best; what is kept must be that epoch's weights, not the last's."""
        module, seen = module_of(micro("stages.0.epochs=3")), []

        def validate(embedder: Embedder) -> dict[str, float]:
            seen.append(embedder.backbone.visual.conv1.weight.detach().clone())
            return {"map": 1.0 - 0.1 * len(seen), "rank1": 0.0}

        keeper = EpochCallback(
            Run(tmp_path), 0, tmp_path, ValidationSpec(validate, 1), NullProgress().say, lambda n: None
        )
        fit(module, keeper)
        best = Embedder.load(tmp_path / "best.safetensors").backbone.visual.conv1.weight
        assert torch.equal(best, seen[0])
        assert not torch.equal(best, seen[-1])


def test_batches_are_not_sharded_a_second_time():
    """Trap 16: the samplers shard themselves, see tests/data/test_samplers.py."""
    trainer = build_trainer(FineTune(), [])
    assert trainer._accelerator_connector.use_distributed_sampler is False


class TestTheRun:
    def test_ctrl_c_in_the_middle_of_a_checkpoint_is_ctrl_c_and_no_broken_file(
        self, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        """torch's writer, interrupted, complains of where it stands."""
        save = L.Trainer.save_checkpoint

        def interrupted(self: L.Trainer, path: Path) -> None:
            if self.current_epoch == 1:
                try:
                    raise KeyboardInterrupt
                finally:
                    raise RuntimeError("unexpected pos 64 vs 0")
            save(self, path)

        monkeypatch.setattr(L.Trainer, "save_checkpoint", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(micro(), photos, tmp_path / "run")
        monkeypatch.undo()
        assert train(None, None, tmp_path / "run", resume=True).finished

    def test_who_watches_is_told_each_line_and_can_stop_a_run_that_then_goes_on(self, photos: Path, tmp_path: Path):
        told: list[Mapping[str, Any]] = []

        def watch(entry: Mapping[str, Any]) -> None:
            told.append(entry)
            if entry["epoch"] == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(micro(), photos, tmp_path / "run", watch=[watch])
        run = train(None, None, tmp_path / "run", resume=True, watch=[told.append])
        assert told == read_metrics(run)
        assert [entry["epoch"] for entry in told] == [1, 2, 3]

    def test_training_lowers_the_loss_and_leaves_a_complete_folder(self, photos: Path, tmp_path: Path):
        run = train(micro("stages.0.epochs=4"), photos, tmp_path / "run")
        lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
        assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
        assert lines[-1]["loss"] < lines[0]["loss"]
        assert 0 <= lines[-1]["validation_map"] <= 1
        facts = read_json(run.folder / "run.json")
        assert {"versions", "device", "seed", "manifest_hash", "split_hash", "draws_hash", "command"} <= facts.keys()
        assert run.recipe == micro("stages.0.epochs=4")
        assert not list(run.folder.rglob("*.writing"))

    def test_early_stopping_and_its_memory(self, photos: Path, tmp_path: Path):
        recipe = micro("stages.0.epochs=30", "stages.0.optimizer.lr=1e-8", "stages.0.early_stopping={patience: 2}")
        run = train(recipe, photos, tmp_path / "run")
        epochs = len(run.metrics.read_text().splitlines())
        assert epochs < 30
        assert read_checkpoint_progress(run.stage(0, "fine_tune")) == (epochs, True)
        run.model.rename(tmp_path / "before.safetensors")  # as if killed between the decision to stop and the end
        again = train(None, None, run.folder, resume=True)
        assert len(run.metrics.read_text().splitlines()) == epochs
        assert again.model.read_bytes() == (tmp_path / "before.safetensors").read_bytes()

    def test_validation_and_test_identities_never_train(self, photos: Path):
        """Trap 7: model selection on test identities."""
        split = load_dataset(micro(), photos).split
        people = {
            name: {split.subjects[row] for draw in draws for row in (*draw.query, *draw.gallery)}
            for name, draws in (("validation", split.validation), ("test", split.test))
        }
        trained = {split.subjects[row] for row in split.train}
        assert not trained & people["test"]
        assert not trained & people["validation"]
        assert not people["validation"] & people["test"]

    def test_another_recipe_or_other_data_is_refused(self, photos: Path, tmp_path: Path):
        train(micro("stages.0.epochs=1"), photos, tmp_path / "run")
        with pytest.raises(RunError, match="is not empty; choose another --out"):
            train(micro("stages.0.epochs=1"), photos, tmp_path / "run")
        with pytest.raises(RunError, match=r"stages\.0\.epochs was 1, now 2"):
            train(micro("stages.0.epochs=2"), photos, tmp_path / "run", resume=True)
        with pytest.raises(RunError, match="give a recipe"):
            train(None, photos, tmp_path / "none", resume=True)

    def test_weights_that_cannot_be_had_leave_no_folder_behind(self, photos: Path, tmp_path: Path):
        with pytest.raises(WeightsError):
            train(micro("model.backbone.weights=absent.pt"), photos, tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_a_loss_that_is_not_finite_says_what_to_do(self, photos: Path, tmp_path: Path):
        with pytest.raises(RunError, match=r"the loss is nan .* lower optimizer\.lr"):
            train(micro("stages.0.optimizer.lr=1e30", "stages.0.epochs=20"), photos, tmp_path / "run")

    @pytest.mark.parametrize("delay", [0.0, 0.2])
    def test_killed_runs_end_with_the_same_weights(self, long_run: Path, photos: Path, tmp_path: Path, delay: float):
        """SIGKILL at some moment after the first checkpoint, then --resume, as a person would."""
        killed, first = tmp_path / "killed", tmp_path / "killed/stages/0-fine_tune/last.ckpt"
        with CommandLine("train", long_run / "recipe.yaml", "--data", photos, "--out", killed) as going:
            going.wait_for(first)
            time.sleep(delay)
            going.send_signal(signal.SIGKILL)
        assert read_checkpoint_progress(first.parent) is not None
        assert not (killed / "model.safetensors").exists(), "killed too late to show anything"
        with CommandLine("train", "--resume", "--out", killed) as going:
            assert going.wait() == 0
        for name in ("model.safetensors", "stages/0-fine_tune/best.safetensors"):
            assert (killed / name).read_bytes() == (long_run / name).read_bytes(), name
        ends = [torch.load(run / "stages/0-fine_tune/last.ckpt", weights_only=True) for run in (long_run, killed)]
        assert all(torch.equal(ends[0]["state_dict"][k], ends[1]["state_dict"][k]) for k in ends[0]["state_dict"])
        assert history(long_run) == history(killed)


@pytest.fixture(scope="module")
def long_run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 16 epochs that nobody stopped."""
    folder = tmp_path_factory.mktemp("long")
    (folder / "asked.yaml").write_text(MICRO_RECIPE.replace("epochs: 3", "epochs: 16"))
    with CommandLine("train", folder / "asked.yaml", "--data", photos, "--out", folder / "run") as going:
        assert going.wait() == 0
    return folder / "run"


def test_lines_of_epochs_that_run_again_are_dropped(photos: Path, tmp_path: Path):
    """Killed between the line of an epoch and its checkpoint, or in the middle of the line."""
    run = train(micro(), photos, tmp_path / "run")
    whole = history(run.folder)
    run.model.unlink()
    checkpoint = run.stage(0, "fine_tune") / "last.ckpt"
    kept = checkpoint.with_name("kept")
    checkpoint.rename(kept)  # now as if killed before the first checkpoint
    (checkpoint.parent / "stage.json").unlink()
    with run.metrics.open("a") as file:
        file.write('{"stage": 0, "epo')
    train(None, None, run.folder, resume=True)
    assert history(run.folder) == whole


def test_a_second_stage_starts_from_the_first_and_resumes_without_touching_it(photos: Path, tmp_path: Path):
    stage = "{kind: fine_tune, epochs: 2, batch_size: 8, freeze_blocks: %d, optimizer: {schedule: {kind: constant}}}"
    run = train(micro(f"stages=[{stage % 1}, {stage % 0}]"), photos, tmp_path / "run")
    whole, model = history(run.folder), run.model.read_bytes()
    assert [(line["stage"], line["epoch"]) for line in whole] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    untouched = build_embedder(micro(), build_towers(micro())).state_dict()
    first = Embedder.load(run.stage(0, "fine_tune") / "best.safetensors").state_dict()
    second = torch.load(run.stage(1, "fine_tune") / "last.ckpt", weights_only=True)["state_dict"]
    stem, bias = "backbone.visual.conv1.weight", "head.necks.pooled.bias"
    assert torch.equal(first[stem], untouched[stem])  # frozen in the first stage
    assert not torch.equal(second[f"embedder.{stem}"], untouched[stem])  # and learning again in the second
    assert not second[f"embedder.{bias}"].any()  # a neck's bias never learns
    run.model.unlink()
    train(None, None, run.folder, resume=True)
    assert history(run.folder) == whole
    assert run.model.read_bytes() == model


def history(folder: Path) -> list[dict[str, float]]:
    """metrics.jsonl without what the clock and the machine's memory say."""
    measured = ("seconds", "photos_per_second", "peak_memory")
    return [{k: v for k, v in entry.items() if k not in measured} for entry in read_metrics(Run(folder))]


class TestTheEmbedder:
    def test_it_loads_without_the_training_half(self, tmp_path: Path):
        embedder = build_embedder(micro(), build_towers(micro()))
        embedder.save(tmp_path / "model.safetensors")
        code = (
            "import sys, torch\n"
            "from handreid.models.embedder import Embedder\n"
            f"e = Embedder.load({str(tmp_path / 'model.safetensors')!r})\n"
            "print(e.embed(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape)\n"
            "halves = ('handreid.training', 'handreid.recipe', 'lightning')\n"
            "assert not {m for m in sys.modules if m.startswith(halves)}\n"
        )
        printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
        assert "[2, 96]" in printed

    def test_saved_and_loaded_it_embeds_the_same(self, tmp_path: Path):
        embedder = module_of(micro()).embedder
        photos = torch.randint(0, 255, (3, 3, 32, 32), dtype=torch.uint8)
        embedder(photos)  # in training mode: moves the necks' statistics
        embedder.save(tmp_path / "m.safetensors")
        again = Embedder.load(tmp_path / "m.safetensors")
        assert torch.equal(again.embed(photos), embedder.embed(photos))
        assert again.preprocessing == embedder.preprocessing

    def test_embedding_is_of_unit_length_in_eval_mode_and_leaves_the_mode_alone(self):
        embedder = module_of(micro()).embedder.train()
        photos = torch.randint(0, 255, (4, 3, 32, 32), dtype=torch.uint8)
        alone, together = embedder.embed(photos[:1]), embedder.embed(photos)
        assert embedder.training
        assert torch.allclose(alone, together[:1], atol=1e-6)
        assert torch.allclose(together.norm(dim=1), torch.ones(4))

    def test_the_mirrored_option_is_symmetric_and_off_by_default(self):
        """Trap 14: a flip is a named choice."""
        embedder = build_embedder(micro(), build_towers(micro()))
        photos = torch.randint(0, 255, (2, 3, 32, 32), dtype=torch.uint8)
        flipped = photos.flip(-1)
        assert torch.allclose(embedder.embed(photos, flip_tta=True), embedder.embed(flipped, flip_tta=True), atol=1e-6)
        assert not torch.allclose(embedder.embed(photos), embedder.embed(flipped), atol=1e-3)

    def test_other_files_are_refused(self, tmp_path: Path):
        (tmp_path / "x.safetensors").write_bytes(b"nothing")
        with pytest.raises(WeightsError, match="cannot be read"):
            Embedder.load(tmp_path / "x.safetensors")
        from safetensors.torch import save_file

        save_file({"a": torch.zeros(1)}, tmp_path / "y.safetensors")
        with pytest.raises(WeightsError, match="not a handreid model"):
            Embedder.load(tmp_path / "y.safetensors")


class TestPreprocessing:
    """Trap 6: one preprocessing object, in training and at test, stored with the model."""

    def test_training_and_validation_decode_by_the_models_own(
        self, photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ):
        import handreid.training.context as train_module
        from handreid import inference
        from handreid.data.loading import decode_all
        from handreid.evaluation.evaluate import evaluate
        from handreid.runs.folder import open_run

        used: list[Preprocessing] = []

        def noted(paths, preprocessing, **options):
            used.append(preprocessing)
            return decode_all(paths, preprocessing, **options)

        monkeypatch.setattr(train_module, "decode_all", noted)
        monkeypatch.setattr(inference, "decode_all", noted)
        recipe = micro("stages.0.epochs=1", "model.preprocess={normalise: half, resize: pad, interpolation: bilinear}")
        run = train(recipe, photos, tmp_path / "run")
        evaluate(open_run(run.folder))
        stored = Embedder.load(run.model).preprocessing
        assert len(used) == 5  # photos to train, validate and test; the check decodes a few by the same ways
        assert set(used) == {stored}
        assert (stored.mean, stored.resize, stored.interpolation) == ((0.5, 0.5, 0.5), "pad", "bilinear")

    def test_without_augmentation_training_sees_what_the_test_sees(self):
        recipe = micro("stages.0.augment=[]")
        photos = made_up(recipe)
        assert torch.equal(photos[[(3, 99)]].photos[0], torch.from_numpy(photos.photos[3]))

    def test_flips_are_drawn_only_when_chosen(self):
        """Trap 14: horizontal flips happen only as the chirality choice."""
        for chirality, flips in (("none", False), ("flip", True)):
            photos = made_up(micro(f"stages.0.chirality={chirality}", "stages.0.augment=[]"))
            original = torch.from_numpy(photos.photos[0])
            seen = [photos[[(0, seed)]].photos[0] for seed in range(20)]
            mirrored = [torch.equal(one, original.flip(-1)) for one in seen]
            assert any(mirrored) == flips
            assert all(torch.equal(one, original) or flip for one, flip in zip(seen, mirrored, strict=True))


def test_parameter_groups_leave_out_what_is_frozen():
    encoder, new = nn.Linear(2, 2), nn.Linear(2, 2)
    encoder.weight.requires_grad_(False)
    parts = [Part("encoder", list(encoder.parameters()), 1.0), Part("new", list(new.parameters()), 10.0)]
    groups = parameter_groups(parts, weight_decay=0.1)
    assert [(g["lr"], g["weight_decay"], len(g["params"])) for g in groups] == [
        (1.0, 0.0, 1),
        (10.0, 0.1, 1),
        (10.0, 0.0, 1),
    ]


def test_stages_default_to_the_published_baseline():
    stage = FineTune()
    assert (stage.epochs, stage.photos_per_batch, stage.optimizer.lr, stage.chirality) == (70, 20, 5e-6, "none")
