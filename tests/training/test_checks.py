"""Checks before the first step: each catches the fault it is for, names it and the place, and leaves no trace."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Sampler
from torchvision.transforms import v2
from typer.testing import CliRunner

from handreid import inference
from handreid.build import build_embedder, build_towers
from handreid.cli.commands import app
from handreid.data import sources
from handreid.data.rendered import render
from handreid.data.sampling import Drawn
from handreid.errors import CheckError, RecipeError
from handreid.files import read_json
from handreid.models.embedder import Embedder
from handreid.models.text import TextEncoder
from handreid.objectives.triplet import Triplet
from handreid.progress import NullProgress
from handreid.recipe import Recipe, builtin_names, load_recipe
from handreid.recipe.checks import CHECKS
from handreid.runs import environment
from handreid.runs.dataset import load_dataset
from handreid.runs.folder import Run
from handreid.runs.side_information import seen_combinations
from handreid.training import checks
from handreid.training.checks import CheckResult, before_run
from handreid.training.checks.data import check_subject_disjoint
from handreid.training.checks.restore import restored
from handreid.training.checks.result import raise_failed
from handreid.training.checks.small_batches import subsample
from handreid.training.context import Handover, Job
from handreid.training.prototype_attributes import attach_prototypes
from handreid.training.stages.fine_tune.probe import FineTuneProbe
from handreid.training.stages.fine_tune.stage import fine_tune_module
from handreid.training.stages.learn_prompts.module import LearnPromptsModule
from handreid.training.stages.learn_prompts.probe import LearnPromptsProbe
from handreid.training.stages.registry import stage_of as kind_of
from handreid.training.train import train
from handreid.workflows import doctor
from tests.conftest import MICRO_RECIPE
from tests.training.test_strategies import HEADS_OF_SENTENCES, NO_SIZE, PK, RESUMED, TERMS
from tests.training.test_train import micro

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*")

PROMPTS = "{kind: learn_prompts, epochs: 2, templates: ['A photo of a {context} hand.'], tokens: 2, "
PROMPTS += "optimizer: {schedule: {kind: cosine, warmup_epochs: 0}}}"
ARC = f"stages.0.objectives=[{TERMS['cross_entropy']}, {TERMS['arcface']}]"
SENTENCES = [PK, NO_SIZE, "model.head={kind: promptsg, dropout: 0.1}", HEADS_OF_SENTENCES]


def triplets(*terms: str) -> list[str]:
    return [PK, NO_SIZE, f"stages.0.objectives=[{', '.join(TERMS[name] for name in ('cross_entropy', *terms))}]"]


def job_of(recipe: Recipe, photos: Path, folder: Path, *long_checks: Any) -> Job:
    material, towers = load_dataset(recipe, photos), build_towers(recipe)
    embedder = build_embedder(recipe, towers, seen_combinations(recipe, material))
    attach_prototypes(embedder, recipe, material)
    return Job(
        Run(folder), recipe, Handover(embedder, towers.text), material, NullProgress(), long_checks=tuple(long_checks)
    )


def stage_of(recipe: Recipe, photos: Path, folder: Path, *long_checks: Any, number: int = 0) -> tuple[Job, Any]:
    job = job_of(recipe, photos, folder, *long_checks)
    return job, kind_of(recipe, number).module(job)


def check_stage(job: Job, module: Any, **options: bool) -> list[CheckResult]:
    kind = LearnPromptsProbe if isinstance(module, LearnPromptsModule) else FineTuneProbe
    return checks.check_stage(job, kind(module), **options)


def failed(results: list[CheckResult]) -> dict[str, str]:
    return {result.name: result.found for result in results if not result.passed}


@pytest.fixture
def stage(photos: Path, tmp_path: Path) -> Callable[..., tuple[Job, Any]]:
    def made(*changes: str, long_checks: tuple[str, ...] = ()) -> tuple[Job, Any]:
        return stage_of(micro(*changes), photos, tmp_path, *long_checks)

    return made


@pytest.fixture
def prompts(photos: Path, tmp_path: Path) -> tuple[Job, LearnPromptsModule]:
    return stage_of(micro(f"stages=[{PROMPTS}]"), photos, tmp_path)


class TestOptimised:
    def test_a_classifier_in_no_group(self, stage, monkeypatch):
        job, module = stage()
        groups = module.groups()
        chosen = [group for group in groups if not group["name"].startswith("0_cross_entropy")]
        monkeypatch.setattr(module, "groups", lambda: chosen)
        wrong = failed(check_stage(job, module))["optimised"]
        assert "2 trainable parameters are in no group" in wrong
        assert "objectives.0_cross_entropy.classifiers.pooled.weight" in wrong

    def test_a_frozen_parameter_in_a_group(self, stage):
        job, module = stage()
        optimizer = module.configure_optimizers
        module.configure_optimizers = lambda: frozen_after(optimizer(), module.embedder.backbone.visual.conv1.weight)
        found = failed(check_stage(job, module))
        assert "embedder.backbone.visual.conv1.weight (in group 'encoder, decayed')" in found["optimised"]

    def test_a_parameter_in_two_groups(self, stage, monkeypatch):
        job, module = stage()
        groups = module.groups()
        monkeypatch.setattr(module, "groups", lambda: [*groups, {**groups[0], "name": "again"}])
        assert "more than one parameter group" in failed(check_stage(job, module))["optimised"]

    def test_a_parameter_of_something_else(self, stage, monkeypatch):
        job, module = stage()
        foreign = {"params": [nn.Parameter(torch.zeros(2, 2))], "lr": 1.0, "weight_decay": 0.0, "name": "foreign"}
        groups = module.groups()
        monkeypatch.setattr(module, "groups", lambda: [*groups, foreign])
        assert "not the stage's, in foreign" in failed(check_stage(job, module))["optimised"]


def frozen_after(chosen: dict[str, Any], parameter: nn.Parameter) -> dict[str, Any]:
    parameter.requires_grad_(False)
    return chosen


class TestGradients:
    def test_a_term_that_is_logged_and_not_added(self, stage, monkeypatch):
        """Trap 2."""
        job, module = stage(*triplets("triplet", "center"))

        class Lacking:
            def __getattr__(self, name: str) -> Any:
                return getattr(torch, name)

            def stack(self, terms: list[Tensor]) -> Tensor:
                return torch.stack(terms[:-1])

        monkeypatch.setattr("handreid.training.stages.fine_tune.module.torch", Lacking())
        assert failed(check_stage(job, module)) == {
            "gradients": "2_center is computed but not in the loss: a loss that is only logged trains nothing"
        }

    def test_a_term_with_another_weight(self, stage):
        job, module = stage(*triplets("center"))
        module.stage = module.stage.model_copy(
            update={"objectives": tuple(one.model_copy(update={"weight": 3.0}) for one in module.stage.objectives)}
        )
        step = module.training_step
        module.training_step = lambda batch, index: 2 * step(batch, index)
        found = failed(check_stage(job, module))["gradients"]
        assert "0_cross_entropy is in the loss with the weight 6, not 3" in found

    def test_a_term_that_is_cut_off(self, stage, monkeypatch):
        job, module = stage(*triplets("triplet"))
        whole = Triplet.forward
        monkeypatch.setattr(Triplet, "forward", lambda self, *given: whole(self, *given).detach())
        assert "1_triplet has no gradient" in failed(check_stage(job, module))["gradients"]

    def test_an_encoder_that_is_cut_off_while_a_classifier_learns(self, stage, monkeypatch):
        job, module = stage()
        cut_the_encoder(monkeypatch)
        found = failed(check_stage(job, module))
        assert "0_cross_entropy has a gradient of zero at the features" in found["gradients"]
        assert "nothing of 'encoder' moved" in found["frozen"]

    def test_a_gradient_that_is_no_number(self, stage, monkeypatch):
        job, module = stage(*triplets("triplet"))
        monkeypatch.setattr(Triplet, "forward", lambda self, outputs, _: outputs.before["pooled"].mul(0).sum().sqrt())
        assert "1_triplet has a gradient that is not finite" in failed(check_stage(job, module))["gradients"]

    def test_a_loss_that_is_no_number(self, stage, monkeypatch):
        job, module = stage(*triplets("triplet"))
        monkeypatch.setattr(Triplet, "forward", lambda self, outputs, _: outputs.before["pooled"].sum() / 0)
        assert "1_triplet is" in failed(check_stage(job, module))["gradients"]

    def test_triplets_that_nobody_violates_are_no_fault(self, stage, monkeypatch):
        job, module = stage(*triplets("triplet"))
        whole = Triplet.forward

        def easy(self, outputs, targets):
            apart = 1e3 * nn.functional.one_hot(module.photos.labels[:0].new_tensor(job_labels), 64).float()
            named = {name: value + apart[:, : value.shape[1]] for name, value in outputs.before.items()}
            return whole(self, replace(outputs, before=named), targets)

        job_labels: list[int] = []
        step = module.training_step

        def noted(batch, index):
            job_labels[:] = batch.labels.tolist()
            return step(batch, index)

        module.training_step = noted
        monkeypatch.setattr(Triplet, "forward", easy)
        results = {result.name: result for result in check_stage(job, module)}
        assert results["gradients"].passed, results["gradients"].found
        assert "with exchanged labels" in results["gradients"].found

    def test_a_term_that_never_has_anything_to_say(self, stage, monkeypatch):
        job, module = stage(*triplets("triplet"))
        monkeypatch.setattr(Triplet, "forward", lambda self, outputs, _: outputs.before["pooled"].mul(0).sum())
        found = failed(check_stage(job, module))["gradients"]
        assert "1_triplet has a gradient of zero at the features that it reads (tried on 3 batches)" in found

    def test_prompts_whose_loss_lacks_a_term(self, prompts, monkeypatch):
        job, module = prompts
        step = module.training_step

        def lacking(batch: Tensor, index: int) -> Tensor:
            step(batch, index)
            module.seed_step(index)
            return module.losses(batch)["image_to_text"]

        module.training_step = lacking
        found = failed(check_stage(job, module))["gradients"]
        assert "what is missing is most like text_to_image" in found


def cut_the_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    normalised = Embedder.forward

    def cut(self, photos, conditions=None, *, labels=None):
        features = self.backbone(self.normalise(photos), conditions)
        return self.head.outputs(replace(features, **{k: v.detach() for k, v in vars(features).items()}), labels)

    assert normalised is not cut
    monkeypatch.setattr(Embedder, "forward", cut)


class TestFrozen:
    def test_weight_decay_that_moves_what_is_frozen(self, stage, monkeypatch):
        job, module = stage("stages.0.freeze_blocks=1", "stages.0.optimizer.weight_decay=0.1")
        assert not failed(check_stage(job, module))
        conv, right = module.embedder.backbone.visual.conv1.weight, torch.optim.AdamW.step
        before = conv.detach().clone()

        def decaying(self, *given):
            right(self, *given)
            conv.data.mul_(0.9)

        monkeypatch.setattr(torch.optim.AdamW, "step", decaying)
        wrong = failed(check_stage(job, module))["frozen"]
        assert "1 frozen parameters or statistics moved in a step: embedder.backbone.visual.conv1.weight" in wrong
        assert torch.equal(conv, before)

    def test_what_the_recipe_freezes_and_is_not_frozen(self, stage):
        job, module = stage("stages.0.freeze_blocks=1")
        module.embedder.backbone.unfreeze()
        wrong = failed(check_stage(job, module))["frozen"]
        assert "parameters that the recipe freezes are trainable: embedder.backbone.visual.class_embedding" in wrong

    def test_layers_that_thaw_later(self, stage):
        job, module = stage("stages.0.unfreeze_every=1")
        results = {result.name: result for result in check_stage(job, module)}
        assert not failed(list(results.values()))
        visual = module.embedder.backbone.visual
        assert all(own.requires_grad for own in visual.parameters())
        frozen = int(results["frozen"].found.split(" frozen")[0].split()[-1])
        assert frozen >= sum(1 for own in (visual.conv1.weight, *visual.transformer.resblocks.parameters()))
        module.embedder.backbone.freeze_layers = lambda count: None
        assert "are trainable" in failed(check_stage(job, module))["frozen"]

    def test_low_rank_changes_of_which_half_has_no_gradient_yet(self, stage):
        job, module = stage("stages.0.lora={rank: 2}")
        assert not failed(check_stage(job, module))

    def test_an_optimizer_that_moves_nothing(self, stage, monkeypatch):
        job, module = stage()
        monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: None)
        wrong = failed(check_stage(job, module))["frozen"]
        assert "nothing of 'encoder' moved in a step" in wrong
        assert "nothing of '0_cross_entropy' moved in a step" in wrong

    def test_statistics_of_a_frozen_norm(self, photos: Path, tmp_path: Path, monkeypatch):
        recipe = load_recipe("tiny-resnet-cross-entropy", ["stages.0.freeze_encoder=true", "init_from=null"])
        job, module = stage_of(recipe, photos, tmp_path)
        assert not failed(check_stage(job, module))
        train_mode = nn.Module.train
        monkeypatch.setattr("handreid.models.backbone.Backbone.train", train_mode)
        assert "running_mean" in failed(check_stage(job, module))["frozen"]

    def test_a_text_tower_that_learns(self, prompts):
        job, module = prompts
        assert not failed(check_stage(job, module))
        next(module.text.parameters()).requires_grad_(True)
        assert "1 parameters that the recipe freezes are trainable: text." in failed(check_stage(job, module))["frozen"]


def read_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    right = TextEncoder.encode_embedded
    monkeypatch.setattr(TextEncoder, "encode_embedded", lambda self, e, ends: right(self, e, torch.zeros_like(ends)))


class TestTexts:
    @pytest.fixture
    def at_the_start(self, monkeypatch: pytest.MonkeyPatch):
        """Trap 1."""
        read_at_the_start(monkeypatch)

    def test_prompts_read_at_the_start(self, prompts, at_the_start):
        job, module = prompts
        wrong = failed(check_stage(job, module))["texts"]
        assert "on the left' and 'a photo of a hand on the right' have the same feature" in wrong
        assert "the texts of 4 identities are all the same" in wrong
        assert "end-of-text" in wrong

    def test_prompts_read_before_the_last_word(self, prompts, monkeypatch):
        job, module = prompts
        right = TextEncoder.encode_embedded
        monkeypatch.setattr(TextEncoder, "encode_embedded", lambda self, e, ends: right(self, e, ends - 2))
        assert set(failed(check_stage(job, module))) == {"texts"}

    def test_an_end_that_is_somewhere_else(self, prompts):
        job, module = prompts
        module.learner.sentences = replace(module.learner.sentences, ends=module.learner.sentences.ends - 1)
        assert "do not have the end-of-text token where they are read" in failed(check_stage(job, module))["texts"]

    def test_composed_sentences_read_at_the_start(self, stage, at_the_start):
        job, module = stage(*SENTENCES)
        wrong = failed(check_stage(job, module))
        assert "composed sentences are all the same for 4 photos" in wrong["texts"]

    def test_learned_texts_that_are_all_the_same(self, photos: Path, tmp_path: Path):
        terms = "[{kind: cross_entropy}, {kind: image_to_text}]"
        recipe = micro(f"stages=[{PROMPTS}, {{kind: fine_tune, epochs: 1, objectives: {terms}, "
                       "optimizer: {schedule: {kind: cosine, warmup_epochs: 0}}}]")  # fmt: skip
        job = job_of(recipe, photos, tmp_path)
        identities = len(job.material.split.train_identities())
        module = fine_tune_module(job, 1, torch.randn(1, 32).expand(identities, -1).clone())
        assert "texts of 1_image_to_text are all the same" in failed(check_stage(job, module))["texts"]
        too_few = fine_tune_module(job, 1, torch.randn(identities + 1, 32))
        assert f"{identities + 1} texts for {identities} identities" in failed(check_stage(job, too_few))["labels"]

    def test_sentences_of_the_evaluation(self, photos: Path, monkeypatch):
        recipe = micro("stages=[]", "evaluate.prompts={}")
        material, towers = load_dataset(recipe, photos), build_towers(recipe)
        given = recipe, build_embedder(recipe, towers), towers.text, material
        assert [result.name for result in before_run(*given)] == ["subject_disjoint", "texts"]
        monkeypatch.setattr(TextEncoder, "encode", lambda self, texts: torch.ones(len(texts), 32))
        with pytest.raises(CheckError, match="sentences for two views have the same feature"):
            before_run(*given)


class TestPreprocessing:
    def test_another_size_at_test(self, stage, monkeypatch):
        self.changed(monkeypatch, size=(24, 24))
        assert "photos are 24x24 at test and 32x32 in training" in self.found(stage)

    def test_another_way_to_resize_at_test(self, stage, monkeypatch):
        self.changed(monkeypatch, resize="crop")
        assert "of the bytes of a photo differ between training and test" in self.found(stage)

    def test_another_normalisation_at_test(self, stage, monkeypatch):
        embed = Embedder.embed

        def other(self, photos, conditions=None, *, flip_tta=False):
            return embed(self, photos // 2, conditions, flip_tta=flip_tta)

        monkeypatch.setattr(Embedder, "embed", other)
        assert "the tower gets different values for the same photo" in self.found(stage)

    def test_stored_photos_that_are_not_those_of_the_files(self, stage):
        job, module = stage()
        module.photos.photos = module.photos.photos.copy()
        module.photos.photos[0, 0, 0, 0] ^= 1
        assert "cached photos differ from the files" in failed(check_stage(job, module))["preprocessing"]

    def test_a_flip_that_nobody_named(self, stage):
        job, module = stage()
        module.photos.augment = v2.Compose([v2.RandomHorizontalFlip(), *module.photos.augment.transforms])
        assert "training flips photos, but chirality is 'none'" in failed(check_stage(job, module))["preprocessing"]
        assert not failed(check_stage(*stage("stages.0.chirality=flip")))

    def test_augmented_photos_of_another_size(self, stage):
        job, module = stage()
        module.photos.augment = v2.Compose([v2.RandomCrop(30), v2.PILToTensor(), v2.Pad(2)])
        assert "augmented photos are 34x34" in failed(check_stage(job, module))["preprocessing"]

    def changed(self, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
        decode_all = inference.decode_all

        def other(paths, preprocessing, **given):
            return decode_all(paths, replace(preprocessing, **changes), **given)

        monkeypatch.setattr(inference, "decode_all", other)

    def found(self, stage) -> str:
        job, module = stage()
        with pytest.raises(CheckError, match="preprocessing: "):  # known before anything is decoded
            before_run(job.recipe, job.embedder, job.text, job.material)
        return failed(check_stage(job, module))["preprocessing"]


class TestStrangers:
    def test_test_subjects_who_train_or_validate(self, photos: Path, tmp_path: Path):
        material = load_dataset(micro(), photos)
        split = material.split
        tested = split.test[0].query[:1]
        who = split.subjects[tested[0]]
        for change, where in (
            ({"train": np.append(split.train, tested)}, "training"),
            ({"validation": (replace(split.validation[0], query=tested),)}, "validation"),
        ):
            result = check_subject_disjoint(replace(material, split=replace(split, **change)))
            assert not result.passed
            assert f"1 test subjects are also in {where}: {who}" in result.found

    def test_another_hand_of_a_tested_person(self, photos: Path):
        """Identities are disjoint, people are not."""
        material = load_dataset(micro(), photos)
        split = material.split
        subjects = list(split.subjects)
        subjects[split.train[0]] = subjects[split.test[0].query[0]]
        result = check_subject_disjoint(replace(material, split=replace(split, subjects=tuple(subjects))))
        assert result.found.startswith("1 test subjects are also in training")

    def test_a_closed_set_is_fine_and_named(self, photos: Path):
        result = check_subject_disjoint(load_dataset(micro("data.validation=closed-set"), photos))
        assert result.passed
        assert "closed set" in result.found

    def test_labels_of_others(self, stage):
        job, module = stage()
        module.photos.labels = module.photos.labels.roll(1)
        assert "photos have the label of another identity" in failed(check_stage(job, module))["labels"]


class TestTheBeginning:
    def test_a_classifier_with_huge_weights(self, stage):
        job, module = stage(ARC)
        assert not failed(check_stage(job, module))
        with torch.no_grad():
            module.objectives["0_cross_entropy"].classifiers["pooled"].weight.mul_(3000)
        wrong = failed(check_stage(job, module))["loss"]
        assert "0_cross_entropy begins at" in wrong
        assert "ln " in wrong
        assert "loss" not in {result.name for result in check_stage(job, module, fresh=False)}

    def test_a_margin_and_where_it_begins(self, stage):
        job, module = stage("stages.0.objectives=[{kind: arcface, margin: 0.5, features: [pooled]}]")
        expected = {result.name: result for result in check_stage(job, module)}["loss"]
        assert expected.passed
        module.objectives["0_arcface"].scale = 1000.0
        assert not failed(check_stage(job, module))  # where it begins follows from the scale it has
        module.objectives["0_arcface"].scale = 30.0
        module.objectives["0_arcface"].with_margin = lambda angles: angles.mul(0).sub(1 if len(angles) > 1 else 0)
        assert "0_arcface begins at" in failed(check_stage(job, module))["loss"]

    def test_batches_without_pairs(self, stage):
        """Trap 8."""
        job, module = stage(*triplets("triplet"))
        module.batches = stage("stages.0.batch_size=2")[1].batches
        wrong = failed(check_stage(job, module))["pairs"]
        assert "batches have no two photos of one identity" in wrong
        assert "1_triplet" in wrong

    def test_pairs_of_one_photo(self, stage):
        job, module = stage(*triplets("triplet"))
        batches, labels = module.batches, module.photos.labels.tolist()
        firsts = {label: place for place, label in enumerate(labels)}

        class Same(Sampler[list[Drawn]]):
            def __iter__(self) -> Iterator[list[Drawn]]:
                for drawn in batches(0, 0, 1, None):
                    yield [(firsts[labels[place]], seed) for place, seed in drawn]

        module.batches = lambda *_: Same()
        assert "only the same photo twice" in failed(check_stage(job, module))["pairs"]

    def test_a_schedule_in_epochs_that_is_stepped_per_batch(self, stage):
        """Trap 12."""
        job, module = stage()
        kind = type("Wrong", (type(module),), {"steps_per_epoch": property(lambda self: 1)})
        module.__class__ = kind
        wrong = failed(check_stage(job, module))["rates"]
        assert "at the start of epoch 2" in wrong

    def test_a_schedule_that_is_stepped_per_epoch(self, stage):
        job, module = stage()
        whole = module.configure_optimizers

        def per_epoch() -> dict[str, Any]:
            chosen = whole()
            chosen["lr_scheduler"]["interval"] = "epoch"
            return chosen

        module.configure_optimizers = per_epoch
        assert "stepped every 1 epoch" in failed(check_stage(job, module))["rates"]

    def test_clipping_that_does_not_clip(self, stage):
        job, module = stage("stages.0.clip_gradients=0.01")
        assert "after clipping to 0.01" in {g.name: g.found for g in check_stage(job, module)}["clipping"]
        module.configure_gradient_clipping = lambda *given: None
        assert "after clipping to 0.01" in failed(check_stage(job, module))["clipping"]


class TestOverfit:
    CHANGES = (*triplets("triplet"), "stages.0.augment=[]")

    def test_a_batch_is_learned_by_heart(self, stage):
        job, module = stage(*self.CHANGES, long_checks=("overfit",))
        before = {name: value.clone() for name, value in module.state_dict().items()}
        result = check_stage(job, module)[-1]
        assert (result.name, result.passed) == ("overfit", True), result.found
        assert "6 of 6 right" in result.found
        assert all(torch.equal(value, module.state_dict()[name]) for name, value in before.items())

    def test_an_encoder_that_is_cut_off(self, stage, monkeypatch):
        _, module = stage(*self.CHANGES)
        cut_the_encoder(monkeypatch)
        result = FineTuneProbe(module.train()).overfit()
        assert not result.passed
        assert "photos are classified or ranked right after" in result.found

    def test_prompts(self, photos: Path, tmp_path: Path, monkeypatch):
        job, module = stage_of(micro(f"stages=[{PROMPTS}]"), photos, tmp_path, "overfit")
        before = module.features.clone()
        result = check_stage(job, module)[-1]
        assert (result.name, result.passed) == ("overfit", True), result.found
        assert torch.equal(before, module.features)
        read_at_the_start(monkeypatch)
        result = LearnPromptsProbe(module.train()).overfit()
        assert not result.passed
        assert "the loss of 5 photos of as many identities went from" in result.found


STATES = {name: RESUMED[name] for name in ("hard identities, margin", "memory, lora", "centres, swa")}
STATES |= {name: RESUMED[name] for name in ("mixup, unfreezing", "visual prompts", "promptsg_graph")}
STATES |= {"side information": RESUMED["side information, wise-ft, stride"]}
STATES |= {"a ResNet": ["model.backbone={name: handreid-tiny, weights: none}"], "prompts": [f"stages=[{PROMPTS}]"]}


@pytest.mark.parametrize("name", STATES)
def test_no_trace_is_left(name: str, cameras: Path, tmp_path: Path):
    recipe = micro(*STATES[name]) if name != "a ResNet" else load_recipe("tiny-resnet-cross-entropy")
    job, module = stage_of(recipe, cameras, tmp_path)
    before, numbers = everything(module), torch.random.get_rng_state()
    assert not failed(check_stage(job, module))
    assert torch.equal(numbers, torch.random.get_rng_state())
    after = everything(module)
    assert before.keys() == after.keys()
    assert not [key for key, value in before.items() if not same(value, after[key])]


def everything(module: nn.Module) -> dict[str, Any]:
    """Every attribute of every part, by path; tensors by value."""
    found: dict[str, Any] = {}
    for path, part in module.named_modules():
        for name, value in vars(part).items():
            if isinstance(value, dict):
                found |= {f"{path}.{name}.{key}": copied(inner) for key, inner in value.items()}
            else:
                found[f"{path}.{name}"] = copied(value)
    return found


def copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone(), value.requires_grad, value.grad
    return list(value) if isinstance(value, list) else value


def same(one: Any, other: Any) -> bool:
    if isinstance(one, tuple) and one and isinstance(one[0], Tensor):
        return torch.equal(one[0], other[0]) and one[1:] == other[1:]
    return one is other or bool(one == other)


def test_what_is_put_back():
    part = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    part.notes, part.count = ["a"], 1
    before, numbers = everything(part), torch.random.get_rng_state()
    with pytest.raises(RuntimeError), restored(part):  # noqa: PT012
        part(torch.randn(4, 2)).sum().backward()
        part.notes.append("b")
        part.count, part[0].weight.requires_grad, part[1].running_mean = 2, False, torch.ones(2)
        part.eval().register_buffer("new", torch.zeros(1))
        with torch.no_grad():
            part[0].bias.add_(1)
        raise RuntimeError
    after = everything(part)
    assert before.keys() == after.keys()
    assert all(same(value, after[key]) for key, value in before.items())
    assert torch.equal(numbers, torch.random.get_rng_state())


class TestARun:
    @pytest.mark.parametrize("changes", [RESUMED["centres, swa"], RESUMED["promptsg_graph"]], ids=["centres", "graph"])
    def test_ends_with_the_weights_of_one_without_checks(self, changes, cameras: Path, tmp_path: Path, monkeypatch):
        recipe = micro(*changes, "stages.0.epochs=1")
        checked = train(recipe, cameras, tmp_path / "a" / "checked")
        monkeypatch.setattr("handreid.training.stages.run.before_stage", lambda *_: None)
        plain = train(recipe, cameras, tmp_path / "b" / "plain")
        assert checked.model.read_bytes() == plain.model.read_bytes()

    def test_notes_what_was_found(self, photos: Path, tmp_path: Path):
        lines: list[str] = []

        class Told(NullProgress):
            def say(self, line: str) -> None:
                lines.append(line)

        recipe = micro("stages.0.epochs=1", "checks.skip=[rates]")
        run = train(recipe, photos, tmp_path / "run", progress=Told())
        noted = read_json(run.stage(0, "fine_tune") / "checks.json")
        assert noted["passed"]
        assert noted["skipped"] == ["rates"]
        assert [result["name"] for result in noted["checks"]] == [
            "subject_disjoint", "labels", "preprocessing", "optimised", "gradients", "loss", "frozen"
        ]  # fmt: skip
        assert [line for line in lines if "7 checks passed in" in line and line.endswith("left out: rates")]
        assert run.recipe.checks.skip == ("rates",)

    def test_is_refused_with_all_that_is_wrong(self, photos: Path, tmp_path: Path, monkeypatch):
        cut_the_encoder(monkeypatch)
        with pytest.raises(CheckError) as refused:
            train(micro(), photos, tmp_path / "run")
        message = str(refused.value)
        assert message.startswith("stage 0 (fine_tune): 2 of ")
        assert "\n  gradients: 0_cross_entropy has" in message
        assert "\n  frozen: nothing of 'encoder' moved" in message
        assert not (tmp_path / "run" / "metrics.jsonl").exists()
        assert not read_json(tmp_path / "run/stages/0-fine_tune/checks.json")["passed"]

    def test_that_goes_on_is_checked_but_for_the_fresh_classifier(self, photos: Path, tmp_path: Path, monkeypatch):
        from handreid.training.epoch_callback import EpochCallback

        checkpoint = EpochCallback._checkpoint

        def stop(self, trainer):
            checkpoint(self, trainer)
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(EpochCallback, "_checkpoint", stop)
            with pytest.raises(KeyboardInterrupt):
                train(micro("stages.0.epochs=2"), photos, tmp_path / "run")
        noted = tmp_path / "run/stages/0-fine_tune/checks.json"
        assert "loss" in {result["name"] for result in read_json(noted)["checks"]}
        train(None, None, tmp_path / "run", resume=True)
        assert "loss" not in {result["name"] for result in read_json(noted)["checks"]}

    def test_a_check_that_does_not_exist_cannot_be_skipped(self):
        with pytest.raises(RecipeError, match=r"checks\.skip"):
            micro("checks.skip=[everything]")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("drawn")
    sources.csv(render(root / "hands", identities=10, photos=8, seed=0, size=64, workers=1)).write(root / "m.parquet")
    return root / "m.parquet"


@pytest.mark.parametrize("name", [name for name in builtin_names() if name.startswith("tiny-")])
def test_builtin_recipes_pass(name: str, drawn: Path):
    recipe = load_recipe(name).model_copy(update={"start": None})
    found = doctor.diagnose(recipe, drawn)
    assert len(found) == 1 + len(recipe.stages)
    assert not [(stage.where, failed(list(stage.checks))) for stage in found if failed(list(stage.checks))]
    assert {result.name for stage in found for result in stage.checks} <= set(CHECKS)


class TestDoctor:
    def test_without_a_recipe(self, tmp_path: Path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(doctor, "IDENTITIES", 6)
        monkeypatch.setattr(doctor, "SIZE", 48)
        result = CliRunner().invoke(app, ["doctor", "--json"])
        assert result.exit_code == 0, result.output
        found = json.loads(result.stdout)
        assert found["passed"]
        assert [stage["where"] for stage in found["checks"]] == [
            "recipe",
            "stage 0 (learn_prompts)",
            "stage 1 (fine_tune)",
        ]
        assert found["environment"]["devices"]["cores"] >= 1
        assert not list(tmp_path.iterdir())

    def test_with_a_fault(self, tmp_path: Path, monkeypatch, photos: Path):
        recipe = tmp_path / "mine.yaml"
        recipe.write_text(MICRO_RECIPE)
        cut_the_encoder(monkeypatch)
        result = CliRunner().invoke(app, ["doctor", str(recipe), "--data", str(photos)])
        assert result.exit_code == 1
        assert "checks failed: gradients, frozen" in result.stdout
        assert "environment" in result.stdout
        assert "python" in result.stdout

    def test_photos_that_drawn_hands_cannot_stand_for(self, monkeypatch):
        monkeypatch.setattr(doctor, "IDENTITIES", 2)
        monkeypatch.setattr(doctor, "SIZE", 32)
        with pytest.raises(Exception, match=r"rendered hands do not suit this recipe.*--data"):
            doctor.diagnose(micro("data.protocol=hd"))

    def test_known_trouble(self, monkeypatch):
        found = environment.survey(Path.cwd())
        found["versions"]["lightning"] = "2.6.3"
        found["disks"]["this folder"] = 1e9
        monkeypatch.setenv("OMP_WAIT_POLICY", "active")

        def broken(*_: object) -> None:
            raise RuntimeError("operator torchvision::nms does not exist")

        monkeypatch.setattr("torchvision.ops.nms", broken)
        said = " ".join(environment.trouble(found))
        for word in ("lightning 2.6.3 is a compromised release", "1.0 GB are free", "OMP_WAIT_POLICY", "nms"):
            assert word in said


class TestFew:
    def test_identities_with_pairs_come_first(self):
        labels = torch.tensor([0, 1, 2, 1, 3, 3, 3, 2])
        chosen = subsample([(place, 0) for place in range(8)], labels, 2, 2)
        assert [place for place, _ in chosen] == [1, 3, 2, 7]

    def test_photos_that_are_alone_are_taken_too(self):
        chosen = subsample([(place, 0) for place in range(5)], torch.arange(5), 3, 2)
        assert len(chosen) == 5


def test_all_that_failed_is_in_one_message():
    results = [
        CheckResult("loss", False, "begins at 9"),
        CheckResult("texts", True, "fine"),
        CheckResult("pairs", False, "none"),
    ]
    with pytest.raises(CheckError, match=r"(?s)here: 2 of 3 .*loss: begins at 9.*pairs: none.*checks\.skip=\[loss\]"):
        raise_failed(results, "here")
    raise_failed(results[1:2], "here")
