"""Heads: what they promise, what the papers define, and that every parameter of theirs learns."""

import json
import math
from copy import deepcopy
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from handreid.build import build_embedder, build_objectives, build_towers
from handreid.errors import RecipeError, WeightsError
from handreid.models.backbone import Backbone
from handreid.models.clip import load_clip
from handreid.models.embedder import Embedder
from handreid.models.heads import Head, build_head
from handreid.models.parts import AttentionPooling, Gem, Mgn, Pcb, stripe_rows
from handreid.models.sealed import load_sealed, save_sealed
from handreid.recipe import Model, parse_recipe
from handreid.types import Features, Outputs, Preprocessing, Targets

TEXT = {"context_length": 24, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1}
VIT = {"image_size": 32, "patch_size": 8, "width": 64, "layers": 2, "head_width": 32}
RESNET = {"image_size": 96, "layers": [1, 1, 1, 1], "width": 4, "patch_size": None, "head_width": 32}
TOWERS = {
    name: {"embed_dim": 32, "vision_cfg": vision, "text_cfg": TEXT}
    for name, vision in [("vit", VIT), ("resnet", RESNET)]
}
SIZES = {"vit": (32, 32), "resnet": (96, 96), "tall vit": (48, 16), "tall resnet": (128, 64)}
HEADS: dict[str, dict[str, Any]] = {
    "linear": {"kind": "linear"},
    "bnneck": {"kind": "bnneck"},
    "mlp": {"kind": "mlp", "hidden": 24, "width": 16},
    "pcb": {"kind": "pcb", "stripes": 3, "width": 16},
    "mgn": {"kind": "mgn", "width": 16},
    "gem": {"kind": "gem", "power": 3.0},
    "attention": {"kind": "attention", "heads": 4},
}
MAKING_PARTS = ("pcb", "mgn", "gem", "attention")
heads = pytest.mark.parametrize("kind", HEADS)
towers = pytest.mark.parametrize("tower", ["vit", "tall resnet"])


@cache
def backbone_of(tower: str) -> Backbone:
    loaded = load_clip("own", config=TOWERS[tower.split()[-1]], image_size=SIZES[tower])
    return Backbone(loaded.image, loaded.config)


def embedder_of(kind: str, tower: str = "vit", **arguments: Any) -> Embedder:
    """Reads pooled and joint, with necks on both; compares all there is, after the neck."""
    backbone = deepcopy(backbone_of(tower))
    torch.manual_seed(0)
    parts = ("parts",) if kind in MAKING_PARTS else ()
    chosen: dict[str, Any] = {
        "features": ("joint", "pooled"),
        "necks": ("joint", "pooled"),
        "test_features": ("pooled", "joint", *parts),
        "test_neck": "after",
    } | arguments
    preprocessing = Preprocessing(backbone.size, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    return Embedder(backbone, preprocessing, head=HEADS[kind], **chosen).eval()


def photos_of(tower: str, count: int = 6) -> Tensor:
    return torch.randint(
        0, 256, (count, 3, *SIZES[tower]), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


def random_features(count: int = 6, grid: tuple[int, int, int] = (7, 3, 8), seed: int = 0) -> Features:
    draw = torch.Generator().manual_seed(seed)
    vectors = (torch.randn(count, width, generator=draw) for width in (4, 8, 8))
    return Features(*vectors, torch.randn(count, *grid, generator=draw))


def head_of(kind: str, grid: tuple[int, int, int] = (7, 3, 8)) -> Head:
    torch.manual_seed(0)
    return build_head(HEADS[kind], {"joint": 4, "pooled": 8}, ("pooled",), grid)


def normalised(rows: Tensor) -> Tensor:
    """What a batch norm with its first parameters makes of a batch in training."""
    return (rows - rows.mean(0)) / (rows.var(0, unbiased=False) + 1e-5).sqrt()


@heads
@pytest.mark.parametrize("tower", SIZES)
def test_widths_are_as_promised(kind: str, tower: str):
    embedder = embedder_of(kind, tower)
    for training in (False, True):
        outputs = embedder.train(training)(photos_of(tower))
        assert {name: value.shape[1] for name, value in outputs.before.items()} == embedder.head.before
        assert {name: value.shape[1] for name, value in outputs.after.items()} == embedder.head.after
    assert embedder.embed(photos_of(tower)).shape == (6, embedder.dim)
    assert outputs.features.patches.shape[1:] == embedder.backbone.grid
    assert bool(embedder.head.parts) == (kind in MAKING_PARTS)
    assert set(embedder.head.parts) <= set(outputs.before)
    assert set(embedder.head.parts) <= set(outputs.after)


def test_parts_bear_the_names_of_the_docs():
    assert head_of("pcb").parts == ("stripe_1", "stripe_2", "stripe_3")
    wanted = ("global_1", "global_2", "half_1", "half_2", "global_3", "third_1", "third_2", "third_3")
    assert head_of("mgn").parts == wanted
    assert head_of("gem").parts == ("gem",)
    assert head_of("attention").parts == ("attention",)
    assert head_of("pcb").names(("parts", "joint")) == ("stripe_1", "stripe_2", "stripe_3", "joint")


@heads
def test_necks_stand_on_what_needs_one_and_on_every_part(kind: str):
    head = head_of(kind)
    before, after = head.train()(random_features())
    assert set(before) == {"joint", "pooled", *head.parts}
    assert set(after) == {"pooled", *head.parts}
    assert torch.equal(before["joint"], random_features().joint)
    assert torch.equal(before["pooled"], random_features().pooled)
    for name in head.parts or ("pooled",):
        if kind not in ("linear", "mlp"):
            torch.testing.assert_close(after[name], normalised(before[name]))


@heads
def test_a_necks_bias_is_frozen_at_zero(kind: str):
    head = head_of(kind)
    necks = [module for name, module in head.named_modules() if name.startswith("necks.")]
    assert len(necks) == (0 if kind == "linear" else len(head.after))
    assert all(not neck.bias.requires_grad and not neck.bias.any() for neck in necks)
    assert all(neck.weight.requires_grad for neck in necks)


@heads
@pytest.mark.parametrize("tower", ["vit", "resnet"])
def test_gradients_reach_every_parameter_and_the_patches(kind: str, tower: str):
    embedder = embedder_of(kind, tower).train()
    outputs = embedder(photos_of(tower))
    outputs.features.patches.retain_grad()
    torch.manual_seed(2)
    every = [*outputs.before.values(), *outputs.after.values()]
    torch.stack([(value * torch.randn_like(value)).sum() for value in every]).sum().backward()
    for name, parameter in embedder.head.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert (parameter.grad != 0).any(), name
    if kind in MAKING_PARTS:
        reached = outputs.features.patches.grad.ne(0)
        places = reached.any(-1) if kind != "mgn" else reached.any(-1).any(2)  # a maximum is somewhere in each row
        assert places.any(0).all()


@pytest.mark.parametrize("kind", [kind for kind in HEADS if kind != "linear"])
def test_no_parameter_is_undone_by_the_norm_behind_it(kind: str):
    """Behind the neck alone no gradient is rounding noise, which Adam would turn into steps of full size."""
    head = head_of(kind).double().train()
    features = random_features()
    doubled = Features(*(getattr(features, name).double() for name in ("joint", "pooled", "penultimate", "patches")))
    torch.manual_seed(2)
    _, after = head(doubled)
    torch.stack([(value * torch.randn_like(value)).sum() for value in after.values()]).sum().backward()
    for name, parameter in head.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 1e-4, name


@heads
@towers
def test_a_photos_embedding_does_not_depend_on_the_others_in_its_batch(kind: str, tower: str):
    embedder = embedder_of(kind, tower)
    photos = photos_of(tower)
    together = embedder.embed(photos)
    assert torch.equal(together, embedder.embed(photos))
    others = torch.cat([photos[:1], photos[1:].flip(0).bitwise_not()])
    torch.testing.assert_close(together[0], embedder.embed(others)[0])
    torch.testing.assert_close(together[:1], embedder.embed(photos[:1]))
    assert not torch.allclose(together[0], together[1], atol=1e-4)


@pytest.mark.parametrize("kind", MAKING_PARTS)
def test_parts_in_training_are_pooled_within_each_photo(kind: str):
    """In front of batch norms: another photo's patches do not move this one's."""
    head, features = head_of(kind), random_features()
    changed = features.patches.clone()
    changed[1:] += 5
    maker = head.maker.train()
    for module in maker.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.eval()
    for name, value in maker(features.patches).items():
        other = maker(changed)[name]
        torch.testing.assert_close(value[0], other[0])
        assert not torch.allclose(value[1], other[1])


def test_the_projection_is_two_layers_and_a_batch_norm():
    head, features = head_of("mlp").train(), random_features()
    _, after = head(features)
    first, _, _, second = head.projections["pooled"]
    hidden = normalised(torch.stack([first.weight @ row for row in features.pooled])).clamp(min=0)
    torch.testing.assert_close(after["pooled"], normalised(torch.stack([second.weight @ row for row in hidden])))


@pytest.mark.parametrize("rows", [3, 4, 7, 12])
@pytest.mark.parametrize("stripes", [1, 2, 3])
def test_stripes_are_those_of_adaptive_pooling(rows: int, stripes: int):
    values = torch.randn(1, 1, rows, 2)
    wanted = nn.functional.adaptive_avg_pool2d(values, (stripes, 1))[0, 0, :, 0]
    got = torch.stack([values[0, 0, one].mean() for one in stripe_rows(rows, stripes)])
    torch.testing.assert_close(got, wanted)
    if rows % stripes == 0:
        assert [one.start for one in stripe_rows(rows, stripes)] == list(range(0, rows, rows // stripes))


def test_pcb_is_the_reduced_mean_of_each_stripe():
    patches = random_features(grid=(7, 3, 8)).patches
    pcb = Pcb((7, 3, 8), stripes=3, width=5)
    parts = pcb(patches)
    for n, rows in enumerate([(0, 1, 2), (2, 3, 4), (4, 5, 6)], 1):  # 7 rows: neighbours share one
        for photo in range(len(patches)):
            mean = sum(patches[photo, row, col] for row in rows for col in range(3)) / 9
            weight = pcb.reductions[f"stripe_{n}"].weight
            torch.testing.assert_close(parts[f"stripe_{n}"][photo], weight @ mean)


def test_mgn_is_the_reduced_maximum_of_whole_halves_and_thirds():
    patches = random_features(grid=(6, 2, 8)).patches
    mgn = Mgn((6, 2, 8), width=5).train()
    parts = mgn(patches)
    rows = {"half_1": range(3), "half_2": range(3, 6)}
    rows |= {"third_1": range(2), "third_2": range(2, 4), "third_3": range(4, 6)}
    for name, value in parts.items():
        pooled = []
        for photo in patches:
            places = [photo[row, col] for row in rows.get(name, range(6)) for col in range(2)]
            pooled.append(torch.stack([max(place[channel] for place in places) for channel in range(8)]))
        linear = mgn.reductions[name][0]
        wanted = normalised(torch.stack([linear.weight @ row for row in pooled])).clamp(min=0)
        torch.testing.assert_close(value, wanted, msg=name)
    assert not torch.allclose(parts["global_1"], parts["global_2"])


@pytest.mark.parametrize("power", [1.0, 3.0, 4.5])
@pytest.mark.parametrize("lowest", [0.0, 2.0])
def test_gem_is_the_papers_equation_on_maps_without_negative_values(power: float, lowest: float):
    patches = random_features().patches.clamp(min=0) + lowest
    pooled = Gem((7, 3, 8), power=power)(patches)["gem"]
    for photo, channel in [(0, 0), (1, 3), (5, 7)]:
        values = [patches[photo, row, col, channel].item() for row in range(7) for col in range(3)]
        wanted = (sum(value**power for value in values) / 21) ** (1 / power)
        assert pooled[photo, channel].item() == pytest.approx(wanted, rel=1e-4)


def test_gem_of_both_signs_is_measured_from_the_lowest_value_of_the_photo():
    patches = random_features().patches
    pooled = Gem((7, 3, 8), power=3.0)(patches)["gem"]
    for photo, channel in [(0, 0), (1, 3), (5, 7)]:
        values = [patches[photo, row, col, channel].item() for row in range(7) for col in range(3)]
        floor = min(0.0, *values)
        wanted = (sum((value - floor) ** 3 for value in values) / 21) ** (1 / 3) + floor
        assert pooled[photo, channel].item() == pytest.approx(wanted, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("shift", [0.0, -4.0, 4.0])
def test_gem_goes_from_the_mean_to_the_maximum_whatever_the_sign(shift: float):
    patches = random_features().patches + shift
    mean, highest = patches.mean((1, 2)), patches.amax((1, 2))
    by_power = [Gem((7, 3, 8), power=power)(patches)["gem"] for power in (1.0, 2.0, 3.0, 10.0, 1000.0)]
    torch.testing.assert_close(by_power[0], mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(by_power[-1], highest, rtol=1e-2, atol=3e-2)
    assert all((lower <= higher + 1e-5).all() for lower, higher in pairwise(by_power))


def test_gems_gradient_is_that_of_its_value():
    gem = Gem((3, 2, 4), power=3.0).double()
    patches = random_features(2, (3, 2, 4)).patches.double()
    patches[0, ..., 0] += 9  # a channel without negative values
    assert torch.autograd.gradcheck(lambda x: gem(x)["gem"], patches.requires_grad_())
    power = gem.power.detach().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda p: torch.func.functional_call(gem, {"power": p}, (patches.detach(),))["gem"], power
    )


@pytest.mark.parametrize(
    "patches", [torch.zeros(2, 7, 3, 8), torch.full((2, 7, 3, 8), -3.0), torch.full((2, 7, 3, 8), 1e4)]
)
def test_gem_is_finite_where_all_places_are_alike(patches: Tensor):
    gem = Gem((7, 3, 8), power=30.0)
    pooled = gem(patches.requires_grad_())["gem"]
    torch.testing.assert_close(pooled, patches.mean((1, 2)), rtol=1e-4, atol=1e-4)
    pooled.sum().backward()
    assert patches.grad.isfinite().all()
    assert gem.power.grad.isfinite()


def test_attention_is_a_weighted_mean_of_the_places_by_their_likeness_to_the_query():
    patches = random_features().patches
    pooling = AttentionPooling((7, 3, 8), heads=2)
    nn.init.normal_(pooling.query)
    pooled = pooling(patches)["attention"]
    to_query, to_keys, to_values = pooling.attention.in_proj_weight.chunk(3)
    query = to_query @ pooling.query
    for photo in range(len(patches)):
        found = []
        for head in (slice(0, 4), slice(4, 8)):
            places = [patches[photo, row, col] for row in range(7) for col in range(3)]
            scores = [(query[head] @ (to_keys @ place)[head]).item() / math.sqrt(4) for place in places]
            shares = [math.exp(score) / sum(map(math.exp, scores)) for score in scores]
            found.append(sum(share * (to_values @ place)[head] for share, place in zip(shares, places, strict=True)))
        wanted = pooling.attention.out_proj.weight @ torch.cat(found)
        torch.testing.assert_close(pooled[photo], wanted, rtol=1e-4, atol=1e-6)


def test_attention_heeds_its_query_and_the_places_but_not_their_order():
    patches = random_features().patches
    pooling = AttentionPooling((7, 3, 8), heads=2)
    nn.init.normal_(pooling.query)
    pooled = pooling(patches)["attention"]
    torch.testing.assert_close(pooling(patches.flip(1, 2))["attention"], pooled)
    assert not torch.allclose(pooling(patches.roll(1, -1))["attention"], pooled)
    with torch.no_grad():
        pooling.query.neg_()
    assert not torch.allclose(pooling(patches)["attention"], pooled)


@pytest.mark.parametrize("kind", ["pcb", "mgn"])
def test_part_heads_tell_top_from_bottom(kind: str):
    head, features = head_of(kind).eval(), random_features()
    upside_down = Features(features.joint, features.pooled, features.penultimate, features.patches.flip(1))
    before, turned = head(features)[0], head(upside_down)[0]
    lower, upper = ("stripe_3", "stripe_1") if kind == "pcb" else ("third_3", "third_1")
    assert not torch.allclose(before[upper], turned[upper])
    assert not torch.allclose(before[lower], turned[lower])


@pytest.mark.parametrize("tower", ["vit", "resnet"])
def test_more_stripes_than_rows_are_refused(tower: str):
    rows = embedder_of("bnneck", tower).backbone.grid[0]
    with pytest.raises(RecipeError, match=f"{rows + 1} stripes, but the patch grid has {rows} rows; use fewer"):
        build_head({"kind": "pcb", "stripes": rows + 1, "width": 8}, {}, (), (rows, 9, 8))
    with pytest.raises(RecipeError, match="3 stripes, but the patch grid has 2 rows"):
        build_head({"kind": "mgn", "width": 8}, {}, (), (2, 9, 8))


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(RecipeError, match=r"heads is 5, which does not divide 64, .* one of 1, 2, 4, 8, 16"):
        build_head({"kind": "attention", "heads": 5}, {}, (), (4, 4, 64))


@heads
@towers
def test_bf16_autocast_is_finite(kind: str, tower: str):
    embedder = embedder_of(kind, tower).train()
    with torch.autocast("cpu", torch.bfloat16):
        outputs = embedder(photos_of(tower))
        loss = torch.stack(
            [value.float().square().mean() for value in [*outputs.before.values(), *outputs.after.values()]]
        )
    loss.sum().backward()
    assert loss.isfinite().all()
    assert all(p.grad.isfinite().all() for p in embedder.head.parameters() if p.grad is not None)


@heads
@towers
def test_a_saved_head_gives_the_same_embeddings(kind: str, tower: str, tmp_path: Path):
    embedder = embedder_of(kind, tower)
    with torch.no_grad():
        embedder.train()(photos_of(tower))  # moves the statistics of the batch norms
    embedder.save(tmp_path / "model.safetensors")
    loaded = Embedder.load(tmp_path / "model.safetensors")
    assert loaded.dim == embedder.dim
    assert torch.equal(loaded.embed(photos_of(tower)), embedder.embed(photos_of(tower)))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "head",
            {"kind": "no_such"},
            r"model .* cannot be built: head 'no_such' is not known; known are linear, .*pcb",
        ),
        ("format", 1, "not a handreid model of format 3"),
        ("format", None, "not a handreid model of format 3"),
    ],
)
def test_models_of_another_make_are_refused(key: str, value: object, message: str, tmp_path: Path):
    path = tmp_path / "model.safetensors"
    embedder_of("gem").save(path)
    config, state = load_sealed(path, "handreid", "model", 3)
    config[key] = value
    if value is None:
        del config[key]
    save_sealed(path, state, "handreid", config)
    with pytest.raises(WeightsError, match=message):
        Embedder.load(path)


@pytest.mark.parametrize("kind", MAKING_PARTS)
@pytest.mark.parametrize("neck", ["before", "after"])
def test_the_embedding_is_the_chosen_features_in_their_order(kind: str, neck: str):
    chosen: dict[str, Any] = {"test_features": ("parts", "pooled"), "test_neck": neck}
    embedder = embedder_of(kind, **chosen)
    outputs = embedder(photos_of("vit"))
    named = outputs.before if neck == "before" else outputs.after
    wanted = torch.cat([named[name] for name in (*embedder.head.parts, "pooled")], 1)
    wanted = torch.stack([row / row.norm() for row in wanted])
    torch.testing.assert_close(embedder.embed(photos_of("vit")), wanted.detach())


RECIPE = """
name: parts
model:
  backbone: {{name: own, weights: none, image_size: {size}, config: {config}}}
  head: {head}
  test_feature: {{features: [pooled, parts], neck: after}}
stages:
  - kind: fine_tune
    epochs: 20
    sampler: {{kind: pk, identities: 3, images: 2}}
    objectives:
      - {{kind: cross_entropy, features: [pooled, parts]}}
      - {{kind: triplet, features: [parts]}}
"""


@pytest.mark.parametrize("kind", MAKING_PARTS)
@pytest.mark.parametrize("tower", ["tall vit", "resnet"])
def test_a_recipe_with_parts_trains_every_parameter_of_its_head(kind: str, tower: str):
    config = json.dumps(TOWERS[tower.split()[-1]])
    text = RECIPE.format(size=list(SIZES[tower]), config=config, head=json.dumps(HEADS[kind]))
    recipe = parse_recipe(text, "parts")
    embedder = build_embedder(recipe, build_towers(recipe)).train()
    objectives = build_objectives(recipe.stages[0], embedder.head, 3, 0)
    classifiers = objectives["0_cross_entropy"].classifiers
    assert set(classifiers) == {"pooled", *embedder.head.parts}
    learning = {
        name: p for name, p in [*embedder.named_parameters(), *objectives.named_parameters()] if p.requires_grad
    }
    before = {name: p.detach().clone() for name, p in learning.items()}
    optimizer = torch.optim.Adam(learning.values(), lr=1e-2)
    outputs: Outputs = embedder(photos_of(tower))
    targets = Targets(torch.tensor([0, 0, 1, 1, 2, 2]))
    loss = torch.stack([one(outputs, targets) for one in objectives.values()]).sum()
    loss.backward()
    optimizer.step()
    assert loss.isfinite()
    unchanged = {
        name
        for name, p in embedder.head.named_parameters()
        if p.requires_grad and torch.equal(p, before[f"head.{name}"])
    }
    assert not unchanged


@heads
def test_recipes_heads_have_the_arguments_of_the_heads(kind: str):
    config = Model.model_validate({"head": {"kind": kind}}).head.model_dump()
    assert json.loads(json.dumps(config)) == config
    assert build_head(config, {"joint": 4, "pooled": 8}, ("joint", "pooled"), (14, 14, 768)).after
