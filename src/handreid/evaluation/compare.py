"""Two evaluations on the same draws: paired differences, with intervals over subjects; or two recipes, each evaluated
for several training seeds, with intervals over subjects and seeds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from handreid.errors import RunError
from handreid.evaluation.convert import differences_of, separation_differences
from handreid.evaluation.sections.reranking import read_reranked
from handreid.metrics.intervals import differences
from handreid.metrics.query_scores import QueryScores, scores_of_ranks
from handreid.runs.results import Difference, Evaluation, SeedRung


@dataclass(frozen=True)
class Rung:
    """A rung of a ladder: its evaluation, or the numbers of its training seeds. `below` is its difference to the rung
    below, by metric.
    """

    name: str
    evaluation: Evaluation | SeedRung
    below: dict[str, Difference] | None


@dataclass(frozen=True, eq=False)
class SeedScores:
    """Scores of the same queries by one run for each training seed, for `metrics.intervals`."""

    metrics: dict[str, Float[np.ndarray, "seed query"]]
    people: Int[np.ndarray, " query"]
    draws: Int[np.ndarray, " query"]


def compare(
    system: Evaluation | Sequence[Evaluation],
    reference: Evaluation | Sequence[Evaluation],
    *,
    resamples: int = 10_000,
) -> dict[str, Difference]:
    """Paired difference of two evaluations on the same draws, over subjects, by metric; those of the separation
    included where both are of the same photos. Raises RunError when the draws differ.

    Several evaluations are those of a recipe's training seeds: they are paired in their order, and one, of a model
    that no seed changes, is compared with all of the other.
    """
    systems, references = ([side] if isinstance(side, Evaluation) else list(side) for side in (system, reference))
    check_draws([*references, *systems])
    scores, reference_scores = stack_scores(systems), stack_scores(references)
    # not all metrics of both: ranks over identities are not always stored
    names = [name for name in scores.metrics if name in reference_scores.metrics]
    measured = [{name: side.metrics[name] for name in names} for side in (scores, reference_scores)]
    gains = differences(measured[0], measured[1], scores.people, scores.draws, resamples=resamples)
    separations = [[evaluation.separation for evaluation in side] for side in (systems, references)]
    return differences_of(gains) | separation_differences(separations[0], separations[1], resamples)


def check_draws(evaluations: Sequence[Evaluation]) -> None:
    """Raises RunError if one was evaluated on other draws than the first."""
    first = evaluations[0]
    for other in evaluations:
        if other.hashes.draws != first.hashes.draws:
            raise RunError(
                f"{other.recipe} and {first.recipe} were evaluated on different draws "
                f"({other.hashes.draws[:8]} and {first.hashes.draws[:8]}), so they cannot be compared"
            )


def stack_scores(evaluations: Sequence[Evaluation], *, reranked: int | None = None) -> SeedScores:
    """The metrics that all have; of the plain ranking, or of the re-ranking of that number."""
    scores = [read_scores(one) if reranked is None else read_reranked(one, reranked) for one in evaluations]
    first, subjects = scores[0], evaluations[0].subjects
    names = [name for name in first.metrics if all(name in one.metrics for one in scores)]
    return SeedScores(
        {name: np.stack([one.metrics[name] for one in scores]) for name in names},
        np.unique([subjects[row] for row in first.rows], return_inverse=True)[1],
        first.draws,
    )


def read_scores(evaluation: Evaluation) -> QueryScores:
    """Scores per query from evaluation.json; rows are positions in its `photos`.

    Without the metrics over identities where their ranks were not stored.
    """
    draws = evaluation.draws
    identity_ranks = [draw.identity_ranks for draw in draws if draw.identity_ranks is not None]
    return scores_of_ranks(
        np.concatenate([np.array(draw.query, np.int64) for draw in draws]),
        np.repeat(np.arange(len(draws)), [len(draw.query) for draw in draws]),
        [ranks for draw in draws for ranks in draw.ranks],
        [rank for ranks in identity_ranks for rank in ranks] if len(identity_ranks) == len(draws) else None,
    )
