"""WiSE-FT: exact ends, norms that belong to their point, and a choice that never makes validation worse."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from handreid.build import build_embedder, build_towers
from handreid.models.embedder import Embedder
from handreid.recipe import parse_recipe
from handreid.training.stages.fine_tune.wise_ft import (
    Curve,
    Point,
    interpolate,
    interpolation_curve,
    recompute_batchnorm,
)
from tests.conftest import MICRO_RECIPE

SHAPE = "{image_size: 64, layers: [1, 1, 1, 1], width: 8, patch_size: null, head_width: 32}"
RESNET = f"model.backbone.config.vision_cfg={SHAPE}"
TOWERS = pytest.mark.parametrize("overrides", [(), (RESNET,)], ids=["vit", "resnet"])


def micro(*overrides: str) -> Embedder:
    recipe = parse_recipe(MICRO_RECIPE, "micro", overrides)
    return build_embedder(recipe, build_towers(recipe))


def photos_for(embedder: Embedder, count: int = 22) -> np.ndarray:
    """In order from dark to bright, as photos of one identity follow each other in a manifest."""
    noise = np.random.default_rng(0).integers(0, 40, (count, 3, *embedder.preprocessing.size))
    return (noise + np.linspace(0, 200, count).reshape(-1, 1, 1, 1)).astype(np.uint8)


def states(embedder: Embedder) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The backbone's state before and after a stage that moved everything; the embedder ends with the second."""
    start = copy.deepcopy(embedder.backbone.state_dict())
    torch.manual_seed(0)
    for value in embedder.state_dict().values():
        if value.is_floating_point():
            value.mul_(1 + 0.2 * torch.rand_like(value)).add_(0.02 * torch.rand_like(value))
        else:
            value.add_(7)
    return start, copy.deepcopy(embedder.backbone.state_dict())


def norms(module: nn.Module) -> dict[str, nn.Module]:
    return {name: one for name, one in module.named_modules() if isinstance(one, nn.BatchNorm1d | nn.BatchNorm2d)}


class Validation:
    """Gives the metrics in their order, and keeps the state that each was given for."""

    def __init__(self, *scores: float) -> None:
        self.scores = list(scores)
        self.seen: list[dict[str, Tensor]] = []

    def __call__(self, embedder: Embedder) -> dict[str, float]:
        assert not embedder.training
        self.seen.append(copy.deepcopy(embedder.state_dict()))
        return {"rank1": 0.5, "map": self.scores[len(self.seen) - 1]}


def encoder(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """What is interpolated of an embedder's state: the backbone's without batch-norm statistics."""
    return {
        name.removeprefix("backbone."): value
        for name, value in state.items()
        if name.startswith("backbone.") and "running" not in name and "tracked" not in name
    }


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


class TestInterpolate:
    @TOWERS
    def test_its_ends_are_the_two_to_the_bit_and_its_middle_is_their_mean(self, overrides: tuple):
        start, tuned = states(micro(*overrides))
        floats = [name for name, value in tuned.items() if value.is_floating_point()]
        zero, half, one = (interpolate(start, tuned, alpha) for alpha in (0.0, 0.5, 1.0))
        for name in floats:
            assert not torch.equal(start[name], tuned[name]), name
            assert torch.equal(zero[name], start[name])
            assert torch.equal(one[name], tuned[name])
            assert torch.allclose(half[name], (start[name] + tuned[name]) / 2, atol=1e-7)
        quarter = interpolate(start, tuned, 0.25)
        assert torch.allclose(
            quarter["visual.conv1.weight"],
            0.75 * start["visual.conv1.weight"] + 0.25 * tuned["visual.conv1.weight"],
            atol=1e-7,
        )

    def test_counters_are_the_trained_ones(self):
        start, tuned = states(micro(RESNET))
        name = "visual.bn1.num_batches_tracked"
        assert interpolate(start, tuned, 0.5)[name] == tuned[name] == start[name] + 7

    def test_the_result_shares_nothing_with_the_two(self):
        start, tuned = states(micro(RESNET))
        before = copy.deepcopy((start, tuned))
        for alpha in (0.0, 0.5, 1.0):
            for value in interpolate(start, tuned, alpha).values():
                value.add_(1)
        assert same(start, before[0])
        assert same(tuned, before[1])

    def test_states_that_do_not_agree_are_refused(self):
        start, tuned = states(micro())
        first = next(iter(start))
        for wrong in (
            {**start, "visual.extra": torch.zeros(1)},
            {name: value for name, value in start.items() if name != first},
            {**start, first: torch.zeros(3)},
        ):
            with pytest.raises(ValueError, match=r"differ in 1 names or shapes \(such as visual\."):
                interpolate(wrong, tuned, 0.5)


class TestEstimateNorms:
    @TOWERS
    @pytest.mark.parametrize("batch_size", [1, 3, 7, 64])
    def test_necks_get_mean_and_variance_of_the_features_over_all_photos(self, overrides: tuple, batch_size: int):
        """Exactly, however the photos are batched: for a ResNet too, whose own norms come first."""
        embedder = micro(*overrides)
        states(embedder)
        photos = photos_for(embedder)
        recompute_batchnorm(embedder, photos, batch_size=batch_size)
        with torch.no_grad():
            features = embedder(torch.from_numpy(photos)).before
        for name, neck in embedder.head.necks.items():
            assert torch.allclose(neck.running_mean, features[name].mean(0), atol=1e-5, rtol=1e-4), name
            assert torch.allclose(neck.running_var, features[name].var(0), atol=1e-6, rtol=1e-3), name
        with torch.no_grad():
            after = embedder(torch.from_numpy(photos)).after["pooled"]
        assert torch.allclose(after.mean(0), embedder.head.necks["pooled"].bias, atol=1e-3)

    @pytest.mark.parametrize("batch_size", [5, 64])
    def test_a_resnets_first_norm_gets_mean_and_variance_over_photos_and_places(self, batch_size: int):
        embedder = micro(RESNET)
        photos = photos_for(embedder)
        recompute_batchnorm(embedder, photos, batch_size=batch_size)
        visual = embedder.backbone.visual
        with torch.no_grad():
            maps = visual.conv1(embedder.normalise(torch.from_numpy(photos)))
        assert torch.allclose(visual.bn1.running_mean, maps.mean((0, 2, 3)), atol=1e-5)
        assert torch.allclose(visual.bn1.running_var, maps.transpose(0, 1).flatten(1).var(1), rtol=1e-4)

    def test_a_resnets_deep_norms_come_near_what_goes_into_them_at_test(self):
        """One batch of everything makes batch statistics the statistics: then all 16 norms are exact."""
        embedder = micro(RESNET)
        photos = photos_for(embedder)
        recompute_batchnorm(embedder, photos, batch_size=len(photos))
        inputs: dict[str, Tensor] = {}
        for name, norm in norms(embedder.backbone).items():
            norm.register_forward_pre_hook(lambda module, given, name=name: inputs.__setitem__(name, given[0]))
        with torch.no_grad():
            embedder(torch.from_numpy(photos))
        assert len(inputs) == len(norms(embedder.backbone)) > 10
        for name, norm in norms(embedder.backbone).items():
            mean = inputs[name].mean((0, 2, 3))
            # the unbiased variance is a little larger than the one a batch is normalised by, norm after norm
            assert torch.allclose(norm.running_mean, mean, atol=0.02 * inputs[name].std().item()), name

    @TOWERS
    @pytest.mark.parametrize("training", [True, False])
    def test_only_statistics_change_and_modes_stay(self, overrides: tuple, training: bool):
        embedder = micro(*overrides).train(training)
        before = copy.deepcopy(embedder.state_dict())
        recompute_batchnorm(embedder, photos_for(embedder), batch_size=8)
        for name, value in embedder.state_dict().items():
            if "tracked" not in name:
                assert torch.equal(value, before[name]) != ("running" in name), name
        assert all(module.training == training for module in embedder.modules())
        assert all(norm.momentum == 0.1 and not norm._forward_pre_hooks for norm in norms(embedder).values())
        assert not any(own.grad is not None for own in embedder.parameters())

    def test_it_is_the_same_every_time_and_norms_to_keep_are_kept(self):
        embedder = micro(RESNET)
        twice = []
        for _ in range(2):
            recompute_batchnorm(embedder, photos_for(embedder), batch_size=8, keep={"backbone.visual.bn1"})
            twice.append({n: v.clone() for n, v in embedder.state_dict().items() if "tracked" not in n})
        assert same(*twice)
        assert not embedder.backbone.visual.bn1.running_mean.any()
        assert embedder.backbone.visual.bn2.running_mean.any()

    def test_batches_are_of_photos_from_everywhere(self):
        embedder = micro()
        brightness: list[float] = []
        embedder.register_forward_pre_hook(lambda module, given: brightness.append(given[0].float().mean().item()))
        photos = photos_for(embedder, 40)
        recompute_batchnorm(embedder, photos, batch_size=10)
        in_order = photos.reshape(4, -1).mean(1)
        assert len(brightness) == 4
        assert np.mean(brightness) == pytest.approx(photos.mean(), abs=0.1)
        assert np.std(brightness) < in_order.std() / 2

    def test_a_head_without_norms_needs_no_photos(self):
        embedder = micro("model.head={kind: linear}")
        recompute_batchnorm(embedder, photos_for(embedder)[:0])


class TestWalk:
    @TOWERS
    def test_it_ends_as_the_best_with_the_weights_that_were_validated(self, overrides: tuple):
        embedder = micro(*overrides)
        start, tuned = states(embedder)
        validate = Validation(0.3, 0.1, 0.9, 0.2)
        curve = interpolation_curve(
            embedder.train(), start, (0.0, 0.5, 1.0), photos_for(embedder), validate, batch_size=8
        )
        assert [point.alpha for point in curve.points] == [None, 1.0, 0.5, 0.0]
        assert curve.best == Point(0.5, {"rank1": 0.5, "map": 0.9})
        assert not any(module.training for module in embedder.modules())
        assert same(embedder.state_dict(), validate.seen[2])
        assert same(encoder(embedder.state_dict()), interpolate(start, tuned, 0.5))

    @TOWERS
    def test_each_alpha_is_its_encoder_with_norms_of_its_own(self, overrides: tuple):
        embedder = micro(*overrides)
        start, tuned = states(embedder)
        trained = copy.deepcopy(embedder.state_dict())
        validate = Validation(0.3, 0.1, 0.9)
        photos = photos_for(embedder)
        interpolation_curve(embedder, start, (0.0, 1.0), photos, validate, batch_size=8)
        assert same(validate.seen[0], trained)
        for seen, ends in zip(validate.seen[1:], (tuned, start), strict=True):
            assert same(encoder(seen), ends)
            alone = micro(*overrides)
            alone.load_state_dict(trained)
            alone.backbone.load_state_dict(ends)
            recompute_batchnorm(alone, photos, batch_size=8)
            assert same({name: value for name, value in alone.state_dict().items() if "tracked" not in name}, seen)
            assert same({n: v for n, v in trained.items() if "necks" in n and "bias" in n}, seen)
            assert not same({n: v for n, v in trained.items() if "necks" in n and "running" in n}, seen)

    def test_the_trained_weights_stay_to_the_bit_where_nothing_is_better(self):
        embedder = micro(RESNET)
        start, _ = states(embedder)
        trained = copy.deepcopy(embedder.state_dict())
        curve = interpolation_curve(
            embedder, start, (0.5, 1.0), photos_for(embedder), Validation(0.8, 0.8, 0.8), batch_size=8
        )
        assert curve.best.alpha is None
        assert same(trained, embedder.state_dict())

    def test_of_equals_the_nearest_to_the_trained_weights_is_taken(self):
        embedder = micro()
        start, _ = states(embedder)
        validate = Validation(0.8, 0.7, 0.9, 0.9)
        curve = interpolation_curve(embedder, start, (0.2, 0.8, 0.5, 0.5), photos_for(embedder), validate)
        assert [point.alpha for point in curve.points] == [None, 0.8, 0.5, 0.2]
        assert curve.best.alpha == 0.5

    def test_statistics_that_the_stage_froze_stay_as_they_are(self):
        embedder = micro(RESNET)
        start, tuned = states(embedder)
        frozen = {name: value for name, value in start.items() if name.startswith("visual.bn1.running")}
        embedder.backbone.load_state_dict({**tuned, **frozen})
        validate = Validation(0.1, 0.9)
        interpolation_curve(embedder, start, (0.5,), photos_for(embedder), validate, batch_size=8)
        assert same(frozen, embedder.backbone.state_dict())
        assert not torch.equal(embedder.backbone.visual.bn2.running_mean, tuned["visual.bn2.running_mean"])


def test_a_curve_is_printed_and_written_with_the_choice():
    scores = {None: (0.5, 0.6), 1.0: (0.5, 0.61), 0.25: (1.0, 0.7)}
    curve = Curve(tuple(Point(alpha, {"rank1": rank1, "map": ap}) for alpha, (rank1, ap) in scores.items()))
    assert curve.lines() == [
        "WiSE-FT as trained  validation rank-1 50.0%  mAP 60.0%",
        "WiSE-FT alpha 1     validation rank-1 50.0%  mAP 61.0%",
        "WiSE-FT alpha 0.25  validation rank-1 100.0%  mAP 70.0%  taken",
    ]
    assert curve.content() == {
        "best": 0.25,
        "points": [
            {"alpha": None, "rank1": 0.5, "map": 0.6},
            {"alpha": 1.0, "rank1": 0.5, "map": 0.61},
            {"alpha": 0.25, "rank1": 1.0, "map": 0.7},
        ],
    }
