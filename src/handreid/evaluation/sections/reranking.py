"""Rankings made anew, always beside the plain one: what re-ranking and query expansion gain or cost a run.

* Each draw is ranked by itself: its own queries and gallery, as a search would have them.
* The gain is paired, query by query, with the plain ranking of the same embeddings; its interval is over subjects.
"""

import re
import time
from collections.abc import Sequence

import numpy as np

from handreid.build import build_ranker
from handreid.evaluation.differences import differences_of
from handreid.evaluation.sections.context import EvaluationContext
from handreid.metrics.intervals import differences
from handreid.metrics.query_scores import QueryScores, score, scores_of_ranks
from handreid.recipe import Rerank
from handreid.runs.results import Evaluation, Reranked


class RerankingSection:
    name = "reranked"

    def __call__(self, context: EvaluationContext) -> list[Reranked] | None:
        """An entry for each way of the recipe."""
        return [_entry(way, context) for way in context.recipe.evaluate.rerank] or None


def read_reranked(evaluation: Evaluation, number: int) -> QueryScores:
    """Scores per query of one entry of `reranked`, from its ranks; rows are positions in `photos`."""
    draws, entry = evaluation.draws, (evaluation.reranked or [])[number]
    first = entry.identity_ranks
    return scores_of_ranks(
        np.concatenate([np.array(draw.query, np.int64) for draw in draws]),
        np.repeat(np.arange(len(draws)), [len(draw.query) for draw in draws]),
        [ranks for draw in entry.ranks or () for ranks in draw],
        None if first is None else [rank for draw in first for rank in draw],
    )


def rerank_caveat(evaluation: Evaluation) -> str:
    """What has to be known of these galleries before re-ranking is believed; nothing where nothing has."""
    most = max((len(ranks) for draw in evaluation.draws for ranks in draw.ranks), default=0)
    if not evaluation.reranked or most > 1:
        return ""
    return (
        "no query has more than one right answer in its gallery; re-ranking and expansion rely on several, "
        "so they can reduce accuracy here"
    )


def filename_suffix(ways: Sequence[Rerank]) -> str:
    """The ways, as part of a file's name."""
    return "-and-".join(re.sub(r"[^A-Za-z0-9.]+", "-", way.words) for way in ways) or "plain"


def _entry(way: Rerank, context: EvaluationContext) -> Reranked:
    split, plain, resamples = context.split, context.scores, context.recipe.evaluate.resamples
    start = time.perf_counter()
    ranker = build_ranker(way)
    scores = score(context.embeddings, context.rows, split.test, split.identities, ranker, cameras=split.cameras)
    seconds = time.perf_counter() - start
    people = np.unique([split.subjects[row] for row in scores.rows], return_inverse=True)[1]
    gains = differences(scores.metrics, plain.metrics, people, scores.draws, resamples=resamples)
    views, numbers, first = context.query_views, np.unique(scores.draws), scores.identity_ranks
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
        identity_ranks=None if first is None else [first[scores.draws == number].tolist() for number in numbers],
    )
