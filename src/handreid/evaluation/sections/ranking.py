"""Metrics and counts over all queries, and the ranks of each query."""

import numpy as np
from jaxtyping import Int

from handreid.evaluation.sections.context import EvaluationContext
from handreid.metrics.query_scores import QueryScores
from handreid.runs.results import DrawResult, EvaluationCounts, Ranking


class RankingSection:
    name = "ranking"

    def __call__(self, context: EvaluationContext) -> Ranking:
        split, summary = context.split, context.summary(context.everything)
        used = np.unique(context.scores.rows)
        return Ranking(
            metrics=summary.metrics,
            counts=EvaluationCounts(
                queries=summary.counts.queries,
                subjects=summary.counts.subjects,
                unanswerable=summary.counts.unanswerable,
                gallery=len(split.test[0].gallery),
                identities=len({split.identities[row] for draw in split.test for row in draw.query}),
                draws=len(split.test),
                dim=context.embedder.dim,
            ),
            photos=[split.paths[row] for row in used],
            subjects=[split.subjects[row] for row in used],
            draws=_draws(context.scores, used),
        )


def _draws(scores: QueryScores, used: Int[np.ndarray, " photo"]) -> list[DrawResult]:
    """For every query, by draw: its position in `used`, the ranks of its right answers, and that of its identity."""
    identity_ranks = scores.identity_ranks
    return [
        DrawResult(
            query=np.searchsorted(used, scores.rows[scores.draws == number]).tolist(),
            ranks=[list(ranks) for ranks, draw in zip(scores.ranks, scores.draws, strict=True) if draw == number],
            identity_ranks=None if identity_ranks is None else identity_ranks[scores.draws == number].tolist(),
        )
        for number in np.unique(scores.draws)
    ]
