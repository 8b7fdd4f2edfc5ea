"""Error-versus-discard characteristic: the error that is left if the comparisons of lowest quality are left out.

* Grother and Tabassi, "Performance of biometric quality measures" (IEEE TPAMI 29, 2007), as ISO/IEC 29794-1:2024 has
  it for false non-matches: a comparison has the lower quality of its two photos, and the threshold stays the one that
  was chosen with all comparisons in. A query that is searched has its own quality.
* Comparisons of equal quality are left out in random order: the curve is the mean over all orders, which is linear
  between one quality and the next.
* Left out at random, the error stays what it is, on average. The best possible order leaves out errors first: it gives
  max(0, error - discarded) / (1 - discarded) (Schlett et al., arXiv:2303.13294, their hard lower limit).
* Intervals are over subjects (`intervals.interval_of`); each resample is ordered and cut anew.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from handreid.errors import DataError
from handreid.metrics.intervals import Interval, interval_of

Help = Literal["helps", "misleads", "within noise"]
_CELLS = 4_000_000  # numbers per block of resamples


@dataclass(frozen=True, eq=False)
class DiscardCurve:
    """Errors in [0, 1] by the share of comparisons left out.

    `best` is the lowest error that any order can reach. `area` is the mean error over the shares: the partial area
    under the curve, divided by its width. `gain` is that minus the error with nothing left out, which random discarding
    gives: below 0 it helps.
    """

    shares: Float[np.ndarray, " share"]
    error: Float[np.ndarray, " share"]
    best: Float[np.ndarray, " share"]
    area: float
    gain: Interval
    comparisons: int

    @property
    def verdict(self) -> Help:
        """`helps` if the interval of the gain lies below 0, `misleads` if above."""
        if self.gain.high < 0:
            return "helps"
        return "misleads" if self.gain.low > 0 else "within noise"

    def at(self, share: float) -> float:
        """The error with this share left out."""
        return float(np.interp(share, self.shares, self.error))


def discard_curve(
    errors: Float[np.ndarray, " comparison"],
    photos: Int[np.ndarray, "row each"],
    quality: Float[np.ndarray, " photo"],
    subjects: Int[np.ndarray, " person"],
    *,
    up_to: float = 0.3,
    resamples: int = 2000,
    seed: int = 0,
) -> DiscardCurve:
    """The curve up to a share `up_to` of comparisons left out, in 30 steps.

    `errors` are 0 or 1, NaN for a query without a right answer: it is left out from the start. `photos` are the photos
    of each comparison as positions in `quality`: one column for a search, where the query's quality counts, two for a
    pair. Higher quality is better; NaN is the worst. Raises DataError for arrays that do not fit, errors outside
    [0, 1], no comparison at all, fewer than two subjects, or an `up_to` that is not above 0 and below 1.
    """
    _check(errors, photos, quality, subjects, up_to)
    known = ~np.isnan(errors)
    if not known.any():
        raise DataError("none of the comparisons has a right answer, so there is no error to count")
    errors, photos, subjects = errors[known], photos[known], subjects[known]
    values = np.where(np.isnan(quality), -np.inf, quality)
    people, owner = np.unique(subjects, return_inverse=True)
    shares = _shares(up_to)
    curve = _curve(errors, values[photos].min(axis=1), owner, len(people), shares)
    error = curve(np.ones((1, len(people))))[0]
    return DiscardCurve(
        shares,
        error,
        np.maximum(0, error[0] - shares) / (1 - shares),
        float(_mean(error[None])[0]),
        interval_of(lambda weights: _gain(curve(weights)), len(people), resamples=resamples, seed=seed),
        len(errors),
    )


def random_band(
    errors: Float[np.ndarray, " comparison"],
    photos: Int[np.ndarray, "comparison each"],
    *,
    up_to: float = 0.3,
    orders: int = 1000,
    seed: int = 0,
) -> Float[np.ndarray, "2 share"]:
    """Where 95 % of the curves lie, point by point, if every photo gets a quality at random. Arguments as for
    `discard_curve`, whose shares these are.
    """
    known = ~np.isnan(errors)
    errors, photos = errors[known], photos[known]
    rng = np.random.Generator(np.random.PCG64(seed))
    nobody, one = np.zeros(len(errors), np.int64), np.ones((1, 1))
    curves = []
    for _ in range(orders):
        quality = rng.random(int(photos.max()) + 1)[photos].min(axis=1)
        curves.append(_curve(errors, quality, nobody, 1, _shares(up_to))(one)[0])
    band: Float[np.ndarray, "2 share"] = np.quantile(curves, (0.025, 0.975), axis=0)
    return band


Curve = Callable[[Float[np.ndarray, "resample subject"]], Float[np.ndarray, "resample share"]]


def _curve(
    errors: Float[np.ndarray, " comparison"],
    quality: Float[np.ndarray, " comparison"],
    owner: Int[np.ndarray, " comparison"],
    people: int,
    shares: Float[np.ndarray, " share"],
) -> Curve:
    """The errors that are left, as a function of the subjects' weights."""
    levels, level = np.unique(quality, return_inverse=True)
    cell = level * people + owner  # comparisons of one quality and subject count as one
    cells, place = np.unique(cell, return_inverse=True)
    counts, wrong = np.bincount(place).astype(np.float64), np.bincount(place, weights=errors)
    owners = cells % people
    ends = np.flatnonzero(np.diff(cells // people, append=len(levels)))  # the last cell of each quality

    def left(weights: Float[np.ndarray, "resample subject"]) -> Float[np.ndarray, "resample share"]:
        step = max(1, _CELLS // len(cells))
        return np.concatenate([block(weights[start : start + step]) for start in range(0, len(weights), step)])

    def block(weights: Float[np.ndarray, "resample subject"]) -> Float[np.ndarray, "resample share"]:
        each = weights[:, owners]
        out = np.cumsum(each * counts, axis=1)[:, ends]
        out_wrong = np.cumsum(each * wrong, axis=1)[:, ends]
        rows = []
        for gone, gone_wrong in zip(out, out_wrong, strict=True):
            discarded = np.interp(shares * gone[-1], np.append(0, gone), np.append(0, gone_wrong))
            rows.append((gone_wrong[-1] - discarded) / (gone[-1] * (1 - shares)))
        kept: Float[np.ndarray, "resample share"] = np.clip(rows, 0, 1)
        return kept

    return left


def _shares(up_to: float) -> Float[np.ndarray, " share"]:
    shares: Float[np.ndarray, " share"] = np.linspace(0, up_to, 31)
    return shares


def _mean(curves: Float[np.ndarray, "resample share"]) -> Float[np.ndarray, " resample"]:
    """Over the shares, by the trapezoidal rule."""
    mean: Float[np.ndarray, " resample"] = ((curves[:, 1:] + curves[:, :-1]) / 2).mean(axis=1)
    return mean


def _gain(curves: Float[np.ndarray, "resample share"]) -> Float[np.ndarray, " resample"]:
    gain: Float[np.ndarray, " resample"] = _mean(curves) - curves[:, 0]
    return gain


def _check(
    errors: Float[np.ndarray, " comparison"],
    photos: Int[np.ndarray, "row each"],
    quality: Float[np.ndarray, " photo"],
    subjects: Int[np.ndarray, " person"],
    up_to: float,
) -> None:
    if not len(errors) == len(photos) == len(subjects):
        raise DataError(
            f"{len(errors)} errors, {len(photos)} rows of photos and {len(subjects)} subjects: give one of each for "
            "every comparison"
        )
    if not 0 < up_to < 1:
        raise DataError(f"up_to is {up_to}: give the share of comparisons left out at most, above 0 and below 1")
    if len(photos) and (photos.min() < 0 or photos.max() >= len(quality)):
        raise DataError(f"photos are numbered {photos.min()} to {photos.max()}, but there are {len(quality)} qualities")
    wrong = errors[(errors < 0) | (errors > 1)]
    if len(wrong):
        raise DataError(f"an error is {wrong[0]}, not in [0, 1]; it is 1 for a wrong answer and 0 for a right one")
