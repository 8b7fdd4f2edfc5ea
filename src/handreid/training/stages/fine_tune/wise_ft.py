"""WiSE-FT: the encoder between the weights a stage began with and the ones it trained.

Wortsman et al., "Robust fine-tuning of zero-shot models" (2022), section 3: (1 - alpha) start + alpha tuned.

* Only the encoder is interpolated: head, visual prompts and side information have no weights from before that mean
  anything, and stay as they were trained.
* Batch-norm statistics belong to one point of the line; at each they are estimated anew, on the training photos as
  they are at test, without augmentation.
* Alpha 1 is therefore not quite the trained model, whose statistics are running averages over augmented photos. That
  model is tried too, as it is, so that by validation the stage never ends worse than without WiSE-FT.
* Another point is taken only if it is better: of equals, the one nearest to the trained weights.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from handreid.models.embedder import Embedder
from handreid.models.extraction import Conditions, Photos
from handreid.training.epoch_callback import MONITOR, Validate

State = dict[str, Tensor]
_Norm = nn.BatchNorm1d | nn.BatchNorm2d


@dataclass(frozen=True)
class Point:
    """A place on the line and its validation; alpha None is the trained model as it is, statistics and all."""

    alpha: float | None
    metrics: dict[str, float]


@dataclass(frozen=True)
class Curve:
    """The trained model first, then down the line from the largest alpha."""

    points: tuple[Point, ...]

    @property
    def best(self) -> Point:
        """The first of the points with the highest validation mAP."""
        return max(self.points, key=lambda point: point.metrics[MONITOR])

    def content(self) -> dict[str, Any]:
        """What is written of it; alpha null is the trained model as it is."""
        points = [{"alpha": point.alpha, **point.metrics} for point in self.points]
        return {"best": self.best.alpha, "points": points}

    def lines(self) -> list[str]:
        """What is printed of it."""
        return [_line(point) + ("  taken" if point is self.best else "") for point in self.points]


def interpolate(start: State, tuned: State, alpha: float) -> State:
    """(1 - alpha) start + alpha tuned, exactly either at 0 and 1; what is not a float is `tuned`'s.

    On the devices of `tuned`. Raises ValueError unless both hold tensors of the same names and shapes.
    """
    unlike = [name for name in {**start, **tuned} if _shape(start, name) != _shape(tuned, name)]
    if unlike:
        raise ValueError(
            f"the initial and the trained weights of a stage differ in {len(unlike)} names or shapes "
            f"(such as {unlike[0]}): merge LoRA adapters first"
        )
    return {
        name: torch.lerp(start[name].to(value.device), value, alpha) if value.is_floating_point() else value.clone()
        for name, value in tuned.items()
    }


def recompute_batchnorm(
    embedder: Embedder,
    photos: Photos,
    *,
    conditions: Conditions | None = None,
    batch_size: int = 64,
    keep: Collection[str] = (),
    seed: int = 0,
) -> None:
    """Gives every batch norm the mean and (unbiased) variance of what goes into it over all photos.

    First the backbone's, then, with these in place, the head's; norms named in `keep` are left alone. Exact for a norm
    below which there is no other in its part. In a stack the lower ones normalise by their batch meanwhile (Wu and
    Johnson 2021, "Rethinking 'Batch' in BatchNorm", section 3), for which `seed` shuffles the photos. torch's
    `update_bn` instead averages the variances within batches, so that photos in order of identity look less varied.
    """
    training = embedder.training
    embedder.eval()
    for part in ("backbone", "head"):
        inside = [(name, module) for name, module in embedder.named_modules() if name.startswith(f"{part}.")]
        norms = [module for name, module in inside if isinstance(module, _Norm) and name not in keep]
        if norms:
            _estimate(embedder, norms, photos, conditions, _shuffled(len(photos), batch_size, seed))
    embedder.train(training)


def interpolation_curve(
    embedder: Embedder,
    start: State,
    alphas: Sequence[float],
    photos: Photos,
    validate: Validate,
    *,
    conditions: Conditions | None = None,
    batch_size: int = 64,
) -> Curve:
    """Validates the trained embedder and it at each alpha from `init_from`, its backbone's state before the stage.

    It ends in eval mode as the best of them. Statistics that the stage left alone (a frozen stem's) stay as they are.
    `photos` are the training photos as they would be at test.
    """
    tuned = _copied(embedder.eval().backbone)
    start = start | {name: value for name, value in tuned.items() if not name.startswith("visual.")}
    best, frozen = _copied(embedder), _untouched_norms(start, tuned)
    points = [Point(None, validate(embedder))]
    for alpha in sorted(set(alphas), reverse=True):
        embedder.backbone.load_state_dict(interpolate(start, tuned, alpha))
        recompute_batchnorm(embedder, photos, conditions=conditions, batch_size=batch_size, keep=frozen)
        points.append(Point(alpha, validate(embedder)))
        if Curve(tuple(points)).best is points[-1]:
            best = _copied(embedder)
    embedder.load_state_dict(best)
    embedder.eval()
    return Curve(tuple(points))


@torch.no_grad()
def _estimate(
    embedder: Embedder,
    norms: list[_Norm],
    photos: Photos,
    conditions: Conditions | None,
    batches: Iterable[np.ndarray],
) -> None:
    device = embedder.mean.device
    seen: list[list[tuple[int, Tensor, Tensor]]] = [[] for _ in norms]
    hooks = [norm.train().register_forward_pre_hook(_noting(found)) for norm, found in zip(norms, seen, strict=True)]
    try:
        for rows in batches:
            known = None if conditions is None else torch.from_numpy(conditions[rows]).to(device)
            embedder(torch.from_numpy(photos[rows]).to(device), known)
    finally:
        for hook in hooks:
            hook.remove()
    for norm, found in zip(norms, seen, strict=True):
        mean, variance = _combined(found)
        if norm.running_mean is not None and norm.running_var is not None:
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)
        norm.eval()


def _noting(found: list[tuple[int, Tensor, Tensor]]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    """A hook that adds count, mean and variance (not corrected) of each channel of what goes in."""

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        values = inputs[0].float()
        others = [dim for dim in range(values.ndim) if dim != 1]
        variance, mean = torch.var_mean(values, dim=others, correction=0)
        found.append((values.numel() // len(mean), mean.cpu().double(), variance.cpu().double()))

    return note


def _combined(found: list[tuple[int, Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Mean and unbiased variance over all batches: the variance within them and that of their means."""
    counts = torch.tensor([count for count, _, _ in found]).double()
    means, variances = torch.stack([m for _, m, _ in found]), torch.stack([v for _, _, v in found])
    mean = counts @ means / counts.sum()
    return mean, counts @ (variances + (means - mean) ** 2) / (counts.sum() - 1)


def _shuffled(photos: int, batch_size: int, seed: int) -> Iterator[np.ndarray]:
    parts = -(-photos // max(3, batch_size))  # a single photo has no variance, and none is left with 3 or more
    yield from np.array_split(np.random.default_rng(seed).permutation(photos), parts)


def _untouched_norms(start: State, tuned: State) -> set[str]:
    """Batch norms of the backbone, by their names in the embedder, whose statistics are those of the start."""
    return {
        f"backbone.{name.removesuffix('.running_mean')}"
        for name, value in tuned.items()
        if name.endswith(".running_mean") and torch.equal(start[name].to(value.device), value)
    }


def _copied(module: nn.Module) -> State:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def _shape(state: State, name: str) -> torch.Size | None:
    return state[name].shape if name in state else None


def _line(point: Point) -> str:
    where = "as trained" if point.alpha is None else f"alpha {point.alpha:<4g}"
    return f"WiSE-FT {where}  validation rank-1 {point.metrics['rank1']:.1%}  mAP {point.metrics[MONITOR]:.1%}"
