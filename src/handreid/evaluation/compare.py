"""Two evaluations on the same draws: paired differences, with intervals over subjects."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from handreid.errors import RunError
from handreid.metrics.intervals import differences, verdict
from handreid.metrics.query_scores import QueryScores, scores_of_ranks
from handreid.metrics.separation import compare_spaces


@dataclass(frozen=True)
class Rung:
    name: str
    evaluation: dict[str, Any]
    # per metric: difference to the rung below, its interval, verdict; `space` holds those of the space
    below: dict[str, Any] | None


def compare(ours: Mapping[str, Any], theirs: Mapping[str, Any], *, resamples: int = 10_000) -> dict[str, Any]:
    """Paired difference of two evaluations on the same draws, over subjects. Raises RunError when they are not."""
    if ours["hashes"]["draws"] != theirs["hashes"]["draws"]:
        raise RunError(
            f"{ours['recipe']} and {theirs['recipe']} were evaluated on different draws "
            f"({ours['hashes']['draws'][:8]} and {theirs['hashes']['draws'][:8]}), so they cannot be compared"
        )
    mine, other = read_scores(ours), read_scores(theirs)
    people = np.unique([ours["subjects"][row] for row in mine.rows], return_inverse=True)[1]
    both = [name for name in mine.metrics if name in other.metrics]  # an older evaluation has fewer
    measured = [{name: of.metrics[name] for name in both} for of in (mine, other)]
    found = differences(measured[0], measured[1], people, mine.draws, resamples=resamples)
    differing = {k: {"value": d.value, "low": d.low, "high": d.high, "verdict": verdict(d)} for k, d in found.items()}
    if not _same_photos(ours, theirs):
        return differing
    return {**differing, "space": compare_spaces(ours["space"], theirs["space"], resamples=resamples)}


def _same_photos(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """Whether both spaces are of the same photos; evaluations of older versions have none, or counted copies."""
    spaces = [of["space"]["subjects"] for of in (ours, theirs) if "space" in of]
    return len(spaces) == 2 and all(spaces[0][key] == spaces[1][key] for key in ("name", "photos"))


def read_scores(evaluation: Mapping[str, Any]) -> QueryScores:
    """Scores per query from evaluation.json; rows are positions in its `photos`.

    Without the metrics of identities where an older version wrote it.
    """
    draws = evaluation["draws"]
    known = all("identity_ranks" in draw for draw in draws)
    return scores_of_ranks(
        np.concatenate([np.array(draw["query"], np.int64) for draw in draws]),
        np.repeat(np.arange(len(draws)), [len(draw["query"]) for draw in draws]),
        [ranks for draw in draws for ranks in draw["ranks"]],
        [rank for draw in draws for rank in draw["identity_ranks"]] if known else None,
    )
