"""Rankings made anew, always beside the plain one: what re-ranking and query expansion gain or cost a run.

* Each draw is ranked by itself: its own queries and gallery, as a search would have them.
* The gain is paired, query by query, with the plain ranking of the same embeddings; its interval is over subjects.
"""

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from handreid.build import build_ranker
from handreid.data.splits import Split
from handreid.metrics.intervals import differences, verdict
from handreid.metrics.query_scores import QueryScores, score, scores_of_ranks, summarise
from handreid.recipe import Evaluate, Rerank


def rerank_draws(
    chosen: Evaluate,
    embeddings: Float[np.ndarray, "photos dim"],
    rows: Int[np.ndarray, " photos"],
    plain: QueryScores,
    views: np.ndarray,
    split: Split,
) -> list[dict[str, Any]]:
    """An entry of evaluation.json's `reranked` for each way of the recipe. `views` has the view of every query."""
    return [_entry(way, chosen.resamples, embeddings, rows, plain, views, split) for way in chosen.rerank]


def read_reranked(evaluation: Mapping[str, Any], number: int) -> QueryScores:
    """Scores per query of one entry of `reranked`, from its ranks; rows are positions in `photos`."""
    draws, entry = evaluation["draws"], evaluation["reranked"][number]
    return scores_of_ranks(
        np.concatenate([np.array(draw["query"], np.int64) for draw in draws]),
        np.repeat(np.arange(len(draws)), [len(draw["query"]) for draw in draws]),
        [ranks for draw in entry["ranks"] for ranks in draw],
        [rank for draw in entry["identity_ranks"] for rank in draw] if "identity_ranks" in entry else None,
    )


def remark(evaluation: Mapping[str, Any]) -> str:
    """What has to be known of these galleries before re-ranking is believed; nothing where nothing has."""
    most = max((len(ranks) for draw in evaluation["draws"] for ranks in draw["ranks"]), default=0)
    if not evaluation.get("reranked") or most > 1:
        return ""
    return (
        "no query has more than one right answer in its gallery; re-ranking and expansion rely on several, "
        "so they can reduce accuracy here"
    )


def file_part(ways: Sequence[Rerank]) -> str:
    """The ways, as part of a file's name."""
    return "-and-".join(re.sub(r"[^A-Za-z0-9.]+", "-", way.words) for way in ways) or "plain"


def _entry(
    way: Rerank,
    resamples: int,
    embeddings: Float[np.ndarray, "photos dim"],
    rows: Int[np.ndarray, " photos"],
    plain: QueryScores,
    views: np.ndarray,
    split: Split,
) -> dict[str, Any]:
    start = time.perf_counter()
    scores = score(embeddings, rows, split.test, split.identities, build_ranker(way), cameras=split.cameras)
    seconds = time.perf_counter() - start
    people = np.unique([split.subjects[row] for row in scores.rows], return_inverse=True)[1]
    gains = differences(scores.metrics, plain.metrics, people, scores.draws, resamples=resamples)
    summary = {"resamples": resamples, "seed": 0}
    return {
        "name": way.words,
        "how": way.model_dump(mode="json"),
        "metrics": summarise(scores, np.ones(len(views), bool), split.subjects, **summary)["metrics"],
        "against": {
            k: {"value": d.value, "low": d.low, "high": d.high, "verdict": verdict(d)} for k, d in gains.items()
        },
        "aspects": {
            str(view): summarise(scores, views == view, split.subjects, **summary)["metrics"]
            for view in np.unique(views[scores.answerable])
        },
        "seconds": round(seconds, 3),
        "ranks": [
            [list(ranks) for ranks, of in zip(scores.ranks, scores.draws, strict=True) if of == draw]
            for draw in np.unique(scores.draws)
        ],
        **(
            {}
            if scores.identity_ranks is None
            else {
                "identity_ranks": [
                    scores.identity_ranks[scores.draws == draw].tolist() for draw in np.unique(scores.draws)
                ]
            }
        ),
    }
