"""A kind of stage from outside: two views, a momentum encoder, a text tower that learns; one class and one model.

What it takes is in the first half of this file. Nothing of handreid is changed for it but the two unions of kinds.
"""

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from handreid.data.sampling import Drawn, RandomBatches
from handreid.errors import CheckError, RunError
from handreid.evaluation.evaluate import evaluate
from handreid.files import file_hash, read_json
from handreid.models.embedder import Embedder
from handreid.models.text import TextEncoder
from handreid.recipe import FineTune, LearnPrompts, Optimizer, Recipe, parse_recipe
from handreid.recipe.stage_base import StageValue
from handreid.report.page.summary_text import describe_run
from handreid.runs.dataset import RunDataset
from handreid.runs.folder import Run
from handreid.runs.pretrained_weights import towers_of
from handreid.runs.stage_weights import checked
from handreid.training.checks import Pass, Probe
from handreid.training.context import Handover, Job
from handreid.training.epoch_callback import EpochCallback, ValidationSpec
from handreid.training.optimizers import Group, Part, parameter_groups
from handreid.training.stage_module import StageModule
from handreid.training.stages.base import Stage, load_text
from handreid.training.stages.registry import STAGES
from handreid.training.train import train
from tests.conftest import MICRO_RECIPE

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*")


class TwoViews(StageValue):
    """Two views of a photo find each other, and the sentence of a hand, beside a momentum encoder."""

    kind: Literal["two_views"] = "two_views"
    epochs: int = 2
    batch_size: int = 8
    momentum: float = 0.9
    optimizer: Optimizer = Optimizer()
    clip_gradients: float | None = None
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    validate_every: int = 1

    @property
    def trains_encoder(self) -> bool:
        return True


@dataclass(frozen=True)
class Views:
    """Two views of each photo, and no labels: one row of `views` is two photos."""

    views: Tensor  # photos, 2, 3, height, width; bytes


class Pairs(Dataset[Views]):
    def __init__(self, photos: np.ndarray) -> None:
        self.photos = photos

    def __getitem__(self, drawn: list[Drawn]) -> Views:
        photos = torch.from_numpy(np.stack([self.photos[position] for position, _ in drawn]))
        return Views(torch.stack([photos, photos.flip(-1)], dim=1))


class TwoViewsModule(StageModule):
    def __init__(self, embedder: Embedder, text: TextEncoder, stage: TwoViews, photos: np.ndarray, seed: int) -> None:
        super().__init__(stage, stage.optimizer, seed=seed)
        self.stage, self.photos = stage, photos
        self.embedder, self.text = embedder, text.requires_grad_(True)
        self.momentum_encoder = copy.deepcopy(embedder).requires_grad_(False)
        self.steps = 0

    @property
    def result(self) -> Embedder:
        return self.embedder

    @property
    def learned_text(self) -> TextEncoder:
        return self.text

    @property
    def batches_per_epoch(self) -> int:
        return len(self._batches())

    @property
    def photos_per_epoch(self) -> int:
        return 2 * len(self.photos)

    def photos_in(self, batch: Views) -> int:
        return 2 * len(batch.views)

    def groups(self) -> list[Group]:
        lr = self.stage.optimizer.lr
        parts = [Part("encoder", list(self.embedder.backbone.visual.parameters()), lr)]
        for own in self.embedder.head.parameters():
            own.requires_grad_(False)
        for name, own in self.text.named_parameters():
            own.requires_grad_("transformer" in name)
        parts.append(Part("text tower", list(self.text.parameters()), lr))
        return parameter_groups(parts, weight_decay=0.0)

    def train_dataloader(self) -> DataLoader[Views]:
        return DataLoader(Pairs(self.photos), sampler=self._batches(), batch_size=None)

    def transfer_batch_to_device(self, batch: Views, device: torch.device, dataloader_idx: int) -> Views:
        return Views(batch.views.to(device))

    def training_step(self, batch: Views, index: int) -> Tensor:
        self.seed_step(index)
        losses = self.losses(batch)
        total = losses["views"] + 0.5 * losses["sentence"]
        self._note(loss=total, **losses)
        return total

    def losses(self, batch: Views) -> dict[str, Tensor]:
        left = F.normalize(self.embedder(batch.views[:, 0]).features.joint, dim=1)
        with torch.no_grad():
            right = F.normalize(self.momentum_encoder(batch.views[:, 1]).features.joint, dim=1)
        views = F.cross_entropy(left @ right.T / 0.1, torch.arange(len(left), device=left.device))
        sentence = F.normalize(self.text.encode(["a photo of a hand"]), dim=1)
        self.last = views, (1 - left @ sentence.T).mean()
        return {"views": self.last[0], "sentence": self.last[1]}

    def after_step(self) -> None:
        self.steps += 1
        with torch.no_grad():
            for slow, own in zip(self.momentum_encoder.parameters(), self.embedder.parameters(), strict=True):
                slow.lerp_(own, 1 - self.stage.momentum)

    def _batches(self) -> RandomBatches:
        return RandomBatches(len(self.photos), self.stage.batch_size, seed=self.seed, epoch=self.current_epoch)


class TwoViewsProbe(Probe[TwoViewsModule]):
    moving = frozenset({"encoder", "text tower"})

    @property
    def labels(self) -> None:
        return None

    def one_pass(self, batch: Any) -> Pass:
        total = self.module.training_step(batch, 0)
        return Pass(
            total, dict(zip(("views", "sentence"), self.module.last, strict=True)), {"views": 1.0, "sentence": 0.5}
        )

    def frozen(self) -> dict[str, nn.Parameter]:
        return dict(self.module.momentum_encoder.named_parameters())


class TwoViewsStage(Stage[TwoViews, TwoViewsModule]):
    def check(self, handover: Handover, material: RunDataset) -> None:
        pass

    def module(self, job: Job) -> TwoViewsModule:
        photos = job.decoded(job.material.split.train)
        return TwoViewsModule(job.embedder, job.text, self.settings, photos, job.seed(self.number))

    def validation(self, job: Job, module: TwoViewsModule) -> ValidationSpec:
        return ValidationSpec(lambda _: {}, self.settings.validate_every, monitor=None)

    def key(self, handover: Handover) -> bytes:
        from handreid.models.sealed import digest_of

        return digest_of(handover.embedder.state_dict()) + digest_of(handover.text.state_dict())

    def load(self, folder: Path, handover: Handover) -> Handover:
        handover.embedder.load_state_dict(Embedder.load(checked(folder / "last.safetensors")).state_dict())
        for part in (handover.embedder, handover.text):
            part.eval().requires_grad_(True)
        return load_text(folder, "last", handover)

    def probe(self, module: TwoViewsModule) -> TwoViewsProbe:
        return TwoViewsProbe(module)

    def describe(self) -> str:
        return f"two views of each photo find each other for {self.settings.epochs} epochs"


@pytest.fixture
def kind(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Registers the kind: the two lines that a kind in the package has."""
    monkeypatch.setitem(STAGES, "two_views", TwoViewsStage)
    field = Recipe.model_fields["stages"]
    before = field.annotation
    field.annotation = tuple[Annotated[TwoViews | FineTune | LearnPrompts, Field(discriminator="kind")], ...]
    Recipe.model_rebuild(force=True)
    yield
    field.annotation = before
    Recipe.model_rebuild(force=True)


TWO = "{kind: two_views, optimizer: {kind: adamw, lr: 1.0e-3}}"
TUNE = (
    "{kind: fine_tune, epochs: 1, batch_size: 8, optimizer: {lr: 1.0e-3, schedule: {kind: cosine, warmup_epochs: 0}}}"
)


def recipe_of(*stages: str) -> Recipe:
    return parse_recipe(MICRO_RECIPE, "micro", [f"stages=[{', '.join(stages)}]", "evaluate.prompts={}"])


def stopped_after(epochs: int, monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> None:
    checkpoint = EpochCallback._checkpoint

    def stop(self: EpochCallback, trainer: Any) -> None:
        checkpoint(self, trainer)
        if trainer.current_epoch + 1 == epochs:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(EpochCallback, "_checkpoint", stop)
        with pytest.raises(KeyboardInterrupt):
            work()


@pytest.mark.usefixtures("kind")
class TestAKindOfStageFromOutside:
    def test_is_trained_kept_and_read_and_goes_on_to_the_same_weights(
        self, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        recipe = recipe_of(TWO, TUNE)
        whole = train(recipe, photos, tmp_path / "elsewhere" / "whole")
        stopped_after(1, monkeypatch, lambda: train(recipe, photos, tmp_path / "stopped"))
        stopped = train(None, None, tmp_path / "stopped", resume=True)
        taken = train(recipe, photos, tmp_path / "elsewhere" / "taken")
        for run in (stopped, taken):
            assert run.model.read_bytes() == whole.model.read_bytes()
            assert run.text.read_bytes() == whole.text.read_bytes()
        self.the_run_folder_proves_its_files(whole, taken)
        self.what_reads_words_has_the_trained_tower(whole)
        _, found = evaluate(whole)
        assert found.metrics["map"].value > 0
        assert found.prompts is not None
        assert (
            describe_run(recipe, None).count("In stage 0, two views of each photo find each other for 2 epochs.") == 1
        )

    def the_run_folder_proves_its_files(self, run: Run, taken: Run) -> None:
        folder = run.stage(0, "two_views")
        noted = read_json(folder / "stage.json")["files"]
        assert {"last.safetensors", "last-text.safetensors"} <= noted.keys()
        assert run.facts["files"]["text.safetensors"] == file_hash(run.text)
        assert "taken_from" in read_json(taken.stage(0, "two_views") / "stage.json")
        lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
        first = [line for line in lines if line["stage"] == 0]
        assert len(first) == 2
        assert {"views", "sentence", "loss"} <= first[0].keys()
        learning = read_json(folder / "parameters.json")["learning"]
        assert set(learning) == {"encoder", "text tower"}
        checks = read_json(folder / "checks.json")
        assert [check["name"] for check in checks["checks"]] == [
            "subject_disjoint",
            "optimised",
            "rates",
            "gradients",
            "frozen",
        ]

    def what_reads_words_has_the_trained_tower(self, run: Run) -> None:
        from handreid.build import build_towers

        untrained, trained = build_towers(run.recipe).text, towers_of(run).text
        sentence = ["a photo of a hand"]
        with torch.no_grad():
            assert not torch.equal(untrained.encode(sentence), trained.encode(sentence))
        run.text.write_bytes(run.text.read_bytes()[:-1] + b"?")
        with pytest.raises(RunError, match="changed, damaged"):
            towers_of(run)
        run.text.unlink()
        trained.save(run.text)

    def test_the_momentum_encoder_moves_once_for_each_step_and_photos_of_both_views_are_counted(
        self, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        modules: list[TwoViewsModule] = []
        counts: list[tuple[int, int]] = []
        made, ended = TwoViewsStage.module, EpochCallback.on_train_epoch_end

        def noted(self: TwoViewsStage, job: Job) -> TwoViewsModule:
            modules.append(made(self, job))
            return modules[-1]

        def counted(self: EpochCallback, trainer: Any, pl_module: Any) -> None:
            counts.append((self.seen, pl_module.photos_per_epoch))
            ended(self, trainer, pl_module)

        monkeypatch.setattr(TwoViewsStage, "module", noted)
        monkeypatch.setattr(EpochCallback, "on_train_epoch_end", counted)
        train(recipe_of(TWO), photos, tmp_path / "run")
        assert modules[0].steps == 2 * modules[0].batches_per_epoch
        assert [seen for seen, _ in counts] == [of for _, of in counts]

    def test_its_faults_are_found_before_the_first_step(
        self, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(TwoViewsModule, "groups", lambda self: [
            {"params": list(self.text.parameters()), "lr": 1e-3, "weight_decay": 0.0, "name": "text tower"}
        ])  # fmt: skip
        with pytest.raises(CheckError, match=r"stage 0 \(two_views\).*\n  optimised: .* in no group of the optimizer"):
            train(recipe_of(TWO), photos, tmp_path / "run")
