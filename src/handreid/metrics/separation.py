"""Separation of identities in the embedding space: distances within and between identities, with intervals.

* Distance is Euclidean between embeddings of unit length: from 0 (equal) to 2 (opposite). Its square is
  2 - 2 cosine, so the order of neighbours is that of the ranking.
* An identity with one photo has no distance within: it is left out of the numbers of distances within, counted in
  `alone`, and remains a neighbour of the others.
* Intervals weigh subjects, as everywhere. A pair of photos of two subjects has the product of their weights, a pair
  within a subject its weight; both kinds keep their share, or resampling would count the second twice. The nearest
  neighbour of a photo is not recomputed in each resample.
* A number that is not defined is None (null in JSON, which has no NaN), and `why` gives the reason.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from handreid.errors import DataError
from handreid.metric_table import METRICS, metrics_of
from handreid.metrics.distances import SAME_POINT, GroupedPhotos, PhotoDistances, group_photos, photo_distances
from handreid.metrics.intervals import Interval, Statistic, Verdict, interval_of, verdict

NUMBERS = metrics_of("separation")
COMPARED = ("ratio", "silhouette")
PerSubject = Mapping[str, Sequence[Any]]

_ONE_IDENTITY = "one identity: there are no others to be far from"
_ALL_ALONE = "no identity has two photos"


@dataclass(frozen=True)
class SeparationNumber:
    """A number with its 95 % interval over subjects; None where it is not defined, and `why` gives the reason."""

    value: float | None
    low: float | None
    high: float | None
    why: str | None = None


@dataclass(frozen=True)
class SeparationDifference:
    """Difference of two systems with its 95 % interval over subjects. The verdict knows whether lower is better."""

    value: float
    low: float
    high: float
    verdict: Verdict


@dataclass(frozen=True)
class SeparationMetrics:
    """`numbers` by name, and counts; `alone` identities have a single photo.

    `per_subject` has the names of the subjects (`name`) and sums over the photos of each, in the same order, from which
    `compare_separation` computes differences.
    """

    numbers: dict[str, SeparationNumber]
    photos: int
    identities: int
    subjects: int
    alone: int
    per_subject: dict[str, list[Any]]


def separation_metrics(
    embeddings: Float[np.ndarray, "photo dim"],
    identities: Sequence[str],
    subjects: Sequence[str],
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> SeparationMetrics:
    """Numbers with 95 % intervals over subjects, counts, and sums per subject.

    * `intra`: mean over photos of the mean distance to the other photos of the identity.
    * `inter`: mean over photos of the distance to the nearest photo of another identity.
    * `ratio`: intra / inter; under 1, a photo is nearer to its own than to any other, on average.
    * `fisher`: trace of the scatter between identities over (identities - 1), divided by trace of the scatter within
      over (photos - identities): 1 where identities mean nothing. Also known as Calinski and Harabasz' index.
    * `silhouette`: mean over photos of (b - a) / max(a, b), a the mean distance to its own identity, b to the nearest
      other one (Rousseeuw 1987). Photos that are alone are left out, where scikit-learn takes them as 0.
    * `alignment`: mean ||x - y||^2 over pairs of an identity; `uniformity`: log of the mean of exp(-2 ||x - y||^2) over
      all pairs (Wang and Isola, ICML 2020, equations 2 and 4, with alpha = t = 2).

    Raises DataError for an identity of two subjects, or no photos.
    """
    photos = group_photos(embeddings, identities, subjects)
    distances = photo_distances(photos)
    sums = _sums(photos, distances)
    statistics = {**_means(sums), **_scatter(photos), **_pairs(photos, distances)}
    numbers = {name: _number(statistics[name], len(photos.names), resamples=resamples, seed=seed) for name in NUMBERS}
    return SeparationMetrics(
        numbers=numbers,
        photos=len(photos.unit),
        identities=len(photos.owner),
        subjects=len(photos.names),
        alone=int(np.count_nonzero(photos.sizes == 1)),
        per_subject={"name": photos.names, **{name: _rounded(values) for name, values in sums.items()}},
    )


def compare_separation(
    per_subject: PerSubject | Sequence[PerSubject],
    reference: PerSubject | Sequence[PerSubject],
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> dict[str, SeparationDifference]:
    """System minus reference for ratio and silhouette of the same photos, paired by subject.

    Both arguments are `SeparationMetrics.per_subject`, or as many of them as there are training seeds: they are paired
    in their order, and one is compared with all of the other. A number that is not defined for any of them is left out.
    Raises DataError when the subjects or their photos differ, or the numbers of seeds.
    """
    systems, references = _each_seed(per_subject), _each_seed(reference)
    subjects = _subjects([*systems, *references])
    seeds = max(len(systems), len(references))
    if {len(systems), len(references)} - {1, seeds}:
        raise DataError(f"{len(systems)} seeds against {len(references)}: compare equal numbers, or one with any")
    means, reference_means = (
        [_means(_read_sums(sums)) for sums in (side * seeds if len(side) == 1 else side)]
        for side in (systems, references)
    )
    differences = {}
    for name in COMPARED:
        pairs = [(ours[name], theirs[name]) for ours, theirs in zip(means, reference_means, strict=True)]
        gained = [_difference(a, b) for a, b in pairs if not isinstance(a, str) and not isinstance(b, str)]
        if len(gained) < seeds or subjects < 2:
            continue
        interval = interval_of(gained, subjects, resamples=resamples, seed=seed)
        gain = interval
        if not METRICS[name].higher_is_better:
            gain = Interval(-interval.value, -interval.high, -interval.low, interval.subjects)
        differences[name] = SeparationDifference(interval.value, interval.low, interval.high, verdict(gain))
    return differences


def separation_over_seeds(
    per_subject: Sequence[PerSubject], *, resamples: int = 10_000, seed: int = 0
) -> dict[str, SeparationNumber]:
    """Means over training seeds of the numbers that the sums per subject give, with intervals over subjects and seeds.

    Arguments and errors as for `compare_separation`. A number that is undefined for a seed is undefined.
    """
    subjects = _subjects(per_subject)
    means = [_means(_read_sums(sums)) for sums in per_subject]
    numbers = {}
    for name in means[0]:
        of_seeds = [one[name] for one in means]
        reason = next((one for one in of_seeds if isinstance(one, str)), None)
        statistics = [one for one in of_seeds if not isinstance(one, str)]
        numbers[name] = _number(reason or statistics, subjects, resamples=resamples, seed=seed)
    return numbers


def _each_seed(sums: PerSubject | Sequence[PerSubject]) -> list[PerSubject]:
    return [sums] if isinstance(sums, Mapping) else list(sums)


def _subjects(separations: Sequence[PerSubject]) -> int:
    """The number of subjects. Raises DataError if the separations are not of the same photos."""
    for name in ("name", "photos"):
        if any(sums[name] != separations[0][name] for sums in separations):
            raise DataError(
                "the separation of different photos cannot be compared: evaluate both runs on the same photos"
            )
    return len(separations[0]["name"])


def _sums(photos: GroupedPhotos, distances: PhotoDistances) -> dict[str, Float[np.ndarray, " subject"]]:
    """Per subject: number of photos, of photos that are not alone in their identity, and sums of their distances."""
    values = {
        "photos": np.ones(len(photos.unit)),
        "accompanied": (photos.sizes > 1)[photos.identity].astype(np.float64),
        "intra": np.nan_to_num(distances.within),
        "inter": distances.nearest,  # defined for all photos, or for none
        "silhouette": np.nan_to_num(distances.silhouette),
    }
    return {
        name: np.bincount(photos.subject, weights=numbers, minlength=len(photos.names))
        for name, numbers in values.items()
    }


def _means(sums: Mapping[str, Float[np.ndarray, " subject"]]) -> dict[str, Statistic | str]:
    """Means over photos, and their ratio; where one is not defined, a text that gives the reason."""
    photos, accompanied = sums["photos"], sums["accompanied"]
    alone = None if accompanied.any() else _ALL_ALONE
    only = _ONE_IDENTITY if np.isnan(sums["inter"]).any() else None
    zero = None if sums["inter"].any() else "every photo has the same embedding as one of another identity"
    intra, inter = _mean(sums["intra"], accompanied), _mean(sums["inter"], photos)
    return {
        "intra": alone or intra,
        "inter": only or inter,
        "ratio": alone or only or zero or (lambda weights: intra(weights) / inter(weights)),
        "silhouette": alone or only or _mean(sums["silhouette"], accompanied),
    }


def _mean(sums: Float[np.ndarray, " subject"], counts: Float[np.ndarray, " subject"]) -> Statistic:
    return lambda weights: (weights @ sums) / (weights @ counts)


def _difference(first: Statistic, second: Statistic) -> Statistic:
    return lambda weights: first(weights) - second(weights)


def _scatter(photos: GroupedPhotos) -> dict[str, Statistic | str]:
    """Fisher's ratio; the scatter between is computed without the overall mean, which changes with the weights."""
    if len(photos.owner) < 2:
        return {"fisher": _ONE_IDENTITY}
    if len(photos.owner) == len(photos.unit):
        return {"fisher": _ALL_ALONE}
    centred = photos.unit - photos.unit.mean(axis=0)
    starts = np.searchsorted(photos.identity, np.arange(len(photos.owner)))
    totals = np.add.reduceat(centred, starts, axis=0)
    means = totals / photos.sizes[:, None]
    apart = np.bincount(photos.identity, weights=((centred - means[photos.identity]) ** 2).sum(axis=1))
    if apart.sum() < SAME_POINT * len(photos.unit):
        return {"fisher": "all photos of each identity have the same embedding"}
    within, between = _per_subject(photos, apart), _per_subject(photos, (means * totals).sum(axis=1))
    identities, sizes = _per_subject(photos, np.ones(len(means))), _per_subject(photos, photos.sizes.astype(np.float64))
    vectors = np.zeros((len(photos.names), totals.shape[1]))
    np.add.at(vectors, photos.owner, totals)

    def fisher(weights: Float[np.ndarray, "resample subject"]) -> Float[np.ndarray, " resample"]:
        of_mean = ((weights @ vectors) ** 2).sum(axis=1) / (weights @ sizes)
        freedom = weights @ identities - weights.mean(axis=1)
        spread: Float[np.ndarray, " resample"] = (weights @ within) / (weights @ (sizes - identities))
        ratio: Float[np.ndarray, " resample"] = (weights @ between - of_mean) / freedom / spread
        return ratio

    return {"fisher": fisher}


def _pairs(photos: GroupedPhotos, distances: PhotoDistances) -> dict[str, Statistic | str]:
    pairs = _per_subject(photos, photos.sizes * (photos.sizes - 1.0))
    squares = np.bincount(photos.subject, weights=distances.squared, minlength=len(photos.names))
    if len(photos.unit) < 2:
        return {"alignment": _ALL_ALONE, "uniformity": "one photo: there are no pairs"}
    return {
        "alignment": _mean(squares, pairs) if pairs.any() else _ALL_ALONE,
        "uniformity": _uniformity(photos, distances),
    }


def _uniformity(photos: GroupedPhotos, distances: PhotoDistances) -> Statistic:
    sizes = np.bincount(photos.subject).astype(np.float64)
    owned = np.eye(len(photos.names))[photos.owner]
    kernel, pairs = owned.T @ distances.kernel @ owned, np.outer(sizes, sizes) - np.diag(sizes)
    own_kernel, own_pairs = np.diag(kernel).copy(), np.diag(pairs).copy()
    share = own_pairs.sum() / pairs.sum()
    np.fill_diagonal(kernel, 0)
    np.fill_diagonal(pairs, 0)

    def uniformity(weights: Float[np.ndarray, "resample subject"]) -> Float[np.ndarray, " resample"]:
        mean = np.zeros(len(weights))
        if share > 0:
            mean += share * _mean(own_kernel, own_pairs)(weights)
        if share < 1:
            mean += (1 - share) * ((weights @ kernel) * weights).sum(axis=1) / ((weights @ pairs) * weights).sum(axis=1)
        logarithm: Float[np.ndarray, " resample"] = np.log(mean)
        return logarithm

    return uniformity


def _per_subject(photos: GroupedPhotos, values: Float[np.ndarray, " identity"]) -> Float[np.ndarray, " subject"]:
    return np.bincount(photos.owner, weights=values, minlength=len(photos.names))


def _number(
    statistic: Statistic | Sequence[Statistic] | str, subjects: int, *, resamples: int, seed: int
) -> SeparationNumber:
    if isinstance(statistic, str):
        return SeparationNumber(None, None, None, statistic)
    if subjects < 2:
        statistics = [statistic] if callable(statistic) else statistic
        value = float(np.mean([one(np.ones((1, subjects)))[0] for one in statistics]))
        return SeparationNumber(value, None, None, "one subject: there are none to resample")
    interval = interval_of(statistic, subjects, resamples=resamples, seed=seed)
    return SeparationNumber(interval.value, interval.low, interval.high)


def _rounded(values: Float[np.ndarray, " subject"]) -> list[float | int | None]:
    return [None if np.isnan(v) else int(v) if v == int(v) else round(float(v), 6) for v in values]


def _read_sums(stored: Mapping[str, Any]) -> dict[str, Float[np.ndarray, " subject"]]:
    return {name: np.array(values, np.float64) for name, values in stored.items() if name != "name"}
