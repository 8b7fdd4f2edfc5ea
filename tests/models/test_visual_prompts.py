"""Visual prompts, and towers that stay as they are: what is added learns, what was there does not, both are kept."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from handreid.build import build_embedder, build_towers
from handreid.errors import RecipeError
from handreid.models.backbone import Backbone
from handreid.models.clip import build_image_tower
from handreid.models.embedder import Embedder
from handreid.models.lora import merge_lora
from handreid.models.visual_prompts import VisualPrompts
from handreid.progress import NullProgress
from handreid.training.parameter_counts import count_all, count_parameters
from handreid.training.train import train
from tests.models.test_lora import RESNET, VIT
from tests.training.test_train import fit, micro, module_of

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*", "ignore:.*in eval mode at the start.*"
)

AVERAGED = VIT | {"vision_cfg": VIT["vision_cfg"] | {"pool_type": "avg"}}
POOLED = VIT | {"vision_cfg": VIT["vision_cfg"] | {"attentional_pool": True, "attn_pooler_heads": 2}}
RESNET_TOWER = f"model.backbone.config.vision_cfg={json.dumps(RESNET['vision_cfg'])}"
PROMPTS = "model.backbone.visual_prompts={tokens: 3, depth: %s}"
FROZEN = "stages.0.freeze_encoder=true"


def prompted(depth: str | None, config: dict = VIT, *, dropout: float = 0.0) -> Backbone:
    """The tower is the same whatever the prompts."""
    torch.manual_seed(0)
    tower = build_image_tower(config)
    chosen = None if depth is None else {"tokens": 3, "depth": depth, "dropout": dropout}
    return Backbone(tower, config, visual_prompts=chosen).eval()


def photos(count: int = 4, size: int = 32) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def seen_by_blocks(backbone: Backbone) -> tuple[list[Tensor], list[Tensor]]:
    """What goes into each block and what comes out of it."""
    inputs, outputs = [], []

    def note(_: object, given: tuple[Tensor], made: Tensor) -> None:
        inputs.append(given[0])
        outputs.append(made)

    for block in backbone.visual.transformer.resblocks:
        block.register_forward_hook(note)
    backbone(photos())
    return inputs, outputs


class TestPrompts:
    def test_before_the_first_block_they_stand_between_class_token_and_patches(self):
        backbone = prompted("shallow")
        plain, inputs = seen_by_blocks(prompted(None))[0], seen_by_blocks(backbone)[0]
        assert [x.shape[1] for x in inputs] == [1 + 3 + 16] * 2
        assert torch.equal(inputs[0][:, :1], plain[0][:, :1])
        assert torch.equal(inputs[0][:, 4:], plain[0][:, 1:])
        assert torch.equal(inputs[0][:, 1:4], backbone.visual_prompts.prompts.expand(4, -1, -1))

    def test_shallow_ones_go_on_and_deep_ones_are_replaced(self):
        for depth in ("shallow", "deep"):
            backbone = prompted(depth)
            inputs, outputs = seen_by_blocks(backbone)
            assert torch.equal(inputs[1][:, :1], outputs[0][:, :1])
            assert torch.equal(inputs[1][:, 4:], outputs[0][:, 4:])
            own = backbone.visual_prompts.prompts[1:].expand(4, -1, -1) if depth == "deep" else outputs[0][:, 1:4]
            assert torch.equal(inputs[1][:, 1:4], own)

    @pytest.mark.parametrize("config", [VIT, AVERAGED, POOLED], ids=["token", "averaged", "attentional pool"])
    def test_features_are_of_class_token_and_patches(self, config: dict):
        plain, found = prompted(None, config)(photos()), {d: prompted(d, config)(photos()) for d in ("shallow", "deep")}
        for features in found.values():
            for name in ("joint", "pooled", "penultimate", "patches"):
                assert getattr(features, name).shape == getattr(plain, name).shape
            assert not torch.allclose(features.joint, plain.joint, atol=1e-4)
        assert not torch.allclose(found["shallow"].joint, found["deep"].joint, atol=1e-4)

    def test_the_patch_grid_stays_in_place(self):
        """With blocks that pass everything on, what leaves at a place is what entered there."""
        backbone = prompted("deep")
        backbone.visual.transformer.resblocks = torch.nn.ModuleList([torch.nn.Identity(), torch.nn.Identity()])
        plain = prompted(None)
        plain.visual.transformer.resblocks = torch.nn.ModuleList([torch.nn.Identity()])
        assert torch.equal(backbone(photos()).patches, plain(photos()).patches)
        assert torch.equal(backbone(photos()).pooled, plain(photos()).pooled)

    @pytest.mark.parametrize("depth", ["shallow", "deep"])
    def test_gradients_reach_every_value(self, depth: str):
        backbone = prompted(depth)
        backbone(photos()).joint.square().sum().backward()
        gradient = backbone.visual_prompts.prompts.grad
        assert gradient.shape == (2 if depth == "deep" else 1, 3, 64)
        assert gradient.count_nonzero() == gradient.numel()

    def test_they_begin_as_in_the_authors_code(self):
        torch.manual_seed(0)
        values = VisualPrompts(50, "deep", blocks=4, width=64, patch=(8, 4)).prompts.detach()
        bound = math.sqrt(6 / (3 * 8 * 4 + 64))
        assert 0.99 * bound < values.abs().max() <= bound
        assert values.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)

    def test_dropout_is_of_training_alone(self):
        backbone = prompted("deep", dropout=0.5)
        assert torch.equal(backbone(photos()).joint, prompted("deep")(photos()).joint)
        torch.manual_seed(0)
        inputs, _ = seen_by_blocks(backbone.train())
        zeros = (inputs[0][:, 1:4] == 0).float().mean()
        assert 0.4 < zeros.item() < 0.6
        assert (inputs[1][0, 1:4] != inputs[1][1, 1:4]).any()  # drawn for each photo

    def test_under_autocast(self):
        with torch.autocast("cpu", torch.bfloat16):
            joint = prompted("deep")(photos()).joint
        assert joint.dtype == torch.bfloat16
        assert torch.allclose(joint.float(), prompted("deep")(photos()).joint, atol=0.1)

    def test_a_resnet_has_no_tokens_to_stand_among(self, photos: Path, tmp_path: Path):
        with pytest.raises(RecipeError, match="this tower is a ResNet: remove them"):
            train(micro(PROMPTS % "deep", RESNET_TOWER), photos, tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_the_head_is_drawn_as_without_them_and_the_prompts_from_the_recipes_seed(self):
        plain, one, same, other = (
            build_embedder(recipe, build_towers(recipe))
            for recipe in (micro(), *(micro(PROMPTS % "deep", f"seed={seed}") for seed in (0, 0, 1)))
        )
        prompts = [embedder.backbone.visual_prompts.prompts for embedder in (one, same, other)]
        assert torch.equal(prompts[0], prompts[1])
        assert not torch.equal(prompts[0], prompts[2])
        assert all(torch.equal(plain.state_dict()[name], one.state_dict()[name]) for name in plain.state_dict())


class TestKept:
    @pytest.mark.parametrize("depth", ["shallow", "deep"])
    def test_saved_and_loaded_the_embedder_embeds_the_same(self, depth: str, tmp_path: Path):
        recipe = micro(PROMPTS % depth, "model.backbone.stride=5")
        embedder = build_embedder(recipe, build_towers(recipe))
        embedder.save(tmp_path / "m.safetensors")
        again, bytes_ = Embedder.load(tmp_path / "m.safetensors"), torch.randint(0, 255, (3, 3, 32, 32)).byte()
        assert torch.equal(again.embed(bytes_), embedder.embed(bytes_))
        with torch.no_grad():
            again.backbone.visual_prompts.prompts.zero_()
        assert not torch.equal(again.embed(bytes_), embedder.embed(bytes_))

    def test_wise_ft_leaves_them_as_they_were_trained(self, photos: Path, tmp_path: Path):
        recipe = micro(PROMPTS % "shallow", "stages.0.wise_ft={alphas: [0.0]}", "stages.0.keep=last")
        run = train(recipe, photos, tmp_path / "run")
        name = "backbone.visual_prompts.prompts"
        trained = Embedder.load(run.stage(0, "fine_tune") / "last.safetensors").state_dict()[name]
        start = build_embedder(recipe, build_towers(recipe)).state_dict()[name]
        assert torch.equal(Embedder.load(run.model).state_dict()[name], trained)
        assert not torch.equal(trained, start)

    def test_they_learn_beside_low_rank_changes_and_are_no_part_of_them(self):
        module = module_of(micro(PROMPTS % "deep", "stages.0.lora={rank: 2}", "stages.0.epochs=1"))
        before = {name: p.detach().clone() for name, p in module.named_parameters()}
        assert optimised(module) == learning(module)
        fit(module)
        moved = {name for name, p in module.named_parameters() if not torch.equal(p, before[name])}
        assert "embedder.backbone.visual_prompts.prompts" in moved
        assert any("parametrizations" in name for name in moved)
        embedder, bytes_ = module.embedder, torch.randint(0, 255, (3, 3, 32, 32)).byte()
        embeddings = embedder.embed(bytes_)
        merge_lora(embedder.backbone.visual)
        assert torch.allclose(embedder.embed(bytes_), embeddings, atol=1e-5)
        assert embedder.backbone.visual_prompts.prompts.requires_grad


def learning(module) -> set[int]:
    return {id(p) for p in module.parameters() if p.requires_grad}


def optimised(module) -> set[int]:
    found = [id(p) for group in module.groups() for p in group["params"]]
    assert len(found) == len(set(found))
    return set(found)


class TestFrozenEncoder:
    @pytest.mark.parametrize("overrides", [(PROMPTS % "deep",), (RESNET_TOWER,)], ids=["vit with prompts", "resnet"])
    def test_the_tower_is_bit_identical_after_training_and_all_else_moves(self, overrides: tuple[str, ...]):
        module = module_of(micro(*overrides, FROZEN))
        before = {name: value.clone() for name, value in module.state_dict().items()}
        assert optimised(module) == learning(module)
        fit(module)
        tower = {name for name in before if name.startswith("embedder.backbone.visual.")}  # buffers too
        assert any("running_mean" in name for name in tower) == (overrides == (RESNET_TOWER,))
        for name, value in module.state_dict().items():
            still = name in tower or name.endswith(("pooled.bias", "joint.bias"))
            assert torch.equal(value, before[name]) == still, name

    def test_what_is_added_takes_the_rate_of_new_layers_and_decays_like_a_matrix(self):
        module = module_of(micro(PROMPTS % "deep", FROZEN))
        (group,) = [group for group in module.groups() if group["name"].startswith("visual prompts")]
        assert group["lr"] == pytest.approx(2e-3)
        assert group["weight_decay"] == module.stage.optimizer.weight_decay

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            ("stages.0.lora={rank: 2}", "lora"),
            ("stages.0.freeze_blocks=1", "freeze_blocks"),
            ("stages.0.unfreeze_every=1", "unfreeze_every"),
            ("stages.0.wise_ft={}", "wise_ft"),
            ("stages.0.optimizer.layer_decay=0.5", r"optimizer\.layer_decay"),
        ],
    )
    def test_what_moves_the_encoder_is_refused_beside_it(self, change: str, named: str):
        with pytest.raises(RecipeError, match=f"freeze_encoder freezes the whole encoder: remove {named}"):
            micro(FROZEN, change)

    def test_a_stage_in_which_nothing_learns_is_refused(self, photos: Path, tmp_path: Path):
        terms = "stages.0.objectives=[{kind: triplet, features: [joint]}]"
        pk = ["stages.0.sampler={kind: pk, identities: 4, images: 2}", "stages.0.batch_size=null"]
        head = ["model.head={kind: linear}", "model.test_feature={features: [joint], neck: before}"]
        with pytest.raises(RecipeError, match="freeze_encoder leaves no trainable parameters"):
            train(micro(terms, *pk, *head, FROZEN), photos, tmp_path / "run")
        assert not (tmp_path / "run").exists()
        train(micro(terms, *pk, *head, FROZEN, PROMPTS % "shallow", "stages.0.epochs=1"), photos, tmp_path / "run")

    def test_a_later_stage_learns_again(self, photos: Path, tmp_path: Path):
        stage = (
            "{kind: fine_tune, epochs: 1, batch_size: 8, freeze_encoder: %s, optimizer: {schedule: {kind: constant}}}"
        )
        run = train(micro(f"stages=[{stage % 'true'}, {stage % 'false'}]"), photos, tmp_path / "run")
        start = build_embedder(micro(), build_towers(micro())).state_dict()
        first, second = (Embedder.load(run.stage(n, "fine_tune") / "last.safetensors").state_dict() for n in (0, 1))
        stem = "backbone.visual.conv1.weight"
        assert torch.equal(first[stem], start[stem])
        assert not torch.equal(second[stem], start[stem])

    def test_prompts_without_a_stage_are_refused(self):
        with pytest.raises(
            RecipeError, match=r"model\.backbone\.visual_prompts starts from random weights, but no stage"
        ):
            micro(PROMPTS % "deep", "stages=[]")


class Heard(NullProgress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


class TestCounting:
    def test_part_by_part(self):
        """By hand: 2 blocks x 3 tokens x 64, necks of 64 and 32 without bias, classifiers of 4 identities."""
        module = module_of(micro(PROMPTS % "deep", FROZEN))
        assert count_parameters(module.embedder, module.objectives) == {
            "encoder": 0,
            "low-rank changes": 0,
            "visual prompts": 2 * 3 * 64,
            "head": 64 + 32,
            "0_cross_entropy": 4 * (64 + 32),
        }

    @pytest.mark.parametrize("change", ["stages.0.freeze_blocks=1", "stages.0.lora={rank: 2}", "stages.0.epochs=1"])
    def test_all_that_learns_is_counted_once(self, change: str):
        module = module_of(micro(PROMPTS % "shallow", change))
        counted = count_parameters(module.embedder, module.objectives)
        assert sum(counted.values()) == sum(p.numel() for p in module.parameters() if p.requires_grad)
        assert count_all(module.embedder, module.objectives) == sum(p.numel() for p in module.parameters())
        rank = 2 * (4 * (64 + 64) + 2 * (64 + 256)) * 2  # in both blocks: q, k, v and the output, the two of the MLP
        assert counted["low-rank changes"] == (rank if "lora" in change else 0)
        assert (counted["encoder"] == 0) == ("lora" in change)

    def test_it_is_said_and_written_when_a_stage_begins(self, photos: Path, tmp_path: Path):
        heard = Heard()
        run = train(micro(PROMPTS % "deep", FROZEN, "stages.0.epochs=1"), photos, tmp_path / "run", progress=heard)
        found = json.loads((run.stage(0, "fine_tune") / "parameters.json").read_text())
        learn, every = found["learning_in_all"], found["in_all"]
        assert learn == sum(found["learning"].values())
        assert every == learn + sum(p.numel() for p in Embedder.load(run.model).backbone.visual.parameters()) + 64 + 32
        classifier = found["learning"]["0_cross_entropy"]
        said = f"learning: visual prompts 384, head 96, 0_cross_entropy {classifier:,} ({learn / every:.2%} of"
        assert [line for line in heard.lines if line.startswith(said)]
