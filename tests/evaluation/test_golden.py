"""Numbers as they were before metrics, cameras and known photos were added: results reproduce to the last digit.

The features come from `numpy.random.RandomState`, whose stream NumPy promises never to change.
"""

import hashlib
import json

import numpy as np
import pytest

from handreid.draw import Draw
from handreid.metrics.k_reciprocal import rerank_matches
from handreid.metrics.query_expansion import expand_matches
from handreid.metrics.query_scores import score, summarise_scores
from handreid.metrics.ranking import Ranking, rank_matches
from handreid.metrics.separation import separation_metrics

IDENTITIES, EACH = 15, 6
NAMES = tuple(f"i{row // EACH:02d}" for row in range(IDENTITIES * EACH))
PEOPLE = [f"p{row // EACH // 2}" for row in range(IDENTITIES * EACH)]


def features() -> np.ndarray:
    random = np.random.RandomState(7)
    middles = random.randint(-40, 41, (IDENTITIES, 24))
    return (np.repeat(middles, EACH, axis=0) + random.randint(-60, 61, (len(NAMES), 24))).astype(np.float32)


def draws() -> list[Draw]:
    """Two photos of each identity are searched among, so that there are several right answers."""
    rows = np.arange(len(NAMES))
    return [
        Draw(rows[np.isin(rows % EACH, (k, k + 1))], rows[~np.isin(rows % EACH, (k, k + 1))]) for k in range(EACH - 1)
    ]


def digest(ranking: Ranking) -> str:
    content = [ranking.ranks.tolist(), ranking.offsets.tolist()]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def ranked(way, **options) -> str:
    query, gallery = draws()[0].query, draws()[0].gallery
    labels = np.arange(len(NAMES)) // EACH
    return digest(way(features()[query], features()[gallery], labels[query], labels[gallery], **options))


def cameras(rows: np.ndarray) -> np.ndarray:
    return rows * 7 % 3


RANKS = {
    "plain": "33d48d2d6af18f1f",
    "cameras": "41fdb9fb7a84016e",
    "paper": "4a1639c7d86fdfed",
    "code": "caf0afc49493b9fb",
    "neighbours alone": "12fade0b31b52d03",
    "expansion": "ca6b946c58bf26a8",
    "alpha": "fadac4c8265da085",
}
METRICS = {
    "rank1": (0.5266666666666667, 0.3268374125122949, 0.6987256345515357),
    "rank5": (0.8833333333333334, 0.6205277501287396, 0.9542060964870275),
    "rank10": (0.9666666666666666, 0.6971631626539062, 0.9878597562383635),
    "map": (0.5766032438475268, 0.38278558692050624, 0.7235140761410731),
    "map_trapezoid": (0.5145049830563816, 0.3339960379427876, 0.6764096206714001),
    "mrr": (0.6784977565291033, 0.46650097529264617, 0.8080181925324539),
    "minp": (0.4747087311659506, 0.305820793615151, 0.6310365186484915),
}
SPACE = {
    "intra": (1.1616871698153388, 1.1228120450364891, 1.2079141144171988),
    "inter": (1.027664305674172, 1.0073290953574783, 1.0524710040781975),
    "ratio": (1.1304150230782264, 1.0683381953353641, 1.1930851115502126),
    "fisher": (3.8193974406550852, 2.841705471426215, 4.180658529807826),
    "silhouette": (0.06544372739856714, 0.026372236551240782, 0.1084529715183664),
    "alignment": (1.3711502431549414, 1.2815615813057764, 1.4808998415253178),
    "uniformity": (-3.588902042487846, -3.6584427392664236, -3.489492650302058),
}


@pytest.mark.parametrize("name", RANKS)
def test_ranks_are_what_they_were(name: str):
    query, gallery = draws()[0].query, draws()[0].gallery
    ways = {
        "plain": (rank_matches, {}),
        "cameras": (rank_matches, {"query_cameras": cameras(query), "gallery_cameras": cameras(gallery)}),
        "paper": (rerank_matches, {"k1": 6, "k2": 3}),
        "code": (rerank_matches, {"k1": 6, "k2": 3, "formula": "code"}),
        "neighbours alone": (rerank_matches, {"k1": 6, "k2": 3, "original": 0.0}),
        "expansion": (expand_matches, {"neighbours": 2}),
        "alpha": (expand_matches, {"neighbours": 3, "alpha": 3.0}),
    }
    way, options = ways[name]
    assert ranked(way, **options) == RANKS[name]


def test_metrics_and_intervals_are_what_they_were():
    scores = score(features(), np.arange(len(NAMES)), draws(), NAMES)
    found = summarise_scores(scores, np.ones(len(scores.rows), bool), PEOPLE, resamples=500, seed=0)
    assert (found.queries, found.subjects, found.unanswerable) == (60, 8, 0)
    for name, expected in METRICS.items():
        assert tuple(getattr(found.metrics[name], end) for end in ("value", "low", "high")) == pytest.approx(
            expected, 1e-13
        )


def test_the_space_is_what_it_was():
    found = separation_metrics(features(), list(NAMES), PEOPLE, resamples=500).numbers
    for name, expected in SPACE.items():
        assert tuple(getattr(found[name], end) for end in ("value", "low", "high")) == pytest.approx(expected, 1e-13)
