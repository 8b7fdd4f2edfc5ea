"""The cells of a matrix as numbers: each by itself, pooled by kind, and against the cell of equal conditions.

Every cell is scored as any evaluation is (`protocol`): the mean over the draws, intervals over subjects. Cells over the
same people, with galleries of the same size, can be compared: query by query, as rungs of a ladder are.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from handreid.data.cross_condition import Cell
from handreid.evaluation.differences import differences_of
from handreid.metrics.intervals import differences
from handreid.metrics.query_scores import QueryScores, score, summarise_scores
from handreid.runs.results import CellCounts, Difference, MatrixCell, MatrixKind, Summary

COMPARED = ("rank1", "map")
_ONE_CAMERA = "all gallery photos of the query's identity are from the query's own camera"


@dataclass(frozen=True, eq=False)
class Embedded:
    """Photos by row, ascending, and the subject of each of the n rows; row n + r is the mirror image of row r.

    `cameras` are those of the n rows, where photos of a query's identity and camera are left out of its ranking.
    """

    rows: Int[np.ndarray, " photos"]
    embeddings: Float[np.ndarray, "photos dim"]
    subjects: Sequence[str]
    cameras: Sequence[str | None] | None = None

    def scores(self, cell: Cell) -> QueryScores | None:
        """None for a blank cell, and where no query has a right answer."""
        if cell.blank:
            return None
        cameras = None if self.cameras is None else [*self.cameras, *self.cameras]
        found = score(self.embeddings, self.rows, cell.draws, cell.identities, cameras=cameras)
        return found if found.answerable.any() else None


def score_cells(
    photos: Embedded, cells: Sequence[Cell], resamples: int
) -> tuple[list[MatrixCell], list[QueryScores | None]]:
    """What is written of each cell, and the scores behind it; a blank cell has null for metrics."""
    scored = [photos.scores(cell) for cell in cells]
    return [_entry(photos, cell, of, resamples) for cell, of in zip(cells, scored, strict=True)], scored


def pool_by_kind(
    photos: Embedded, cells: Sequence[Cell], scored: Sequence[QueryScores | None], resamples: int
) -> list[MatrixKind]:
    """All cells of a kind as one, the mean over their queries; kinds in the order in which they come first."""
    kinds = []
    for (kind, mirrored), of in _kinds(cells, scored).items():
        found = _summary(photos, _pooled(list(of.values())), resamples)
        kinds.append(
            MatrixKind(kind=kind, mirrored=mirrored, cells=len(of), metrics=found.metrics, counts=found.counts)
        )
    return kinds


def difference_to_matched(
    photos: Embedded, cells: Sequence[Cell], scored: Sequence[QueryScores | None], resamples: int
) -> tuple[list[dict[str, Difference] | None], list[dict[str, Difference] | None]]:
    """What queries lose to the cell whose gallery is of their own condition: per cell, and per kind as `pool_by_kind`.

    None where there is nothing to compare. Only of use for cells over the same people: galleries must be of one size.
    """
    base = {cell.query: of for cell, of in zip(cells, scored, strict=True) if cell.gallery == cell.query}
    pairs = [
        _paired(photos, of, base[cell.query]) if cell.gallery != cell.query else None
        for cell, of in zip(cells, scored, strict=True)
    ]
    kinds = [[pairs[number] for number in of] for of in _kinds(cells, scored).values()]
    return [_difference([of], resamples) for of in pairs], [_difference(of, resamples) for of in kinds]


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Queries that two cells have in common, with the metrics of both."""

    subjects: tuple[str, ...]
    draws: Int[np.ndarray, " pair"]
    ours: dict[str, Float[np.ndarray, " pair"]]
    theirs: dict[str, Float[np.ndarray, " pair"]]


def _kinds(
    cells: Sequence[Cell], scored: Sequence[QueryScores | None]
) -> dict[tuple[str, bool], dict[int, QueryScores]]:
    """The cells of each kind that are not blank, by their number."""
    groups: dict[tuple[str, bool], dict[int, QueryScores]] = {}
    for number, (cell, of) in enumerate(zip(cells, scored, strict=True)):
        if of is not None:
            groups.setdefault((cell.kind, cell.mirrored), {})[number] = of
    return groups


def _entry(photos: Embedded, cell: Cell, scores: QueryScores | None, resamples: int) -> MatrixCell:
    if scores is None:
        metrics, blank = None, cell.blank or _ONE_CAMERA
        counts = CellCounts(queries=0, subjects=0, gallery=0)
    else:
        found, blank = _summary(photos, scores, resamples), None
        metrics, gallery = found.metrics, max(len(draw.gallery) for draw in cell.draws)
        counts = CellCounts(**found.counts.model_dump(), gallery=gallery, draws=len(cell.draws))
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
    return Summary.model_validate(summarise_scores(scores, all_of_them, everyone, resamples=resamples, seed=0))


def _pooled(scores: Sequence[QueryScores]) -> QueryScores:
    return QueryScores(
        np.concatenate([of.rows for of in scores]),
        np.concatenate([of.draws for of in scores]),
        {name: np.concatenate([of.metrics[name] for of in scores]) for name in scores[0].metrics},
        tuple(ranks for of in scores for ranks in of.ranks),
    )


def _paired(photos: Embedded, ours: QueryScores | None, theirs: QueryScores | None) -> _Pairs | None:
    """Over the photos with a right answer in both, in a draw; a mirror image is compared with its photo."""
    if ours is None or theirs is None:
        return None
    mine, other = (
        {
            (row % len(photos.subjects), draw): at
            for at, (row, draw) in enumerate(zip(of.rows, of.draws, strict=True))
            if of.ranks[at]
        }
        for of in (ours, theirs)
    )
    common = [key for key in mine if key in other]
    here, there = (np.array([of[key] for key in common], np.int64) for of in (mine, other))
    return _Pairs(
        tuple(photos.subjects[row] for row, _ in common),
        ours.draws[here],
        {name: ours.metrics[name][here] for name in COMPARED},
        {name: theirs.metrics[name][there] for name in COMPARED},
    )


def _difference(pairs: Sequence[_Pairs | None], resamples: int) -> dict[str, Difference] | None:
    some = [of for of in pairs if of is not None and of.subjects]
    if not some:
        return None
    found = differences(
        {name: np.concatenate([of.ours[name] for of in some]) for name in COMPARED},
        {name: np.concatenate([of.theirs[name] for of in some]) for name in COMPARED},
        np.unique([name for of in some for name in of.subjects], return_inverse=True)[1],
        np.concatenate([of.draws for of in some]),
        resamples=resamples,
    )
    return differences_of(found)
