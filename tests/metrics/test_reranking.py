"""Re-ranking and query expansion: against loops over the papers' equations, and what runs and ladders make of them."""

import json
import math
from inspect import unwrap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handreid import inference
from handreid.errors import DataError, RecipeError
from handreid.evaluation import evaluate as assess
from handreid.evaluation.compare import Rung
from handreid.evaluation.evaluate import evaluate
from handreid.evaluation.sections.reranking import read_reranked, rerank_caveat
from handreid.evaluation.tables.ladder import markdown
from handreid.files import read_json
from handreid.metrics import k_reciprocal, neighbours, query_expansion
from handreid.metrics.query_scores import score
from handreid.metrics.ranking import rank_from_blocks, rank_from_similarity, rank_matches
from handreid.metrics.ranking_metrics import first_rank, hit
from handreid.recipe import KReciprocal, QueryExpansion, Recipe, dump_recipe, parse_recipe, read_rerank
from handreid.runs.folder import Run, open_run
from handreid.training.train import train
from handreid.workflows.ladder import run_ladder
from tests.cli.test_commands import complaint, handreid
from tests.conftest import MICRO_RECIPE
from tests.plain_results import evaluated, typed


def whole(feature):
    """A unit feature as Python's whole numbers of 2**-25: distances of these have no rounding at all."""
    length = math.sqrt(math.fsum(float(x) ** 2 for x in feature))
    return [round(float(x) / length * 2**25) for x in feature]


def by_the_paper(query, gallery, k1, k2, weight, formula="paper", number=float):
    """Zhong et al. 2017, equation by equation; what it leaves open as `k_reciprocal.py` says. `number` calculates."""
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
        return number(d[p][g]) / number(max(d[p])) if max(d[p]) else number(0)

    vectors = []
    for p in everyone:  # V, eq. 7
        chosen = expanded(p)
        vector = [number(np.exp(-scaled(p, g))) if g in chosen else number(0) for g in everyone]
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
    return np.array(final, number).reshape(first, len(gallery))


def distances(query, gallery, k1, k2, weight, formula="paper", block=None):
    blocks = k_reciprocal.rerank(query, gallery, k1=k1, k2=k2, original=weight, formula=formula, block=block)
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


@given(
    st.integers(0, 2**32),
    st.sampled_from([clustered, lattice]),
    st.tuples(st.integers(1, 5), st.integers(1, 14)),
    st.integers(1, 25),
    st.integers(1, 9),
    st.sampled_from([0.0, 0.3, 0.9]),
    st.sampled_from(["paper", "code"]),
)
@settings(max_examples=40, deadline=None)
def test_rounding_stays_below_half_of_the_tolerance(seed, scene, size, k1, k2, weight, formula):
    """Beside the equations in more digits; so two distances that should be equal are within the tolerance."""
    query, gallery = scene(seed, *size)
    exact = by_the_paper(query, gallery, k1, k2, np.longdouble(weight), formula, np.longdouble)
    encoding = k_reciprocal.encode(neighbours.points_of(query, gallery), k1, k2, formula)
    rounding = np.abs(distances(query, gallery, k1, k2, weight, formula) - exact)
    assert float(rounding.max()) <= encoding.tolerance(weight) / 2
    assert encoding.tolerance(weight) < 1e-12
    assert encoding.tolerance(1.0) == 0.0


def mirrored(seed=4):
    """200 queries in 20 rooms, each with directions of its own. In half of the rooms gallery photos are pairs, a right
    and a wrong one that mirror each other: as far from the query as from everything else. By the equations they tie.
    """
    random = np.random.RandomState(seed)
    rooms, dim = 20, 4
    query, gallery, labels, gallery_labels = [], [], [], []
    for room in range(rooms):

        def at(*place: int, room: int = room) -> np.ndarray:
            feature = np.zeros(rooms * dim)
            feature[room * dim : (room + 1) * dim] = (20, *place)
            return feature

        for _ in range(5):
            across, along, up = random.randint(1, 9), *random.randint(-9, 10, 2)
            gallery += [at(across, along, up), at(-across, along, up)]
            gallery_labels += [2 * room, 2 * room + 1]
        for _ in range(10):
            side = random.randint(2)
            lean = (5, -5)[side] if room % 2 else 0
            query.append(at(lean, *random.randint(-9, 10, 2)))
            labels.append(2 * room + side)
    return np.array(query), np.array(gallery), np.array(labels), np.array(gallery_labels)


TIED = np.arange(200) // 10 % 2 == 0
ALONE = {"k1": 20, "k2": 6, "original": 0.0, "formula": "code"}


class TestTies:
    """Ties by the equations are ties, and count against us, whatever the rounding of sums makes of them."""

    def rank1(self, query, gallery, labels, gallery_labels, **options) -> float:
        ranking = k_reciprocal.rerank_matches(query, gallery, labels, gallery_labels, **{**ALONE, **options})
        return float(hit(ranking, 1).mean())

    def as_rounded(self, query, gallery, labels, gallery_labels) -> float:
        """Rank-1 of the same distances, compared as they are."""
        final = distances(query, gallery, 20, 6, 0.0, "code")
        return float(hit(rank_from_similarity(-final, labels, gallery_labels), 1).mean())

    def test_the_scene_is_one_in_which_rounding_decides(self):
        """Naming the coordinates in another order changes no distance, but the order of the terms of sums."""
        query, gallery, *labels = mirrored()
        orders = [np.random.RandomState(seed).permutation(query.shape[1]) for seed in range(5)]
        found = [self.as_rounded(query[:, order], gallery[:, order], *labels) for order in orders]
        assert max(found) - min(found) >= 0.04
        assert {self.rank1(query[:, order], gallery[:, order], *labels) for order in orders} == {
            self.rank1(query, gallery, *labels)
        }
        assert 0.4 < self.rank1(query, gallery, *labels) <= min(found) - 0.05  # the others were luck

    @pytest.mark.parametrize("formula", ["paper", "code"])
    @pytest.mark.parametrize("original", [0.0, 0.3])
    def test_the_order_of_photos_and_coordinates_changes_nothing(self, formula: str, original: float):
        query, gallery, labels, gallery_labels = mirrored()
        options = {"formula": formula, "original": original}
        expected = self.rank1(query, gallery, labels, gallery_labels, **options)
        for seed in range(3):
            random = np.random.RandomState(seed)
            at, of, order = (random.permutation(count) for count in (*map(len, (query, gallery)), query.shape[1]))
            moved = query[at][:, order], gallery[of][:, order], labels[at], gallery_labels[of]
            assert self.rank1(*moved, **options) == expected

    def test_photos_given_twice_change_nothing_for_those_that_tie(self):
        """With every photo twice, a right and a wrong one mirror each other as before: no tie turns into an answer."""
        query, gallery, labels, gallery_labels = mirrored()
        twice = [np.repeat(one, 2, axis=0) for one in (query, gallery, labels, gallery_labels)]
        for scene, some in (((query, gallery, labels, gallery_labels), TIED), (twice, np.repeat(TIED, 2))):
            first = first_rank(k_reciprocal.rerank_matches(*scene, **ALONE))
            assert (first[some] > 1).all()

    def test_copies_of_a_photo_share_their_fate(self):
        """A wrong copy of the right photo ranks before it, and a query's copy finds what the query finds."""
        query, gallery, labels, gallery_labels = mirrored()
        again = np.concatenate([gallery, gallery[:1]]), np.concatenate([gallery_labels, [999]])
        ranking = k_reciprocal.rerank_matches(
            np.concatenate([query, query[:1]]), again[0], np.append(labels, labels[0]), again[1], **ALONE
        )
        parts = np.split(ranking.ranks, ranking.offsets[1:-1])
        assert parts[0].tolist() == parts[-1].tolist()


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
    query, gallery = scene(1, 7, 29)
    expected = distances(query, gallery, 6, 3, 0.3)
    points = neighbours.points_of(query, gallery)
    whole_tile = neighbours.nearest(points, 7)
    monkeypatch.setattr(k_reciprocal, "_CELLS", cells)
    for block in (1, 2, 5, 7, 64):
        assert np.array_equal(distances(query, gallery, 6, 3, 0.3, block=block), expected)
    for block in (1, 3, 16, 36, 100):
        tiled = neighbours.nearest(points, 7, block=block)
        assert np.array_equal(tiled.first(7).toarray(), whole_tile.first(7).toarray())
        assert np.array_equal(tiled.farthest, whole_tile.farthest)
    by_tiles = neighbours.nearest
    for block in (1, 3, 16):
        monkeypatch.setattr(k_reciprocal, "nearest", lambda points, k, block=block: by_tiles(points, k, block=block))
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
    ranking = k_reciprocal.rerank_matches(*features, np.arange(3), np.arange(2000) % 1000)
    assert ranking.ranks.tolist() == [1999, 2000] * 3


def test_a_zero_with_a_sign_is_a_zero():
    points = neighbours.points_of(np.array([[1.0, -0.0]]), np.array([[1.0, 0.0]]))
    assert points.copies.tolist() == [2]


def test_with_the_original_distance_alone_the_ranking_is_the_plain_one():
    query, gallery = clustered(4, 20, 60)
    labels = np.arange(20) % 5, np.arange(60) % 6
    plain = rank_matches(query, gallery, *labels)
    ours = k_reciprocal.rerank_matches(query, gallery, *labels, k1=5, k2=2, original=1.0)
    assert np.array_equal(ours.ranks, plain.ranks)
    assert not np.array_equal(k_reciprocal.rerank_matches(query, gallery, *labels, k1=5, k2=2).ranks, plain.ranks)


def test_it_finds_what_a_chain_of_neighbours_leads_to():
    """Two arcs of a circle: the far end of the query's own is farther than the near end of the other's."""
    angles = np.radians([0, *range(5, 50, 5), *range(-52, -97, -5)])
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    labels = np.array([0] * 1), np.array([0] * 9 + [1] * 9)
    query, gallery = features[:1], features[1:]
    tilted = np.concatenate([gallery[:9] @ np.array([[1, 0.2], [-0.2, 1]]), gallery[9:]])
    plain = rank_matches(query, tilted, *labels)
    ours = k_reciprocal.rerank_matches(query, tilted, *labels, k1=6, k2=3)
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
@pytest.mark.parametrize("way", [k_reciprocal.rerank, lambda *both: query_expansion.expand(*both, neighbours=2)])
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
        found = query_expansion.expand(query, gallery, neighbours=n, alpha=alpha, block=block)
        np.testing.assert_allclose(found, self.by_definition(query, gallery, n, alpha), atol=1e-7)

    def test_a_query_that_cancels_out_stays_as_it_is(self):
        query, gallery = np.array([[3.0, 4.0]]), np.array([[-3.0, -4.0]])
        np.testing.assert_allclose(query_expansion.expand(query, gallery, neighbours=1), [[0.6, 0.8]], atol=1e-7)

    def test_equal_queries_stay_equal_and_blocks_change_no_bit(self):
        query, gallery = clustered(6, 8, 30)
        query[5] = query[2]
        found = query_expansion.expand(query, gallery, neighbours=4, alpha=3.0)
        assert np.array_equal(found[5], found[2])
        for block in (1, 3, 100):
            assert np.array_equal(query_expansion.expand(query, gallery, neighbours=4, alpha=3.0, block=block), found)

    @given(
        st.integers(0, 2**32),
        st.sampled_from([clustered, lattice]),
        st.integers(1, 20),
        st.sampled_from([0.0, 1.0, 3.0]),
        st.sampled_from([None, 1, 3]),
    )
    @settings(max_examples=40, deadline=None)
    def test_gallery_photos_are_the_means_of_the_definition(self, seed, scene, n, alpha, block):
        """Of each gallery photo and its nearest others, itself not counted."""
        gallery = scene(seed, 1, 12)[1]
        found = query_expansion.expand_gallery(gallery, neighbours=n, alpha=alpha, block=block)
        for at in range(len(gallery)):
            others = np.delete(gallery, at, axis=0)
            expected = self.by_definition(gallery[at : at + 1], others, n, alpha)
            np.testing.assert_allclose(found[at : at + 1], expected, atol=1e-7)

    def test_equal_gallery_photos_stay_equal_and_blocks_change_no_bit(self):
        _, gallery = clustered(8, 1, 30)
        gallery[[4, 9]] = gallery[17]
        found = query_expansion.expand_gallery(gallery, neighbours=4, alpha=3.0)
        assert np.array_equal(found[4], found[17])
        assert np.array_equal(found[9], found[17])
        for block in (1, 3, 100):
            assert np.array_equal(query_expansion.expand_gallery(gallery, neighbours=4, alpha=3.0, block=block), found)
        order = np.random.default_rng(0).permutation(30)
        assert np.array_equal(
            query_expansion.expand_gallery(gallery[order], neighbours=4),
            query_expansion.expand_gallery(gallery, neighbours=4)[order],
        )

    def test_a_gallery_of_one_photo_has_nothing_to_be_averaged_with(self):
        np.testing.assert_allclose(
            query_expansion.expand_gallery(np.array([[3.0, 4.0]]), neighbours=2), [[0.6, 0.8]], atol=1e-7
        )
        assert query_expansion.expand_gallery(np.empty((0, 3)), neighbours=2).shape == (0, 3)

    def test_it_ranks_among_the_expanded_gallery(self):
        query, gallery = clustered(7, 20, 60)
        labels = np.arange(20) % 5, np.arange(60) % 6
        ours = query_expansion.expand_matches(query, gallery, *labels, neighbours=5, alpha=1.0, side="gallery")
        expanded = query_expansion.expand_gallery(gallery, neighbours=5, alpha=1.0)
        assert np.array_equal(ours.ranks, rank_matches(query, expanded, *labels).ranks)
        assert not np.array_equal(ours.ranks, rank_matches(query, gallery, *labels).ranks)

    def test_it_ranks_with_the_expanded_query(self):
        query, gallery = clustered(7, 20, 60)
        labels = np.arange(20) % 5, np.arange(60) % 6
        ours = query_expansion.expand_matches(query, gallery, *labels, neighbours=5, alpha=1.0)
        expanded = query_expansion.expand(query, gallery, neighbours=5, alpha=1.0)
        assert np.array_equal(ours.ranks, rank_matches(expanded, gallery, *labels).ranks)
        assert not np.array_equal(ours.ranks, rank_matches(query, gallery, *labels).ranks)


LABELS = {"query_labels": np.arange(20) % 5, "gallery_labels": np.arange(60) % 6}
CAMERAS = {"query_cameras": np.arange(20) % 3, "gallery_cameras": np.arange(60) % 4}


class TestCameras:
    """Photos of the query's identity and camera are left out of the ranks, and are neighbours as all others."""

    def test_of_re_ranking(self):
        query, gallery = clustered(7, 20, 60)
        ours = k_reciprocal.rerank_matches(query, gallery, **LABELS, **CAMERAS, k1=6, k2=3)
        final = distances(query, gallery, 6, 3, 0.3)
        expected = rank_from_similarity(-final, *LABELS.values(), **CAMERAS, tolerance=1e-12)
        assert np.array_equal(ours.ranks, expected.ranks)
        assert np.array_equal(ours.offsets, expected.offsets)
        assert len(ours.ranks) < len(k_reciprocal.rerank_matches(query, gallery, **LABELS, k1=6, k2=3).ranks)

    @pytest.mark.parametrize("side", ["query", "gallery"])
    def test_of_expansion(self, side: str):
        query, gallery = clustered(7, 20, 60)
        ours = query_expansion.expand_matches(query, gallery, **LABELS, **CAMERAS, neighbours=4, side=side)
        if side == "query":
            query = query_expansion.expand(query, gallery, neighbours=4)
        else:
            gallery = query_expansion.expand_gallery(gallery, neighbours=4)
        expected = rank_matches(query, gallery, *LABELS.values(), **CAMERAS)
        assert np.array_equal(ours.ranks, expected.ranks)
        assert np.array_equal(ours.offsets, expected.offsets)

    @pytest.mark.parametrize(
        "way", [k_reciprocal.rerank_matches, lambda *a, **o: query_expansion.expand_matches(*a, neighbours=2, **o)]
    )
    def test_half_of_them_is_an_error(self, way):
        with pytest.raises(DataError, match="the gallery photos have no cameras"):
            way(*clustered(7, 20, 60), **LABELS, query_cameras=np.arange(20))


@pytest.mark.parametrize("block", [-1, 0])
def test_blocks_under_one_are_refused_at_once(block: int):
    both = np.ones((3, 4)), np.ones((2, 4))
    for way in (k_reciprocal.rerank, lambda *a, **o: query_expansion.expand(*a, neighbours=1, **o)):
        with pytest.raises(DataError, match=f"block is {block}"):
            way(*both, block=block)


@pytest.mark.parametrize(
    "way",
    [
        unwrap(k_reciprocal.rerank),
        lambda *both: unwrap(query_expansion.expand)(*both, neighbours=2),
        lambda *both: unwrap(k_reciprocal.rerank_matches)(*both, np.arange(3), np.arange(3)),
    ],
)
def test_features_of_two_widths_are_refused(way):
    with pytest.raises(DataError, match="query features have 4 numbers per photo, gallery features 5"):
        way(np.ones((3, 4)), np.ones((3, 5)))


BOTH = "evaluate.rerank=[{k1: 4, k2: 2}, {kind: query_expansion, neighbours: 2}]"


def micro(*overrides: str) -> Recipe:
    return parse_recipe(MICRO_RECIPE, "micro", ("stages.0.epochs=1", *overrides))


class TestRecipe:
    def test_one_mapping_is_enough_and_reads_back_equal(self):
        recipe = micro("evaluate.rerank={k1: 10, lambda: 0.5}")
        (way,) = recipe.evaluate.rerank
        assert (way.kind, way.k1, way.k2, way.lambda_, way.formula) == ("k_reciprocal", 10, 6, 0.5, "paper")
        text = dump_recipe(recipe)
        assert "    lambda: 0.5\n" in text
        assert "lambda_" not in text
        assert parse_recipe(text, "dumped") == recipe

    def test_several_read_back_equal(self):
        recipe = micro(BOTH)
        assert [type(way) for way in recipe.evaluate.rerank] == [KReciprocal, QueryExpansion]
        assert parse_recipe(dump_recipe(recipe), "dumped") == recipe
        assert micro("evaluate.rerank=null") == micro("evaluate.rerank=[]") == micro()

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ("{lambada: 1}", "unknown key 'evaluate.rerank.lambada'; did you mean 'lambda'"),
            ("{lambda_: 1}", "unknown key 'evaluate.rerank.lambda_'; did you mean 'lambda'"),
            ("{lambda: 2}", "evaluate.rerank.lambda is 2: Input should be less than or equal to 1"),
            ("[{}, {kind: expansion}]", "evaluate.rerank.1.kind 'expansion' is not one of k_reciprocal"),
            ("[{}, {lambda: 0.3}]", "re-ranking k1=20, k2=6, lambda=0.3 twice"),
            ("all", "evaluate.rerank is 'all'"),
        ],
    )
    def test_what_is_wrong_is_named(self, given: str, message: str):
        with pytest.raises(RecipeError) as raised:
            micro(f"evaluate.rerank={given}")
        assert message in str(raised.value)

    def test_command_lines_say_the_same(self):
        (way, expansion_) = micro("evaluate.rerank=[{}, {kind: query_expansion, alpha: 3}]").evaluate.rerank
        assert read_rerank("k1=20,k2=6,lambda=0.3") == read_rerank("formula=paper") == way
        assert read_rerank("expansion=5, alpha=3") == expansion_
        (gallery,) = micro("evaluate.rerank={kind: gallery_expansion, neighbours: 4}").evaluate.rerank
        assert read_rerank("gallery-expansion=4") == read_rerank("gallery_expansion=4") == gallery
        assert gallery.words == "gallery expansion, 4 nearest"

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("k3=2", "unknown key 'k3'; known: k1=20,k2=6,lambda=0.3 (and formula=code), expansion=5 or gallery-"),
            ("k1=many", "k1 is 'many'"),
            ("expansion=0", "expansion is '0'"),
            ("gallery-expansion=0", "gallery-expansion is '0'"),
            ("expansion=2,gallery-expansion=2", "unknown key 'gallery-expansion'"),
            ("expansion=5,k1=3", "unknown key 'k1'"),
            ("kind=best", "kind is"),
            ("20,6,0.3", "write key=value"),
            ("k1=1,k1=2", "each key once"),
            ("", "write key=value"),
        ],
    )
    def test_command_lines_that_mean_nothing(self, text: str, message: str):
        with pytest.raises(RecipeError) as raised:
            read_rerank(text)
        assert str(raised.value).startswith(f"--rerank {text}: ")
        assert message in str(raised.value)


@pytest.fixture(scope="module", autouse=True)
def embeddings_that_find_little():
    """The photos of the tests are too easy: every ranking would be right. These features know nothing of a person."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            inference,
            "embed_rows",
            lambda photos, *_: np.random.default_rng(0).normal(size=(len(photos), 4)).astype(np.float32),
        )
        yield


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose own recipe re-ranks."""
    return train(micro(BOTH), photos, tmp_path_factory.mktemp("reranked") / "run")


@pytest.fixture(scope="module")
def found(run: Run) -> dict:
    path, content = evaluated(run)
    assert path == run.evaluation
    assert set(read_json(path)) == set(content)
    return read_json(path)


class TestEvaluation:
    def test_both_are_reported(self, found: dict):
        names = [of["name"] for of in found["reranked"]]
        assert names == ["re-ranking k1=4, k2=2, lambda=0.3", "query expansion, 2 nearest"]
        assert found["reranked"][0]["how"] == {
            "kind": "k_reciprocal",
            "k1": 4,
            "k2": 2,
            "lambda": 0.3,
            "formula": "paper",
        }
        for of in found["reranked"]:
            assert of["metrics"].keys() == of["against"].keys() == found["metrics"].keys()
            assert of["views"].keys() == found["views"].keys()
            for name, gain in of["against"].items():
                assert gain["value"] == pytest.approx(of["metrics"][name]["value"] - found["metrics"][name]["value"])
                assert gain["low"] <= gain["value"] <= gain["high"]
            assert of["seconds"] > 0
        assert "no query has more than one right answer" in rerank_caveat(typed(found))

    def test_the_plain_part_is_as_without(self, found: dict, run: Run, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(Run, "recipe", micro("evaluate.rerank=[]"))
        monkeypatch.setattr(assess, "write_json", lambda *_, **__: None)
        plain = json.loads(json.dumps(evaluated(run)[1]))
        assert "reranked" not in plain
        assert {k: v for k, v in found.items() if k not in ("reranked", "environment")} == {
            k: v for k, v in plain.items() if k != "environment"
        }

    def test_metrics_can_be_had_again_from_the_ranks(self, found: dict):
        plain = [ranks for draw in found["draws"] for ranks in draw["ranks"]]
        for number, of in enumerate(found["reranked"]):
            again = read_reranked(typed(found), number)
            assert again.means() == pytest.approx({name: one["value"] for name, one in of["metrics"].items()})
            assert [len(ranks) for ranks in again.ranks] == [len(ranks) for ranks in plain]
            assert [list(ranks) for ranks in again.ranks] != plain

    def test_each_draw_is_ranked_by_itself_with_the_recipes_numbers(self, run: Run, monkeypatch: pytest.MonkeyPatch):
        asked = []

        def noted(embeddings, rows, draws, identities, rank=rank_matches, *, cameras=None):
            scores = score(embeddings, rows, draws, identities, rank, cameras=cameras)
            at = [np.searchsorted(rows, part) for part in (draws[1].query, draws[1].gallery)]
            labels = [np.unique([identities[row] for row in part]) for part in (draws[1].query, draws[1].gallery)]
            assert len(labels[1]) == len(draws[1].gallery)
            asked.append((embeddings[at[0]], embeddings[at[1]], scores, draws[1], identities))
            return scores

        monkeypatch.setattr("handreid.evaluation.sections.reranking.score", noted)
        monkeypatch.setattr(assess, "write_json", lambda *_, **__: None)
        evaluate(run)
        for (query, gallery, scores, draw, identities), way in zip(asked, run.recipe.evaluate.rerank, strict=True):
            if isinstance(way, KReciprocal):
                final = by_the_paper(query, gallery, way.k1, way.k2, way.lambda_)
            else:
                unit = gallery / np.linalg.norm(gallery, axis=1, keepdims=True)
                final = -(TestExpansion.by_definition(query, gallery, way.neighbours, way.alpha) @ unit.T)
            right = [[identities[g] == identities[q] for g in draw.gallery] for q in draw.query]
            expected = [
                tuple(1 + int((row < row[i]).sum()) for i in np.flatnonzero(is_right))
                for row, is_right in zip(final, right, strict=True)
            ]
            assert [ranks for ranks, number in zip(scores.ranks, scores.draws, strict=True) if number == 1] == expected

    def test_other_ways_get_a_file_of_their_own(self, found: dict, run: Run):
        before = run.evaluation.read_bytes()
        path, other = evaluated(run, rerank=[read_rerank("k1=3,k2=1,lambda=0")])
        assert path.name.endswith(f"-{found['hashes']['draws'][:8]}-re-ranking-k1-3-k2-1-lambda-0.json")
        assert [of["name"] for of in other["reranked"]] == ["re-ranking k1=3, k2=1, lambda=0"]
        assert other["metrics"] == found["metrics"]
        assert run.evaluation.read_bytes() == before
        path, _ = evaluate(run, rerank=run.recipe.evaluate.rerank)
        assert path == run.evaluation

    def test_several_right_answers_are_no_reason_for_a_remark(self, found: dict):
        several = json.loads(json.dumps(found))
        several["draws"][0]["ranks"][0] = [1, 2]
        assert rerank_caveat(typed(several)) == ""
        assert rerank_caveat(typed({**found, "reranked": []})) == ""


class TestLadder:
    def test_a_rung_has_its_re_rankings_below_it(self, photos: Path, tmp_path: Path):
        rungs = run_ladder([micro("name=one", BOTH), micro("name=two", "stages=[]", "seed=1")], photos, tmp_path)
        told = (tmp_path / "ladder.md").read_text()
        lines = [line.split(" | ") for line in told.splitlines()[2:6]]
        assert [line[0] for line in lines] == [
            "| one",
            "| + re-ranking k1=4, k2=2, lambda=0.3",
            "| + query expansion, 2 nearest",
            "| two",
        ]
        gained = rungs[0].evaluation.reranked[0].against["rank1"]
        assert lines[1][-1].startswith(f"{gained.verdict} {100 * gained.value:+.1f} [")
        assert "compared with the rung without re-ranking; no query has more than one right answer" in told
        first, second = read_json(tmp_path / "ladder.json")["rungs"]
        assert [of["name"] for of in first["reranked"]] == [of.name for of in rungs[0].evaluation.reranked]
        assert "ranks" not in first["reranked"][0]
        assert "reranked" not in second

    def test_a_changed_setting_is_not_hidden_by_a_finished_rung(self, run: Run, photos: Path, tmp_path: Path):
        run_ladder([micro("name=one", "stages=[]")], photos, tmp_path)
        with pytest.raises(Exception, match="was started with another recipe"):
            run_ladder([micro("name=one", "stages=[]", BOTH)], photos, tmp_path)

    def test_without_re_ranking_nothing_is_said_of_it(self, found: dict):
        plain = {name: value for name, value in found.items() if name != "reranked"}
        assert "+" not in markdown([Rung("plain", typed(plain), None)]).splitlines()[2]
        assert "rows with +" not in markdown([Rung("plain", typed(plain), None)])


class TestCommandLine:
    def test_plain_first_then_what_is_gained_or_lost(self, run: Run):
        called = handreid(
            "evaluate", run.folder, "--rerank", "k1=3,k2=2", "--rerank", "expansion=2", "--rerank", "k1=3,k2=2"
        )
        assert called.code == 0, called.err
        plain, anew = called.out.split("re-ranked")
        assert "mAP trapezoid" in plain
        rows = [line for line in anew.splitlines() if line.strip().startswith(("plain", "re-ranking", "query expan"))]
        assert "plain" in rows[0]
        (file,) = run.folder.glob("evaluation-*-re-ranking-k1-3-k2-2-lambda-0.3-and-query-expansion-2-nearest.json")
        for row, of in zip(rows[1:], read_json(file)["reranked"], strict=True):
            gains = [of["against"][name] for name in ("rank1", "map")]
            told = [f"{gain['verdict']} {100 * gain['value']:+.1f} [{100 * gain['low']:+.1f}," for gain in gains]
            assert all(one in row for one in told)
            assert f"{100 * of['metrics']['rank1']['value']:.1f} [" in row
        assert "note: no query has more than one right answer" in anew

    def test_programs_get_it_all(self, run: Run):
        called = handreid("evaluate", run.folder, "--rerank", "expansion=3", "--json")
        assert [of["how"]["neighbours"] for of in json.loads(called.out)["reranked"]] == [3]

    def test_a_wrong_way_is_one_line(self, run: Run):
        assert "unknown key 'k4'; known: k1=20" in complaint("evaluate", run.folder, "--rerank", "k4=3")
        assert open_run(run.folder).finished
