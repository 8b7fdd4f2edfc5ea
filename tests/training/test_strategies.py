"""What a stage can be told beyond cross-entropy on random batches: each option does what it says, and every one of them
survives a run that is stopped and resumed.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from handreid.build import build_embedder, build_towers
from handreid.errors import DataError, RecipeError
from handreid.models.embedder import Embedder
from handreid.recipe import Recipe, builtin_names, load_recipe, parse_recipe
from handreid.training.optimizers import Part, encoder_parts, parameter_groups
from handreid.training.stages.fine_tune.weight_averaging import Averaging
from handreid.training.stages.photo_data import group_numbers
from handreid.training.train import train
from tests.conftest import MICRO_RECIPE
from tests.training.resumed import whole_and_resumed
from tests.training.test_train import fit, history, micro, module_of

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*")

PK = "stages.0.sampler={kind: pk, identities: 4, images: 2}"
NO_SIZE = "stages.0.batch_size=null"
MIRRORED = "stages.0.chirality=mirror_as_new_identity"
TERMS = {
    "cross_entropy": "{kind: cross_entropy, features: [pooled]}",
    "arcface": "{kind: arcface, features: [pooled]}",
    "cosface": "{kind: cosface, features: [pooled]}",
    "triplet": "{kind: triplet, features: [penultimate, pooled, joint]}",
    "center": "{kind: center, weight: 0.1, features: [pooled]}",
    "center, running mean": "{kind: center, weight: 0.1, centres: running_mean, features: [pooled]}",
    "supcon": "{kind: supcon, features: [joint]}",
    "metric_learning": "{kind: metric_learning, loss: CircleLoss, distance: cosine, features: [joint]}",
    "metric_learning with parameters": "{kind: metric_learning, loss: ProxyAnchorLoss, distance: cosine}",
    "metric_learning with memory": "{kind: metric_learning, loss: ContrastiveLoss, memory: 32}",
}
FIRST = "{kind: cross_entropy, features: [joint]}"


def with_terms(*terms: str, changes: Sequence[str] = ()) -> Recipe:
    return micro(PK, NO_SIZE, f"stages.0.objectives=[{', '.join(terms)}]", *changes)


@pytest.mark.parametrize("name", TERMS)
class TestEveryTerm:
    def test_changes_the_gradient_of_the_encoder(self, name: str):
        """Trap 2: a loss computed and logged but never added."""
        gradients = []
        for recipe in (with_terms(FIRST), with_terms(FIRST, TERMS[name])):
            module = module_of(recipe)
            module.training_step(module.photos[next(iter(module._batches(0)))], 0).backward()
            gradients.append(module.embedder.backbone.visual.conv1.weight.grad.clone())
        assert not torch.allclose(gradients[0], gradients[1], rtol=1e-4, atol=0)

    def test_is_optimised_with_all_its_parameters_and_moves_them(self, name: str):
        """Traps 3 and 4: parameters in no group; centres built and never stepped."""
        module = module_of(with_terms(FIRST, TERMS[name]))
        optimised = [id(p) for group in module.groups() for p in group["params"]]
        assert sorted(optimised) == sorted({id(p) for p in module.parameters() if p.requires_grad})
        own = module.objectives[f"1_{name.split()[0].rstrip(',')}"]
        before = {key: value.clone() for key, value in own.state_dict().items() if torch.is_tensor(value)}
        parameters = [p.detach().clone() for p in own.parameters()]
        fit(module)
        assert all(not torch.equal(a, b) for a, b in zip(parameters, own.parameters(), strict=True))
        if "running mean" in name:
            assert any(not torch.equal(value, own.state_dict()[key]) for key, value in before.items())

    def test_is_logged_under_its_name(self, name: str):
        module = module_of(with_terms(FIRST, TERMS[name]))
        module.training_step(module.photos[next(iter(module._batches(0)))], 0)
        means = module.epoch_means()
        kind = name.split()[0].rstrip(",")
        weight = module.stage.objectives[1].weight
        assert means["loss"] == pytest.approx(means["0_cross_entropy"] + weight * means[f"1_{kind}"], rel=1e-5)


HEADS_OF_SENTENCES = (
    "stages.0.objectives=[{kind: cross_entropy, features: [pooled, parts]}, {kind: symmetric_contrast}]"
)
# Each of them has something to remember or to build anew; those that don't touch each other are in one run.
RESUMED = {
    "pk, layer decay, bias factor": [
        PK,
        NO_SIZE,
        f"stages.0.objectives=[{TERMS['cross_entropy']}, {TERMS['triplet']}]",
        "stages.0.optimizer.layer_decay=0.5",
        "stages.0.optimizer.bias_factor=2",
    ],
    "pk, every photo; ema, last": [
        "stages.0.sampler={kind: pk, identities: 4, images: 2, every: photo}",
        NO_SIZE,
        "stages.0.averaging={kind: ema, decay: 0.8}",
        "stages.0.keep=last",
    ],
    "balanced, mirrored": ["stages.0.sampler={kind: balanced, by: [subject]}", MIRRORED],
    "hard identities, margin": [
        "stages.0.sampler={kind: hard_identity, identities: 3, images: 2}",
        NO_SIZE,
        "stages.0.objectives=[{kind: arcface, margin_warmup_epochs: 3}]",
    ],
    "memory, lora": [f"stages.0.objectives=[{TERMS['metric_learning with memory']}]", "stages.0.lora={rank: 2}"],
    "centres, swa": [
        f"stages.0.objectives=[{TERMS['cross_entropy']}, {TERMS['center, running mean']}]",
        "stages.0.averaging={kind: swa, start: 0.3}",
    ],
    "mixup, unfreezing": ["stages.0.mix={kind: mixup}", "stages.0.unfreeze_every=1"],
    "cutmix, wise-ft": ["stages.0.mix={kind: cutmix}", "stages.0.wise_ft={alphas: [0.3, 0.6]}"],
    "lora, averaged, last": ["stages.0.lora={rank: 2}", "stages.0.averaging={kind: ema}", "stages.0.keep=last"],
    "visual prompts": [
        "model.backbone.visual_prompts={tokens: 3, depth: deep, dropout: 0.2}",
        "stages.0.freeze_encoder=true",
    ],
    "side information, wise-ft, stride": [
        "model.side_information={columns: [camera, lens]}",
        "stages.0.wise_ft={alphas: [0.5]}",
        "model.backbone.stride=5",
    ],
    "promptsg, averaged": [
        PK,
        NO_SIZE,
        "model.head={kind: promptsg, dropout: 0.1}",
        HEADS_OF_SENTENCES,
        "stages.0.averaging={kind: ema}",
    ],
    "promptsg_graph": [
        PK,
        NO_SIZE,
        "model.head={kind: promptsg_graph, neighbours: 2, phrases: {subject: 'the hand of {value}'}}",
        HEADS_OF_SENTENCES,
    ],
    "promptsg_graph, averaged, mirrored": [
        "model.head={kind: promptsg_graph, edges: identity}",
        HEADS_OF_SENTENCES,
        "stages.0.averaging={kind: swa, start: 0.3}",
        MIRRORED,
    ],
}


@pytest.mark.parametrize("name", RESUMED)
def test_a_run_that_is_stopped_and_resumed_ends_the_same(name: str, cameras: Path, tmp_path: Path):
    whole, stopped = whole_and_resumed(micro(*RESUMED[name]), cameras, tmp_path, epoch=2)
    assert history(whole.folder) == history(stopped.folder)
    assert whole.model.read_bytes() == stopped.model.read_bytes()
    Embedder.load(whole.model)


class TestLayerDecay:
    def test_rates_fall_from_the_top_to_the_stem(self):
        module = module_of(micro("stages.0.optimizer.layer_decay=0.5"))
        rate = {id(p): group["lr"] for group in module.groups() for p in group["params"]}
        visual, lr = module.embedder.backbone.visual, module.stage.optimizer.lr
        first, second = visual.transformer.resblocks
        found = [rate[id(p)] for p in (visual.proj, second.attn.in_proj_weight, first.ln_1.weight, visual.conv1.weight)]
        assert found == pytest.approx([lr, lr / 2, lr / 4, lr / 8])

    def test_one_is_a_single_group_for_the_encoder(self):
        layers = [[torch.nn.Parameter(torch.zeros(2, 2))] for _ in range(3)]
        assert [part.name for part in encoder_parts(layers, 1.0, 1.0)] == ["encoder"]

    def test_a_parameter_in_two_parts_is_refused(self):
        shared = torch.nn.Parameter(torch.zeros(2, 2))
        with pytest.raises(ValueError, match="in an earlier group"):
            parameter_groups([Part("a", [shared], 1.0), Part("b", [shared], 1.0)], weight_decay=0.0)


def test_a_term_can_have_a_rate_of_its_own():
    module = module_of(with_terms(FIRST, "{kind: center, lr: 0.5, features: [pooled]}"))
    rates = {group["name"]: (group["lr"], group["weight_decay"]) for group in module.groups()}
    assert rates["1_center, not decayed"] == (0.5, 0.0)  # a centre is a place: decay would pull it to the origin
    assert rates["0_cross_entropy, decayed"][0] == pytest.approx(2e-3)


def test_biases_of_encoder_and_head_learn_at_a_rate_of_their_own():
    """CLIP-ReID's, doubled; every parameter stays in one group."""
    recipe = ["stages.0.optimizer.bias_factor=2", "model.head={kind: mlp}"]
    module = module_of(with_terms(FIRST, "{kind: center, features: [pooled]}", changes=recipe))
    groups, lr = module.groups(), module.stage.optimizer.lr
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    expected = {}
    for name, own in module.named_parameters():
        new, bias = not name.startswith("embedder.backbone"), name.startswith("embedder") and name.endswith("bias")
        expected[name] = lr * (2 if new else 1) * (2 if bias else 1)
        assert not own.requires_grad or rate[id(own)] == pytest.approx(expected[name]), name
    assert len(rate) == sum(len(group["params"]) for group in groups)
    assert {round(one / lr) for one in rate.values()} == {1, 2, 4}
    assert "encoder, not decayed, biases" in [group["name"] for group in groups]


class TestUnfreezing:
    def test_one_more_layer_learns_after_every_so_many_epochs(self):
        module = module_of(micro("stages.0.unfreeze_every=1", "stages.0.epochs=4"))
        visual = module.embedder.backbone.visual
        watched = [visual.proj, visual.transformer.resblocks[1].mlp.c_fc.weight]
        watched += [visual.transformer.resblocks[0].mlp.c_fc.weight, visual.conv1.weight]
        moved: list[list[bool]] = []

        class Watch(__import__("lightning").Callback):
            def on_train_epoch_start(self, trainer, pl_module):
                self.before = [p.detach().clone() for p in watched]

            def on_train_epoch_end(self, trainer, pl_module):
                moved.append([not torch.equal(a, b) for a, b in zip(self.before, watched, strict=True)])

        fit(module, Watch())
        assert moved == [[True] * n + [False] * (4 - n) for n in (1, 2, 3, 4)]

    def test_all_that_will_learn_is_in_the_optimizer_from_the_start(self):
        module = module_of(micro("stages.0.unfreeze_every=1"))
        optimised = {id(p) for group in module.groups() for p in group["params"]}
        assert optimised == {id(p) for p in module.parameters() if p.requires_grad}

    def test_freezing_blocks_as_well_makes_no_sense(self):
        with pytest.raises(RecipeError, match="remove freeze_blocks and lora"):
            micro("stages.0.unfreeze_every=1", "stages.0.freeze_blocks=1")


class TestAveraging:
    def test_ema_is_the_recurrence(self):
        recipe = micro("stages.0.averaging={kind: ema, decay: 0.7}")
        embedder = build_embedder(recipe, build_towers(recipe))
        averaging = Averaging(embedder, recipe.stages[0].averaging, 3)
        weight = embedder.backbone.visual.conv1.weight
        assert averaging.result is None
        expected = None
        for step in range(4):
            with torch.no_grad():
                weight.add_(step)
            averaging.after_step(embedder)
            expected = weight.clone() if expected is None else 0.7 * expected + 0.3 * weight
        assert torch.allclose(averaging.result.backbone.visual.conv1.weight, expected, atol=1e-6)

    def test_swa_is_the_mean_over_the_last_epochs(self):
        recipe = micro("stages.0.averaging={kind: swa, start: 0.5}")
        embedder = build_embedder(recipe, build_towers(recipe))
        averaging = Averaging(embedder, recipe.stages[0].averaging, 4)
        weight, seen = embedder.backbone.visual.conv1.weight, []
        for epoch in range(4):
            with torch.no_grad():
                weight.add_(epoch)
            averaging.after_step(embedder)
            averaging.after_epoch(embedder, epoch)
            seen.append(weight.detach().clone())
            assert (averaging.result is None) == (epoch < 2)
        assert torch.allclose(averaging.result.backbone.visual.conv1.weight, (seen[2] + seen[3]) / 2, atol=1e-6)

    def test_the_average_is_what_is_validated_and_kept(self, photos: Path, tmp_path: Path):
        run = train(micro("stages.0.averaging={kind: ema, decay: 0.9}", "stages.0.keep=last"), photos, tmp_path / "run")
        content = torch.load(run.stage(0, "fine_tune") / "last.ckpt", weights_only=True)["state_dict"]
        name = "backbone.visual.conv1.weight"
        kept = Embedder.load(run.model).state_dict()[name]
        assert torch.equal(kept, content[f"averaging.model.module.{name}"])
        assert not torch.equal(kept, content[f"embedder.{name}"])


class TestWiseFt:
    def test_the_curve_is_written_and_the_best_is_taken(self, photos: Path, tmp_path: Path):
        run = train(micro("stages.0.wise_ft={alphas: [0.0, 0.5]}"), photos, tmp_path / "run")
        curve = json.loads((run.stage(0, "fine_tune") / "wise_ft.json").read_text())
        values = [point["map"] for point in curve["points"]]
        assert len(values) == 3  # the trained weights as they are, and two shares
        assert curve["best"] == curve["points"][int(np.argmax(values))]["alpha"]

    def test_with_alpha_zero_alone_the_tower_is_the_zero_shot_one_or_the_trained_one(
        self, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        run = train(micro("stages.0.wise_ft={alphas: [0.0]}", "stages.0.keep=last"), photos, tmp_path / "run")
        taken = json.loads((run.stage(0, "fine_tune") / "wise_ft.json").read_text())["best"]
        start = build_embedder(run.recipe, build_towers(run.recipe)).backbone.state_dict()
        trained = Embedder.load(run.stage(0, "fine_tune") / "last.safetensors").backbone.state_dict()
        expected = start if taken == 0.0 else trained
        name = "visual.conv1.weight"
        assert torch.equal(Embedder.load(run.model).backbone.state_dict()[name], expected[name])


class TestMixedPhotos:
    @pytest.mark.parametrize("kind", ["triplet", "supcon", "metric_learning"])
    def test_a_term_that_compares_identities_is_refused(self, kind: str):
        with pytest.raises(RecipeError, match=rf"objectives\.0 \({kind}\) compares identities, but a photo mixed"):
            micro(PK, NO_SIZE, "stages.0.mix={kind: mixup}", f"stages.0.objectives=[{TERMS[kind]}]")

    @pytest.mark.parametrize("kind", ["cross_entropy", "arcface", "cosface", "center"])
    def test_a_term_that_has_a_target_per_identity_takes_them(self, kind: str):
        module = module_of(micro("stages.0.mix={kind: mixup, alpha: 1.0}", f"stages.0.objectives=[{TERMS[kind]}]"))
        loss = module.training_step(module.photos[[(i, i) for i in range(8)]], 0)
        assert loss.isfinite()


class TestPairs:
    @pytest.mark.parametrize("kind", ["triplet", "supcon", "metric_learning"])
    @pytest.mark.parametrize("sampler", ["random", "balanced"])
    def test_plain_shuffling_is_refused_where_the_loss_needs_pairs(self, kind: str, sampler: str):
        """Trap 8."""
        with pytest.raises(RecipeError, match="rarely puts two in one: use sampler"):
            micro(f"stages.0.sampler={{kind: {sampler}}}", f"stages.0.objectives=[{TERMS[kind]}]")

    @pytest.mark.parametrize("kind", ["metric_learning with parameters", "metric_learning with memory"])
    def test_not_where_it_does_not(self, kind: str):
        micro(f"stages.0.objectives=[{TERMS[kind]}]")

    def test_a_batch_size_beside_p_and_k_must_agree(self):
        with pytest.raises(RecipeError, match="batch_size 20 is not the sampler's identities x images = 8"):
            micro(PK, "stages.0.batch_size=20")
        assert micro(PK, "stages.0.batch_size=8").stages[0].photos_per_batch == 8


class TestParts:
    def test_a_head_without_parts_cannot_give_any(self):
        with pytest.raises(RecipeError, match=r"model\.test_feature reads `parts`, but model\.head 'bnneck' has none"):
            micro("model.test_feature.features=[parts]")

    def test_parts_that_nobody_reads_are_refused(self):
        with pytest.raises(RecipeError, match="has parts that no objective reads"):
            micro("model.head={kind: gem}")


@pytest.mark.parametrize(
    "override",
    [
        "stages.0.objectives=[{kind: metric_learning, loss: CircelLoss, memory: 8}]",
        "stages.0.augment=[{kind: background, folder: nowhere}]",
        "stages.0.freeze_blocks=7",
        "stages.0.lora={rank: 999}",
        "stages.0.sampler={kind: balanced, by: [camera]}",
    ],
)
def test_what_cannot_be_built_leaves_no_run_behind(override: str, photos: Path, tmp_path: Path):
    with pytest.raises((RecipeError, DataError)):
        train(micro(override), photos, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_second_stage_that_cannot_be_built_is_known_before_the_first(photos: Path, tmp_path: Path):
    stages = "[{kind: fine_tune, epochs: 20}, {kind: fine_tune, epochs: 20, lora: {rank: 999}}]"
    with pytest.raises(RecipeError, match="rank"):
        train(micro(f"stages={stages}"), photos, tmp_path / "run")
    assert not (tmp_path / "run").exists()


class TestBalanced:
    PHOTOS = pl.DataFrame({"side": ["left", "left", "right"] * 2, "skin_color": ["dark", "fair", "fair"] * 2})

    def test_photos_that_agree_in_all_columns_are_one_group(self):
        assert group_numbers(self.PHOTOS, ["skin"]).tolist() == [0, 1, 1, 0, 1, 1]
        assert group_numbers(self.PHOTOS, ["side", "skin"]).tolist() == [0, 1, 2, 0, 1, 2]

    def test_a_column_that_is_not_there_for_all_is_named_with_those_that_are(self):
        gaps = self.PHOTOS.with_columns(camera=pl.Series(["a", None] * 3))
        for by in ("camera", "lens"):
            with pytest.raises(RecipeError, match=rf"balanced by {by}: .* its columns are side, skin_color, camera"):
                group_numbers(gaps, ["side", by])

    def test_mirrored_photos_are_balanced_too(self, photos: Path, tmp_path: Path):
        by = "stages.0.sampler={kind: balanced, by: [subject]}"
        run = train(micro(by, MIRRORED), photos, tmp_path / "run")
        assert run.finished


class TestMirroredAsNewIdentity:
    def test_identities_double(self):
        """Trap 14, as a named choice."""
        module = module_of(micro(MIRRORED))
        assert module.objectives["0_cross_entropy"].classifiers["pooled"].weight.shape[0] == 8
        assert len(module.photos) == 32


@pytest.mark.parametrize("name", [name for name in builtin_names() if load_recipe(name).fine_tunes])
def test_every_builtin_recipe_can_be_built_and_stepped_on_a_micro_tower(name: str):
    prompts = load_recipe(name).model.backbone.visual_prompts
    tower = parse_recipe(MICRO_RECIPE, "micro").model.backbone.model_copy(update={"visual_prompts": prompts})
    recipe = load_recipe(name, [f"model.backbone={tower.model_dump_json()}", "model.preprocess.align=none"])
    module = module_of(recipe)
    loss = module.training_step(module.photos[next(iter(module._batches(0)))], 0)
    loss.backward()
    assert loss.isfinite()
    dead = {n for n, p in module.named_parameters() if p.requires_grad and p.grad is None}
    read = {name for term in recipe.fine_tunes[0][1].objectives for name in term.features}
    assert dead == (set() if "joint" in read else {"embedder.backbone.visual.proj"})
