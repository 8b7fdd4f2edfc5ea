"""Does all learn that should, and nothing else: what the optimizer holds, what has a gradient, what a step moves.

* A term is read at the stage's own `training_step`, by hooks: whether it is in the sum is the gradient of the sum with
  respect to the term, which is the term's weight or nothing.
* One pass through the tower is enough for all terms: each one's gradient is taken at the tower's features, at the head
  and at its own parameters. The way from the features down is that of the sum, which takes one real step.
* A term may have nothing to say of a few photos: a hinge that nobody violates, a centre that begins where its only
  photo is. Then labels are exchanged, so that it must.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from handreid.training.checks.probe import Pass, Probe
from handreid.training.checks.result import CheckResult, listed, verdict
from handreid.training.checks.small_batches import small_batches
from handreid.training.stage_module import StageModule

TRIES = 3
RATE = 1e-3


def optimised(module: StageModule, optimizer: torch.optim.Optimizer | str) -> CheckResult:
    """Trainable == optimised, each parameter once. `optimizer` may be the error that building it ended in."""
    if isinstance(optimizer, str):
        return CheckResult("optimised", False, f"the optimizer cannot be built: {optimizer}")
    names = {id(own): name for name, own in module.named_parameters()}
    groups = {id(own): group["name"] for group in optimizer.param_groups for own in group["params"]}
    learning = {id(own) for own in module.parameters() if own.requires_grad}
    forgotten = [names[key] for key in names if key in learning and key not in groups]
    frozen = [f"{names[key]} (in group {groups[key]!r})" for key in names if key in groups and key not in learning]
    foreign = sorted({group for key, group in groups.items() if key not in names})
    wrong = []
    if forgotten:
        wrong.append(f"{len(forgotten)} trainable parameters are in no group of the optimizer: {listed(forgotten)}")
    if frozen:
        wrong.append(f"{len(frozen)} frozen parameters are in a group of the optimizer: {listed(frozen)}")
    if foreign:
        wrong.append(f"the optimizer has parameters that are not the stage's, in {listed(foreign)}")
    found = f"{len(learning)} of {len(names)} parameters are trained, in {len(optimizer.param_groups)} groups"
    return verdict("optimised", wrong, found, "see `groups` of the stage and requires_grad of the parameters")


def gradients(probe: Probe[Any], first: Pass) -> CheckResult:
    """Every term has a finite gradient that is not zero, and is in the sum by its weight."""
    wrong = probe.missing(first) if first.total.requires_grad else ["the loss has no gradient at all"]
    found, silent = [], dict.fromkeys(first.losses, "")
    others = small_batches(probe)
    for attempt in range(TRIES):
        if attempt:
            following = next(others, None)
            if following is None:
                break
            now = probe.one_pass(following)
        else:
            now, _ = first, next(others, None)
        for name in list(silent):
            problem, norm = _term(probe, now, name)
            if not problem:
                found.append(f"{name} {norm}")
                del silent[name]
            else:
                silent[name] = problem
        if not silent:
            break
    wrong += [f"{name} {problem}" for name, problem in silent.items()]
    return verdict("gradients", wrong, f"norms {', '.join(found)}", "a loss that is only logged trains nothing")


def step(
    probe: Probe[Any], optimizer: torch.optim.Optimizer, first: Pass, statistics: dict[str, Tensor]
) -> list[CheckResult]:
    """One real step: what learns moves, what is frozen does not; and clipping comes before it.

    At the stage's full rate or `RATE`: at a lower one a step may be lost in rounding. `statistics` are those of frozen
    norms, as they were before any photo passed.
    """
    module: StageModule = probe.module
    for group in optimizer.param_groups:
        group["lr"] = max(group["initial_lr"], RATE)
    if first.total.requires_grad:
        first.total.backward()  # type: ignore[no-untyped-call]
    results = [*_clipping(module, optimizer)]
    frozen = probe.frozen()
    freed = [name for name, own in frozen.items() if own.requires_grad]
    before = {name: own.detach().clone() for name, own in [*module.named_parameters(), *frozen.items()]}
    optimizer.step()
    now = {**dict(module.named_parameters()), **frozen}
    moved = {name for name, value in before.items() if not torch.equal(value, now[name])}
    drifted = sorted(name for name in moved if not now[name].requires_grad)
    buffers = dict(module.named_buffers())
    drifted += [name for name, value in statistics.items() if not torch.equal(value, buffers[name])]
    still = _still(probe, optimizer, moved)
    wrong = []
    if freed:
        wrong.append(f"{len(freed)} parameters that the recipe freezes are trainable: {listed(freed)}")
    if drifted:
        wrong.append(f"{len(drifted)} frozen parameters or statistics moved in a step: {listed(drifted)}")
    wrong += [f"nothing of {name!r} moved in a step" for name in still]
    fixed = sum(not own.requires_grad for own in now.values())
    found = f"{len(moved)} parameters moved in one step, {fixed} frozen ones are the same to the bit"
    return [*results, verdict("frozen", wrong, found, "see freeze_encoder, freeze_blocks, lora and unfreeze_every")]


def frozen_statistics(module: nn.Module) -> dict[str, Tensor]:
    """Copies of the running statistics of norms that are frozen, by name."""
    norms = [
        (path, part)
        for path, part in module.named_modules()
        if isinstance(part, nn.BatchNorm2d) and not part.weight.requires_grad
    ]
    return {f"{path}.{name}": value.clone() for path, part in norms for name, value in part.named_buffers()}


def _term(probe: Probe[Any], now: Pass, name: str) -> tuple[str, str]:
    """What is wrong with a term's gradient, empty if nothing; and its norm, in words."""
    if not now.weights[name]:
        return "", "(weight 0)"
    problem, norm = _gradient(probe, now, name, now.losses[name])
    if not problem or problem.endswith("finite"):
        return problem, f"{norm:.3g}"
    exchanged = probe.exchanged(now, name)
    if exchanged is None:
        return problem, f"{norm:.3g}"
    again, norm = _gradient(probe, now, name, exchanged)
    return (problem if again else ""), f"{norm:.3g} with exchanged labels (0 with the labels of these photos)"


def _gradient(probe: Probe[Any], now: Pass, name: str, loss: Tensor) -> tuple[str, float]:
    if not loss.isfinite():
        return f"is {loss.item()}, not finite", 0.0
    if not loss.requires_grad:
        return "has no gradient: it does not depend on any trainable parameter", 0.0
    shared, own = probe.shared(now, name), probe.own(name)
    norms = []
    for places in (shared, own):
        found = torch.autograd.grad(loss, places, retain_graph=True, allow_unused=True) if places else ()
        norms.append(float(flat([value for value in found if value is not None]).norm()))
    if not all(map(math.isfinite, norms)):
        return "has a gradient that is not finite", 0.0
    if shared and not norms[0]:
        return f"has a gradient of zero at {probe.shared_name} that it reads (tried on {TRIES} batches)", norms[0]
    if own and not norms[1]:
        return "has a gradient of zero at its own parameters", norms[1]
    return "", math.hypot(*norms)


def _still(probe: Probe[Any], optimizer: torch.optim.Optimizer, moved: set[str]) -> list[str]:
    """Parts of the optimizer that have a gradient, or should have one, and of which nothing moved."""
    names = {id(own): name for name, own in probe.module.named_parameters()}
    parts: dict[str, list[nn.Parameter]] = {}
    for group in optimizer.param_groups:
        learning = [own for own in group["params"] if own.requires_grad]
        parts.setdefault(str(group["name"]).split(",")[0], []).extend(learning)
    still = []
    for part, own in parts.items():
        pulled = any(value.grad is not None and value.grad.any() for value in own)
        # a neck that is read at test alone, a centre that began at its photos: no gradient, and none is due
        due = pulled or part in probe.moving
        if own and due and not any(names.get(id(value)) in moved for value in own):
            still.append(part)
    return still


def _clipping(module: StageModule, optimizer: torch.optim.Optimizer) -> Iterable[CheckResult]:
    """The gradient of the whole stage is no longer than the recipe allows when the step is taken."""
    most = module.largest_norm
    before = _norm(optimizer)
    module.configure_gradient_clipping(optimizer, most)
    if most is not None:
        after = _norm(optimizer)
        wrong = []
        if after > most * 1.001:
            wrong.append(f"the gradient's norm is {after:.4g} after clipping to {most:g}")
        if before <= most and not math.isclose(before, after, rel_tol=1e-4):
            wrong.append(f"a gradient of norm {before:.4g} is changed to {after:.4g} by clipping to {most:g}")
        found = f"norm {before:.4g} before and {after:.4g} after clipping to {most:g}"
        yield verdict("clipping", wrong, found, "all parameters are clipped together, before the step")


def _norm(optimizer: torch.optim.Optimizer) -> float:
    found = [own.grad for group in optimizer.param_groups for own in group["params"] if own.grad is not None]
    return float(nn.utils.get_total_norm(found)) if found else 0.0


def flat(values: Sequence[Tensor]) -> Tensor:
    """All numbers in one row; a zero where there are none."""
    return torch.cat([value.flatten() for value in values]) if values else torch.zeros(1)
