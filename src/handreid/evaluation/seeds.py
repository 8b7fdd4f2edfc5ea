"""A rung that was trained with several seeds: means over them, with intervals over subjects and seeds.

See `metrics/intervals.py` for the bootstrap. Numbers that an evaluation gives no values by query or subject of, such as
Fisher's ratio, are means over the seeds without an interval.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from handreid.evaluation.compare import SeedScores, check_draws, compare, stack_scores
from handreid.evaluation.convert import differences_of
from handreid.metrics.intervals import differences, intervals
from handreid.metrics.separation import separation_over_seeds
from handreid.runs.results import (
    Difference,
    Evaluation,
    LadderRung,
    Metric,
    Number,
    Reranked,
    SectionResult,
    SeedResult,
    SeedRung,
    Separation,
)


@dataclass(frozen=True)
class SeedRun:
    """A run of a rung with one training seed, in a folder of the ladder's."""

    seed: int
    folder: str
    evaluation: Evaluation


def rung_over_seeds(
    name: str, runs: Sequence[SeedRun], below: Sequence[SeedRun] | None, *, resamples: int = 10_000
) -> SeedRung:
    """The rung, compared with the runs of the rung below; a single run stands for every seed of its rung.

    `resamples` are those of the means; differences have as many as those of `compare`. Raises RunError when the draws
    differ.
    """
    evaluations = [run.evaluation for run in runs]
    gains = None if below is None else compare(evaluations, [run.evaluation for run in below])
    changed = {"recipe": name, "seeds": [_seed_result(run) for run in runs]}
    means = _means(evaluations, resamples) if len(runs) > 1 else {}
    return SeedRung.model_construct(**dict(LadderRung.of(evaluations[0], gains)) | changed | means)


def _seed_result(run: SeedRun) -> SeedResult:
    metrics = {name: metric.value for name, metric in run.evaluation.metrics.items()}
    return SeedResult(seed=run.seed, run=run.folder, model=run.evaluation.hashes.model, metrics=metrics)


def _means(evaluations: Sequence[Evaluation], resamples: int) -> dict[str, object]:
    """The fields of a rung that are means over seeds, and None for those of one run."""
    check_draws(evaluations)
    scores = stack_scores(evaluations)
    return {
        "metrics": _metrics(scores, resamples),
        "reranked": _reranked(evaluations, scores, resamples),
        "sections": _sections(evaluations, resamples) or None,
        "separation": None,  # among the sections, as its sums over the photos of each subject are of one run
        "views": None,
        "prompts": None,
    }


def _metrics(scores: SeedScores, resamples: int) -> dict[str, Metric]:
    found = intervals(scores.metrics, scores.people, scores.draws, resamples=resamples)
    return {name: Metric(value=i.value, low=i.low, high=i.high) for name, i in found.items()}


def _reranked(evaluations: Sequence[Evaluation], plain: SeedScores, resamples: int) -> list[Reranked] | None:
    """Every re-ranking, each compared with the plain ranking of the same seeds."""
    return [
        way.model_copy(
            update={
                "metrics": _metrics(scores := stack_scores(evaluations, reranked=number), resamples),
                "against": _gains(scores, plain, resamples),
                "views": {},
                "seconds": round(float(np.mean([(one.reranked or [])[number].seconds for one in evaluations])), 3),
                "ranks": None,
                "identity_ranks": None,
            }
        )
        for number, way in enumerate(evaluations[0].reranked or ())
    ] or None


def _gains(scores: SeedScores, plain: SeedScores, resamples: int) -> dict[str, Difference]:
    metrics = {name: plain.metrics[name] for name in scores.metrics}
    return differences_of(differences(scores.metrics, metrics, scores.people, scores.draws, resamples=resamples))


def _sections(evaluations: Sequence[Evaluation], resamples: int) -> dict[str, SectionResult]:
    """The sections that every seed has, with their numbers only."""
    names = [name for name in evaluations[0].number_sections if all(name in one.number_sections for one in evaluations)]
    return {name: _section([one.number_sections[name] for one in evaluations], resamples) for name in names}


def _section(of_seeds: Sequence[SectionResult], resamples: int) -> SectionResult:
    numbers = {name: _mean([one.numbers.get(name) for one in of_seeds]) for name in of_seeds[0].numbers}
    caption = of_seeds[0].caption
    separations = [one for one in of_seeds if isinstance(one, Separation)]
    if len(separations) == len(of_seeds) and _same_photos([one.subjects for one in separations]):
        found = separation_over_seeds([one.subjects for one in separations], resamples=resamples)
        numbers |= {name: Number(**vars(number)) for name, number in found.items()}
        caption = separations[0].caption_of("subjects and seeds, of the numbers that have one")
    return SectionResult(numbers=numbers, about=caption or None)


def _mean(numbers: Sequence[Number | None]) -> Number:
    values = [number.value for number in numbers if number is not None and number.value is not None]
    if len(values) < len(numbers):
        why = next((number.why for number in numbers if number is not None and number.why), None)
        return Number(value=None, low=None, high=None, why=why or "a seed has no value")
    return Number(value=float(np.mean(values)), low=None, high=None, why="the interval over seeds is not known")


def _same_photos(per_subject: Sequence[Mapping[str, object]]) -> bool:
    return all(sums[key] == per_subject[0][key] for sums in per_subject for key in ("name", "photos"))
