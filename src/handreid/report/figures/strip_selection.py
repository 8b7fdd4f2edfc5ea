"""Ranking strips: a query photo with the first answers of the gallery, and which queries are worth a look.

* The order is the evaluation's, ties included: a wrong photo as similar as a right one comes before it. So the rank of
  the first right answer is the one in evaluation.json.
* Which queries are shown is decided by a rule that stands in the caption, and never by what looks good.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from handreid.data.draws import hash_key
from handreid.data.tables import closest_match, format_list
from handreid.errors import DataError
from handreid.metrics.ranking import Ranking, average_precision, first_rank, rank_matches
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
    photo: int  # position in Tested
    similarity: float  # cosine, -1 to 1
    right: bool | None  # None where nobody knows who the query is


@dataclass(frozen=True)
class Strip:
    """One query of a draw. `photo`s are positions in Tested; hits are in the order of their ranks, from 1.

    `rank` is that of the first right answer, None where the gallery has none, and `matches` is how many it has. `first`
    is that answer if it is not among the hits. Of an `unlabelled` query nothing is right or wrong.
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
    """Up to `each` strips by each of worst, median, random (see RULES and ONCE). Raises DataError for no such draw."""
    queries, gallery = tested.query(draw), tested.gallery(draw)
    ranking = _ranked(tested, queries, gallery)
    order = _from_worst_to_best(ranking, [tested.names[photo] for photo in queries])
    middle = (len(order) - 1) / 2
    orders: dict[Rule, list[int]] = {
        "worst": order,
        "median": [order[at] for at in sorted(range(len(order)), key=lambda at: (abs(at - middle), at))],
        "random": sorted(order, key=lambda at: hash_key(seed, "strip", draw, tested.names[queries[at]])),
    }
    return [
        _strip(tested, photo, draw, gallery, top, rule)
        for rule, some in orders.items()
        for photo in _one_per_subject(tested, (int(queries[at]) for at in some), each)
    ]


def strip_of(tested: TestPhotos, query: str, *, draw: int = 0, top: int = 10) -> Strip:
    """The strip of one query photo, by its path in the manifest, or the end of it where that is enough.

    Raises DataError where there is no such photo, more than one, or where it is no query of the draw.
    """
    photo = _found(tested, query)
    if photo not in tested.unlabelled and photo not in tested.query(draw):
        others = [str(number) for number in range(len(tested.split.test)) if photo in tested.query(number)]
        raise DataError(
            f"{tested.names[photo]} is not a query of draw {draw}; "
            f"it is a query of {f'draw {format_list(others)}' if others else 'no draw'}"
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
    precision, first = average_precision(ranking), first_rank(ranking)
    answerable = np.flatnonzero(ranking.matches > 0).tolist()
    return sorted(answerable, key=lambda at: (precision[at], -first[at], names[at]))


def _one_per_subject(tested: TestPhotos, photos: Iterable[int], count: int) -> list[int]:
    chosen: dict[str, int] = {}
    for photo in photos:
        if len(chosen) == count:
            break
        chosen.setdefault(tested.subjects[photo], photo)
    return list(chosen.values())


def _strip(
    tested: TestPhotos, query: int, draw: int, gallery: Int[np.ndarray, " gallery"], top: int, rule: Rule
) -> Strip:
    gallery = gallery[~tested.left_out(np.array([query]), gallery)[0]]
    similarity: Float[np.ndarray, " gallery"] = tested.units[gallery] @ tested.units[query]
    right = tested.labels[gallery] == tested.labels[query]
    # the gallery is in the order of its paths, and stays so where all is equal
    order = np.lexsort((right, -similarity))
    nobody = query in tested.unlabelled
    hits = [Hit(int(gallery[at]), float(similarity[at] / 2.0**52), None if nobody else bool(right[at])) for at in order]
    ranks = [rank for rank, hit in enumerate(hits, 1) if hit.right]
    beyond = hits[ranks[0] - 1] if ranks and ranks[0] > top else None
    return Strip(query, draw, tuple(hits[:top]), ranks[0] if ranks else None, len(ranks), rule, beyond, nobody)


def _found(tested: TestPhotos, wanted: str) -> int:
    if wanted in tested.names:
        return tested.names.index(wanted)
    ends = [at for at, name in enumerate(tested.names) if f"/{name}".endswith(f"/{wanted}")]
    if len(ends) == 1:
        return ends[0]
    if ends:
        raise DataError(f"{wanted} could be {format_list(tested.names[at] for at in ends)}: give more of its path")
    endings = (name.rsplit("/", 1)[-1] for name in tested.names)
    raise DataError(f"no test photo of {tested.run.folder} has the path {wanted!r}{closest_match(wanted, endings)}")
