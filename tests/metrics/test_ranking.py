from inspect import unwrap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from handreid.errors import DataError
from handreid.metric_table import metrics_of
from handreid.metrics import ranking as r
from handreid.metrics import ranking_metrics as rm
from handreid.metrics.arrays import exact_unit_vectors
from handreid.metrics.ranking_metrics import PER_QUERY


def ints(*values):
    return np.array(values, dtype=np.int64)


def by_definition(similarity, query_labels, gallery_labels, query_cameras=None, gallery_cameras=None):
    """Ranks of the right answers of each query, from a full sort with the wrong photo first in a tie."""
    ranks = []
    for i, row in enumerate(similarity):
        shown = []
        for j, value in enumerate(row):
            right = bool(gallery_labels[j] == query_labels[i])
            if query_cameras is not None and right and gallery_cameras[j] == query_cameras[i]:
                continue
            shown.append((-value, right))
        ranks.append([place for place, (_, right) in enumerate(sorted(shown), start=1) if right])
    return ranks


def ragged(ranking):
    return [part.tolist() for part in np.split(ranking.ranks, ranking.offsets[1:-1])]


@st.composite
def tied_similarities(draw):
    """Few different values, so that ties abound; several right answers, none, and cameras."""
    queries, photos = draw(st.integers(1, 6)), draw(st.integers(0, 12))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    similarity = random.integers(0, draw(st.integers(1, 6)), (queries, photos)) / 4
    labels = random.integers(0, 4, queries), random.integers(-1, 4, photos)
    cameras = (random.integers(0, 3, queries), random.integers(0, 3, photos)) if draw(st.booleans()) else (None, None)
    return similarity, *labels, *cameras


def identity_ranks_by_definition(similarity, query_labels, gallery_labels, query_cameras=None, gallery_cameras=None):
    """The list collapsed: each identity once, by its best photo, the wrong ones first in a tie."""
    found = []
    for i, row in enumerate(similarity):
        best = {}
        for j, value in enumerate(row):
            right = bool(gallery_labels[j] == query_labels[i])
            if not (query_cameras is not None and right and gallery_cameras[j] == query_cameras[i]):
                best[gallery_labels[j]] = max(best.get(gallery_labels[j], -np.inf), value)
        shown = sorted((-value, label == query_labels[i]) for label, value in best.items())
        found.append(next((place for place, (_, right) in enumerate(shown, start=1) if right), 0))
    return found


def rank(similarity, query_labels, gallery_labels, query_cameras, gallery_cameras, **options):
    cameras = {"query_cameras": query_cameras, "gallery_cameras": gallery_cameras}
    return r.rank_from_similarity(similarity, query_labels, gallery_labels, **cameras, **options)


@given(tied_similarities(), st.integers(1, 7))
def test_ranks_are_those_of_the_definition(case, block):
    assert ragged(rank(*case, block=block)) == by_definition(*case)


@given(tied_similarities(), st.integers(1, 7))
def test_ranks_of_identities_are_those_of_the_collapsed_list(case, block):
    ranking = rank(*case, block=block)
    assert ranking.identity_ranks.tolist() == identity_ranks_by_definition(*case)
    for k in (1, 5):
        found = rm.identity_hit(ranking, k)
        assert np.array_equal(np.isnan(found), ranking.matches == 0)
        assert found[ranking.matches > 0].tolist() == [
            float(rank <= k) for rank in ranking.identity_ranks[ranking.matches > 0]
        ]
    assert np.array_equal(rm.identity_hit(ranking, 1), rm.hit(ranking, 1), equal_nan=True)


@given(tied_similarities())
def test_r_precision_and_map_at_r_are_their_definitions(case):
    """Manning et al. 2008, section 8.4; Musgrave et al. 2020, section 3.2: P(i) is the precision at i if i is right."""
    ranking = rank(*case)
    for ranks, precision, at_r in zip(ragged(ranking), rm.r_precision(ranking), rm.map_at_r(ranking), strict=True):
        if not ranks:
            assert np.isnan([precision, at_r]).all()
            continue
        right = [place in ranks for place in range(1, len(ranks) + 1)]  # the first R of the list
        assert precision == pytest.approx(sum(right) / len(right))
        expected = [sum(right[:i]) / i if right[i - 1] else 0 for i in range(1, len(right) + 1)]
        assert at_r == pytest.approx(sum(expected) / len(right))


def test_with_one_photo_of_each_identity_the_new_metrics_are_old_ones():
    """R is 1, so the first R are the first; and no identity is twice in the list."""
    query, gallery, labels, _, _, _ = scene(1)
    found = rm.metrics(r.rank_matches(query, gallery[:5], labels, np.arange(5)))
    for name in ("r_precision", "map_at_r", "identity_rank1"):
        np.testing.assert_array_equal(found[name], found["rank1"], err_msg=name)
    np.testing.assert_array_equal(found["identity_rank5"], found["rank5"])
    np.testing.assert_array_equal(found["identity_rank10"], found["rank10"])


def test_a_collapsed_model_has_the_worst_of_all_metrics():
    ranking = r.rank_matches(np.ones((3, 4)), np.ones((40, 4)), ints(0, 1, 2), np.arange(40) % 20)
    found = rm.metrics(ranking)
    assert ranking.identity_ranks.tolist() == [20, 20, 20]
    for name in ("r_precision", "map_at_r", "identity_rank1", "identity_rank5", "identity_rank10"):
        assert not found[name].any()


def test_ranks_that_were_written_down_do_not_know_identities():
    ranking = r.Ranking(ints(1, 3), ints(0, 2))
    assert not any(name.startswith("identity") for name in rm.metrics(ranking))
    with pytest.raises(DataError, match="compute it again"):
        rm.identity_hit(ranking, 5)


@given(tied_similarities())
@settings(max_examples=30)
def test_sorting_and_counting_agree(case):
    always_counted = rank(*case)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(r, "_SORTING", 0)
        assert ragged(rank(*case)) == ragged(always_counted)


def test_metrics_by_hand():
    # Query 0: right photos at .9 (tied with a wrong one) and .1; query 1: at .8, alone on top; query 2: none.
    similarity = np.array([[0.9, 0.9, 0.5, 0.1], [0.8, 0.2, 0.3, 0.1], [0.4, 0.3, 0.2, 0.1]])
    ranking = r.rank_from_similarity(similarity, ints(7, 5, 9), ints(5, 7, 6, 7))
    assert ragged(ranking) == [[2, 4], [1], []]
    assert ranking.unanswerable == 1
    found = rm.metrics(ranking)
    expected = {
        "rank1": [0, 1],
        "rank5": [1, 1],
        "rank10": [1, 1],
        "map": [(1 / 2 + 2 / 4) / 2, 1],
        "map_trapezoid": [((0 / 1 + 1 / 2) / 2 + (1 / 3 + 2 / 4) / 2) / 2, 1],
        "mrr": [1 / 2, 1],
        "minp": [2 / 4, 1],
        "r_precision": [1 / 2, 1],
        "map_at_r": [(1 / 2) / 2, 1],
        "identity_rank1": [0, 1],
        "identity_rank5": [1, 1],
        "identity_rank10": [1, 1],
    }
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], [*values, np.nan], rtol=1e-15, err_msg=name)
    np.testing.assert_allclose(rm.cmc(ranking, 3), [1 / 2, 1, 1])
    np.testing.assert_allclose(rm.cmc(ranking, 1), [1 / 2])


def test_three_way_tie_counts_every_wrong_photo_ahead():
    similarity = np.full((1, 5), 0.3, dtype=np.float32)
    ranking = r.rank_from_similarity(similarity, ints(1), ints(1, 2, 1, 3, 4))
    assert ragged(ranking) == [[4, 5]]


def test_average_precision_is_scikit_learns():
    random = np.random.default_rng(0)
    similarity, labels, gallery_labels = (
        random.standard_normal((60, 200)),
        random.integers(0, 9, 60),
        random.integers(0, 9, 200),
    )
    found = rm.average_precision(r.rank_from_similarity(similarity, labels, gallery_labels))
    expected = [
        average_precision_score(gallery_labels == label, row) for label, row in zip(labels, similarity, strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_average_precision_with_ties_and_one_right_answer_is_scikit_learns():
    random = np.random.default_rng(1)
    similarity = random.integers(0, 5, (100, 20)) / 5
    labels = random.integers(0, 20, 100)
    found = rm.average_precision(r.rank_from_similarity(similarity, labels, np.arange(20)))
    expected = [
        average_precision_score(np.arange(20) == label, row) for label, row in zip(labels, similarity, strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_with_one_right_answer_the_trapezoid_is_half_rank1_half_mrr():
    random = np.random.default_rng(2)
    features = random.standard_normal((300, 8)).astype(np.float32)
    labels = np.arange(300) % 50
    found = rm.metrics(r.rank_matches(features[50:], features[:50], labels[50:], labels[:50]))
    np.testing.assert_allclose(found["map_trapezoid"], (found["rank1"] + found["mrr"]) / 2)
    np.testing.assert_allclose(found["map"], 2 * found["map_trapezoid"] - found["rank1"])
    np.testing.assert_array_equal(found["map"], found["minp"])


def scene(seed, dim=17):
    """Features in float32 with many exact duplicates among right and wrong photos."""
    random = np.random.default_rng(seed)
    pool = random.standard_normal((9, dim)).astype(np.float32)
    query, gallery = pool[random.integers(0, 9, 23)], pool[random.integers(0, 9, 41)]
    labels = random.integers(0, 5, 23), random.integers(-1, 5, 41)
    return query, gallery, *labels, random.integers(0, 3, 23), random.integers(0, 3, 41)


def rank_scene(query, gallery, query_labels, gallery_labels, query_cameras, gallery_cameras, **options):
    cameras = {"query_cameras": query_cameras, "gallery_cameras": gallery_cameras}
    return r.rank_matches(query, gallery, query_labels, gallery_labels, **cameras, **options)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("dim", [3, 17, 128])
def test_order_and_block_change_nothing_even_in_ties(seed, dim):
    query, gallery, query_labels, gallery_labels, query_cameras, gallery_cameras = scene(seed, dim)
    expected = ragged(rank_scene(*scene(seed, dim)))
    random = np.random.default_rng(seed)
    at, of = random.permutation(23), random.permutation(41)
    for block in (1, 2, 7, 64):
        moved = rank_scene(
            query[at],
            gallery[of],
            query_labels[at],
            gallery_labels[of],
            query_cameras[at],
            gallery_cameras[of],
            block=block,
        )
        assert ragged(moved) == [expected[i] for i in at]


def test_duplicates_of_one_photo_are_exact_ties():
    random = np.random.default_rng(3)
    photo = random.standard_normal((1, 513)).astype(np.float32)
    query = random.standard_normal((20, 513)).astype(np.float32)
    ranking = r.rank_matches(query, np.repeat(photo, 37, axis=0), np.arange(20), np.arange(37))
    assert (ranking.ranks == 37).all()


@given(st.integers(0, 2**32), st.sampled_from([np.float16, np.float32, np.float64]))
@settings(max_examples=30)
def test_features_rank_as_their_cosine(seed, dtype):
    random = np.random.default_rng(seed)
    query, gallery = random.standard_normal((5, 6)).astype(dtype), random.standard_normal((30, 6)).astype(dtype)
    labels = random.integers(0, 6, 5), random.integers(0, 6, 30)
    cosine = np.array(
        [[float(a @ b / np.sqrt(a @ a * (b @ b))) for b in gallery.astype(float)] for a in query.astype(float)]
    )
    assert ragged(r.rank_matches(query, gallery, *labels)) == by_definition(cosine, *labels)


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1e30, 1e200])
def test_length_of_a_feature_changes_nothing(scale):
    query, gallery, *rest = scene(0)
    expected = ragged(rank_scene(query, gallery, *rest))
    power = 2.0 ** np.round(np.log2(scale))  # a power of two rounds nothing
    scaled = rank_scene(query.astype(np.float64) * power, gallery.astype(np.float64) * power, *rest)
    assert ragged(scaled) == expected


def test_a_collapsed_model_gets_the_worst_ranks():
    ranking = r.rank_matches(np.ones((3, 4)), np.ones((10, 4)), ints(0, 1, 2), np.arange(10) % 5)
    assert ragged(ranking) == [[9, 10]] * 3
    assert rm.hit(ranking, 1).sum() == 0


def test_the_same_camera_is_left_out_only_for_the_same_person():
    similarity = np.array([[0.9, 0.8, 0.7, 0.6]])
    ranking = rank(similarity, ints(1), ints(1, 2, 1, 3), ints(0), ints(0, 0, 1, 1))
    assert ragged(ranking) == [[2]]


def test_queries_without_answer_are_counted_not_averaged():
    empty = r.rank_matches(np.ones((2, 3)), np.empty((0, 3)), ints(1, 2), ints())
    assert empty.unanswerable == 2
    assert all(np.isnan(values).all() for values in rm.metrics(empty).values())
    assert np.isnan(rm.cmc(empty, 4)).all()
    nobody = r.rank_matches(np.empty((0, 3)), np.ones((2, 3)), ints(), ints(1, 2))
    assert nobody.unanswerable == 0
    assert len(rm.first_rank(nobody)) == 0


def test_cmc_is_the_mean_of_hits():
    ranking = rank_scene(*scene(5))
    expected = [np.nanmean(rm.hit(ranking, k)) for k in range(1, 31)]
    np.testing.assert_allclose(rm.cmc(ranking, 30), expected)


@pytest.mark.parametrize(("value", "what"), [(0.0, "all zero"), (np.nan, "not finite"), (np.inf, "not finite")])
def test_a_feature_without_direction_is_named(value, what):
    gallery = np.ones((5, 3), dtype=np.float32)
    gallery[3] = value
    with pytest.raises(DataError, match=rf"gallery photo 3 \(counted from 0\) is {what}, one of 1 "):
        r.rank_matches(np.ones((2, 3)), gallery, ints(0, 1), np.arange(5))
    with pytest.raises(DataError, match="query photo 3 "):
        r.rank_matches(gallery, np.ones((2, 3)), np.arange(5), ints(0, 1))


def test_a_similarity_that_is_no_number_is_named():
    similarity = np.zeros((6, 4))
    similarity[4, 2] = np.nan
    with pytest.raises(DataError, match=r"query 4 and gallery photo 2 .* is nan"):
        r.rank_from_similarity(similarity, np.arange(6), np.arange(4), block=3)


def test_with_a_tolerance_what_is_nearly_as_similar_ranks_before():
    similarity = np.array([[0.5, 0.5 - 1e-12, 0.5 - 1e-9, 0.4]])
    labels = ints(1), ints(1, 2, 3, 1)
    assert ragged(r.rank_from_similarity(similarity, *labels)) == [[1, 4]]
    assert ragged(r.rank_from_similarity(similarity, *labels, tolerance=1e-11)) == [[2, 4]]
    near = r.rank_from_similarity(similarity, *labels, tolerance=1e-8)
    assert ragged(near) == [[3, 4]]
    assert near.identity_ranks.tolist() == [3]
    for wrong in (-1e-9, np.nan, np.inf):
        with pytest.raises(DataError, match="tolerance is"):
            r.rank_from_similarity(similarity, *labels, tolerance=wrong)


def test_rounding_of_features_is_what_the_docstring_says():
    """2**-26 is finer than float32 from 1/8 on, coarser below; a cosine moves by no more than 2**-26 * sqrt(dim)."""
    for entry in (0.125, 0.3, 0.9):
        assert float(np.spacing(np.float32(entry))) >= 2.0**-26
    assert float(np.spacing(np.float32(0.124))) == 2.0**-27
    random = np.random.default_rng(0)
    for dim in (3, 64, 512):
        features = random.standard_normal((40, dim)).astype(np.float32)
        exact = features.astype(np.longdouble)
        exact /= np.sqrt((exact**2).sum(axis=1, keepdims=True))
        units = exact_unit_vectors(features, "query") / 2.0**26
        moved = np.abs(units @ units.T - (exact @ exact.T).astype(np.float64))
        assert 0 < moved.max() <= 2.0**-26 * np.sqrt(dim)
    assert np.abs(units - exact).max() > 2.0**-28  # it does round what float32 tells apart


LABELS = (np.arange(3), np.arange(4))
FEATURES = (np.ones((3, 5)), np.ones((4, 5)))


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((*FEATURES, *LABELS), {"block": -1}, "block is -1; give the number of queries to compare at a time"),
        ((*FEATURES, *LABELS), {"block": 0}, "block is 0"),
        ((*FEATURES, *LABELS), {"block": 2.5}, "block is 2.5"),
        ((*FEATURES, *LABELS), {"block": True}, "block is True"),
        ((*FEATURES, [0, 1, 2], LABELS[1]), {}, "query labels are of type list; give a one-dimensional NumPy array"),
        ((*FEATURES, LABELS[0], np.array(list("abcd"))), {}, "gallery labels are an array of <U1 with 1 dimension;"),
        ((*FEATURES, LABELS[0] / 2, LABELS[1]), {}, "query labels are an array of float64"),
        ((*FEATURES, LABELS[0][:, None], LABELS[1]), {}, "query labels are an array of int64 with 2 dimensions"),
        ((*FEATURES, LABELS[0][:2], LABELS[1]), {}, "2 query labels for 3 photos"),
        (
            (*FEATURES, LABELS[0], LABELS[1].astype(np.uint64)),
            {},
            "gallery labels uint64, and no integer type",
        ),
        ((FEATURES[0], np.ones((4, 6)), *LABELS), {}, "query features have 5 numbers per photo, gallery features 6"),
        (([[1.0] * 5] * 3, FEATURES[1], *LABELS), {}, "query features are of type list"),
        ((np.ones(5), FEATURES[1], *LABELS), {}, "query features are an array of float64 with 1 dimension;"),
        ((FEATURES[0].astype(complex), FEATURES[1], *LABELS), {}, "query features are an array of complex128"),
        ((FEATURES[0], None, *LABELS), {}, "gallery features are of type NoneType"),
        ((*FEATURES, *LABELS), {"query_cameras": [0, 1, 2], "gallery_cameras": LABELS[1]}, "query cameras are of type"),
        ((*FEATURES, *LABELS), {"query_cameras": LABELS[0]}, "the gallery photos have no cameras"),
    ],
)
def test_arrays_that_cannot_be_compared_are_one_clear_error(arguments, options, message):
    unchecked = unwrap(r.rank_matches)  # outside the tests nothing checks types and shapes first
    with pytest.raises(DataError) as raised:
        unchecked(*arguments, **options)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("similarity", "message"),
    [
        (
            np.zeros((3, 4), np.int64),
            "similarities are an array of int64 with 2 dimensions; give a NumPy array of float",
        ),
        (np.zeros((3, 4), bool), "similarities are an array of bool"),
        ([[0.5] * 4] * 3, "similarities are of type list"),
        (np.zeros(4), "similarities are an array of float64 with 1 dimension;"),
        (np.zeros((2, 4)), "3 query labels for 2 photos"),
        (np.zeros((3, 5)), "4 gallery labels for 5 photos"),
    ],
)
def test_similarities_that_cannot_be_ranked_are_one_clear_error(similarity, message):
    with pytest.raises(DataError) as raised:
        unwrap(r.rank_from_similarity)(similarity, *LABELS)
    assert message in str(raised.value)


@pytest.mark.parametrize("size", [2, 4])
def test_blocks_of_too_few_or_too_many_queries_are_an_error(size):
    with pytest.raises(DataError, match=f"of {size} queries for 3 query labels"):
        r.rank_from_blocks(iter([np.zeros((1, 4)), np.zeros((size - 1, 4))]), *LABELS)
    with pytest.raises(DataError, match="of 3 gallery photos for 4 gallery labels"):
        r.rank_from_blocks(iter([np.zeros((3, 3))]), *LABELS)


def test_half_of_the_cameras_is_an_error():
    with pytest.raises(DataError, match="the gallery photos have no cameras"):
        rank(np.zeros((1, 2)), ints(0), ints(0, 1), ints(0), None)


def test_too_few_labels_are_an_error():
    unchecked = unwrap(r.rank_from_similarity)  # outside the tests nothing checks the shapes first
    with pytest.raises(DataError, match="1 gallery labels for 2 photos"):
        unchecked(np.zeros((1, 2)), ints(0), ints(0))


def test_every_ranking_metric_of_the_table_is_computed_and_no_other():
    assert list(PER_QUERY) == list(metrics_of("ranking"))
