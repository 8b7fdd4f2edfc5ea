"""WiSE-FT: interpolation between the encoder's weights before a stage and after it.

Wortsman et al., "Robust fine-tuning of zero-shot models" (2022), section 3: (1 - alpha) start + alpha tuned.

* Only the encoder is interpolated: head, visual prompts and side information have no meaningful weights from before the
  stage, and keep the trained ones.
* Batch-norm statistics are valid for one point only; they are recomputed at each point, on the training photos
  preprocessed as at test, without augmentation.
* So alpha 1 is not exactly the trained model, whose statistics are running averages over augmented photos. That model
  is validated too, unchanged, so that in validation the result is never worse than without WiSE-FT.
* Another point is selected only if it is better; of equal points, the one nearest to the trained weights.
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
    """A point of the interpolation and its validation; alpha None is the trained model with its own statistics."""

    alpha: float | None
    metrics: dict[str, float]


@dataclass(frozen=True)
class Curve:
    """The trained model first, then the other points with alpha descending."""

    points: tuple[Point, ...]

    @property
    def best(self) -> Point:
        """The first of the points with the highest validation mAP."""
        return max(self.points, key=lambda point: point.metrics[MONITOR])

    def content(self) -> dict[str, Any]:
        """Content of wise_ft.json; alpha null is the trained model, unchanged."""
        points = [{"alpha": point.alpha, **point.metrics} for point in self.points]
        return {"best": self.best.alpha, "points": points}

    def lines(self) -> list[str]:
        """The lines to print."""
        return [_line(point) + ("  taken" if point is self.best else "") for point in self.points]


def interpolate(start: State, tuned: State, alpha: float) -> State:
    """(1 - alpha) start + alpha tuned, exact at 0 and 1; tensors that are not floats are those of `tuned`.

    On the devices of `tuned`. Raises ValueError unless both have tensors of the same names and shapes.
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
    """Sets every batch norm's mean and (unbiased) variance to those of its input over all photos.

    First for the backbone, then, with these in place, for the head; norms in `keep` are unchanged. Exact for a norm
    with no other one before it in its part. In a stack, earlier norms normalise by their batch during the pass (Wu and
    Johnson 2021, "Rethinking 'Batch' in BatchNorm", section 3), for which the photos are shuffled with `seed`. torch's
    `update_bn` averages the variances within batches instead, which are too small if photos are sorted by identity.
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
    """Validates the trained embedder, and at each alpha the interpolation with `start`, its backbone's state before.

    The embedder ends as the best of them, in eval mode. Statistics that the stage did not change (such as a frozen
    stem's) are kept. `photos` are the training photos, preprocessed as at test.
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
    statistics: list[list[tuple[int, Tensor, Tensor]]] = [[] for _ in norms]
    hooks = [
        norm.train().register_forward_pre_hook(_noting(of_norm))
        for norm, of_norm in zip(norms, statistics, strict=True)
    ]
    try:
        for rows in batches:
            batch_conditions = None if conditions is None else torch.from_numpy(conditions[rows]).to(device)
            embedder(torch.from_numpy(photos[rows]).to(device), batch_conditions)
    finally:
        for hook in hooks:
            hook.remove()
    for norm, of_norm in zip(norms, statistics, strict=True):
        mean, variance = _combined(of_norm)
        if norm.running_mean is not None and norm.running_var is not None:
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)
        norm.eval()


def _noting(statistics: list[tuple[int, Tensor, Tensor]]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    """A hook that appends count, mean and biased variance of each channel of the input to `statistics`."""

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        values = inputs[0].float()
        dims = [dim for dim in range(values.ndim) if dim != 1]
        variance, mean = torch.var_mean(values, dim=dims, correction=0)
        statistics.append((values.numel() // len(mean), mean.cpu().double(), variance.cpu().double()))

    return note


def _combined(statistics: list[tuple[int, Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Mean and unbiased variance over all batches: variance within batches plus that of their means."""
    counts = torch.tensor([count for count, _, _ in statistics]).double()
    means, variances = torch.stack([m for _, m, _ in statistics]), torch.stack([v for _, _, v in statistics])
    mean = counts @ means / counts.sum()
    return mean, counts @ (variances + (means - mean) ** 2) / (counts.sum() - 1)


def _shuffled(photos: int, batch_size: int, seed: int) -> Iterator[np.ndarray]:
    parts = -(-photos // max(3, batch_size))  # a batch of one photo has no variance; from 3 on, no part has only one
    yield from np.array_split(np.random.default_rng(seed).permutation(photos), parts)


def _untouched_norms(start: State, tuned: State) -> set[str]:
    """Batch norms of the backbone with unchanged statistics, by their names in the embedder."""
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
