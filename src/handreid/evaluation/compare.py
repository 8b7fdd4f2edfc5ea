"""Two evaluations on the same draws: paired differences, with intervals over subjects."""

from dataclasses import dataclass

import numpy as np

from handreid.errors import RunError
from handreid.evaluation.convert import differences_of, separation_differences
from handreid.metrics.intervals import differences
from handreid.metrics.query_scores import QueryScores, scores_of_ranks
from handreid.runs.results import Difference, Evaluation


@dataclass(frozen=True)
class Rung:
    """One evaluation of a ladder. `below` is its difference to the rung below, by metric."""

    name: str
    evaluation: Evaluation
    below: dict[str, Difference] | None


def compare(system: Evaluation, reference: Evaluation, *, resamples: int = 10_000) -> dict[str, Difference]:
    """Paired difference of two evaluations on the same draws, over subjects, by metric; those of the separation
    included where both are of the same photos. Raises RunError when the draws differ.
    """
    if system.hashes.draws != reference.hashes.draws:
        raise RunError(
            f"{system.recipe} and {reference.recipe} were evaluated on different draws "
            f"({system.hashes.draws[:8]} and {reference.hashes.draws[:8]}), so they cannot be compared"
        )
    scores, reference_scores = read_scores(system), read_scores(reference)
    people = np.unique([system.subjects[row] for row in scores.rows], return_inverse=True)[1]
    # not all metrics of both: ranks over identities are not always stored
    names = [name for name in scores.metrics if name in reference_scores.metrics]
    measured = [{name: side.metrics[name] for name in names} for side in (scores, reference_scores)]
    by_metric = differences_of(differences(measured[0], measured[1], people, scores.draws, resamples=resamples))
    return by_metric | separation_differences(system.separation, reference.separation, resamples)


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
