"""Losses that have a target per identity, each against its definition as a loop; and centres, which have to move."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from pytorch_metric_learning import losses as library
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.reducers import MeanReducer
from torch import Tensor, nn

from handreid.objectives.arcface import ArcFace
from handreid.objectives.center import Center
from handreid.objectives.cosface import CosFace
from handreid.objectives.cross_entropy import CrossEntropy
from handreid.objectives.margin_softmax import MarginSoftmax, angles, directions
from handreid.objectives.objective import Objective
from handreid.training.optimizers import build_optimizer
from handreid.types import Features, Mixed, Outputs, Targets
from tests.training.test_train import fit, micro, module_of

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*")

IDENTITIES, WIDTH = 4, 5
LABELS = torch.tensor([0, 0, 1, 1, 1, 3, 3, 2])
MIXED = Mixed(torch.tensor([1, 0, 2, 1, 3, 3, 0, 2]), torch.tensor([0.3, 1.0, 0.7, 0.5, 0.9, 0.2, 0.0, 0.6]))
MADE = {
    "cross_entropy": lambda: CrossEntropy({"pooled": WIDTH}, IDENTITIES),
    "arcface": lambda: ArcFace({"pooled": WIDTH}, IDENTITIES),
    "cosface": lambda: CosFace({"pooled": WIDTH}, IDENTITIES),
    "center": lambda: Center({"pooled": WIDTH}, IDENTITIES, push=0.5, push_margin=4.0),
    "center, running mean": lambda: Center(
        {"pooled": WIDTH}, IDENTITIES, centres="running_mean", push=0.5, push_margin=4.0
    ),
}
ANGULAR = {"arcface": ArcFace, "cosface": CosFace}
every_loss = pytest.mark.parametrize("name", MADE)
both_angular = pytest.mark.parametrize("name", ANGULAR)


def made(name: str) -> Objective:
    """With weights or centres that are neither tiny nor alike, in fp64; as `eval`, so that centres stay."""
    torch.manual_seed(0)
    objective = MADE[name]().double()
    with torch.no_grad():
        for places in own(objective):
            places.normal_()
    return objective.eval()


def own(objective: Objective) -> list[Tensor]:
    """Weights or centres, whether parameters or not."""
    return [value for value in objective.state_dict().values() if value.is_floating_point()]


def features(seed: int = 1) -> Tensor:
    return 2 * torch.randn(len(LABELS), WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def outputs(**named: Tensor) -> Outputs:
    one = next(iter(named.values()))
    return Outputs(Features(one, one, one, one[:, None, None]), named, named)


def loss(objective: Objective, x: Tensor, labels: Tensor = LABELS, mixed: Mixed | None = None) -> Tensor:
    return objective(outputs(pooled=x), Targets(labels, mixed))


def dot(a: list[float], b: list[float]) -> float:
    return sum(p * q for p, q in zip(a, b, strict=True))


def negative_log_share(logits: list[float], right: int) -> float:
    return math.log(sum(math.exp(one) for one in logits)) - logits[right]


def by_definition(name: str, objective: Objective, x: list[float], label: int) -> float:
    """Of one photo that is wholly of one identity; without the push."""
    (rows,) = (places.tolist() for places in own(objective))
    if name.startswith("center"):
        return 0.5 * sum((p - q) ** 2 for p, q in zip(x, rows[label], strict=True))
    if name == "cross_entropy":
        logits = [dot(row, x) for row in rows]
        return sum((0.1 / IDENTITIES + 0.9 * (n == label)) * negative_log_share(logits, n) for n in range(IDENTITIES))
    cosines = [dot(row, x) / math.sqrt(dot(row, row) * dot(x, x)) for row in rows]
    theta = math.acos(cosines[label])
    if name == "cosface":
        changed = math.cos(theta) - 0.35
    elif theta <= math.pi - 0.5:
        changed = math.cos(theta + 0.5)
    else:
        changed = math.cos(theta) - 0.5 * math.sin(0.5)
    return negative_log_share([30 * (changed if n == label else one) for n, one in enumerate(cosines)], label)


@every_loss
class TestDefinition:
    def test_the_value_is_the_loop_over_photos(self, name: str):
        objective, x = made(name), features()
        objective.push = 0.0
        expected = [by_definition(name, objective, *one) for one in zip(x.tolist(), LABELS.tolist(), strict=True)]
        assert loss(objective, x).item() == pytest.approx(sum(expected) / len(expected), rel=1e-12)

    def test_a_mixed_photo_has_the_loss_of_each_identity_by_its_share(self, name: str):
        objective, x = made(name), features()
        objective.push = 0.0
        shares = MIXED.shares.double()
        expected = [
            share * by_definition(name, objective, *one) + (1 - share) * by_definition(name, objective, one[0], partner)
            for share, partner, *one in zip(
                shares.tolist(), MIXED.partners.tolist(), x.tolist(), LABELS.tolist(), strict=True
            )
        ]
        found = loss(objective, x, mixed=Mixed(MIXED.partners, shares))
        assert found.item() == pytest.approx(sum(expected) / len(expected), rel=1e-12)

    def test_features_are_summed_each_with_parameters_of_its_own(self, name: str):
        widths = {"pooled": WIDTH, "joint": 3}
        arguments = {"centres": "running_mean"} if "running" in name else {}
        both = {"cross_entropy": CrossEntropy, **ANGULAR}.get(name, Center)(widths, IDENTITIES, **arguments)
        x = {"pooled": features().float(), "joint": features()[:, :3].float()}
        targets = Targets(LABELS)
        alone = []
        for feature, width in widths.items():
            one = type(both)({feature: width}, IDENTITIES, **arguments)
            one.load_state_dict({key: value for key, value in both.state_dict().items() if feature in key})
            alone.append(one(outputs(**{feature: x[feature]}), targets).item())
        assert both(outputs(**x), targets).item() == pytest.approx(sum(alone), rel=1e-6)

    def test_gradients_are_those_of_finite_differences(self, name: str):
        objective = made(name)
        mixed = Mixed(MIXED.partners, MIXED.shares.double())
        parameters = list(objective.parameters())
        for given_mixed in (None, mixed):
            assert torch.autograd.gradcheck(
                lambda x, *_, m=given_mixed: loss(objective, x, mixed=m), (features().requires_grad_(), *parameters)
            )

    def test_the_order_of_the_batch_does_not_matter(self, name: str):
        objective, x = made(name), features()
        shuffled = torch.randperm(len(LABELS), generator=torch.Generator().manual_seed(3))
        mixed = Mixed(MIXED.partners[shuffled], MIXED.shares[shuffled])
        expected = loss(objective, x, mixed=MIXED).item()
        assert loss(objective, x[shuffled], LABELS[shuffled], mixed).item() == pytest.approx(expected, rel=1e-12)

    def test_turning_photos_and_identities_together_changes_nothing(self, name: str):
        objective, x = made(name), features()
        turn, _ = torch.linalg.qr(torch.randn(WIDTH, WIDTH, dtype=torch.float64))
        before = loss(objective, x).item()
        with torch.no_grad():
            for places in own(objective):
                places.copy_(places @ turn)
        assert loss(objective, x @ turn).item() == pytest.approx(before, rel=1e-12)


@every_loss
class TestDegenerateBatches:
    @pytest.mark.parametrize(
        ("batch", "labels"),
        {
            "one identity": (features(), torch.zeros(8, dtype=torch.long)),
            "one photo": (features()[:1], LABELS[:1]),
            "all equal": (features()[:1].expand(8, WIDTH), LABELS),
            "all zero": (torch.zeros(8, WIDTH, dtype=torch.float64), LABELS),
            "huge": (1e6 * features(), LABELS),
            "tiny": (1e-6 * features(), LABELS),
        }.values(),
        ids=["one identity", "one photo", "all equal", "all zero", "huge", "tiny"],
    )
    def test_loss_and_gradients_are_finite(self, name: str, batch: Tensor, labels: Tensor):
        objective = made(name).float().train()
        x = batch.float().clone().requires_grad_()
        value = loss(objective, x, labels)
        value.backward()
        assert value.isfinite()
        assert all(one.grad.isfinite().all() for one in (x, *objective.parameters()))

    def test_a_feature_that_is_not_a_number_makes_a_loss_that_is_none(self, name: str):
        x = features()
        x[3, 2] = math.nan
        assert loss(made(name), x).isnan()


class TestSoftTargets:
    @given(smoothing=st.sampled_from([0.0, 0.1, 0.5]), seed=st.integers(0, 99))
    def test_cross_entropy_of_mixed_photos_is_that_of_the_mixed_distributions(self, smoothing: float, seed: int):
        objective = CrossEntropy({"pooled": WIDTH}, IDENTITIES, label_smoothing=smoothing).double()
        x = 1e3 * features(seed)
        shares = MIXED.shares.double()[:, None]
        wanted = shares * F.one_hot(LABELS, IDENTITIES) + (1 - shares) * F.one_hot(MIXED.partners, IDENTITIES)
        logits = x @ objective.classifiers["pooled"].weight.T
        expected = F.cross_entropy(logits, wanted, label_smoothing=smoothing).item()
        smoothed = (1 - smoothing) * wanted + smoothing / IDENTITIES
        assert expected == pytest.approx(-(smoothed * logits.log_softmax(dim=1)).sum(dim=1).mean().item(), rel=1e-10)
        found = loss(objective, x, mixed=Mixed(MIXED.partners, shares[:, 0]))
        assert found.item() == pytest.approx(expected, rel=1e-10)

    def test_an_untrained_classifier_has_the_loss_of_a_guess(self):
        value = loss(CrossEntropy({"pooled": WIDTH}, IDENTITIES), features().float())
        assert value.item() == pytest.approx(math.log(IDENTITIES), abs=0.01)


@both_angular
class TestMargins:
    @pytest.mark.parametrize("margin", [0.0, 0.2, 0.5, 1.2])
    def test_the_value_is_the_librarys(self, name: str, margin: float):
        objective = ANGULAR[name]({"pooled": WIDTH}, IDENTITIES, scale=16.0, margin=margin).double()
        theirs = (library.ArcFaceLoss if name == "arcface" else library.CosFaceLoss)(
            num_classes=IDENTITIES,
            embedding_size=WIDTH,
            margin=math.degrees(margin) if name == "arcface" else margin,
            scale=16,
            distance=CosineSimilarity(),
            reducer=MeanReducer(),
        )
        theirs.W.data = objective.weights["pooled"].detach().T.clone()
        x = features()
        assert loss(objective, x).item() == pytest.approx(theirs(x, LABELS).item(), rel=1e-10)

    def test_without_a_margin_it_is_a_softmax_of_cosines(self, name: str):
        objective = ANGULAR[name]({"pooled": WIDTH}, IDENTITIES, margin=0.0).double()
        x = features()
        logits = 30 * F.normalize(x) @ F.normalize(objective.weights["pooled"]).T
        assert loss(objective, x).item() == pytest.approx(F.cross_entropy(logits, LABELS).item(), rel=1e-12)

    def test_lengths_do_not_matter(self, name: str):
        objective, x = made(name), features()
        before = loss(objective, x).item()
        lengths = torch.linspace(0.01, 100, len(x), dtype=torch.float64)[:, None]
        with torch.no_grad():
            objective.weights["pooled"].mul_(torch.tensor([[0.1], [1.0], [7.0], [300.0]]))
        assert loss(objective, x * lengths).item() == pytest.approx(before, rel=1e-12)

    def test_a_more_wrong_photo_never_pays_less(self, name: str):
        objective = ANGULAR[name]({"pooled": 2}, 2, margin=0.9)
        right = torch.linspace(0, math.pi, 1001)
        assert (objective.with_margin(right).diff() <= 0).all()
        assert (objective.with_margin(right) <= right.cos()).all()

    def test_the_margin_makes_it_harder(self, name: str):
        losses = [loss(one, features()).item() for one in (made(name), made(name))]
        assert losses[0] == losses[1]
        objective = made(name)
        objective.margin = 0.0
        assert loss(objective, features()).item() < losses[0]

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("towards", [1, -1])
    def test_a_photo_on_its_weight_or_opposite_has_its_exact_value_and_a_finite_gradient(
        self, name: str, dtype: torch.dtype, towards: int
    ):
        objective = made(name).to(dtype)
        weight = objective.weights["pooled"].detach()
        x = (towards * 3 * weight[LABELS]).requires_grad_()
        value = loss(objective, x)
        value.backward()
        x64 = (towards * 3 * weight.double()[LABELS]).tolist()
        target = math.cos(0.5) if name == "arcface" else 0.65
        if towards < 0:
            target = -1 - 0.5 * math.sin(0.5) if name == "arcface" else -1.35
        expected = 0.0
        for one, label in zip(x64, LABELS.tolist(), strict=True):
            rows = weight.double().tolist()
            logits = [30 * dot(row, one) / math.sqrt(dot(row, row) * dot(one, one)) for row in rows]
            logits[label] = 30 * target
            expected += negative_log_share(logits, label) / len(LABELS)
        rel, absolute = (1e-5, 2e-6) if dtype == torch.float32 else (1e-12, 1e-14)
        assert value.item() == pytest.approx(expected, rel=rel, abs=absolute)
        largest = x.grad.norm(dim=1) * x.detach().norm(dim=1) * len(LABELS)
        assert (largest < 30 * 2.1).all()  # scale times the slope of two cosines at most

    def test_a_feature_of_zeros_pulls_nowhere(self, name: str):
        objective, x = made(name), features()
        x[2] = 0
        x.requires_grad_()
        loss(objective, x).backward()
        assert (x.grad[2] == 0).all()
        assert (x.grad[3] != 0).any()

    @pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
    def test_autocast_gives_the_value_and_gradient_of_fp32(self, name: str, half: torch.dtype):
        """ArcFace is not a number in half precision where it is computed there."""
        objective = made(name).float()
        x = torch.cat([features().float(), objective.weights["pooled"].detach()[LABELS]]).to(half)
        labels = torch.cat([LABELS, LABELS])
        found = []
        for autocast in (False, True):
            given_x = (x if autocast else x.float()).clone().requires_grad_()
            objective.zero_grad()
            with torch.autocast("cpu", dtype=half, enabled=autocast):
                value = loss(objective, given_x, labels)
            value.backward()
            found.append((value, objective.weights["pooled"].grad, given_x.grad.float()))
        assert found[1][0].dtype == torch.float32
        assert torch.equal(found[0][0], found[1][0])
        assert torch.equal(found[0][1], found[1][1])
        assert torch.equal(found[0][2].to(half).float(), found[1][2])

    def test_the_margin_grows_in_a_line_and_depends_on_the_epoch_alone(self, name: str):
        objective = ANGULAR[name]({"pooled": WIDTH}, IDENTITIES, margin=0.4, margin_warmup_epochs=2.0)
        seen = []
        for epoch in (0.0, 0.5, 1.0, 2.0, 7.5, 0.5):
            objective.at_epoch(epoch)
            seen.append(objective.margin)
        assert seen == pytest.approx([0, 0.1, 0.2, 0.4, 0.4, 0.1])
        fresh = ANGULAR[name]({"pooled": WIDTH}, IDENTITIES, margin=0.4, margin_warmup_epochs=2.0)
        fresh.load_state_dict(objective.state_dict())
        fresh.at_epoch(0.5)
        assert loss(fresh, features().float()).item() == loss(objective, features().float()).item()
        assert ANGULAR[name]({"pooled": WIDTH}, IDENTITIES, margin=0.4).margin == 0.4

    def test_the_loop_tells_it_the_epoch(self, name: str):
        term = f"{{kind: {name}, margin: 0.3, margin_warmup_epochs: 2, features: [pooled]}}"
        module = module_of(micro(f"stages.0.objectives=[{term}]", "stages.0.epochs=2"))
        objective, seen = module.objectives[f"0_{name}"], []
        told = objective.at_epoch
        objective.at_epoch = lambda epoch: seen.append(epoch) or told(epoch)
        fit(module)
        assert seen == [0.0, 0.5, 1.0, 1.5]
        assert objective.margin == pytest.approx(0.225)

    def test_training_with_a_margin_makes_identities_compacter_than_without(self, name: str):
        separation = {}
        for margin in (0.0, 0.5):
            torch.manual_seed(0)
            objective = ANGULAR[name]({"pooled": WIDTH}, IDENTITIES, scale=10.0, margin=margin)
            x = nn.Parameter(1 + features().float())
            optimizer = torch.optim.Adam([x, *objective.parameters()], lr=0.05)
            for _ in range(60):
                optimizer.zero_grad()
                loss(objective, x).backward()
                optimizer.step()
            cosines = F.normalize(x.detach()) @ F.normalize(x.detach()).T
            same = LABELS[:, None] == LABELS
            separation[margin] = (cosines[same].min() - cosines[~same].max()).item()
        assert separation[0.5] > separation[0.0] + 0.1


class TestAngles:
    @given(seed=st.integers(0, 99), theta=st.sampled_from([0.0, 1e-6, 1e-3, 1.0, 2.0, math.pi - 1e-3, math.pi]))
    def test_they_are_exact_in_fp32_at_both_ends(self, seed: int, theta: float):
        generator = torch.Generator().manual_seed(seed)
        plane, _ = torch.linalg.qr(torch.randn(512, 2, generator=generator, dtype=torch.float64))
        a, b = plane.T
        found = angles(a[None].float(), (math.cos(theta) * a + math.sin(theta) * b)[None].float())
        assert found.item() == pytest.approx(theta, abs=1e-6)

    def test_a_vector_of_zeros_is_at_a_right_angle_to_all(self):
        zero, one = torch.zeros(1, 3), torch.tensor([[0.0, 2.0, 0.0]])
        assert angles(directions(zero), directions(one)).item() == pytest.approx(math.pi / 2)
        assert math.isclose(directions(one).norm().item(), 1)


class TestCentres:
    @pytest.mark.parametrize("centres", ["learnable", "running_mean"])
    def test_a_centre_begins_at_the_mean_of_its_first_photos(self, centres: str):
        objective = Center({"pooled": WIDTH}, IDENTITIES, centres=centres).double()
        x = features()
        first = LABELS < 2
        loss(objective, x[first], LABELS[first])
        places = objective.state_dict()["centres.pooled.places"].clone()
        assert torch.allclose(places[0], x[:2].mean(dim=0))
        assert torch.allclose(places[1], x[2:5].mean(dim=0))
        assert (places[2:] == 0).all()
        loss(objective, x + 1)
        later = objective.state_dict()["centres.pooled.places"]
        assert torch.allclose(later[3], x[5:7].mean(dim=0) + 1)
        assert torch.equal(later[:2], places[:2]) == (centres == "learnable")

    def test_mixed_photos_begin_a_centre_by_their_shares(self):
        objective = Center({"pooled": WIDTH}, IDENTITIES).double()
        x = features()
        loss(objective, x, mixed=MIXED)
        weights = [
            share * (label == 3) + (1 - share) * (partner == 3)
            for share, label, partner in zip(
                MIXED.shares.tolist(), LABELS.tolist(), MIXED.partners.tolist(), strict=True
            )
        ]
        expected = sum(weight * photo for weight, photo in zip(weights, x, strict=True)) / sum(weights)
        assert torch.allclose(objective.centres["pooled"].places[3], expected, atol=1e-6)

    def test_running_means_follow_the_papers_equation_after_the_loss(self):
        objective = made("center, running mean")
        objective.push, objective.alpha = 0.0, 0.3
        objective.centres["pooled"].seen.fill_(True)
        x, before = features(), own(objective)[0].clone()
        expected_loss = loss(objective, x).item()  # as eval: nothing moves
        assert torch.equal(own(objective)[0], before)
        assert loss(objective.train(), x).item() == expected_loss
        for identity in range(IDENTITIES):
            photos = [photo for photo, label in zip(x, LABELS, strict=True) if label == identity]
            delta = sum(before[identity] - photo for photo in photos) / (1 + len(photos))
            assert torch.allclose(own(objective)[0][identity], before[identity] - 0.3 * delta, atol=1e-12)

    def test_shares_count_as_parts_of_photos(self):
        objective = made("center, running mean").train()
        objective.centres["pooled"].seen.fill_(True)
        x, before = features(), own(objective)[0].clone()
        loss(objective, x, mixed=MIXED)
        shares = MIXED.shares.tolist()
        for identity in range(IDENTITIES):
            weights = [
                share * (label == identity) + (1 - share) * (partner == identity)
                for share, label, partner in zip(shares, LABELS.tolist(), MIXED.partners.tolist(), strict=True)
            ]
            away = sum(weight * (before[identity] - photo) for weight, photo in zip(weights, x, strict=True))
            delta = away / (1 + sum(weights))
            assert torch.allclose(own(objective)[0][identity], before[identity] - 0.5 * delta, atol=1e-6)

    def test_where_running_means_are_is_part_of_the_state(self):
        objective = made("center, running mean").train()
        loss(objective, features())
        loss(objective, features(2))
        other = MADE["center, running mean"]().double().train()
        other.load_state_dict(objective.state_dict())
        assert loss(objective, features(4)).item() == loss(other, features(4)).item()
        assert torch.equal(own(objective)[0], own(other)[0])
        assert list(objective.parameters()) == []

    @pytest.mark.parametrize("kind", ["adam", "sgd"])
    def test_a_step_moves_the_centres_of_the_batch_towards_their_photos_and_no_other(self, kind: str):
        """Trap 4: a centre loss that is built and never stepped. Trap 3: in a group of its own, without decay."""
        term = "{kind: center, weight: 0.01, lr: 0.05, features: [pooled]}"
        module = module_of(micro(f"stages.0.objectives=[{term}]", "stages.0.optimizer.weight_decay=0.1"), identities=6)
        groups = [group for group in module.groups() if group["name"].startswith("0_center")]
        assert [(len(g["params"]), g["lr"], g["weight_decay"]) for g in groups] == [(1, 0.05, 0.0)]
        places = module.objectives["0_center"].centres["pooled"].places
        optimizer = build_optimizer(groups, kind, 0.0)
        x = torch.randn(4, len(places[0]), generator=torch.Generator().manual_seed(0))
        targets = Targets(torch.tensor([0, 0, 1, 1]))
        module.objectives["0_center"](outputs(pooled=x), targets)  # they begin
        before = places.detach().clone()
        (0.01 * module.objectives["0_center"](outputs(pooled=x + 1), targets)).backward()
        optimizer.step()
        moved = places.detach() - before
        assert (moved[:2] > 0).all()
        assert (moved[2:] == 0).all()

    def test_running_means_move_in_a_fit(self):
        term = "{kind: center, centres: running_mean, features: [pooled]}"
        module = module_of(micro(f"stages.0.objectives=[{term}]", "stages.0.epochs=1"))
        fit(module)
        centres = module.objectives["0_center"].centres["pooled"]
        assert centres.seen.all()
        assert (centres.places != 0).any(dim=1).all()

    @pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
    @pytest.mark.parametrize("name", ["center", "center, running mean"])
    def test_autocast_gives_the_value_of_fp32(self, name: str, half: torch.dtype):
        """300^2 in fp16 is infinite."""
        x = (300 * features()).to(half)
        values = []
        for autocast in (False, True):
            objective = made(name).float().train()
            with torch.autocast("cpu", dtype=half, enabled=autocast):
                values += [loss(objective, x if autocast else x.float()) for _ in range(2)]
        assert torch.equal(torch.stack(values[:2]), torch.stack(values[2:]))
        assert torch.stack(values).isfinite().all()


class TestPush:
    def push(self, places: Tensor, batch: Tensor, margin: float = 4.0) -> float:
        """By definition: over pairs of the batch's identities."""
        present = sorted(set(batch.tolist()))
        pairs = [(i, j) for n, i in enumerate(present) for j in present[n + 1 :]]
        hinges = [max(0.0, margin - math.dist(places[i].tolist(), places[j].tolist())) ** 2 for i, j in pairs]
        return sum(hinges) / len(pairs)

    @pytest.mark.parametrize("photos", [8, 5])
    def test_learnable_centres_push_each_other_within_the_batch(self, photos: int):
        objective, x, labels = made("center"), features()[:photos], LABELS[:photos]
        pushed = loss(objective, x, labels).item()
        objective.push = 0.0
        expected = 0.5 * self.push(own(objective)[0], labels)
        assert expected > 0
        assert pushed - loss(objective, x, labels).item() == pytest.approx(expected, rel=1e-10)

    def test_running_means_are_pushed_where_the_batch_moves_them_and_the_photos_feel_it(self):
        objective, x = made("center, running mean"), features()
        objective.centres["pooled"].seen.fill_(True)
        x.requires_grad_()
        pushed = loss(objective, x)
        (with_push,) = torch.autograd.grad(pushed, x)
        objective.push = 0.0
        pulled = loss(objective, x)
        (without,) = torch.autograd.grad(pulled, x)
        loss(objective.train(), x)
        expected = 0.5 * self.push(own(objective)[0], LABELS)
        assert expected > 0
        assert (pushed - pulled).item() == pytest.approx(expected, rel=1e-10)
        assert not torch.allclose(with_push, without, rtol=1e-3)

    @pytest.mark.parametrize("name", ["center", "center, running mean"])
    def test_far_centres_and_a_lone_identity_feel_nothing(self, name: str):
        objective, x = made(name), features()
        values = []
        for push, margin, labels in [
            (9.0, 1e-3, LABELS),
            (0.0, 1.0, LABELS),
            (9.0, 9.0, LABELS * 0),
            (0.0, 1.0, LABELS * 0),
        ]:
            objective.push, objective.push_margin = push, margin
            values.append(loss(objective, x, labels).item())
        assert values[0] == values[1]
        assert values[2] == values[3]

    @pytest.mark.parametrize("name", ["center", "center, running mean"])
    def test_training_with_it_moves_identities_apart(self, name: str):
        nearest = {}
        for push in (0.0, 1.0):
            objective = MADE[name]().train()
            objective.push = push
            x = nn.Parameter(0.3 * features().float())
            optimizer = torch.optim.SGD([x, *objective.parameters()], lr=0.5)
            for _ in range(80):
                optimizer.zero_grad()
                loss(objective, x).backward()
                optimizer.step()
            distances = torch.cdist(x.detach(), x.detach())
            nearest[push] = distances[LABELS[:, None] != LABELS].min()
        assert nearest[1.0] > 3.5 > 2 * nearest[0.0]


def test_the_angular_ones_share_what_they_are():
    assert issubclass(ArcFace, MarginSoftmax)
    assert issubclass(CosFace, MarginSoftmax)
