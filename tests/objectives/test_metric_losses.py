"""Triplet, supervised contrastive, and the losses of pytorch-metric-learning."""

import inspect
import math
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import cast

import pytest
import torch
import torch.nn.functional as F
from pytorch_metric_learning import distances, losses, miners, reducers
from torch import Tensor, nn

from handreid.errors import RecipeError
from handreid.objectives.metric_learning import MetricLearning
from handreid.objectives.objective import Objective
from handreid.objectives.pml_adapter import ABSTRACT, DISTANCES, REDUCERS, REFUSED, CrossBatchMemory
from handreid.objectives.supcon import SupCon
from handreid.objectives.triplet import Mining, Triplet
from handreid.recipe.objectives import CLASSIFYING
from handreid.types import Features, Outputs, Targets

MININGS: tuple[Mining, ...] = ("batch_all", "batch_hard", "semi_hard", "hard_only")
LABELS = torch.tensor([2, 0, 1, 0, 2, 1, 0, 2, 3])  # 3, 2, 3 photos of an identity, and one that is alone
NAMES = [name for name, _ in inspect.getmembers(losses, inspect.isclass) if name not in ABSTRACT]
USABLE = [name for name in NAMES if name not in REFUSED]
TAKES = {"AngularLoss": "normalised_euclidean", "FastAPLoss": "normalised_euclidean"} | {
    "RankedListLoss": "euclidean",
    "SignalToNoiseRatioContrastiveLoss": "signal_to_noise",
}
ARGUMENTS: dict[str, dict[str, object]] = {"RankedListLoss": {"margin": 0.4, "Tn": 1}}


def outputs(**features: Tensor) -> Outputs:
    one = next(iter(features.values()))
    made = Features(one.float(), one.float(), one.float(), one.float()[:, None, None])
    return Outputs(made, features, {name: 2 * value for name, value in features.items()})


def value_of(objective: Objective, features: Tensor, labels: Tensor = LABELS) -> Tensor:
    return objective(outputs(pooled=features), Targets(labels))


def gradient_of(objective: Objective, features: Tensor, labels: Tensor = LABELS) -> tuple[float, Tensor]:
    features = features.clone().requires_grad_()
    value = value_of(objective, features, labels)
    value.backward()
    assert features.grad is not None
    return value.item(), features.grad


def circle(count: int = len(LABELS), seed: int = 0) -> Tensor:
    """Places in the plane, at radii that are not all one."""
    drawn = torch.rand(2, count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    angles, radii = 2 * math.pi * drawn[0], 0.8 + 0.4 * drawn[1]
    return torch.stack([radii * angles.cos(), radii * angles.sin()], dim=1)


def cloud(count: int, width: int = 16, seed: int = 0) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def library_loss(name: str, width: int = 16, distance: str | None = None, **options: object) -> MetricLearning:
    distance = distance or TAKES.get(name, "cosine")
    chosen = ARGUMENTS.get(name, {})
    return MetricLearning({"pooled": width}, 6, loss=name, arguments=chosen, distance=distance, **options)  # type: ignore[arg-type]


def apart(x: Tensor, y: Tensor, distance: str) -> float:
    dot, lengths = float(x @ y), float(x.norm() * y.norm())
    return math.dist(x.tolist(), y.tolist()) if distance == "euclidean" else 1 - dot / lengths


def triplet_by_hand(x: Tensor, mining: str, margin: float | str, distance: str, quantile: float) -> tuple[float, int]:
    """The definition in loops, and how many triplets it is the mean of."""
    count = len(x)
    add = 0.0 if isinstance(margin, str) else margin
    found: list[list[float]] = []  # by anchor
    for a in range(count):
        mine = [p for p in range(count) if p != a and LABELS[p] == LABELS[a]]
        others = [n for n in range(count) if LABELS[n] != LABELS[a]]
        pairs = [(apart(x[a], x[p], distance), apart(x[a], x[n], distance)) for p, n in product(mine, others)]
        if mining == "semi_hard":
            pairs = [(p, n) for p, n in pairs if p < n and (margin == "soft" or n < p + add)]
        if mining == "hard_only":
            pairs = [(p, n) for p, n in pairs if p + add > n]
        found.append([p - n for p, n in pairs])
    if mining == "batch_hard":
        found = [[max(one)] for one in found if one]
    hardness = sorted(h for one in found for h in one)
    if mining == "hard_only":
        hardness = [h for h in hardness if h >= torch.tensor(hardness, dtype=x.dtype).quantile(quantile).item()]
    terms = [math.log1p(math.exp(h)) if margin == "soft" else max(0.0, h + add) for h in hardness]
    return sum(terms) / len(terms), len(terms)


@pytest.mark.parametrize("mining", MININGS)
@pytest.mark.parametrize("margin", [0.2, 0.5, "soft"])
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
@pytest.mark.parametrize("seed", range(3))
def test_a_triplet_loss_is_its_definition(mining: Mining, margin: float, distance: str, seed: int) -> None:
    features = circle(seed=seed)
    expected, count = triplet_by_hand(features, mining, margin, distance, 0.3)
    loss = Triplet(("pooled",), mining=mining, margin=margin, distance=distance, quantile=0.3)  # type: ignore[arg-type]
    assert value_of(loss, features).item() == pytest.approx(expected, abs=1e-12)
    assert count >= 3


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_a_triplet_loss_is_the_librarys_where_definitions_agree(distance: str) -> None:
    features = circle()
    there = (
        distances.LpDistance(normalize_embeddings=False) if distance == "euclidean" else distances.CosineSimilarity()
    )
    reference = losses.TripletMarginLoss(margin=0.3, distance=there, reducer=reducers.MeanReducer())
    mined = {
        "batch_all": None,
        "batch_hard": miners.BatchHardMiner(distance=there)(features, LABELS),
        "semi_hard": miners.TripletMarginMiner(0.3, "semihard", distance=there)(features, LABELS),
    }
    for mining, chosen in mined.items():
        ours = Triplet(("pooled",), mining=cast(Mining, mining), distance=distance)  # type: ignore[arg-type]
        assert value_of(ours, features).item() == pytest.approx(reference(features, LABELS, chosen).item(), abs=1e-6)


def test_easy_triplets_count_in_the_mean_which_the_librarys_default_leaves_out() -> None:
    features = circle(seed=4)
    paper, count = triplet_by_hand(features, "batch_all", 0.1, "euclidean", 0.5)
    default = losses.TripletMarginLoss(margin=0.1, distance=distances.LpDistance(normalize_embeddings=False))
    explicit = {"loss": "TripletMarginLoss", "arguments": {"margin": 0.1}, "distance": "euclidean"}
    ours = [
        Triplet(("pooled",), mining="batch_all", margin=0.1),
        MetricLearning({"pooled": 2}, 4, reducer="mean", **explicit),  # type: ignore[arg-type]
    ]
    for one in ours:
        assert value_of(one, features).item() == pytest.approx(paper, rel=1e-6)
    assert default(features, LABELS).item() > 1.3 * paper
    summed = MetricLearning({"pooled": 2}, 4, reducer="sum", **explicit)  # type: ignore[arg-type]
    assert value_of(summed, features).item() == pytest.approx(count * paper, rel=1e-6)
    positive = MetricLearning({"pooled": 2}, 4, reducer="mean_of_positive", **explicit)  # type: ignore[arg-type]
    assert value_of(positive, features).item() == pytest.approx(default(features, LABELS).item(), rel=1e-6)


def test_hard_only_keeps_the_upper_share_of_what_violates_the_margin() -> None:
    features = cloud(16)
    labels = torch.arange(8).repeat_interleave(2)
    d = torch.cdist(features, features)
    hardness = torch.stack([d[a, a ^ 1] - d[a, n] for a in range(16) for n in range(16) if labels[n] != labels[a]])
    violating = hardness[hardness > -0.3]
    hardest = violating.sort().values[-len(violating) // 10 :]
    loss = Triplet(("pooled",), mining="hard_only", quantile=0.9)
    assert value_of(loss, features, labels).item() == pytest.approx((hardest + 0.3).mean().item(), rel=0.02)


def test_the_positive_of_a_pair_is_not_masked_away_with_the_diagonal() -> None:
    features = torch.tensor([[0.0, 0.0], [0.0, 3.0], [4.0, 0.0], [4.0, 3.0]])
    labels = torch.tensor([0, 0, 1, 1])  # each has its positive at 3 and its nearest negative at 4
    assert value_of(Triplet(("pooled",), margin=2.0), features, labels).item() == 1.0
    alike = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    cosines_of_others = 1 + 2 * math.exp(-10.0)  # the positive's exp(0), relative, and two negatives
    assert value_of(SupCon(("pooled",)), alike, labels).item() == pytest.approx(math.log(cosines_of_others), rel=0.01)
    assert value_of(SupCon(("pooled",)), alike, torch.tensor([0, 1, 0, 1])).item() > 9.9


def test_supcon_is_its_definition() -> None:
    features = circle(seed=1)
    unit = features / features.norm(dim=1, keepdim=True)
    terms = []
    for i in range(len(unit)):
        mine = [p for p in range(len(unit)) if p != i and LABELS[p] == LABELS[i]]
        total = sum(math.exp(float(unit[i] @ unit[a]) / 0.2) for a in range(len(unit)) if a != i)
        if mine:
            terms.append(-sum(math.log(math.exp(float(unit[i] @ unit[p]) / 0.2) / total) for p in mine) / len(mine))
    assert len(terms) == 8  # not the one that is alone
    expected = sum(terms) / len(terms)
    assert value_of(SupCon(("pooled",), temperature=0.2), features).item() == pytest.approx(expected, abs=1e-12)


def test_supcon_is_the_librarys_where_every_photo_has_a_positive() -> None:
    features, labels = cloud(12), torch.arange(4).repeat(3)
    reference = losses.SupConLoss(distance=distances.CosineSimilarity(), reducer=reducers.MeanReducer())
    expected = reference(features, labels).item()
    assert value_of(SupCon(("pooled",)), features, labels).item() == pytest.approx(expected, rel=1e-6)


def test_supcon_is_finite_at_a_temperature_where_exponentials_overflow() -> None:
    value, gradient = gradient_of(SupCon(("pooled",), temperature=0.001), circle().float())
    assert math.isfinite(value)
    assert gradient.isfinite().all()
    assert gradient.any()


OURS: dict[str, Callable[[], Objective]] = {
    **{
        f"triplet {mining} {margin} {distance}": lambda a=mining, b=margin, c=distance: Triplet(
            ("pooled",), mining=a, margin=b, distance=c
        )
        for mining in MININGS
        for margin in (0.3, "soft")
        for distance in ("euclidean", "cosine")
    },
    "supcon": lambda: SupCon(("pooled",)),
    "contrastive": lambda: library_loss("ContrastiveLoss", distance="euclidean"),
    "multi-similarity": lambda: library_loss("MultiSimilarityLoss", miner="MultiSimilarityMiner"),
}
ROOM = cloud(12)
PAIRED = torch.arange(4).repeat_interleave(3)
DEGENERATE = {
    "one identity": (ROOM, torch.zeros(12, dtype=torch.long)),
    "all equal": (torch.ones(12, 16), PAIRED),
    "twins": (ROOM[torch.arange(12) // 2 * 2], PAIRED),
    "twins on the axes": (torch.eye(4, 16).repeat_interleave(3, dim=0), PAIRED),  # cosines of 1 without rounding
    "photos alone": (ROOM[:6], torch.arange(6)),
    "one photo": (ROOM[:1], torch.zeros(1, dtype=torch.long)),
    "far apart": (1000 * ROOM, PAIRED),
}


@pytest.mark.parametrize("make", OURS.values(), ids=OURS)
def test_degenerate_batches_have_a_finite_value_and_gradient(make: Callable[[], Objective]) -> None:
    for what, (features, labels) in DEGENERATE.items():
        value, gradient = gradient_of(make(), features, labels)
        assert math.isfinite(value), what
        assert gradient.isfinite().all(), what


@pytest.mark.parametrize("make", [make for name, make in OURS.items() if name != "contrastive"])
@pytest.mark.parametrize("what", ["one identity", "photos alone", "one photo"])
def test_without_a_triplet_the_loss_is_a_zero_that_can_be_stepped(make: Callable[[], Objective], what: str) -> None:
    features, labels = DEGENERATE[what]
    objective = make()
    value, gradient = gradient_of(objective, features, labels)
    if isinstance(objective, Triplet) or what != "one identity":  # one identity has pairs
        assert value == 0
        assert not gradient.any()


def test_two_equal_photos_of_different_identities_still_learn_from_the_others() -> None:
    features = ROOM.clone()
    features[3] = features[0]
    _, gradient = gradient_of(Triplet(("pooled",)), features, PAIRED)
    assert gradient.isfinite().all()
    assert gradient[0].any()


@pytest.mark.parametrize("make", OURS.values(), ids=OURS)
def test_gradients_are_those_of_the_values(make: Callable[[], Objective]) -> None:
    objective, labels = make(), torch.tensor([0, 0, 1, 1, 2, 2, 0])
    features = cloud(7, width=6, seed=3).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: value_of(objective, x, labels), (features,))


@pytest.mark.parametrize("make", OURS.values(), ids=OURS)
def test_the_order_of_the_batch_and_a_rotation_change_nothing(make: Callable[[], Objective]) -> None:
    features, objective = ROOM.double(), make()
    value, gradient = gradient_of(objective, features, PAIRED)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    permuted, permuted_gradient = gradient_of(objective, features[order], PAIRED[order])
    turn, _ = torch.linalg.qr(cloud(16, seed=2).double())
    rotated, rotated_gradient = gradient_of(objective, features @ turn, PAIRED)
    assert (permuted, rotated) == pytest.approx((value, value), abs=1e-12)
    torch.testing.assert_close(permuted_gradient, gradient[order])
    torch.testing.assert_close(rotated_gradient, gradient @ turn)


@pytest.mark.parametrize("name", [name for name in OURS if "cosine" in name or name in ("supcon", "multi-similarity")])
def test_cosines_do_not_see_lengths(name: str) -> None:
    lengths = torch.linspace(0.1, 20, 12)[:, None]
    value = value_of(OURS[name](), ROOM, PAIRED).item()
    assert value_of(OURS[name](), ROOM * lengths, PAIRED).item() == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("make", OURS.values(), ids=OURS)
def test_nothing_is_rounded_to_half_precision(make: Callable[[], Objective], dtype: torch.dtype) -> None:
    features = (100 * ROOM).to(dtype)
    value, _ = gradient_of(make(), features.float(), PAIRED)
    with torch.autocast("cpu", dtype):
        under, gradient = gradient_of(make(), features, PAIRED)
    assert under == value
    assert gradient.isfinite().all()


def test_near_features_of_clips_size_are_told_apart() -> None:
    base = F.normalize(cloud(1, 768), dim=1) * 10
    features = (base + 1e-3 * F.normalize(cloud(40, 768, seed=1), dim=1)).double()
    labels = torch.arange(20).repeat(2)
    for make in (Triplet(("pooled",), margin=0.001), library_loss("TripletMarginLoss", 768, "euclidean")):
        exact = value_of(make, features, labels).item()
        assert value_of(make, features.float(), labels).item() == pytest.approx(exact, rel=1e-3)


@pytest.mark.parametrize("make", [make for name, make in OURS.items() if name != "contrastive"])
def test_a_feature_that_is_not_a_number_is_not_hidden(make: Callable[[], Objective]) -> None:
    features = ROOM.clone()
    features[0, 0] = math.nan
    objective = make()
    value, gradient = gradient_of(objective, features, PAIRED)
    assert gradient.isnan().any()
    assert math.isnan(value) or isinstance(objective, MetricLearning)  # the library's miner passes it by


def test_features_are_summed_and_read_at_the_neck() -> None:
    one, two = circle(seed=1), circle(seed=2)
    given = outputs(pooled=one, joint=two)
    names = ("pooled", "joint")
    widths = dict.fromkeys(names, 2)
    both: list[tuple[Objective, Objective]] = [
        (Triplet(names), Triplet(names, neck="after")),
        (SupCon(names), SupCon(names, neck="after")),
        (
            MetricLearning(widths, 4, loss="TripletMarginLoss"),
            MetricLearning(widths, 4, loss="TripletMarginLoss", neck="after"),
        ),
    ]
    for before, after in both:
        single = type(before)
        alone = (
            single(("pooled",)) if single is not MetricLearning else library_loss("TripletMarginLoss", 2, "euclidean")
        )  # type: ignore[call-arg]
        expected = value_of(alone, one) + value_of(alone, two)
        torch.testing.assert_close(before(given, Targets(LABELS)), expected)
        doubled = value_of(alone, 2 * one) + value_of(alone, 2 * two)
        torch.testing.assert_close(after(given, Targets(LABELS)), doubled)


# pytorch-metric-learning


@pytest.mark.parametrize("name", USABLE)
@pytest.mark.parametrize("reducer", REDUCERS)
def test_every_loss_of_the_library_is_finite_and_learns(name: str, reducer: str) -> None:
    objective = library_loss(name, reducer=reducer)
    value, gradient = gradient_of(objective, ROOM, PAIRED)
    assert math.isfinite(value)
    assert gradient.any()
    assert all(p.grad is not None and p.grad.any() for p in objective.parameters())
    for what, (features, labels) in DEGENERATE.items():
        value, gradient = gradient_of(objective, features, labels)
        assert math.isfinite(value), what
        assert gradient.isfinite().all(), what


def test_distances_are_what_the_recipe_calls_them() -> None:
    x, y = torch.tensor([[3.0, 4.0]]), torch.tensor([[4.0, -3.0]])
    values = {name: cast(Tensor, make()(x, y)).item() for name, make in DISTANCES.items()}
    root = math.sqrt(2)
    expected = {"cosine": 0, "dot_product": 0, "euclidean": 5 * root, "squared_euclidean": 50}
    assert values == pytest.approx(
        expected | {"normalised_euclidean": root, "signal_to_noise": values["signal_to_noise"]}
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("distance", DISTANCES)
def test_every_loss_takes_a_distance_or_says_which(name: str, distance: str) -> None:
    try:
        objective = library_loss(name, distance=distance)
    except RecipeError as error:
        message = str(error)
        assert name in message
        assert "not supported" in message or "set `distance` to" in message
        assert (name in REFUSED) == ("not supported" in message)
    else:
        made = cast(nn.Module, objective.losses["pooled"])
        assert type(made).__name__ == name
        assert type(made.distance) is type(DISTANCES[distance]())
        value, gradient = gradient_of(objective, ROOM, PAIRED)
        assert math.isfinite(value)
        assert gradient.any()


def test_what_is_refused_is_wrong_in_the_library() -> None:
    """When one of these fails the library has been mended, and the loss can be let in."""
    well_apart, labels = torch.eye(4, 16).repeat_interleave(2, dim=0), torch.arange(4).repeat_interleave(2)
    assert losses.SmoothAPLoss()(well_apart, labels) > 0.1  # average precision is 1
    assert losses.InstanceLoss()(well_apart, labels) > 10
    with pytest.warns(UserWarning, match="non-tuple"):
        losses.HistogramLoss()(ROOM, PAIRED)
    keeping = losses.DynamicSoftMarginLoss()
    keeping(ROOM.clone().requires_grad_(), PAIRED).backward()
    with pytest.raises(RuntimeError, match="second time"):
        keeping(ROOM.clone().requires_grad_(), PAIRED).backward()
    copies = losses.CrossBatchMemory(losses.NCALoss(), 16, 64)(ROOM, PAIRED)
    assert copies < 0.5 * losses.NCALoss()(ROOM, PAIRED)
    for name, arguments in {"ManifoldLoss": {"l": 16}, "VICRegLoss": {}}.items():
        with pytest.raises(ValueError, match="label"):
            getattr(losses, name)(**arguments)(ROOM, PAIRED)


def test_the_recipe_knows_which_losses_need_no_pairs() -> None:
    learning = {name for name in USABLE if list(library_loss(name).parameters())}
    assert set(CLASSIFYING) == learning


@pytest.mark.parametrize("name", [name for name in CLASSIFYING if name in USABLE])
def test_parameters_are_of_the_identities_and_the_width(name: str) -> None:
    objective = MetricLearning({"pooled": 12, "joint": 8}, 5, loss=name, distance=TAKES.get(name, "cosine"))
    shapes = [tuple(sorted(p.shape)) for p in objective.parameters()]
    assert len(shapes) == 2
    assert all(width in shape and sum(shape) % 5 == width % 5 for width, shape in zip((12, 8), shapes, strict=True))
    _, gradient = gradient_of(library_loss(name), ROOM[:6], torch.arange(6))
    assert gradient.any()  # photos that are alone teach it


def test_proxies_do_not_decay() -> None:
    assert [p.shape for p in library_loss("ProxyAnchorLoss").undecayed()] == [(6, 16)]
    assert library_loss("ArcFaceLoss").undecayed() == []


def test_siamese_pairs_are_the_contrastive_losss_definition() -> None:
    features = circle()
    near, far = [], []
    for a, b in product(range(len(LABELS)), repeat=2):
        distance = apart(features[a], features[b], "euclidean")
        if a != b and LABELS[a] == LABELS[b]:
            near.append(max(0.0, distance - 0.1))
        elif a != b:
            far.append(max(0.0, 1.2 - distance))
    margins: dict[str, object] = {"pos_margin": 0.1, "neg_margin": 1.2}
    loss = MetricLearning({"pooled": 2}, 4, loss="ContrastiveLoss", arguments=margins, distance="euclidean")
    expected = sum(near) / len(near) + sum(far) / len(far)
    assert value_of(loss, features).item() == pytest.approx(expected, rel=1e-12)


def test_the_angular_loss_sees_angles_only() -> None:
    lengths = torch.linspace(0.1, 20, 12)[:, None]
    value = value_of(library_loss("AngularLoss"), ROOM, PAIRED).item()
    assert value_of(library_loss("AngularLoss"), ROOM * lengths, PAIRED).item() == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("name", [n for n, _ in inspect.getmembers(miners, inspect.isclass)])
def test_every_miner_mines_or_says_why_not(name: str) -> None:
    distance = "normalised_euclidean" if name in ("AngularMiner", "DistanceWeightedMiner") else "cosine"
    try:
        objective = library_loss("TripletMarginLoss", distance=distance, miner=name)
    except RecipeError as error:
        assert name in ("BaseMiner", "EmbeddingsAlreadyPackagedAsTriplets"), error  # noqa: PT017
        return
    assert type(objective.miners["pooled"]).__name__ == name
    for features, labels in [(ROOM, PAIRED), *DEGENERATE.values()]:
        value, gradient = gradient_of(objective, features, labels)
        assert math.isfinite(value)
        assert gradient.isfinite().all()


def test_the_miner_chooses() -> None:
    options = {"loss": "TripletMarginLoss", "arguments": {"margin": 0.3}, "distance": "euclidean"}
    mined = MetricLearning({"pooled": 2}, 4, miner="BatchHardMiner", **options)  # type: ignore[arg-type]
    features = circle()
    hardest = value_of(Triplet(("pooled",), margin=0.3), features).item()
    assert value_of(mined, features).item() == pytest.approx(hardest, rel=1e-6)
    remembering = MetricLearning({"pooled": 2}, 4, miner="BatchHardMiner", memory=64, **options)  # type: ignore[arg-type]
    assert value_of(remembering, features).item() == pytest.approx(hardest, rel=1e-6)


MISTAKES = {
    "did you mean .TripletMarginLoss.": {"loss": "TripletMarginLos"},
    "All 29 are listed in `pytorch_metric_learning.losses`": {"loss": "quite another"},
    "no argument margni: known are margin, smooth_loss": {"arguments": {"margni": 0.1}},
    "no argument distance": {"arguments": {"distance": "cosine"}},
    "no argument num_classes": {"loss": "ArcFaceLoss", "arguments": {"num_classes": 3}, "distance": "cosine"},
    "needs Tn, margin": {"loss": "RankedListLoss"},
    "RankedListLoss does not take the distance cosine": {
        "loss": "RankedListLoss",
        "arguments": {"margin": 0.4, "Tn": 1},
        "distance": "cosine",
    },
    "rejects its arguments": {"loss": "PNPLoss", "arguments": {"variant": "Z"}, "distance": "cosine"},
    "TripletMarginLoss fails: .*str": {"arguments": {"margin": "wide"}},
    "gives nan": {"loss": "SupConLoss", "arguments": {"temperature": 0}, "distance": "cosine"},
    "did you mean .BatchHardMiner.": {"miner": "BatchHardMinr"},
    "miner BatchHardMiner has no argument epsilon": {"miner": "BatchHardMiner", "miner_arguments": {"epsilon": 1}},
    "miner AngularMiner does not take the distance euclidean": {"miner": "AngularMiner"},
    "RankedListLoss with miner BatchHardMiner fails": {
        "loss": "RankedListLoss",
        "arguments": {"margin": 0.4, "Tn": 1},
        "miner": "BatchHardMiner",
    },
    "ArcFaceLoss cannot use a memory": {"loss": "ArcFaceLoss", "distance": "cosine", "memory": 64},
    "NCALoss cannot use a memory": {"loss": "NCALoss", "memory": 64},
}


@pytest.mark.parametrize("message", MISTAKES)
def test_a_mistake_is_told_when_the_loss_is_built(message: str) -> None:
    given = {"loss": "TripletMarginLoss", **MISTAKES[message]}
    with pytest.raises(RecipeError, match=f"objective metric_learning: .*{message}"):
        MetricLearning({"pooled": 4}, 4, **given)  # type: ignore[arg-type]


def test_building_draws_the_same_parameters_whatever_is_tried_out() -> None:
    def drawn(miner: str | None) -> Tensor:
        torch.manual_seed(3)
        library_loss("TripletMarginLoss", distance="normalised_euclidean", miner=miner)
        return torch.rand(1)

    assert drawn("DistanceWeightedMiner") == drawn(None)


@pytest.mark.parametrize("name", [name for name in CrossBatchMemory.supported_losses() if name != "NCALoss"])
def test_a_memory_that_holds_nothing_else_changes_nothing(name: str) -> None:
    alone, remembering = library_loss(name), library_loss(name, memory=64)
    assert value_of(remembering, ROOM, PAIRED).item() == pytest.approx(value_of(alone, ROOM, PAIRED).item(), rel=1e-6)
    assert value_of(remembering, ROOM + 1, PAIRED) != value_of(alone, ROOM + 1, PAIRED)


def test_a_memory_is_compared_with_the_latest_photos_only() -> None:
    """Against the definition, while it fills, wraps around and is full; a photo is never its own positive."""
    loss = library_loss("ContrastiveLoss", 2, "euclidean", memory=10)
    seen: list[tuple[Tensor, int]] = []
    for step in range(6):
        features, labels = circle(4, seed=step), torch.tensor([0, 1, 0, step % 3])
        seen = [*seen, *zip(features, labels.tolist(), strict=True)][-10:]
        near, far = [], []
        for a, (b, (other, label)) in product(range(4), enumerate(seen)):
            distance = apart(features[a], other, "euclidean")
            if label != labels[a]:
                far.append(max(0.0, 1 - distance))
            elif b != len(seen) - 4 + a:
                near.append(distance)
        expected = sum(near) / len(near) + sum(far) / len(far)
        assert value_of(loss, features, labels).item() == pytest.approx(expected, rel=1e-6), step


@pytest.mark.parametrize("steps", [1, 3, 5])
def test_a_memory_goes_on_from_a_checkpoint_as_if_nothing_had_happened(tmp_path: Path, steps: int) -> None:
    def batch(step: int) -> tuple[Tensor, Tensor]:
        return cloud(12, seed=step), torch.arange(12) % 5

    loss = library_loss("TripletMarginLoss", memory=40, miner="MultiSimilarityMiner")
    for step in range(steps):
        value_of(loss, *batch(step))
    torch.save(loss.state_dict(), tmp_path / "state.pt")
    resumed = library_loss("TripletMarginLoss", memory=40, miner="MultiSimilarityMiner")
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for step in range(steps, steps + 5):
        value, gradient = gradient_of(loss, *batch(step))
        again, gradient_again = gradient_of(resumed, *batch(step))
        assert again == value
        assert gradient_again.equal(gradient)


def test_a_batch_that_is_larger_than_the_memory_is_refused() -> None:
    with pytest.raises(RecipeError, match="memory 8 is smaller than a batch of 12"):
        value_of(library_loss("ContrastiveLoss", memory=8), ROOM, PAIRED)
