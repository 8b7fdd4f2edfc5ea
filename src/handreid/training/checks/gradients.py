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
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from handreid.models.lora import LowRank
from handreid.objectives.objective import Objective
from handreid.training.checks.result import Gate, listed, verdict
from handreid.training.checks.small_batches import Module, exchanged, small_batches
from handreid.training.stages.fine_tune.module import FineTuneModule
from handreid.training.stages.learn_prompts.module import LearnPromptsModule
from handreid.types import Outputs, Targets

TRIES = 3
RATE = 1e-3


@dataclass(frozen=True)
class Pass:
    """Some photos through a stage's `training_step`: the sum, the terms in it, and what they were made of."""

    total: Tensor
    losses: dict[str, Tensor]
    weights: dict[str, float]
    outputs: Outputs | None = None
    targets: Targets | None = None


def optimised(module: Module, optimizer: torch.optim.Optimizer | str) -> Gate:
    """Trainable == optimised, each parameter once. `optimizer` may be the error that building it ended in."""
    if isinstance(optimizer, str):
        return Gate("optimised", False, f"the optimizer cannot be built: {optimizer}")
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


def one_pass(module: Module, batch: Any) -> Pass:
    return _fine_tune_pass(module, batch) if isinstance(module, FineTuneModule) else _prompts_pass(module, batch)


def gradients(module: Module, first: Pass) -> Gate:
    """Every term has a finite gradient that is not zero, and is in the sum by its weight."""
    wrong = _missing(module, first)
    found, silent = [], dict.fromkeys(first.losses, "")
    others = small_batches(module)
    for attempt in range(TRIES):
        if attempt:
            following = next(others, None)
            if following is None:
                break
            now = one_pass(module, following)
        else:
            now, _ = first, next(others, None)
        for name in list(silent):
            problem, norm = _term(module, now, name)
            if not problem:
                found.append(f"{name} {norm}")
                del silent[name]
            else:
                silent[name] = problem
        if not silent:
            break
    wrong += [f"{name} {problem}" for name, problem in silent.items()]
    return verdict("gradients", wrong, f"norms {', '.join(found)}", "a loss that is only logged trains nothing")


def should_be_frozen(module: Module) -> dict[str, nn.Parameter]:
    """What the recipe says does not learn in the stage's first epoch, by name."""
    if isinstance(module, LearnPromptsModule):
        return {f"text.{name}": own for name, own in module.text.named_parameters()}
    stage, backbone = module.stage, module.embedder.backbone
    count = stage.freeze_blocks + 1 if stage.freeze_blocks else 0
    if stage.freeze_encoder:
        count = len(backbone.layers)
    if stage.unfreeze_every:
        count = len(backbone.layers) - 1
    frozen = {id(own) for layer in backbone.layers[:count] for own in layer}
    if stage.lora:
        changes = {id(own) for part in backbone.modules() if isinstance(part, LowRank) for own in part.parameters()}
        frozen |= {id(own) for own in backbone.visual.parameters()} - changes
    return {name: own for name, own in module.named_parameters() if id(own) in frozen}


def step(module: Module, optimizer: torch.optim.Optimizer, first: Pass, statistics: dict[str, Tensor]) -> list[Gate]:
    """One real step: what learns moves, what is frozen does not; and clipping comes before it.

    At the stage's full rate or `RATE`: at a lower one a step may be lost in rounding. `statistics` are those of frozen
    norms, as they were before any photo passed.
    """
    for group in optimizer.param_groups:
        group["lr"] = max(group["initial_lr"], RATE)
    if first.total.requires_grad:
        first.total.backward()  # type: ignore[no-untyped-call]
    gates = [*_clipping(module, optimizer)]
    frozen = should_be_frozen(module)
    freed = [name for name, own in frozen.items() if own.requires_grad]
    before = {name: own.detach().clone() for name, own in [*module.named_parameters(), *frozen.items()]}
    optimizer.step()
    now = {**dict(module.named_parameters()), **frozen}
    moved = {name for name, value in before.items() if not torch.equal(value, now[name])}
    drifted = sorted(name for name in moved if not now[name].requires_grad)
    buffers = dict(module.named_buffers())
    drifted += [name for name, value in statistics.items() if not torch.equal(value, buffers[name])]
    still = _still(module, optimizer, moved)
    wrong = []
    if freed:
        wrong.append(f"{len(freed)} parameters that the recipe freezes are trainable: {listed(freed)}")
    if drifted:
        wrong.append(f"{len(drifted)} frozen parameters or statistics moved in a step: {listed(drifted)}")
    wrong += [f"nothing of {name!r} moved in a step" for name in still]
    fixed = sum(not own.requires_grad for own in now.values())
    found = f"{len(moved)} parameters moved in one step, {fixed} frozen ones are the same to the bit"
    return [*gates, verdict("frozen", wrong, found, "see freeze_encoder, freeze_blocks, lora and unfreeze_every")]


def frozen_statistics(module: nn.Module) -> dict[str, Tensor]:
    """Copies of the running statistics of norms that are frozen, by name."""
    norms = [
        (path, part)
        for path, part in module.named_modules()
        if isinstance(part, nn.BatchNorm2d) and not part.weight.requires_grad
    ]
    return {f"{path}.{name}": value.clone() for path, part in norms for name, value in part.named_buffers()}


def _fine_tune_pass(module: FineTuneModule, batch: Any) -> Pass:
    losses: dict[str, Tensor] = {}
    seen: list[tuple[Outputs, Targets]] = []
    handles = []
    for name, objective in module.objectives.items():

        def note(_: nn.Module, arguments: Any, loss: Tensor, name: str = name) -> None:
            losses[name] = loss
            seen.append(arguments)

        handles.append(objective.register_forward_hook(note))
    try:
        total = module.training_step(batch, 0)
    finally:
        for handle in handles:
            handle.remove()
    weights = [term.weight for term in module.stage.objectives]
    outputs, targets = seen[0]
    return Pass(total, losses, dict(zip(module.objectives, weights, strict=True)), outputs, targets)


def _prompts_pass(module: LearnPromptsModule, batch: Tensor) -> Pass:
    total = module.training_step(batch, 0)
    module.seed_step(0)
    losses = module.losses(batch)
    return Pass(total, losses, {name: weight for name, weight in module.weights.items() if name in losses})


def _missing(module: Module, first: Pass) -> list[str]:
    """Terms whose part in the sum is not their weight."""
    if not first.total.requires_grad:
        return ["the loss has no gradient at all"]
    if isinstance(module, LearnPromptsModule):
        return _missing_prompts(module, first)
    known = [name for name, loss in first.losses.items() if loss.requires_grad]
    terms = [first.losses[name] for name in known]
    parts: Sequence[Tensor | None] = torch.autograd.grad(first.total, terms, retain_graph=True, allow_unused=True)
    wrong = []
    for name, part in zip(known, parts, strict=True):
        weight = first.weights[name]
        if part is None:
            wrong.append(f"{name} is computed but not in the loss")
        elif not math.isclose(part.item(), weight, rel_tol=1e-4):
            wrong.append(f"{name} is in the loss with the weight {part.item():g}, not {weight:g}")
    return wrong


def _missing_prompts(module: LearnPromptsModule, first: Pass) -> list[str]:
    own = list(module.learner.parameters())
    total = _flat(torch.autograd.grad(first.total, own, retain_graph=True))
    parts = {
        name: first.weights[name] * _flat(torch.autograd.grad(loss, own, retain_graph=True))
        for name, loss in first.losses.items()
    }
    missing = total - torch.stack(list(parts.values())).sum(dim=0)
    if missing.norm() <= 1e-3 * total.norm():
        return []
    nearest = min(parts, key=lambda name: float((missing + parts[name]).norm()))
    return [f"the loss is not the sum of its terms by their weights; what is missing is most like {nearest}"]


def _term(module: Module, now: Pass, name: str) -> tuple[str, str]:
    """What is wrong with a term's gradient, empty if nothing; and its norm, in words."""
    if not now.weights[name]:
        return "", "(weight 0)"
    problem, norm = _gradient(module, now, name, now.losses[name])
    if isinstance(module, LearnPromptsModule) or now.outputs is None or now.targets is None:
        return problem, f"{norm:.3g}"
    if not problem or problem.endswith("finite"):
        return problem, f"{norm:.3g}"
    objective = module.objectives[name]
    assert isinstance(objective, Objective)  # noqa: S101 - for the type checker
    wrong_labels = Targets(exchanged(now.targets.labels), now.targets.mixed)
    again, norm = _gradient(module, now, name, objective(now.outputs, wrong_labels))
    return (problem if again else ""), f"{norm:.3g} with exchanged labels (0 with the labels of these photos)"


def _gradient(module: Module, now: Pass, name: str, loss: Tensor) -> tuple[str, float]:
    if not loss.isfinite():
        return f"is {loss.item()}, not finite", 0.0
    if not loss.requires_grad:
        return "has no gradient: it does not depend on any trainable parameter", 0.0
    shared, own = _places(module, now, name)
    norms = []
    for places in (shared, own):
        found = torch.autograd.grad(loss, places, retain_graph=True, allow_unused=True) if places else ()
        norms.append(float(_flat([value for value in found if value is not None]).norm()))
    if not all(map(math.isfinite, norms)):
        return "has a gradient that is not finite", 0.0
    if shared and not norms[0]:
        where = "the features" if now.outputs else "the contexts"
        return f"has a gradient of zero at {where} that it reads (tried on {TRIES} batches)", norms[0]
    if own and not norms[1]:
        return "has a gradient of zero at its own parameters", norms[1]
    return "", math.hypot(*norms)


def _places(module: Module, now: Pass, name: str) -> tuple[list[Tensor], list[Tensor]]:
    """Where a term's gradient is taken: what all terms share (features, or what learns above them), and its own."""
    if isinstance(module, LearnPromptsModule):
        return list(module.learner.parameters()), []
    assert now.outputs is not None  # noqa: S101 - for the type checker
    features = now.outputs.features
    reached: list[Tensor] = [value for value in _tensors(features) if value.requires_grad]
    own: list[Tensor] = [value for value in module.objectives[name].parameters() if value.requires_grad]
    if not reached and _encoder_learns(module):
        reached = [own for own in module.embedder.backbone.parameters() if own.requires_grad]  # cut: it will be zero
    elif not reached:
        reached = [] if own else [value for value in module.embedder.head.parameters() if value.requires_grad]
    return reached, own


def _encoder_learns(module: FineTuneModule) -> bool:
    return any(own.requires_grad for own in module.embedder.backbone.parameters())


def _tensors(features: Any) -> list[Tensor]:
    return [getattr(features, one.name) for one in fields(features)]


def _still(module: Module, optimizer: torch.optim.Optimizer, moved: set[str]) -> list[str]:
    """Parts of the optimizer that have a gradient, or should have one, and of which nothing moved."""
    names = {id(own): name for name, own in module.named_parameters()}
    parts: dict[str, list[nn.Parameter]] = {}
    for group in optimizer.param_groups:
        learning = [own for own in group["params"] if own.requires_grad]
        parts.setdefault(str(group["name"]).split(",")[0], []).extend(learning)
    still = []
    for part, own in parts.items():
        pulled = any(value.grad is not None and value.grad.any() for value in own)
        # a neck that is read at test alone, a centre that began at its photos: no gradient, and none is due
        due = pulled or part in ("encoder", "visual prompts", "side information", "contexts")
        if own and due and not any(names.get(id(value)) in moved for value in own):
            still.append(part)
    return still


def _clipping(module: Module, optimizer: torch.optim.Optimizer) -> Iterable[Gate]:
    """The gradient of the whole stage is no longer than the recipe allows when the step is taken."""
    most = module.stage.clip_gradients
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


def _flat(values: Sequence[Tensor]) -> Tensor:
    return torch.cat([value.flatten() for value in values]) if values else torch.zeros(1)
