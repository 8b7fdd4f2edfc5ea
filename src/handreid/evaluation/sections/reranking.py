"""Re-ranking and query expansion, always compared with the plain ranking.

* Each draw is re-ranked separately, with its own queries and gallery, as in a real search.
* The gain is paired, query by query, with the plain ranking of the same embeddings; its interval is over subjects.
"""

import re
import time
from collections.abc import Sequence

import numpy as np

from handreid.build import build_ranker
from handreid.evaluation.convert import differences_of
from handreid.evaluation.sections.context import EvaluationContext
from handreid.metrics.intervals import differences
from handreid.metrics.query_scores import QueryScores, score, scores_of_ranks
from handreid.recipe import Rerank
from handreid.runs.results import Evaluation, Reranked


class RerankingSection:
    name = "reranked"

    def __call__(self, context: EvaluationContext) -> list[Reranked] | None:
        """An entry for each method of the recipe's `evaluate.rerank`."""
        return [_entry(way, context) for way in context.recipe.evaluate.rerank] or None


def read_reranked(evaluation: Evaluation, number: int) -> QueryScores:
    """Scores per query of entry `number` of `reranked`, from its ranks; rows are positions in `photos`."""
    draws, entry = evaluation.draws, (evaluation.reranked or [])[number]
    identity_ranks = entry.identity_ranks
    return scores_of_ranks(
        np.concatenate([np.array(draw.query, np.int64) for draw in draws]),
        np.repeat(np.arange(len(draws)), [len(draw.query) for draw in draws]),
        [ranks for draw in entry.ranks or () for ranks in draw],
        None if identity_ranks is None else [rank for draw in identity_ranks for rank in draw],
    )


def rerank_caveat(evaluation: Evaluation) -> str:
    """A warning where each query has at most one right answer, so re-ranking cannot be expected to help; else empty."""
    most_answers = max((len(ranks) for draw in evaluation.draws for ranks in draw.ranks), default=0)
    if not evaluation.reranked or most_answers > 1:
        return ""
    return (
        "no query has more than one right answer in its gallery; re-ranking and expansion rely on several, "
        "so they can reduce accuracy here"
    )


def filename_suffix(ways: Sequence[Rerank]) -> str:
    """The methods, as part of a file name."""
    return "-and-".join(re.sub(r"[^A-Za-z0-9.]+", "-", way.words) for way in ways) or "plain"


def _entry(way: Rerank, context: EvaluationContext) -> Reranked:
    split, plain, resamples = context.split, context.scores, context.recipe.evaluate.resamples
    start = time.perf_counter()
    ranker = build_ranker(way)
    scores = score(context.embeddings, context.rows, split.test, split.identities, ranker, cameras=split.cameras)
    seconds = time.perf_counter() - start
    people = np.unique([split.subjects[row] for row in scores.rows], return_inverse=True)[1]
    gains = differences(scores.metrics, plain.metrics, people, scores.draws, resamples=resamples)
    views, numbers, identity_ranks = context.query_views, np.unique(scores.draws), scores.identity_ranks
    return Reranked(
        name=way.words,
        how=way.model_dump(mode="json"),
        metrics=context.summary(context.everything, scores).metrics,
        against=differences_of(gains),
        views={
            str(view): context.summary(views == view, scores).metrics for view in np.unique(views[scores.answerable])
        },
        seconds=round(seconds, 3),
        ranks=[
            [list(ranks) for ranks, draw in zip(scores.ranks, scores.draws, strict=True) if draw == number]
            for number in numbers
        ],
        identity_ranks=None
        if identity_ranks is None
        else [identity_ranks[scores.draws == number].tolist() for number in numbers],
    )
