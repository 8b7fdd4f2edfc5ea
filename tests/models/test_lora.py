"""LoRA: nothing changes at first, nothing but the changes learns, and merging is the same model in plain weights."""

import io
import math
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from handreid.errors import RecipeError
from handreid.models.backbone import Backbone
from handreid.models.clip import build_image_tower
from handreid.models.embedder import Embedder
from handreid.models.lora import add_lora, merge_lora, merged_state
from handreid.types import Preprocessing

TEXT = {"context_length": 24, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1}
VIT = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 64, "layers": 2, "head_width": 32},
    "text_cfg": TEXT,
}
CUSTOM = VIT | {"vision_cfg": VIT["vision_cfg"] | {"block_type": "custom", "qk_norm": True}}
RESNET = VIT | {
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None, "head_width": 32}
}
BOTH = ("attention", "mlp")
SHAPES = {"attention": [(64, 64)] * 4, "mlp": [(64, 256), (256, 64)]}  # in and out, in each of the two blocks


def embedder_of(config: dict, seed: int = 0) -> Embedder:
    torch.manual_seed(seed)
    backbone = Backbone(build_image_tower(config), config)
    preprocessing = Preprocessing(backbone.size, (0.5,) * 3, (0.25,) * 3)
    embedder = Embedder(
        backbone,
        preprocessing,
        head={"kind": "bnneck"},
        features=("pooled", "joint"),
        necks=("pooled", "joint"),
        test_features=("pooled", "joint"),
        test_neck="after",
    )
    return embedder.eval()


def photos_for(embedder: Embedder, count: int = 6) -> Tensor:
    size = embedder.preprocessing.size
    return torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def changed(config: dict = VIT, *, rank: int = 4, layers: tuple = BOTH) -> Embedder:
    """With changes that are not zero, as after some training."""
    embedder = embedder_of(config)
    add_lora(embedder.backbone.visual, rank=rank, alpha=8.0, layers=layers)
    for parameter in learning(embedder.backbone.visual).values():
        nn.init.normal_(parameter, std=0.2)
    return embedder


def learning(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: own for name, own in module.named_parameters() if own.requires_grad}


def step(embedder: Embedder, optimizer: torch.optim.Optimizer, photos: Tensor) -> None:
    optimizer.zero_grad()
    embedder(photos).features.joint.square().sum().backward()
    optimizer.step()


class TestAdding:
    @pytest.mark.parametrize("layers", [BOTH, ("attention",), ("mlp",)])
    @pytest.mark.parametrize("config", [VIT, CUSTOM], ids=["vit", "custom blocks"])
    def test_the_output_is_the_same_to_the_bit_at_first(self, config: dict, layers: tuple):
        plain, lora = embedder_of(config), embedder_of(config)
        add_lora(lora.backbone.visual, rank=4, alpha=8.0, layers=layers)
        photos = photos_for(plain)
        assert torch.equal(plain.embed(photos), lora.embed(photos))
        assert torch.equal(plain.train()(photos).after["joint"], lora.train()(photos).after["joint"])

    @pytest.mark.parametrize("layers", [BOTH, ("attention",), ("mlp",)])
    @pytest.mark.parametrize("rank", [1, 5])
    def test_as_many_parameters_learn_as_rank_times_in_plus_out_of_each_matrix(self, layers: tuple, rank: int):
        tower = embedder_of(VIT).backbone.visual
        add_lora(tower, rank=rank, alpha=8.0, layers=layers)
        expected = 2 * sum(rank * (inside + out) for kind in layers for inside, out in SHAPES[kind])
        assert sum(own.numel() for own in learning(tower).values()) == expected

    def test_b_begins_at_zero_and_a_as_in_the_authors_code(self):
        tower = embedder_of(VIT).backbone.visual
        add_lora(tower, rank=8, alpha=8.0, layers=BOTH)
        for name, own in learning(tower).items():
            bound = 1 / math.sqrt(own.shape[-1])
            if name.endswith(".b"):
                assert not own.any()
            else:
                assert 0.9 * bound < own.abs().max() <= bound
                assert own.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)
                assert own.flatten(0, 1).unique(dim=0).shape[0] == own.shape[0] * own.shape[1]  # q, k, v differ

    def test_the_draw_is_a_function_of_torchs_seed(self):
        drawn = []
        for seed in (3, 3, 4):
            tower = embedder_of(VIT).backbone.visual
            torch.manual_seed(seed)
            add_lora(tower, rank=4, alpha=8.0, layers=BOTH)
            drawn.append(torch.cat([own.detach().flatten() for own in learning(tower).values()]))
        assert torch.equal(drawn[0], drawn[1])
        assert not torch.equal(drawn[0], drawn[2])

    def test_a_resnet_is_refused(self):
        with pytest.raises(RecipeError, match=r"attention and mlp matrices.*this tower has none"):
            add_lora(embedder_of(RESNET).backbone.visual, rank=4, alpha=8.0, layers=BOTH)

    def test_a_rank_larger_than_the_matrices_is_refused_before_anything_is_changed(self):
        tower = embedder_of(VIT).backbone.visual
        names = list(tower.state_dict())
        with pytest.raises(RecipeError, match=r"rank is 65, but .*in_proj_weight .* 64 x 64: use at most 64"):
            add_lora(tower, rank=65, alpha=8.0, layers=BOTH)
        assert list(tower.state_dict()) == names
        assert all(own.requires_grad for own in tower.parameters())
        add_lora(tower, rank=64, alpha=8.0, layers=BOTH)

    def test_a_second_change_on_top_is_refused(self):
        with pytest.raises(ValueError, match="already"):
            add_lora(changed().backbone.visual, rank=4, alpha=8.0, layers=BOTH)


class TestTraining:
    def test_only_the_changes_learn_and_the_frozen_weights_stay_to_the_bit(self):
        embedder = embedder_of(VIT)
        tower = embedder.backbone.visual
        add_lora(tower, rank=4, alpha=8.0, layers=BOTH)
        before = {name: own.detach().clone() for name, own in tower.named_parameters()}
        optimizer = torch.optim.AdamW(learning(tower).values(), lr=1e-2)
        for _ in range(2):  # A has no gradient while B is zero
            step(embedder.train(), optimizer, photos_for(embedder))
        for name, own in tower.named_parameters():
            assert own.requires_grad == name.endswith((".0.a", ".0.b")), name
            assert (own.grad is None) != own.requires_grad, name
            assert torch.equal(own, before[name]) != own.requires_grad, name

    def test_q_k_and_v_change_each_by_its_own_pair(self):
        embedder = changed()
        attention = embedder.backbone.visual.transformer.resblocks[0].attn
        change = attention.parametrizations.in_proj_weight[0]
        for which in range(3):
            with torch.no_grad():
                change.b.zero_()[which].fill_(0.5)
            difference = attention.in_proj_weight - attention.parametrizations.in_proj_weight.original
            for block, part in enumerate(difference.chunk(3)):
                expected = 8.0 / 4 * change.b[block] @ change.a[block]
                assert part.any().item() == (block == which)
                assert torch.allclose(part, expected, atol=1e-6)

    def test_gradients_equal_those_of_the_definition(self):
        """In float64, against W + alpha / rank B A put in the place of the matrices by hand."""
        embedder = changed().double()
        tower = embedder.backbone.visual
        photos = torch.randn(3, 3, 32, 32, dtype=torch.float64)
        embedder.backbone(photos).joint.square().sum().backward()
        plain = embedder_of(VIT).double().backbone.visual
        state = {name.removeprefix("visual."): value for name, value in merged_state(embedder.backbone).items()}
        plain.load_state_dict(state)
        Backbone(plain, VIT)(photos).joint.square().sum().backward()
        change = tower.transformer.resblocks[1].attn.parametrizations.in_proj_weight[0]
        for block, full in enumerate(plain.transformer.resblocks[1].attn.in_proj_weight.grad.chunk(3)):
            assert torch.allclose(change.b.grad[block], 2 * full @ change.a[block].T)
            assert torch.allclose(change.a.grad[block], 2 * change.b[block].T @ full)

    @pytest.mark.parametrize("training", [True, False])
    def test_the_change_is_exact_under_bf16_autocast(self, training: bool):
        embedder = changed().train(training)
        attention = embedder.backbone.visual.transformer.resblocks[0].attn
        with torch.autocast("cpu", torch.bfloat16):
            inside = attention.in_proj_weight
            outputs = embedder(photos_for(embedder))
        assert torch.equal(inside, attention.in_proj_weight)
        assert inside.dtype == torch.float32
        assert torch.isfinite(outputs.features.joint).all()
        outputs.features.joint.float().square().sum().backward()
        assert all(own.grad is not None and own.grad.any() for own in learning(embedder.backbone.visual).values())

    def test_blocks_frozen_afterwards_keep_their_changes_and_thaw(self):
        embedder = embedder_of(VIT)
        backbone = embedder.backbone
        add_lora(backbone.visual, rank=4, alpha=8.0, layers=BOTH)
        names = set(learning(backbone.visual))
        backbone.freeze(1)
        assert set(learning(backbone.visual)) == {name for name in names if "resblocks.1" in name}
        assert [sum(own.requires_grad for own in layer) for layer in backbone.layers] == [0, 0, 8, 0]
        backbone.unfreeze()
        assert set(learning(backbone.visual)) == names

    @pytest.mark.parametrize("merged_first", [True, False])
    def test_freezing_and_merging_leave_the_tower_as_it_was(self, merged_first: bool):
        backbone = embedder_of(VIT).backbone
        backbone.visual.ln_post.requires_grad_(False)  # as a tower's own fixed parameters
        names = set(learning(backbone.visual))
        backbone.freeze(1)
        add_lora(backbone.visual, rank=4, alpha=8.0, layers=BOTH)
        for undo in [lambda: merge_lora(backbone.visual), backbone.unfreeze][:: 1 if merged_first else -1]:
            undo()
        assert set(learning(backbone.visual)) == names


class TestMerging:
    @pytest.mark.parametrize("layers", [BOTH, ("attention",), ("mlp",)])
    @pytest.mark.parametrize("config", [VIT, CUSTOM], ids=["vit", "custom blocks"])
    def test_the_merged_model_gives_the_same_embeddings(self, config: dict, layers: tuple):
        embedder = changed(config, layers=layers)
        photos = photos_for(embedder)
        before = embedder.embed(photos)
        assert not torch.allclose(before, embedder_of(config).embed(photos), atol=1e-2)
        merge_lora(embedder.backbone.visual)
        assert torch.allclose(embedder.embed(photos), before, atol=1e-5)
        with torch.no_grad():
            slow = embedder.train().backbone(embedder.normalise(photos)).joint  # without attention's fast path
            assert torch.allclose(slow, embedder.eval().backbone(embedder.normalise(photos)).joint, atol=1e-4)

    def test_a_merged_matrix_is_the_papers_formula(self):
        embedder = changed()
        block = embedder.backbone.visual.transformer.resblocks[1]
        change = block.mlp.c_fc.parametrizations.weight[0]
        expected = block.mlp.c_fc.parametrizations.weight.original + 8.0 / 4 * change.b[0] @ change.a[0]
        merge_lora(embedder.backbone.visual)
        assert torch.allclose(block.mlp.c_fc.weight, expected, atol=1e-6)

    def test_a_merged_tower_is_a_plain_one_in_names_order_classes_and_what_learns(self):
        plain, embedder = embedder_of(VIT), embedder_of(VIT)
        tower = embedder.backbone.visual
        tower.ln_post.bias.requires_grad_(False)
        own = {name: id(one) for name, one in tower.named_parameters()}
        add_lora(tower, rank=4, alpha=8.0, layers=BOTH)
        merge_lora(tower)
        assert list(embedder.state_dict()) == list(plain.state_dict())
        assert {name: id(one) for name, one in tower.named_parameters()} == own
        assert [name for name, one in tower.named_parameters() if not one.requires_grad] == ["ln_post.bias"]
        assert [type(one) for one in embedder.modules()] == [type(one) for one in plain.modules()]
        add_lora(tower, rank=2, alpha=8.0, layers=BOTH)  # a later stage's

    def test_merged_state_loads_strictly_into_a_fresh_embedder_and_leaves_the_module_as_it_is(self):
        embedder = changed()
        names, photos = list(embedder.state_dict()), photos_for(embedder)
        fresh = embedder_of(VIT, seed=5)
        fresh.load_state_dict(merged_state(embedder))
        assert torch.allclose(fresh.embed(photos), embedder.embed(photos), atol=1e-5)
        assert list(embedder.state_dict()) == names
        merge_lora(embedder.backbone.visual)
        for name, value in merged_state(embedder).items():
            assert torch.equal(value, fresh.state_dict()[name]), name

    def test_merged_state_is_a_state_and_no_graph(self):
        assert not any(value.requires_grad for value in merged_state(changed()).values())

    @pytest.mark.parametrize("config", [VIT, RESNET], ids=["vit", "resnet"])
    def test_without_changes_nothing_happens(self, config: dict):
        embedder = embedder_of(config)
        before = {name: value.clone() for name, value in embedder.state_dict().items()}
        state = merged_state(embedder)
        merge_lora(embedder.backbone.visual)
        assert list(state) == list(before) == list(embedder.state_dict())
        assert all(torch.equal(state[name], value) for name, value in before.items())
        assert all(own.requires_grad for own in embedder.backbone.parameters())


class TestCopies:
    @pytest.mark.parametrize("merged", ["original", "copy"])
    def test_a_deep_copy_is_independent_even_when_one_is_merged(self, merged: str):
        embedder = changed()
        copy = deepcopy(embedder)
        photos = photos_for(embedder)
        before = embedder.embed(photos)
        assert torch.equal(copy.embed(photos), before)
        one, other = (embedder, copy) if merged == "original" else (copy, embedder)
        merge_lora(one.backbone.visual)
        assert torch.equal(other.embed(photos), before)
        with torch.no_grad():
            for own in one.backbone.visual.parameters():
                own.zero_()
        assert torch.equal(other.embed(photos), before)

    def test_torchs_average_of_a_changed_model_averages_the_changes(self):
        embedder = changed()
        average = AveragedModel(embedder, use_buffers=True)
        average.update_parameters(embedder)
        first = {name: own.detach().clone() for name, own in learning(embedder.backbone.visual).items()}
        for own in learning(embedder.backbone.visual).values():
            nn.init.normal_(own)
        average.update_parameters(embedder)
        tower = average.module.backbone.visual
        for name, own in embedder.backbone.visual.named_parameters():
            expected = (first[name] + own) / 2 if name in first else own
            assert torch.allclose(tower.get_parameter(name), expected, atol=1e-6), name
        embedder_of(VIT).load_state_dict(merged_state(average.module))

    def test_a_state_of_a_changed_model_is_saved_and_loaded(self):
        embedder = changed()
        file = io.BytesIO()
        torch.save(embedder.state_dict(), file)
        file.seek(0)
        again = embedder_of(VIT, seed=5)
        add_lora(again.backbone.visual, rank=4, alpha=8.0, layers=BOTH)
        again.load_state_dict(torch.load(file, weights_only=True))
        photos = photos_for(embedder)
        assert torch.equal(again.embed(photos), embedder.embed(photos))
