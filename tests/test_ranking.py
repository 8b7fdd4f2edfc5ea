import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from handreid.errors import DataError
from handreid.evaluation import ranking as r


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


def rank(similarity, query_labels, gallery_labels, query_cameras, gallery_cameras, **options):
    cameras = {"query_cameras": query_cameras, "gallery_cameras": gallery_cameras}
    return r.rank_from_similarity(similarity, query_labels, gallery_labels, **cameras, **options)


@given(tied_similarities(), st.integers(1, 7))
def test_ranks_are_those_of_the_definition(case, block):
    assert ragged(rank(*case, block=block)) == by_definition(*case)


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
    found = r.metrics(ranking)
    expected = {
        "rank1": [0, 1],
        "rank5": [1, 1],
        "rank10": [1, 1],
        "map": [(1 / 2 + 2 / 4) / 2, 1],
        "map_trapezoid": [((0 / 1 + 1 / 2) / 2 + (1 / 3 + 2 / 4) / 2) / 2, 1],
        "mrr": [1 / 2, 1],
        "minp": [2 / 4, 1],
    }
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], [*values, np.nan], rtol=1e-15, err_msg=name)
    np.testing.assert_allclose(r.cmc(ranking, 3), [1 / 2, 1, 1])
    np.testing.assert_allclose(r.cmc(ranking, 1), [1 / 2])


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
    found = r.average_precision(r.rank_from_similarity(similarity, labels, gallery_labels))
    expected = [
        average_precision_score(gallery_labels == label, row) for label, row in zip(labels, similarity, strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_average_precision_with_ties_and_one_right_answer_is_scikit_learns():
    random = np.random.default_rng(1)
    similarity = random.integers(0, 5, (100, 20)) / 5
    labels = random.integers(0, 20, 100)
    found = r.average_precision(r.rank_from_similarity(similarity, labels, np.arange(20)))
    expected = [
        average_precision_score(np.arange(20) == label, row) for label, row in zip(labels, similarity, strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_with_one_right_answer_the_trapezoid_is_half_rank1_half_mrr():
    random = np.random.default_rng(2)
    features = random.standard_normal((300, 8)).astype(np.float32)
    labels = np.arange(300) % 50
    found = r.metrics(r.rank_matches(features[50:], features[:50], labels[50:], labels[:50]))
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
    assert r.hit(ranking, 1).sum() == 0


def test_the_same_camera_is_left_out_only_for_the_same_person():
    similarity = np.array([[0.9, 0.8, 0.7, 0.6]])
    ranking = rank(similarity, ints(1), ints(1, 2, 1, 3), ints(0), ints(0, 0, 1, 1))
    assert ragged(ranking) == [[2]]


def test_queries_without_answer_are_counted_not_averaged():
    empty = r.rank_matches(np.ones((2, 3)), np.empty((0, 3)), ints(1, 2), ints())
    assert empty.unanswerable == 2
    assert all(np.isnan(values).all() for values in r.metrics(empty).values())
    assert np.isnan(r.cmc(empty, 4)).all()
    nobody = r.rank_matches(np.empty((0, 3)), np.ones((2, 3)), ints(), ints(1, 2))
    assert nobody.unanswerable == 0
    assert len(r.first_rank(nobody)) == 0


def test_cmc_is_the_mean_of_hits():
    ranking = rank_scene(*scene(5))
    expected = [np.nanmean(r.hit(ranking, k)) for k in range(1, 31)]
    np.testing.assert_allclose(r.cmc(ranking, 30), expected)


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


def test_half_of_the_cameras_is_an_error():
    with pytest.raises(DataError, match="the gallery photos have no cameras"):
        rank(np.zeros((1, 2)), ints(0), ints(0, 1), ints(0), None)


def test_too_few_labels_are_an_error():
    unchecked = r.rank_from_similarity.__wrapped__  # outside the tests nothing checks the shapes first
    with pytest.raises(DataError, match="1 gallery labels for 2 photos"):
        unchecked(np.zeros((1, 2)), ints(0), ints(0))
