"""Two evaluations on the same draws: paired differences, with intervals over subjects."""

from dataclasses import dataclass

import numpy as np

from handreid.errors import RunError
from handreid.evaluation.differences import differences_of
from handreid.metrics.intervals import differences
from handreid.metrics.query_scores import QueryScores, scores_of_ranks
from handreid.metrics.separation import compare_separation
from handreid.runs.results import Difference, Evaluation


@dataclass(frozen=True)
class Rung:
    """`below` is the difference to the rung below, by metric."""

    name: str
    evaluation: Evaluation
    below: dict[str, Difference] | None


def compare(ours: Evaluation, theirs: Evaluation, *, resamples: int = 10_000) -> dict[str, Difference]:
    """Paired difference of two evaluations on the same draws, over subjects, by metric; those of the space among them
    where both are of the same photos. Raises RunError when the draws differ.
    """
    if ours.hashes.draws != theirs.hashes.draws:
        raise RunError(
            f"{ours.recipe} and {theirs.recipe} were evaluated on different draws "
            f"({ours.hashes.draws[:8]} and {theirs.hashes.draws[:8]}), so they cannot be compared"
        )
    mine, other = read_scores(ours), read_scores(theirs)
    people = np.unique([ours.subjects[row] for row in mine.rows], return_inverse=True)[1]
    both = [name for name in mine.metrics if name in other.metrics]  # ranks of identities are not always known
    measured = [{name: of.metrics[name] for name in both} for of in (mine, other)]
    found = differences_of(differences(measured[0], measured[1], people, mine.draws, resamples=resamples))
    return found | _space_differences(ours, theirs, resamples)


def _space_differences(ours: Evaluation, theirs: Evaluation, resamples: int) -> dict[str, Difference]:
    """None where the spaces are of different photos."""
    mine, other = ours.separation, theirs.separation
    if mine is None or other is None or any(mine.subjects[key] != other.subjects[key] for key in ("name", "photos")):
        return {}
    found = compare_separation(mine.model_dump(), other.model_dump(), resamples=resamples)
    return {name: Difference.model_validate(one) for name, one in found.items()}


def read_scores(evaluation: Evaluation) -> QueryScores:
    """Scores per query from evaluation.json; rows are positions in its `photos`.

    Without the metrics of identities where their ranks were not written.
    """
    draws = evaluation.draws
    first = [draw.identity_ranks for draw in draws if draw.identity_ranks is not None]
    return scores_of_ranks(
        np.concatenate([np.array(draw.query, np.int64) for draw in draws]),
        np.repeat(np.arange(len(draws)), [len(draw.query) for draw in draws]),
        [ranks for draw in draws for ranks in draw.ranks],
        [rank for ranks in first for rank in ranks] if len(first) == len(draws) else None,
    )
