"""Initial state of a stage: loss of untrained classifiers, batches with pairs, labels, learning rates."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from handreid.data.sampling import Drawn
from handreid.data.splits import Split
from handreid.objectives.cross_entropy import CrossEntropy
from handreid.objectives.margin_softmax import MarginSoftmax
from handreid.objectives.objective import Objective
from handreid.training.checks.probe import Probe
from handreid.training.checks.result import CheckResult, listed, verdict
from handreid.training.optimizers import rate_factor
from handreid.training.stage_module import StageModule

BAND = 0.1


def loss(objectives: Mapping[str, nn.Module], identities: int, losses: Mapping[str, Tensor]) -> CheckResult | None:
    """The loss of an untrained classifier is ln(classes), within a tenth; None where no term has a classifier.

    With margin and scale it is another value, see `_expected`.
    """
    wrong, summaries = [], []
    for name, value in losses.items():
        objective = objectives[name]
        assert isinstance(objective, Objective)  # noqa: S101 - for the type checker
        expected = _expected(objective, identities)
        if expected is None:
            continue
        where, band, how = expected
        summaries.append(f"{name} {value.item():.2f} for {where:.2f} ({how})")
        if not abs(value.item() - where) <= band:
            wrong.append(f"{name} begins at {value.item():.3g}, not within {band:.2g} of {where:.3g} ({how})")
    advice = "if it is higher, the classifier's initial weights are too large; if lower, it is not newly initialised"
    return verdict("loss", wrong, ", ".join(summaries), advice) if summaries else None


def pairs(wanting: Sequence[str], labels: Tensor, batches: Iterable[list[Drawn]]) -> CheckResult | None:
    """Every batch of an epoch has pairs for the terms `wanting` them; None where there are no such terms."""
    if not wanting:
        return None
    sizes, lacking, doubled = [], 0, 0
    for drawn in batches:
        positions = [position for position, _ in drawn]
        _, counts = torch.unique(labels[positions], return_counts=True)
        _, distinct = torch.unique(labels[sorted(set(positions))], return_counts=True)
        sizes.append(len(counts))
        lacking += len(counts) < 2 or not bool((counts > 1).any())
        doubled += not bool((distinct > 1).any())
    wrong = []
    if lacking:
        wrong.append(f"{lacking} of {len(sizes)} batches have no two photos of one identity beside another identity")
    elif doubled == len(sizes):
        wrong.append("no batch has two different photos of one identity, only the same photo twice")
    summary = f"{len(sizes)} batches with {min(sizes)} to {max(sizes)} identities, a pair in each"
    return verdict("pairs", wrong, summary, f"{listed(wanting)} compares photos of one identity: use sampler kind pk")


def labels(probe: Probe[Any], split: Split) -> CheckResult | None:
    """A training photo's label is the index of its identity among the names, and texts are in the same order.

    None for a stage that uses no labels.
    """
    if probe.labels is None:
        return None
    actual, expected = probe.labels.tolist(), probe.expected_labels(split)
    wrong = []
    if actual != expected:
        differing = sum(a != b for a, b in zip(actual, expected, strict=False)) + abs(len(actual) - len(expected))
        wrong.append(f"{differing} of {len(expected)} photos have the label of another identity than theirs")
    wrong += probe.unlike_labels(len(split.train_identities()))
    return verdict(
        "labels", wrong, f"{len(actual)} photos of {max(actual) + 1} identities", "labels are made once a run"
    )


def rates(probe: Probe[Any], optimizer: torch.optim.Optimizer, scheduler: Mapping[str, object]) -> CheckResult:
    """The schedule, defined in epochs, is stepped per batch, and rates are not all 0 in the first epoch."""
    module: StageModule = probe.module
    batches = sum(1 for _ in probe.drawn())
    steps, schedule = -(-batches // module.batches_per_step), module.optimizer.schedule
    stated = rate_factor(schedule, module.epochs, 1)
    stepped = scheduler["scheduler"]
    assert isinstance(stepped, torch.optim.lr_scheduler.LambdaLR)  # noqa: S101 - for the type checker
    factor = stepped.lr_lambdas[0]
    wrong = []
    if scheduler.get("interval") != "step" or scheduler.get("frequency", 1) != 1:
        wrong.append(f"the schedule is stepped every {scheduler.get('frequency', 1)} {scheduler.get('interval')}")
    for epoch in range(module.epochs):
        if not math.isclose(factor(epoch * steps), stated(epoch), rel_tol=1e-6, abs_tol=1e-9):
            wrong.append(
                f"at the start of epoch {epoch + 1} (step {epoch * steps}) rates are {factor(epoch * steps):.3g} of "
                f"their value, the recipe says {stated(epoch):.3g}"
            )
            break
    if not any(factor(step) for step in range(steps)):
        wrong.append("all rates are 0 in the whole first epoch")
    still = [str(group["name"]) for group in optimizer.param_groups if not group["initial_lr"]]
    if still:
        wrong.append(f"the rate of {listed(still)} is 0")
    peaks = sorted({float(group["initial_lr"]) for group in optimizer.param_groups})
    summary = (
        f"{steps} steps an epoch, rates {', '.join(f'{peak:g}' for peak in peaks)}, at first {factor(0):.3g} of that"
    )
    return verdict("rates", wrong, summary, "schedules are stated in epochs and stepped per batch")


def _expected(objective: Objective, classes: int) -> tuple[float, float, str] | None:
    """Expected loss of an untrained term, the tolerance, and the reason; None for other terms.

    With margin and scale s: the cosines of a feature of width d with uniform directions on the sphere have a standard
    deviation of 1 / sqrt(d), logits one of t = s / sqrt(d). ln of the sum over n other classes of e^logit is about
    ln n + t^2 / 2, or t sqrt(2 ln n) where t is so large that the largest term dominates (Derrida's random energy
    model). The right logit is that of a right angle after the margin. One direction per feature and identity is drawn,
    so the mean may be off by some of these deviations: four are allowed.
    """
    if isinstance(objective, CrossEntropy):
        count = len(objective.classifiers)
        where = count * math.log(classes)
        return where, max(BAND * where, BAND), f"{f'{count} x ' if count > 1 else ''}ln {classes}"
    if isinstance(objective, MarginSoftmax):
        right = objective.scale * float(objective.with_margin(torch.tensor([math.pi / 2])))
        where, band = 0.0, BAND
        for weight in objective.weights.values():
            deviation = objective.scale / math.sqrt(weight.shape[1])
            crowd = math.log(max(classes - 1, 2))
            large = deviation > math.sqrt(2 * crowd)
            rest = deviation * math.sqrt(2 * crowd) if large else crowd + deviation**2 / 2
            start = float(torch.logaddexp(torch.tensor(right), torch.tensor(rest))) - right
            where, band = where + start, band + BAND * start + 4 * deviation
        return where, band, f"random directions, scale {objective.scale:g}, margin {objective.margin:g}"
    return None
