"""From embeddings and gallery draws to scores of every query, and to means with intervals over subjects.

The mean over the draws is what the hand papers report. A photo that is in the gallery of one draw is a query in the
others; all queries of a subject, in all draws, are resampled together.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from handreid.draw import Draw
from handreid.errors import DataError
from handreid.metrics.intervals import Interval, intervals
from handreid.metrics.ranking import Ranking, rank_matches
from handreid.metrics.ranking_metrics import metrics

# (query features, gallery features, query labels, gallery labels, *, query_cameras, gallery_cameras)
Ranker = Callable[..., Ranking]


@dataclass(frozen=True, eq=False)
class QueryScores:
    """One entry per query and draw. Metrics are in [0, 1], NaN for a query without a right answer in the gallery."""

    rows: Int[np.ndarray, " entry"]  # of the manifest
    draws: Int[np.ndarray, " entry"]
    metrics: dict[str, Float[np.ndarray, " entry"]]
    ranks: tuple[tuple[int, ...], ...]  # of all right answers, best first, from 1
    identity_ranks: Int[np.ndarray, " entry"] | None = None  # see `Ranking`; None where they were not stored

    @property
    def answerable(self) -> Bool[np.ndarray, " entry"]:
        """True for queries with a right answer in their gallery."""
        return np.array([len(ranks) > 0 for ranks in self.ranks], np.bool_)

    def means(self) -> dict[str, float]:
        """Mean over the draws of the mean over each draw's answerable queries; draws without any are left out."""
        numbers = np.unique(self.draws[self.answerable])
        return {
            name: float(np.mean([np.nanmean(values[self.draws == number]) for number in numbers]))
            for name, values in self.metrics.items()
        }


@dataclass(frozen=True)
class ScoreSummary:
    """Metrics of some queries with 95 % intervals over subjects. `queries` of a draw; of each, where draws differ.

    `unanswerable` are the queries of all draws without a right answer.
    """

    metrics: dict[str, Interval]
    queries: int | list[int]
    subjects: int
    unanswerable: int


def score(
    embeddings: Float[np.ndarray, "photos dim"],
    rows: Int[np.ndarray, " photos"],
    draws: Sequence[Draw],
    identities: Sequence[str],
    rank: Ranker = rank_matches,
    *,
    cameras: Sequence[str | None] | None = None,
) -> QueryScores:
    """Scores of every query of every draw, each draw ranked by itself.

    `rows` are the manifest rows of the embeddings, ascending; `identities` holds the label of every row of the
    manifest. Labels are names that gallery and query share, not numbers per folder. With `cameras`, also of every row,
    gallery photos of the query's identity and camera are left out. Raises DataError when a draw needs a photo that has
    no embedding.
    """
    labels, taken_by = _numbered(identities), None if cameras is None else _numbered(cameras)

    def ranked(draw: Draw) -> Ranking:
        features = embeddings[_positions(rows, draw.query)], embeddings[_positions(rows, draw.gallery)]
        cameras_of_draw = (
            {}
            if taken_by is None
            else {"query_cameras": taken_by[draw.query], "gallery_cameras": taken_by[draw.gallery]}
        )
        return rank(*features, labels[draw.query], labels[draw.gallery], **cameras_of_draw)

    rankings = [ranked(draw) for draw in draws]
    measured = [metrics(ranking) for ranking in rankings]
    identity_ranks = [ranking.identity_ranks for ranking in rankings if ranking.identity_ranks is not None]
    return QueryScores(
        np.concatenate([draw.query for draw in draws]),
        np.repeat(np.arange(len(draws)), [len(draw.query) for draw in draws]),
        {name: np.concatenate([values[name] for values in measured]) for name in measured[0]},
        tuple(ranks for ranking in rankings for ranks in _per_query(ranking)),
        np.concatenate(identity_ranks) if len(identity_ranks) == len(rankings) else None,
    )


def scores_of_ranks(
    rows: Int[np.ndarray, " entry"],
    draws: Int[np.ndarray, " entry"],
    ranks: Sequence[Sequence[int]],
    identity_ranks: Sequence[int] | None = None,
) -> QueryScores:
    """Scores from stored ranks; without `identity_ranks`, the metrics over identities are left out."""
    flat = np.array([rank for query_ranks in ranks for rank in query_ranks], np.int64)
    offsets = np.cumsum([0, *(len(query_ranks) for query_ranks in ranks)])
    ranks_of_identities = None if identity_ranks is None else np.array(identity_ranks, np.int64)
    return QueryScores(
        rows,
        draws,
        metrics(Ranking(flat, offsets, ranks_of_identities)),
        tuple(tuple(query_ranks) for query_ranks in ranks),
        ranks_of_identities,
    )


def summarise_scores(
    scores: QueryScores, selected: Bool[np.ndarray, " entry"], subjects: Sequence[str], *, resamples: int, seed: int
) -> ScoreSummary:
    """Of the selected entries. `subjects` by manifest row. Raises DataError where none has a right answer."""
    people, owner = np.unique([subjects[row] for row in scores.rows[selected]], return_inverse=True)
    estimates = intervals(
        {name: values[selected] for name, values in scores.metrics.items()},
        owner,
        scores.draws[selected],
        resamples=resamples,
        seed=seed,
    )
    unanswerable = int(np.isnan(next(iter(scores.metrics.values()))[selected]).sum())
    per_draw = np.unique(scores.draws[selected], return_counts=True)[1]
    queries = int(per_draw.min()) if per_draw.min() == per_draw.max() else per_draw.tolist()
    return ScoreSummary(estimates, queries, len(people), unanswerable)


def _numbered(names: Sequence[str | None]) -> Int[np.ndarray, " row"]:
    """A number for each name, equal for equal names, in order of first appearance."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], np.int64)


def _positions(rows: Int[np.ndarray, " photos"], photos: Int[np.ndarray, " wanted"]) -> Int[np.ndarray, " wanted"]:
    positions = np.minimum(np.searchsorted(rows, photos), len(rows) - 1)
    if not np.array_equal(rows[positions], photos):
        raise DataError("a draw contains a photo that was not embedded: embed the photos of all draws")
    return positions


def _per_query(ranking: Ranking) -> list[tuple[int, ...]]:
    return [tuple(part.tolist()) for part in np.split(ranking.ranks, ranking.offsets[1:-1])]
