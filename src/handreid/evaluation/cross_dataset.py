"""Cells of a matrix over data sets: the own test of each, and the same with another data set's gallery added.

Two data sets have no people in common, so a gallery of one has no right answer for a query of the other. What can be
measured is whether people of another data set are mistaken for the query's: they are distractors in a merged gallery.
"""

from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from handreid.data.cross_condition import Cell
from handreid.draw import Draw
from handreid.evaluation.unseen_test_set import UnseenTestSet

OWN, OTHER = "the data set trained on", "another data set"


def dataset_cells(tests: Sequence[UnseenTestSet]) -> list[Cell]:
    """Query by query; `tests[0]` is the run's own data set. Rows are offset by the sizes of the data sets before."""
    starts = [0, *accumulate(len(test.manifest) for test in tests)]
    identities = tuple(f"{test.name}: {name}" for test in tests for name in test.identities)
    return [
        Cell(gallery.name, query.name, kind, False, draws, identities)
        for query, offset in zip(tests, starts, strict=False)
        for gallery, gallery_offset in zip(tests, starts, strict=False)
        for draws in [
            _own_draws(query, offset) if gallery is query else _merged_draws(query, offset, gallery, gallery_offset)
        ]
        for kind in [(OWN if query is tests[0] else OTHER) + ("" if gallery is query else ", among distractors")]
    ]


def _own_draws(query: UnseenTestSet, offset: int) -> tuple[Draw, ...]:
    return tuple(Draw(draw.gallery + offset, draw.query + offset) for draw in query.draws)


def _merged_draws(query: UnseenTestSet, offset: int, gallery: UnseenTestSet, gallery_offset: int) -> tuple[Draw, ...]:
    """With `gallery` added to the query's own. If it has fewer draws, they are repeated cyclically."""
    extra = _distractors(query, gallery)
    return tuple(
        Draw(np.concatenate([draw.gallery, extra[number % len(extra)] + gallery_offset]), draw.query)
        for number, draw in enumerate(_own_draws(query, offset))
    )


def _distractors(query: UnseenTestSet, gallery: UnseenTestSet) -> list[np.ndarray]:
    """The other test's galleries. If both are of one data set, the query's subjects are removed: not distractors."""
    same = gallery.manifest.dataset == query.manifest.dataset
    query_subjects, gallery_subjects = query.subjects, gallery.subjects
    tested = {query_subjects[row] for row in query.rows} if same else set()
    shared = np.array([name in tested for name in gallery_subjects])
    return [draw.gallery[~shared[draw.gallery]] for draw in gallery.draws]
