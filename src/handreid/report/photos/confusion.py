"""Confused identities: pairs, by how often the first answer to a query of one was the other.

* Counts are over all draws: a photo that is a query of several draws counts in each.
* Both directions are one pair: queries of A answered with B, and of B answered with A.
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
    """Two confused identities; `identity` is the one that is more often taken for the other.

    `wrong` of the `queries` of either had the other as first answer; `ways` splits this by direction, `identity` taken
    for `other` first. `query` (of `identity`) and `hit` (of `other`) are the most similar pair among these errors, as
    positions in TestPhotos; `similarity` is their cosine.
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
    """One entry per wrong first answer, over all draws; `searched` are the queries that have a right answer."""

    query: Int[np.ndarray, " mistake"]
    hit: Int[np.ndarray, " mistake"]
    searched: Int[np.ndarray, " search"]


def most_confused(tested: TestPhotos, top: int = 12) -> list[ConfusedPair]:
    """The pairs with the most errors; ties by their share of the queries, then by similarity, then by name."""
    mistakes = _mistakes(tested)
    searches = Counter(tested.identities[photo] for photo in mistakes.searched)
    pairs: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for query, hit in zip(mistakes.query.tolist(), mistakes.hit.tolist(), strict=True):
        ends = sorted((tested.identities[query], tested.identities[hit]))
        pairs.setdefault((ends[0], ends[1]), []).append((query, hit))
    mixed = [_confused_pair(tested, pair, cases, searches) for pair, cases in pairs.items()]
    order = sorted(mixed, key=lambda m: (-m.wrong, -m.wrong / m.queries, -m.similarity, m.identity, m.other))
    return order[:top]


def mistakes_by_relation(tested: TestPhotos) -> dict[str, int]:
    """Numbers of wrong first answers over all draws, by relation: another person, the other hand, and so on."""
    mistakes = _mistakes(tested)
    counted = Counter(
        relation(tested, *case) for case in zip(mistakes.query.tolist(), mistakes.hit.tolist(), strict=True)
    )
    return dict(counted.most_common())


def relation(tested: TestPhotos, photo: int, other_photo: int) -> str:
    """How two photos of different identities are related: another person, the other hand, another aspect."""
    if tested.subjects[photo] != tested.subjects[other_photo]:
        return ANOTHER
    table = tested.manifest.table
    same = [
        table[column][int(tested.rows[photo])] == table[column][int(tested.rows[other_photo])]
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


def _confused_pair(
    tested: TestPhotos, pair: tuple[str, str], cases: list[tuple[int, int]], searches: Counter[str]
) -> ConfusedPair:
    ways = {name: [case for case in cases if tested.identities[case[0]] == name] for name in pair}
    identity, other = sorted(pair, key=lambda name: -len(ways[name]))
    similarity, _, query, hit = min(
        (-_similarity(tested, query, hit), tested.names[query], query, hit) for query, hit in ways[identity]
    )
    return ConfusedPair(
        identity=identity,
        other=other,
        wrong=len(cases),
        queries=searches[identity] + searches[other],
        similarity=-similarity,
        query=query,
        hit=hit,
        relation=relation(tested, query, hit),
        ways=(len(ways[identity]), len(ways[other])),
    )


def _similarity(tested: TestPhotos, photo: int, other_photo: int) -> float:
    return float(tested.units[photo] @ tested.units[other_photo] / 2.0**52)


def _mistakes(tested: TestPhotos) -> _Mistakes:
    none = np.empty(0, np.int64)
    queries, hits, searched = [none], [none], [none]
    for draw in range(len(tested.split.test)):
        gallery, query = tested.gallery(draw), tested.query(draw)
        step = max(1, _CELLS // len(gallery))
        for start in range(0, len(query), step):
            chunk = query[start : start + step]
            answerable, wrong, wrong_answers = _first_answers(tested, chunk, gallery)
            queries.append(chunk[wrong])
            hits.append(gallery[wrong_answers[wrong]])
            searched.append(chunk[answerable])
    return _Mistakes(np.concatenate(queries), np.concatenate(hits), np.concatenate(searched))


def _first_answers(
    tested: TestPhotos, query: Int[np.ndarray, " query"], gallery: Int[np.ndarray, " gallery"]
) -> tuple[Bool[np.ndarray, " query"], Bool[np.ndarray, " query"], Int[np.ndarray, " query"]]:
    """Which queries have a right answer, which of these have a wrong one before it, and the best wrong one of each."""
    similarity = tested.units[query] @ tested.units[gallery].T
    same, neither = tested.labels[query][:, None] == tested.labels[gallery], tested.left_out(query, gallery)
    right = same & ~neither
    answerable = right.any(axis=1)
    best = np.where(right, similarity, -np.inf).max(axis=1)
    wrong_similarity = np.where(same, -np.inf, similarity)
    wrong = answerable & (wrong_similarity.max(axis=1) >= best)
    return answerable, wrong, wrong_similarity.argmax(axis=1)
