"""Checks that exactly the intended parameters learn: the optimizer's groups, gradients, and one real step.

* Terms are read in the stage's own `training_step`, by hooks. A term is in the sum if the gradient of the sum with
  respect to the term is the term's weight.
* One pass through the tower is enough for all terms: each one's gradient is computed at the tower's features, at the
  head and at its own parameters. From the features down the path is that of the sum, tested by one real step.
* A term may be zero for a few photos: a hinge loss without violations, a centre initialised at its only photo. Then
  labels are exchanged, so that it cannot be.
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
    """Trainable and optimised parameters are the same, each once. `optimizer` may be the error of building it."""
    if isinstance(optimizer, str):
        return CheckResult("optimised", False, f"the optimizer cannot be built: {optimizer}")
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    groups = {id(parameter): group["name"] for group in optimizer.param_groups for parameter in group["params"]}
    learning = {id(parameter) for parameter in module.parameters() if parameter.requires_grad}
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
    summary = f"{len(learning)} of {len(names)} parameters are trained, in {len(optimizer.param_groups)} groups"
    return verdict("optimised", wrong, summary, "see `groups` of the stage and requires_grad of the parameters")


def gradients(probe: Probe[Any], first_pass: Pass) -> CheckResult:
    """Every term has a finite, non-zero gradient, and is in the sum with its weight."""
    wrong = probe.missing(first_pass) if first_pass.total.requires_grad else ["the loss has no gradient at all"]
    summaries, silent = [], dict.fromkeys(first_pass.losses, "")
    further_batches = small_batches(probe)
    for attempt in range(TRIES):
        if attempt:
            following = next(further_batches, None)
            if following is None:
                break
            current = probe.one_pass(following)
        else:
            current, _ = first_pass, next(further_batches, None)
        for name in list(silent):
            problem, norm = _term(probe, current, name)
            if not problem:
                summaries.append(f"{name} {norm}")
                del silent[name]
            else:
                silent[name] = problem
        if not silent:
            break
    wrong += [f"{name} {problem}" for name, problem in silent.items()]
    return verdict("gradients", wrong, f"norms {', '.join(summaries)}", "a loss that is only logged trains nothing")


def step(
    probe: Probe[Any], optimizer: torch.optim.Optimizer, first_pass: Pass, statistics: dict[str, Tensor]
) -> list[CheckResult]:
    """One real step changes the trainable parameters and not the frozen ones; gradients are clipped before it.

    At the larger of the stage's full rate and `RATE`: at a lower one a step may vanish in rounding. `statistics` are
    those of frozen norms before the first forward pass.
    """
    module: StageModule = probe.module
    for group in optimizer.param_groups:
        group["lr"] = max(group["initial_lr"], RATE)
    if first_pass.total.requires_grad:
        first_pass.total.backward()  # type: ignore[no-untyped-call]
    results = [*_clipping(module, optimizer)]
    frozen = probe.frozen()
    freed = [name for name, parameter in frozen.items() if parameter.requires_grad]
    before = {name: parameter.detach().clone() for name, parameter in [*module.named_parameters(), *frozen.items()]}
    optimizer.step()
    current = {**dict(module.named_parameters()), **frozen}
    moved = {name for name, value in before.items() if not torch.equal(value, current[name])}
    drifted = sorted(name for name in moved if not current[name].requires_grad)
    buffers = dict(module.named_buffers())
    drifted += [name for name, value in statistics.items() if not torch.equal(value, buffers[name])]
    still = _still(probe, optimizer, moved)
    wrong = []
    if freed:
        wrong.append(f"{len(freed)} parameters that the recipe freezes are trainable: {listed(freed)}")
    if drifted:
        wrong.append(f"{len(drifted)} frozen parameters or statistics moved in a step: {listed(drifted)}")
    wrong += [f"nothing of {name!r} moved in a step" for name in still]
    fixed = sum(not parameter.requires_grad for parameter in current.values())
    summary = f"{len(moved)} parameters moved in one step, {fixed} frozen ones are the same to the bit"
    return [*results, verdict("frozen", wrong, summary, "see freeze_encoder, freeze_blocks, lora and unfreeze_every")]


def frozen_statistics(module: nn.Module) -> dict[str, Tensor]:
    """Copies of the running statistics of frozen batch norms, by name."""
    norms = [
        (path, part)
        for path, part in module.named_modules()
        if isinstance(part, nn.BatchNorm2d) and not part.weight.requires_grad
    ]
    return {f"{path}.{name}": value.clone() for path, part in norms for name, value in part.named_buffers()}


def _term(probe: Probe[Any], current: Pass, name: str) -> tuple[str, str]:
    """The problem of a term's gradient, empty if none; and its norm, as text."""
    if not current.weights[name]:
        return "", "(weight 0)"
    problem, norm = _gradient(probe, current, name, current.losses[name])
    if not problem or problem.endswith("finite"):
        return problem, f"{norm:.3g}"
    exchanged = probe.exchanged(current, name)
    if exchanged is None:
        return problem, f"{norm:.3g}"
    again, norm = _gradient(probe, current, name, exchanged)
    return (problem if again else ""), f"{norm:.3g} with exchanged labels (0 with the labels of these photos)"


def _gradient(probe: Probe[Any], current: Pass, name: str, loss: Tensor) -> tuple[str, float]:
    if not loss.isfinite():
        return f"is {loss.item()}, not finite", 0.0
    if not loss.requires_grad:
        return "has no gradient: it does not depend on any trainable parameter", 0.0
    shared, own_parameters = probe.shared(current, name), probe.own_parameters(name)
    norms = []
    for places in (shared, own_parameters):
        gradients_of = torch.autograd.grad(loss, places, retain_graph=True, allow_unused=True) if places else ()
        norms.append(float(flat([value for value in gradients_of if value is not None]).norm()))
    if not all(map(math.isfinite, norms)):
        return "has a gradient that is not finite", 0.0
    if shared and not norms[0]:
        return f"has a gradient of zero at {probe.shared_name} that it reads (tried on {TRIES} batches)", norms[0]
    if own_parameters and not norms[1]:
        return "has a gradient of zero at its own parameters", norms[1]
    return "", math.hypot(*norms)


def _still(probe: Probe[Any], optimizer: torch.optim.Optimizer, moved: set[str]) -> list[str]:
    """Parts of the optimizer that have a gradient, or should have one, but did not change."""
    names = {id(parameter): name for name, parameter in probe.module.named_parameters()}
    parts: dict[str, list[nn.Parameter]] = {}
    for group in optimizer.param_groups:
        learning = [parameter for parameter in group["params"] if parameter.requires_grad]
        parts.setdefault(str(group["name"]).split(",")[0], []).extend(learning)
    still = []
    for part, parameters in parts.items():
        pulled = any(value.grad is not None and value.grad.any() for value in parameters)
        # a neck that is used only at test, or a centre initialised at its photos: no gradient, and none is required
        due = pulled or part in probe.moving
        if parameters and due and not any(names.get(id(value)) in moved for value in parameters):
            still.append(part)
    return still


def _clipping(module: StageModule, optimizer: torch.optim.Optimizer) -> Iterable[CheckResult]:
    """The norm of the whole stage's gradient is at most the recipe's limit when the step is made."""
    limit = module.largest_norm
    before = _norm(optimizer)
    module.configure_gradient_clipping(optimizer, limit)
    if limit is not None:
        after = _norm(optimizer)
        wrong = []
        if after > limit * 1.001:
            wrong.append(f"the gradient's norm is {after:.4g} after clipping to {limit:g}")
        if before <= limit and not math.isclose(before, after, rel_tol=1e-4):
            wrong.append(f"a gradient of norm {before:.4g} is changed to {after:.4g} by clipping to {limit:g}")
        summary = f"norm {before:.4g} before and {after:.4g} after clipping to {limit:g}"
        yield verdict("clipping", wrong, summary, "all parameters are clipped together, before the step")


def _norm(optimizer: torch.optim.Optimizer) -> float:
    gradients_of = [
        parameter.grad
        for group in optimizer.param_groups
        for parameter in group["params"]
        if parameter.grad is not None
    ]
    return float(nn.utils.get_total_norm(gradients_of)) if gradients_of else 0.0


def flat(values: Sequence[Tensor]) -> Tensor:
    """All values as one vector; a single zero where there are none."""
    return torch.cat([value.flatten() for value in values]) if values else torch.zeros(1)
