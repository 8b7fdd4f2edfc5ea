"""Ranking strips: a query photo with the first answers of the gallery, and the rules by which queries are selected.

* The order is that of the evaluation, ties included: a wrong photo as similar as a right one comes before it. So the
  rank of the first right answer equals the one in evaluation.json.
* Queries are selected by a rule that the caption states, not by hand.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from handreid.data.draws import hash_key
from handreid.data.tables import closest_match, format_list
from handreid.errors import DataError
from handreid.metrics.ranking import Ranking, rank_matches
from handreid.metrics.ranking_metrics import average_precision, first_rank
from handreid.report.photos.test_photos import TestPhotos

Rule = Literal["worst", "median", "random", "asked"]
RULES: dict[Rule, str] = {
    "worst": "the queries with the lowest average precision (ties: higher rank of the first right answer, then name)",
    "median": "the queries in the middle of that order",
    "random": "queries drawn at random with a fixed seed",
    "asked": "the queries given by name",
}
ONCE = "each person at most once per kind; queries whose gallery holds no right answer are left out"


@dataclass(frozen=True)
class Hit:
    photo: int  # position in TestPhotos
    similarity: float  # cosine, -1 to 1
    right: bool | None  # None if the query has no label


@dataclass(frozen=True)
class Strip:
    """One query of a draw. Photos are positions in TestPhotos; hits are in the order of their ranks, from 1.

    `rank` is the rank of the first right answer, None if the gallery has none; `matches` counts the right answers.
    `first` is the first right answer if it is not among the hits. For an `unlabelled` query no hit is right or wrong.
    """

    query: int
    draw: int
    hits: tuple[Hit, ...]
    rank: int | None
    matches: int
    rule: Rule
    first: Hit | None = None
    unlabelled: bool = False


def choose(tested: TestPhotos, draw: int = 0, each: int = 3, top: int = 10, seed: int = 0) -> list[Strip]:
    """Up to `each` strips by each of worst, median, random (see RULES, ONCE). Raises DataError for an unknown draw."""
    queries, gallery = tested.query(draw), tested.gallery(draw)
    ranking = _ranked(tested, queries, gallery)
    order = _from_worst_to_best(ranking, [tested.names[photo] for photo in queries])
    middle = (len(order) - 1) / 2
    orders: dict[Rule, list[int]] = {
        "worst": order,
        "median": [order[index] for index in sorted(range(len(order)), key=lambda index: (abs(index - middle), index))],
        "random": sorted(order, key=lambda index: hash_key(seed, "strip", draw, tested.names[queries[index]])),
    }
    return [
        _strip(tested, photo, draw, gallery, top, rule)
        for rule, candidates in orders.items()
        for photo in _one_per_subject(tested, (int(queries[index]) for index in candidates), each)
    ]


def strip_of(tested: TestPhotos, query: str, *, draw: int = 0, top: int = 10) -> Strip:
    """The strip of one query photo, named by its path in the manifest or an unambiguous end of it.

    Raises DataError if there is no such photo, more than one, or if it is no query of the draw.
    """
    photo = _find(tested, query)
    if photo not in tested.unlabelled and photo not in tested.query(draw):
        draws = [str(number) for number in range(len(tested.split.test)) if photo in tested.query(number)]
        raise DataError(
            f"{tested.names[photo]} is not a query of draw {draw}; "
            f"it is a query of {f'draw {format_list(draws)}' if draws else 'no draw'}"
        )
    return _strip(tested, photo, draw, tested.gallery(draw), top, "asked")


def _ranked(tested: TestPhotos, queries: Int[np.ndarray, " query"], gallery: Int[np.ndarray, " gallery"]) -> Ranking:
    embeddings, labels, cameras = tested.embeddings, tested.labels, tested.cameras
    return rank_matches(
        embeddings[queries],
        embeddings[gallery],
        labels[queries],
        labels[gallery],
        query_cameras=None if cameras is None else cameras[queries],
        gallery_cameras=None if cameras is None else cameras[gallery],
    )


def _from_worst_to_best(ranking: Ranking, names: Sequence[str]) -> list[int]:
    precision, best_rank = average_precision(ranking), first_rank(ranking)
    answerable = np.flatnonzero(ranking.matches > 0).tolist()
    return sorted(answerable, key=lambda index: (precision[index], -best_rank[index], names[index]))


def _one_per_subject(tested: TestPhotos, photos: Iterable[int], count: int) -> list[int]:
    by_subject: dict[str, int] = {}
    for photo in photos:
        if len(by_subject) == count:
            break
        by_subject.setdefault(tested.subjects[photo], photo)
    return list(by_subject.values())


def _strip(
    tested: TestPhotos, query: int, draw: int, gallery: Int[np.ndarray, " gallery"], top: int, rule: Rule
) -> Strip:
    gallery = gallery[~tested.left_out(np.array([query]), gallery)[0]]
    similarity: Float[np.ndarray, " gallery"] = tested.units[gallery] @ tested.units[query]
    right = tested.labels[gallery] == tested.labels[query]
    # lexsort is stable: where all is equal, photos stay in the order of their paths
    order = np.lexsort((right, -similarity))
    unlabelled = query in tested.unlabelled
    hits = [
        Hit(int(gallery[index]), float(similarity[index] / 2.0**52), None if unlabelled else bool(right[index]))
        for index in order
    ]
    ranks = [rank for rank, hit in enumerate(hits, 1) if hit.right]
    beyond = hits[ranks[0] - 1] if ranks and ranks[0] > top else None
    return Strip(query, draw, tuple(hits[:top]), ranks[0] if ranks else None, len(ranks), rule, beyond, unlabelled)


def _find(tested: TestPhotos, path: str) -> int:
    if path in tested.names:
        return tested.names.index(path)
    ends = [index for index, name in enumerate(tested.names) if f"/{name}".endswith(f"/{path}")]
    if len(ends) == 1:
        return ends[0]
    if ends:
        raise DataError(f"{path} could be {format_list(tested.names[index] for index in ends)}: give more of its path")
    endings = (name.rsplit("/", 1)[-1] for name in tested.names)
    raise DataError(f"no test photo of {tested.run.folder} has the path {path!r}{closest_match(path, endings)}")
