"""Cells of a matrix over data sets: everyone's own test, and the same with another data set's gallery beside its own.

Two data sets have no people in common, so a gallery of one holds no right answer for a query of the other. What can be
asked is whether strangers from elsewhere are mistaken for one's own: they are distractors in a merged gallery.
"""

from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from handreid.data.cross_condition import Cell
from handreid.draw import Draw
from handreid.evaluation.unseen_test_set import UnseenTestSet

OWN, OTHER = "the data set trained on", "another data set"


def dataset_cells(tests: Sequence[UnseenTestSet]) -> list[Cell]:
    """Query by query, the run's own data set being the first. Rows are numbered on from one data set to the next."""
    starts = [0, *accumulate(len(of.manifest) for of in tests)]
    identities = tuple(f"{of.name}: {name}" for of in tests for name in of.identities)
    return [
        Cell(gallery.name, query.name, kind, False, draws, identities)
        for query, at in zip(tests, starts, strict=False)
        for gallery, there in zip(tests, starts, strict=False)
        for draws in [_own(query, at) if gallery is query else _merged(query, at, gallery, there)]
        for kind in [(OWN if query is tests[0] else OTHER) + ("" if gallery is query else ", among distractors")]
    ]


def _own(query: UnseenTestSet, at: int) -> tuple[Draw, ...]:
    return tuple(Draw(draw.gallery + at, draw.query + at) for draw in query.draws)


def _merged(query: UnseenTestSet, at: int, other: UnseenTestSet, there: int) -> tuple[Draw, ...]:
    """A data set that comes with fewer draws than the query's gives them again and again."""
    extra = _strangers_to(query, other)
    return tuple(
        Draw(np.concatenate([draw.gallery, extra[number % len(extra)] + there]), draw.query)
        for number, draw in enumerate(_own(query, at))
    )


def _strangers_to(query: UnseenTestSet, other: UnseenTestSet) -> list[np.ndarray]:
    """The other galleries, without people of the query's names where both are of one data set: no distractors."""
    same = other.manifest.dataset == query.manifest.dataset
    mine, theirs = query.subjects, other.subjects
    tested = {mine[row] for row in query.rows} if same else set()
    known = np.array([name in tested for name in theirs])
    return [draw.gallery[~known[draw.gallery]] for draw in other.draws]
