"""Whom does a run take for whom? Pairs of identities, by how often the first answer to one was the other.

* Counted over all draws: a photo that is a query of several draws counts in each.
* A pair is one entry, whichever of the two was searched for: A taken for B and B taken for A are one finding.
* A tie with a wrong photo counts as wrong, as in the ranks.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from handreid.report.photos.test_photos import TestPhotos

_CELLS = 2**22  # similarities in memory at a time

ANOTHER = "another person"
OTHER_HAND = "the same person's other hand"
OTHER_ASPECT = "another aspect of the same hand"
OTHER_HAND_AND_ASPECT = "another aspect of the same person's other hand"
SAME_PERSON = "the same person, under another label"


@dataclass(frozen=True)
class ConfusedPair:
    """Two identities that are mixed up; `identity` is the one that is more often taken for the other.

    `wrong` of `queries` of either had the other as first answer; `ways` are these by direction, `identity` taken for
    `other` first. `query` (of `identity`) and `hit` (of `other`) are the most similar pair of photos that were so mixed
    up, as positions in Tested; `similarity` is their cosine.
    """

    identity: str
    other: str
    wrong: int
    queries: int
    similarity: float
    query: int
    hit: int
    relation: str
    ways: tuple[int, int]


@dataclass(frozen=True, eq=False)
class _Mistakes:
    """A wrong first answer per entry, over all draws; `searched` are the queries that had a right answer."""

    query: Int[np.ndarray, " mistake"]
    hit: Int[np.ndarray, " mistake"]
    searched: Int[np.ndarray, " search"]


def most_confused(tested: TestPhotos, top: int = 12) -> list[ConfusedPair]:
    """The pairs most often mixed up, then by their share of the queries, then by similarity, then by name."""
    found = _mistakes(tested)
    searches = Counter(tested.identities[photo] for photo in found.searched)
    pairs: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for query, hit in zip(found.query.tolist(), found.hit.tolist(), strict=True):
        ends = sorted((tested.identities[query], tested.identities[hit]))
        pairs.setdefault((ends[0], ends[1]), []).append((query, hit))
    mixed = [_mixed(tested, pair, cases, searches) for pair, cases in pairs.items()]
    order = sorted(mixed, key=lambda m: (-m.wrong, -m.wrong / m.queries, -m.similarity, m.identity, m.other))
    return order[:top]


def mistakes_by_relation(tested: TestPhotos) -> dict[str, int]:
    """How many wrong first answers, over all draws, are of another person, of the same one's other hand, and so on."""
    found = _mistakes(tested)
    counted = Counter(relation(tested, *case) for case in zip(found.query.tolist(), found.hit.tolist(), strict=True))
    return dict(counted.most_common())


def relation(tested: TestPhotos, photo: int, other: int) -> str:
    """What two photos of different identities have to do with each other."""
    if tested.subjects[photo] != tested.subjects[other]:
        return ANOTHER
    table = tested.manifest.table
    same = [
        table[column][int(tested.rows[photo])] == table[column][int(tested.rows[other])]
        for column in ("side", "aspect")
    ]
    match same:
        case [False, True]:
            return OTHER_HAND
        case [True, False]:
            return OTHER_ASPECT
        case [False, False]:
            return OTHER_HAND_AND_ASPECT
    return SAME_PERSON


def _mixed(
    tested: TestPhotos, pair: tuple[str, str], cases: list[tuple[int, int]], searches: Counter[str]
) -> ConfusedPair:
    ways = {name: [case for case in cases if tested.identities[case[0]] == name] for name in pair}
    first, second = sorted(pair, key=lambda name: -len(ways[name]))
    similarity, _, query, hit = min(
        (-_similarity(tested, query, hit), tested.names[query], query, hit) for query, hit in ways[first]
    )
    return ConfusedPair(
        identity=first,
        other=second,
        wrong=len(cases),
        queries=searches[first] + searches[second],
        similarity=-similarity,
        query=query,
        hit=hit,
        relation=relation(tested, query, hit),
        ways=(len(ways[first]), len(ways[second])),
    )


def _similarity(tested: TestPhotos, photo: int, other: int) -> float:
    return float(tested.units[photo] @ tested.units[other] / 2.0**52)


def _mistakes(tested: TestPhotos) -> _Mistakes:
    none = np.empty(0, np.int64)
    queries, hits, searched = [none], [none], [none]
    for draw in range(len(tested.split.test)):
        gallery, query = tested.gallery(draw), tested.query(draw)
        step = max(1, _CELLS // len(gallery))
        for start in range(0, len(query), step):
            some = query[start : start + step]
            answerable, wrong, first = _first_answers(tested, some, gallery)
            queries.append(some[wrong])
            hits.append(gallery[first[wrong]])
            searched.append(some[answerable])
    return _Mistakes(np.concatenate(queries), np.concatenate(hits), np.concatenate(searched))


def _first_answers(
    tested: TestPhotos, query: Int[np.ndarray, " query"], gallery: Int[np.ndarray, " gallery"]
) -> tuple[Bool[np.ndarray, " query"], Bool[np.ndarray, " query"], Int[np.ndarray, " query"]]:
    """Which queries have a right answer, which of these have a wrong one before it, and the first wrong one of each."""
    similarity = tested.units[query] @ tested.units[gallery].T
    same, neither = tested.labels[query][:, None] == tested.labels[gallery], tested.left_out(query, gallery)
    right = same & ~neither
    answerable = right.any(axis=1)
    best = np.where(right, similarity, -np.inf).max(axis=1)
    others = np.where(same, -np.inf, similarity)
    wrong = answerable & (others.max(axis=1) >= best)
    return answerable, wrong, others.argmax(axis=1)
