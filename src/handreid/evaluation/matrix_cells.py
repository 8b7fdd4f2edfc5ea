"""Metrics of the cells of a matrix: of each cell, pooled by kind, and as difference to the matched condition.

Every cell is scored like an evaluation: mean over the draws, intervals over subjects. Cells over the same people with
galleries of the same size can be compared query by query, like rungs of a ladder.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from handreid.data.cross_condition import Cell
from handreid.evaluation.convert import differences_of, summary_of
from handreid.metrics.intervals import differences
from handreid.metrics.query_scores import QueryScores, score, summarise_scores
from handreid.runs.results import CellCounts, Difference, MatrixCell, MatrixKind, Summary

COMPARED = ("rank1", "map")
_ONE_CAMERA = "all gallery photos of the query's identity are from the query's own camera"


@dataclass(frozen=True, eq=False)
class Embedded:
    """Photos by row, ascending, and the subject of each of the n rows; row n + r is the mirror image of row r.

    `cameras` of the n rows are given where gallery photos of the query's identity and camera are to be left out.
    """

    rows: Int[np.ndarray, " photos"]
    embeddings: Float[np.ndarray, "photos dim"]
    subjects: Sequence[str]
    cameras: Sequence[str | None] | None = None

    def scores(self, cell: Cell) -> QueryScores | None:
        """None for a blank cell, or if no query has a right answer."""
        if cell.blank:
            return None
        cameras = None if self.cameras is None else [*self.cameras, *self.cameras]
        scored = score(self.embeddings, self.rows, cell.draws, cell.identities, cameras=cameras)
        return scored if scored.answerable.any() else None


def score_cells(
    photos: Embedded, cells: Sequence[Cell], resamples: int
) -> tuple[list[MatrixCell], list[QueryScores | None]]:
    """The stored entry of each cell, and its scores; a blank cell has null for metrics."""
    scored = [photos.scores(cell) for cell in cells]
    return [_entry(photos, cell, scores, resamples) for cell, scores in zip(cells, scored, strict=True)], scored


def pool_by_kind(
    photos: Embedded, cells: Sequence[Cell], scored: Sequence[QueryScores | None], resamples: int
) -> list[MatrixKind]:
    """Mean over the queries of all cells of a kind; kinds in order of first appearance."""
    kinds = []
    for (kind, mirrored), members in _kinds(cells, scored).items():
        summary = _summary(photos, _pooled(list(members.values())), resamples)
        kinds.append(
            MatrixKind(kind=kind, mirrored=mirrored, cells=len(members), metrics=summary.metrics, counts=summary.counts)
        )
    return kinds


def difference_to_matched(
    photos: Embedded, cells: Sequence[Cell], scored: Sequence[QueryScores | None], resamples: int
) -> tuple[list[dict[str, Difference] | None], list[dict[str, Difference] | None]]:
    """Difference to the cell whose gallery has the queries' own condition: per cell, and per kind as `pool_by_kind`.

    None where there is nothing to compare. Valid only for cells over the same people, with galleries of one size.
    """
    base = {cell.query: scores for cell, scores in zip(cells, scored, strict=True) if cell.gallery == cell.query}
    pairs = [
        _paired(photos, scores, base[cell.query]) if cell.gallery != cell.query else None
        for cell, scores in zip(cells, scored, strict=True)
    ]
    kinds = [[pairs[number] for number in members] for members in _kinds(cells, scored).values()]
    return [_difference([pair], resamples) for pair in pairs], [_difference(members, resamples) for members in kinds]


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Queries that a cell has in common with its matched cell (`base`), with the metrics of both."""

    subjects: tuple[str, ...]
    draws: Int[np.ndarray, " pair"]
    scores: dict[str, Float[np.ndarray, " pair"]]
    base: dict[str, Float[np.ndarray, " pair"]]


def _kinds(
    cells: Sequence[Cell], scored: Sequence[QueryScores | None]
) -> dict[tuple[str, bool], dict[int, QueryScores]]:
    """The scores of the cells of each kind, by the cell's number, without blank ones."""
    groups: dict[tuple[str, bool], dict[int, QueryScores]] = {}
    for number, (cell, scores) in enumerate(zip(cells, scored, strict=True)):
        if scores is not None:
            groups.setdefault((cell.kind, cell.mirrored), {})[number] = scores
    return groups


def _entry(photos: Embedded, cell: Cell, scores: QueryScores | None, resamples: int) -> MatrixCell:
    if scores is None:
        metrics, blank = None, cell.blank or _ONE_CAMERA
        counts = CellCounts(queries=0, subjects=0, gallery=0)
    else:
        summary, blank = _summary(photos, scores, resamples), None
        metrics, gallery = summary.metrics, max(len(draw.gallery) for draw in cell.draws)
        counts = CellCounts(**summary.counts.model_dump(), gallery=gallery, draws=len(cell.draws))
    return MatrixCell(
        gallery=cell.gallery,
        query=cell.query,
        kind=cell.kind,
        mirrored=cell.mirrored,
        metrics=metrics,
        counts=counts,
        blank=blank,
    )


def _summary(photos: Embedded, scores: QueryScores, resamples: int) -> Summary:
    everyone, all_of_them = [*photos.subjects, *photos.subjects], np.ones(len(scores.rows), bool)
    return summary_of(summarise_scores(scores, all_of_them, everyone, resamples=resamples, seed=0))


def _pooled(scores: Sequence[QueryScores]) -> QueryScores:
    return QueryScores(
        np.concatenate([cell.rows for cell in scores]),
        np.concatenate([cell.draws for cell in scores]),
        {name: np.concatenate([cell.metrics[name] for cell in scores]) for name in scores[0].metrics},
        tuple(ranks for cell in scores for ranks in cell.ranks),
    )


def _paired(photos: Embedded, scores: QueryScores | None, base: QueryScores | None) -> _Pairs | None:
    """Pairs of queries with a right answer in both cells, in the same draw; mirror images pair with their photo."""
    if scores is None or base is None:
        return None
    places, base_places = (
        {
            (row % len(photos.subjects), draw): entry
            for entry, (row, draw) in enumerate(zip(side.rows, side.draws, strict=True))
            if side.ranks[entry]
        }
        for side in (scores, base)
    )
    common = [key for key in places if key in base_places]
    entries, base_entries = (np.array([side[key] for key in common], np.int64) for side in (places, base_places))
    return _Pairs(
        tuple(photos.subjects[row] for row, _ in common),
        scores.draws[entries],
        {name: scores.metrics[name][entries] for name in COMPARED},
        {name: base.metrics[name][base_entries] for name in COMPARED},
    )


def _difference(pairs: Sequence[_Pairs | None], resamples: int) -> dict[str, Difference] | None:
    comparable = [pair for pair in pairs if pair is not None and pair.subjects]
    if not comparable:
        return None
    intervals = differences(
        {name: np.concatenate([pair.scores[name] for pair in comparable]) for name in COMPARED},
        {name: np.concatenate([pair.base[name] for pair in comparable]) for name in COMPARED},
        np.unique([name for pair in comparable for name in pair.subjects], return_inverse=True)[1],
        np.concatenate([pair.draws for pair in comparable]),
        resamples=resamples,
    )
    return differences_of(intervals)
