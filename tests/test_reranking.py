"""Re-ranking and query expansion: against loops over the papers' equations, and what runs and ladders make of them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handreid.errors import DataError
from handreid.evaluation import expansion, neighbours, reranking
from handreid.evaluation.ranking import rank_matches, rank_from_blocks


def whole(feature):
    """A unit feature as Python's whole numbers of 2**-25: distances of these have no rounding at all."""
    length = math.sqrt(math.fsum(float(x) ** 2 for x in feature))
    return [round(float(x) / length * 2**25) for x in feature]


def by_the_paper(query, gallery, k1, k2, weight, formula="paper"):
    """Zhong et al. 2017, equation by equation; what the paper leaves open as reranking.py says."""
    photos = [whole(feature) for feature in [*query, *gallery]]
    everyone = range(len(photos))
    d = [[sum((a - b) ** 2 for a, b in zip(photos[p], photos[g], strict=True)) for g in everyone] for p in everyone]

    def near(p, k):  # N(p, k), eq. 1, and p itself; at the edge all that tie
        edge = sorted(d[p])[min(k, len(photos) - 1)]
        return {g for g in everyone if d[p][g] <= edge}

    def reciprocal(p, k):  # R(p, k), eq. 2
        return {g for g in near(p, k) if p in near(g, k)}

    def expanded(p):  # R*(p, k), eq. 3
        found = set(reciprocal(p, k1))
        for q in reciprocal(p, k1):
            half = reciprocal(q, round(k1 / 2))
            both = 3 * len(reciprocal(p, k1) & half)
            if both >= 2 * len(half) if formula == "paper" else both > 2 * len(half):
                found |= half
        return found

    def scaled(p, g):
        return d[p][g] / max(d[p]) if max(d[p]) else 0.0

    vectors = []
    for p in everyone:  # V, eq. 7
        chosen = expanded(p)
        vector = [math.exp(-scaled(p, g)) if g in chosen else 0.0 for g in everyone]
        vectors.append([v / sum(vector) for v in vector] if formula == "code" else vector)
    around = [near(p, k2 - 1) for p in everyone]  # eq. 11; p is one of the k2
    vectors = [[sum(vectors[q][g] for q in around[p]) / len(around[p]) for g in everyone] for p in everyone]

    def jaccard(p, g):  # eq. 10
        pairs = list(zip(vectors[p], vectors[g], strict=True))
        return 1 - sum(map(min, pairs)) / sum(map(max, pairs))

    first = len(query)
    final = [
        [(1 - weight) * jaccard(p, first + g) + weight * scaled(p, first + g) for g in range(len(gallery))]
        for p in range(first)
    ]
    return np.array(final).reshape(first, len(gallery))


def distances(query, gallery, k1, k2, weight, formula="paper", block=None):
    blocks = reranking.rerank(query, gallery, k1=k1, k2=k2, original=weight, formula=formula, block=block)
    return np.concatenate(list(blocks))


def clustered(seed, queries, photos, dim=6):
    """A few people, several photos each, some of them the very same photo again."""
    random = np.random.default_rng(seed)
    middles = random.standard_normal((4, dim))
    features = middles[random.integers(0, 4, queries + photos)] + 0.7 * random.standard_normal((queries + photos, dim))
    again = random.random(len(features)) < 0.25
    features[again] = features[random.integers(0, len(features), again.sum())]
    return features[:queries].astype(np.float32), features[queries:].astype(np.float32)


def lattice(seed, queries, photos):
    """Entries of -1, 0 and 1: as many ties as there can be, of photos that are not equal too."""
    features = np.random.default_rng(seed).integers(-1, 2, (queries + photos, 4)).astype(np.float64)
    features[(features == 0).all(axis=1), 0] = 1
    return features[:queries], features[queries:]


@given(
    st.integers(0, 2**32),
    st.sampled_from([clustered, lattice]),
    st.tuples(st.integers(1, 5), st.integers(1, 14)),
    st.integers(1, 25),
    st.integers(1, 9),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.sampled_from(["paper", "code"]),
)
@settings(max_examples=60, deadline=None)
def test_distances_are_those_of_the_papers_equations(seed, scene, size, k1, k2, weight, formula):
    query, gallery = scene(seed, *size)
    expected = by_the_paper(query, gallery, k1, k2, weight, formula)
    np.testing.assert_allclose(distances(query, gallery, k1, k2, weight, formula), expected, atol=1e-12)


def test_a_larger_scene_in_which_neighbourhoods_end():
    query, gallery = clustered(5, 12, 60, dim=12)
    for formula in ("paper", "code"):
        found = distances(query, gallery, 7, 3, 0.3, formula)
        np.testing.assert_allclose(found, by_the_paper(query, gallery, 7, 3, 0.3, formula), atol=1e-12)
        assert len(np.unique(found.round(9))) > 300


def test_the_two_formulas_differ():
    query, gallery = clustered(5, 12, 60, dim=12)
    assert abs(distances(query, gallery, 7, 3, 0.3) - distances(query, gallery, 7, 3, 0.3, "code")).max() > 0.01


@pytest.mark.parametrize("scene", [clustered, lattice])
@pytest.mark.parametrize("cells", [1, 50])
def test_blocks_change_no_bit(scene, cells, monkeypatch):
    query, gallery = scene(1, 11, 47)
    expected = distances(query, gallery, 6, 3, 0.3)
    points = neighbours.points_of(query, gallery)
    whole_tile = neighbours.nearest(points, 7)
    monkeypatch.setattr(reranking, "_CELLS", cells)
    for block in (1, 2, 5, 11, 64):
        assert np.array_equal(distances(query, gallery, 6, 3, 0.3, block=block), expected)
    for block in (1, 3, 16, 58, 100):
        tiled = neighbours.nearest(points, 7, block=block)
        assert np.array_equal(tiled.first(7).toarray(), whole_tile.first(7).toarray())
        assert np.array_equal(tiled.farthest, whole_tile.farthest)
    by_tiles = neighbours.nearest
    for block in (1, 3, 16):
        monkeypatch.setattr(reranking, "nearest", lambda points, k, block=block: by_tiles(points, k, block=block))
        assert np.array_equal(distances(query, gallery, 6, 3, 0.3), expected)


@pytest.mark.parametrize("scene", [clustered, lattice])
def test_the_order_of_the_photos_changes_no_bit(scene):
    query, gallery = scene(2, 9, 40)
    random = np.random.default_rng(0)
    at, of = random.permutation(9), random.permutation(40)
    moved = distances(query[at], gallery[of], 6, 3, 0.3)
    assert np.array_equal(moved, distances(query, gallery, 6, 3, 0.3)[at][:, of])


def test_equal_photos_get_equal_results():
    query, gallery = clustered(3, 6, 30)
    query[3], gallery[[4, 9]] = query[0], gallery[17]
    found = distances(query, gallery, 5, 2, 0.3)
    assert np.array_equal(found[3], found[0])
    assert np.array_equal(found[:, 4], found[:, 17])
    assert np.array_equal(found[:, 9], found[:, 17])


def test_a_collapsed_model_has_no_distances_and_the_worst_ranks():
    features = np.ones((3, 4), np.float32), np.ones((2000, 4), np.float32)
    for formula in ("paper", "code"):
        assert not distances(*features, 20, 6, 0.3, formula).any()
    ranking = reranking.rerank_matches(*features, np.arange(3), np.arange(2000) % 1000)
    assert ranking.ranks.tolist() == [1999, 2000] * 3


def test_a_zero_with_a_sign_is_a_zero():
    points = neighbours.points_of(np.array([[1.0, -0.0]]), np.array([[1.0, 0.0]]))
    assert points.copies.tolist() == [2]


def test_with_the_original_distance_alone_the_ranking_is_the_plain_one():
    query, gallery = clustered(4, 20, 60)
    labels = np.arange(20) % 5, np.arange(60) % 6
    plain = rank_matches(query, gallery, *labels)
    ours = reranking.rerank_matches(query, gallery, *labels, k1=5, k2=2, original=1.0)
    assert np.array_equal(ours.ranks, plain.ranks)
    assert not np.array_equal(reranking.rerank_matches(query, gallery, *labels, k1=5, k2=2).ranks, plain.ranks)


def test_it_finds_what_a_chain_of_neighbours_leads_to():
    """Two arcs of a circle: the far end of the query's own is farther than the near end of the other's."""
    angles = np.radians([0, *range(5, 50, 5), *range(-52, -97, -5)])
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    labels = np.array([0] * 1), np.array([0] * 9 + [1] * 9)
    query, gallery = features[:1], features[1:]
    tilted = np.concatenate([gallery[:9] @ np.array([[1, 0.2], [-0.2, 1]]), gallery[9:]])
    plain = rank_matches(query, tilted, *labels)
    ours = reranking.rerank_matches(query, tilted, *labels, k1=6, k2=3)
    assert plain.ranks[-1] > 9
    assert ours.ranks.tolist() == list(range(1, 10))


def test_one_query_and_one_photo():
    assert distances(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]), 20, 6, 0.3).shape == (1, 1)
    assert distances(np.array([[1.0, 0.0]]), np.array([[2.0, 0.0]]), 20, 6, 0.3) == 0


def test_many_ties_at_the_edge_are_all_in():
    """A photo in the middle of 40 that are as far from it as each other; two are asked for."""
    around = np.concatenate([np.eye(20), -np.eye(20)])
    gallery = np.concatenate([around, np.ones((40, 1))], axis=1)
    query = np.eye(21)[20:]
    for block in (7, 1024):
        near = neighbours.nearest(neighbours.points_of(query, gallery), 3, block=block).first(3)
        assert sorted(near.sum(axis=1).tolist())[-1] == 41


@pytest.mark.parametrize("bad", [0.0, math.nan, math.inf])
@pytest.mark.parametrize("way", [reranking.rerank, lambda *both: expansion.expand(*both, neighbours=2)])
def test_features_that_cannot_be_compared_are_refused_at_once(bad, way):
    good, broken = np.ones((3, 4)), np.ones((3, 4))
    broken[1] = bad
    with pytest.raises(DataError, match="the feature of gallery photo 1"):
        way(good, broken)
    with pytest.raises(DataError, match="the feature of query photo 1"):
        way(broken, good)


def test_blocks_of_the_wrong_size_are_refused():
    labels = np.arange(4), np.arange(3)
    with pytest.raises(DataError, match="of 2 queries for 4 query labels"):
        rank_from_blocks(iter([np.zeros((2, 3))]), *labels)
    with pytest.raises(DataError, match="gallery photo 1"):
        rank_from_blocks(iter([np.zeros((3, 3)), np.array([[0.0, math.nan, 0.0]])]), *labels)


class TestExpansion:
    @staticmethod
    def by_definition(query, gallery, n, alpha):
        found = []
        for feature in query:
            own = np.array(whole(feature)) / 2**25
            photos = [np.array(whole(other)) / 2**25 for other in gallery]
            far = [sum((a - b) ** 2 for a, b in zip(whole(feature), whole(other), strict=True)) for other in gallery]
            edge = sorted(far)[min(n, len(far)) - 1]
            total = own.copy()
            for photo, distance in zip(photos, far, strict=True):
                if distance <= edge:
                    total += max(1 - distance / 2**51, 0) ** alpha * photo
            length = math.sqrt((total**2).sum())
            found.append(total / length if length > 1e-6 else own)
        return np.array(found)

    @given(
        st.integers(0, 2**32),
        st.sampled_from([clustered, lattice]),
        st.integers(1, 20),
        st.sampled_from([0.0, 1.0, 3.0]),
        st.sampled_from([None, 1, 3]),
    )
    @settings(max_examples=40, deadline=None)
    def test_queries_are_the_means_of_the_definition(self, seed, scene, n, alpha, block):
        query, gallery = scene(seed, 5, 13)
        found = expansion.expand(query, gallery, neighbours=n, alpha=alpha, block=block)
        np.testing.assert_allclose(found, self.by_definition(query, gallery, n, alpha), atol=1e-7)

    def test_a_query_that_cancels_out_stays_as_it_is(self):
        query, gallery = np.array([[3.0, 4.0]]), np.array([[-3.0, -4.0]])
        np.testing.assert_allclose(expansion.expand(query, gallery, neighbours=1), [[0.6, 0.8]], atol=1e-7)

    def test_equal_queries_stay_equal_and_blocks_change_no_bit(self):
        query, gallery = clustered(6, 8, 30)
        query[5] = query[2]
        found = expansion.expand(query, gallery, neighbours=4, alpha=3.0)
        assert np.array_equal(found[5], found[2])
        for block in (1, 3, 100):
            assert np.array_equal(expansion.expand(query, gallery, neighbours=4, alpha=3.0, block=block), found)

    def test_it_ranks_with_the_expanded_query(self):
        query, gallery = clustered(7, 20, 60)
        labels = np.arange(20) % 5, np.arange(60) % 6
        ours = expansion.expand_matches(query, gallery, *labels, neighbours=5, alpha=1.0)
        expanded = expansion.expand(query, gallery, neighbours=5, alpha=1.0)
        assert np.array_equal(ours.ranks, rank_matches(expanded, gallery, *labels).ranks)
        assert not np.array_equal(ours.ranks, rank_matches(query, gallery, *labels).ranks)
