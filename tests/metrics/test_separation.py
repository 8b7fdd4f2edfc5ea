"""Numbers of the space: against loops and scikit-learn, with intervals, and where there is nothing to measure."""

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from sklearn.metrics import calinski_harabasz_score, silhouette_samples

from handreid.errors import DataError
from handreid.metric_table import METRICS, metrics_of
from handreid.metrics import distances
from handreid.metrics.intervals import interval_of
from handreid.metrics.separation import SeparationMetrics, SeparationNumber, compare_separation, separation_metrics


def cloud(
    spread: float = 0.5, subjects: int = 6, hands: int = 2, photos: int = 4, dim: int = 8, seed: int = 0
) -> tuple[np.ndarray, list[str], list[str]]:
    """People with hands around their own centres, in an order that mixes them, with one hand of a single photo."""
    random = np.random.default_rng(seed)
    owner = [f"p{s}" for s in range(subjects) for _ in range(hands * photos)]
    identity = [f"p{s}/{h}" for s in range(subjects) for h in range(hands) for _ in range(photos)]
    centres = np.repeat(random.normal(size=(subjects * hands, dim)), photos, axis=0)
    points = centres + spread * random.normal(size=centres.shape)
    kept = random.permutation(len(points))
    kept = kept[[identity[row] != "p0/0" or row == 0 for row in kept]]
    return points[kept].astype(np.float32), [identity[row] for row in kept], [owner[row] for row in kept]


def looped(embeddings: np.ndarray, identities: list[str]) -> dict[str, float]:
    """Every definition as loops over photos and pairs."""
    x = [row / np.linalg.norm(row) for row in embeddings.astype(np.float64)]
    photos = range(len(x))
    d = [[math.sqrt(sum((x[i] - x[j]) ** 2)) for j in photos] for i in photos]
    of = {name: [i for i in photos if identities[i] == name] for name in identities}
    intra, inter, silhouettes = [], [], []
    for i in photos:
        own = [j for j in of[identities[i]] if j != i]
        others = [np.mean([d[i][j] for j in members]) for name, members in of.items() if name != identities[i]]
        inter.append(min(d[i][j] for j in photos if identities[j] != identities[i]))
        if own:
            intra.append(np.mean([d[i][j] for j in own]))
            silhouettes.append((min(others) - intra[-1]) / max(min(others), intra[-1]))
    centre = sum(x) / len(x)
    means = {name: sum(x[i] for i in members) / len(members) for name, members in of.items()}
    between = sum(len(of[name]) * sum((mean - centre) ** 2) for name, mean in means.items()) / (len(of) - 1)
    within = sum(sum((x[i] - means[identities[i]]) ** 2) for i in photos) / (len(x) - len(of))
    pairs = [(i, j) for i in photos for j in photos if i < j]
    return {
        "intra": float(np.mean(intra)),
        "inter": float(np.mean(inter)),
        "ratio": float(np.mean(intra) / np.mean(inter)),
        "fisher": float(between / within),
        "silhouette": float(np.mean(silhouettes)),
        "alignment": float(np.mean([d[i][j] ** 2 for i, j in pairs if identities[i] == identities[j]])),
        "uniformity": float(np.log(np.mean([np.exp(-2 * d[i][j] ** 2) for i, j in pairs]))),
    }


def values(found: SeparationMetrics) -> dict[str, float]:
    return {name: number.value for name, number in found.numbers.items()}


@pytest.mark.parametrize("spread", [0.1, 0.5, 3.0])
def test_every_number_is_its_definition_written_as_loops(spread: float):
    embeddings, identities, subjects = cloud(spread)
    found = separation_metrics(embeddings, identities, subjects, resamples=50)
    assert values(found) == pytest.approx(looped(embeddings, identities), rel=1e-9)
    assert (found.photos, found.identities, found.subjects, found.alone) == (45, 12, 6, 1)


def test_silhouette_and_fisher_are_those_of_scikit_learn():
    embeddings, identities, subjects = cloud(0.6, seed=1)
    unit = embeddings / np.linalg.norm(embeddings.astype(np.float64), axis=1, keepdims=True)
    found = values(separation_metrics(embeddings, identities, subjects, resamples=50))
    alone = np.array([identities.count(name) == 1 for name in identities])
    assert found["silhouette"] == pytest.approx(silhouette_samples(unit, identities)[~alone].mean())
    assert found["fisher"] == pytest.approx(calinski_harabasz_score(unit, identities))


def test_a_few_rows_at_a_time_give_the_same(monkeypatch: pytest.MonkeyPatch):
    whole = separation_metrics(*cloud(), resamples=50)
    monkeypatch.setattr(distances, "_ENTRIES", 7 * 45)
    parts = separation_metrics(*cloud(), resamples=50)
    assert values(parts) == pytest.approx(values(whole), rel=1e-12)


def test_order_length_and_rotation_of_embeddings_change_nothing():
    embeddings, identities, subjects = cloud()
    random = np.random.default_rng(3)
    order = random.permutation(len(embeddings))
    rotation = np.linalg.qr(random.normal(size=(8, 8)))[0]
    moved = (embeddings.astype(np.float64) @ rotation * random.uniform(0.5, 2, (len(embeddings), 1)))[order]
    again = separation_metrics(moved, [identities[i] for i in order], [subjects[i] for i in order], resamples=50)
    assert values(again) == pytest.approx(
        values(separation_metrics(embeddings, identities, subjects, resamples=50)), rel=1e-5
    )


def test_compacter_is_better_by_every_number_but_uniformity():
    loose, tight = (values(separation_metrics(*cloud(spread), resamples=50)) for spread in (0.8, 0.2))
    for name in metrics_of("separation"):
        lower = not METRICS[name].higher_is_better
        if name != "uniformity":  # it asks for all photos to be apart, those of an identity too
            assert (tight[name] < loose[name]) == lower, name


class TestIntervals:
    def test_each_number_lies_in_its_interval(self):
        for number in separation_metrics(*cloud(subjects=12), resamples=500).numbers.values():
            assert number.low < number.value < number.high

    def test_subjects_are_resampled_not_photos(self):
        embeddings, identities, subjects = cloud(photos=3)
        twice = np.concatenate([embeddings, embeddings])
        once, again = (
            separation_metrics(rows, identities * n, subjects * n, resamples=2000).numbers["inter"]
            for rows, n in ((embeddings, 1), (twice, 2))
        )
        assert again.value == pytest.approx(once.value)
        assert again.high - again.low == pytest.approx(once.high - once.low, rel=1e-6)

    def test_a_pair_within_a_subject_does_not_move_the_middle(self):
        """With a weight squared, all resamples of uniformity would lie above its value."""
        number = separation_metrics(*cloud(0.05, subjects=8, hands=1, photos=6), resamples=4000).numbers["uniformity"]
        assert number.low < number.value < number.high
        below, above = number.value - number.low, number.high - number.value
        assert 1 / 3 < below / above < 3

    @pytest.mark.parametrize("subjects", [20, 40])
    def test_they_hold_the_truth(self, subjects: int):
        """Skewed values around skewed means of unequally many photos; both truths are 1, and 95 % is asked for."""
        trials, held = 150, np.zeros(2)
        for trial in range(trials):
            random = np.random.default_rng([subjects, trial])
            counts = random.integers(2, 9, subjects).astype(float)
            mean, other = random.gamma(8, 1 / 8, (2, subjects))
            sums, others = random.gamma(4 * counts, mean / 4), random.gamma(4 * counts, other / 4)
            for number, below in enumerate((counts, others)):
                one = interval_of(lambda w, a=sums, b=below: (w @ a) / (w @ b), subjects, resamples=400, seed=trial)
                held[number] += one.low <= 1 <= one.high
        assert (held / trials >= 0.91).all(), held / trials


class TestNothingToMeasure:
    def one(self, embeddings: list[list[float]], identities: str, subjects: str) -> dict[str, SeparationNumber]:
        found = separation_metrics(np.array(embeddings, np.float32), list(identities), list(subjects), resamples=50)
        json.dumps(asdict(found), allow_nan=False)
        assert all(number.why for number in found.numbers.values() if number.low is None)
        return found.numbers

    def test_one_identity_is_far_from_nobody(self):
        found = self.one([[1, 0], [0, 1], [1, 1]], "aaa", "pppp"[:3])
        assert [name for name, number in found.items() if number.value is None] == [
            "inter",
            "ratio",
            "fisher",
            "silhouette",
        ]
        assert found["inter"].why.startswith("one identity")
        assert found["intra"].why.startswith("one subject")

    def test_photos_that_are_all_alone_have_no_distance_within(self):
        found = self.one([[1, 0], [0, 1], [1, 1]], "abc", "pqr")
        assert [name for name, number in found.items() if number.value is None] == [
            "intra",
            "ratio",
            "fisher",
            "silhouette",
            "alignment",
        ]
        assert found["ratio"].why == "no identity has two photos"

    def test_a_collapsed_model_is_not_separable(self):
        """Noise of fp32 is no distance."""
        noise = 1e-7 * np.random.default_rng(0).normal(size=(12, 4))
        found = self.one((np.array([0.1, 0.2, 0.3, 0.4]) + noise).tolist(), "aaabbbcccddd", "pppqqqpppqqq")
        assert (found["intra"].value, found["inter"].value, found["silhouette"].value) == (0, 0, 0)
        assert found["ratio"].value is None
        assert found["fisher"].value is None
        assert found["uniformity"].value == 0

    def test_identities_of_one_point_each_are_perfect(self):
        found = self.one([[1, 0], [1, 0], [0, 1], [0, 1]], "aabb", "ppqq")
        assert (found["ratio"].value, found["silhouette"].value) == (0, 1)
        assert found["fisher"] == SeparationNumber(
            None, None, None, "all photos of each identity have the same embedding"
        )

    def test_one_photo_and_a_zero_embedding_are_finite(self):
        assert self.one([[0, 0]], "a", "p")["uniformity"].value is None
        self.one([[0, 0], [0, 0], [1, 0]], "aab", "ppq")

    def test_what_is_wrong_is_refused(self):
        with pytest.raises(DataError, match="no photos"):
            separation_metrics(np.zeros((0, 2), np.float32), [], [])
        with pytest.raises(DataError, match="identity 'a' has photos of two subjects"):
            separation_metrics(np.eye(2, dtype=np.float32), ["a", "a"], ["p", "q"])
        with pytest.raises(DataError, match="two or more"):
            interval_of(lambda weights: weights.sum(axis=1), 1)


class TestComparison:
    def test_tighter_is_better_and_looser_worse(self):
        tight, loose = (separation_metrics(*cloud(spread, subjects=10), resamples=200) for spread in (0.2, 0.8))
        found = compare_separation(tight.per_subject, loose.per_subject)
        assert set(found) == {"ratio", "silhouette"}
        for name, one in found.items():
            expected = values(tight)[name] - values(loose)[name]
            assert one.value == pytest.approx(expected, abs=1e-5)
            assert one.low < one.value < one.high
            assert one.verdict == "better"
        assert {one.verdict for one in compare_separation(loose.per_subject, tight.per_subject).values()} == {"worse"}
        assert {one.verdict for one in compare_separation(tight.per_subject, tight.per_subject).values()} == {
            "within noise"
        }

    def test_it_is_paired_by_subject(self):
        """The same people, each a little tighter: far less noise than there is between people."""
        embeddings, identities, subjects = cloud(0.9, subjects=10, hands=1)
        centres = {name: embeddings[[i == name for i in identities]].mean(axis=0) for name in identities}
        tighter = embeddings + 0.05 * (np.array([centres[name] for name in identities], np.float32) - embeddings)
        ours, theirs = (separation_metrics(rows, identities, subjects, resamples=500) for rows in (tighter, embeddings))
        found = compare_separation(ours.per_subject, theirs.per_subject)["ratio"]
        assert found.verdict == "better"
        alone = theirs.numbers["ratio"]
        assert found.high - found.low < (alone.high - alone.low) / 3

    def test_it_survives_being_written_down(self):
        ours, theirs = (separation_metrics(*cloud(spread), resamples=50) for spread in (0.3, 0.4))
        again = [json.loads(json.dumps(one.per_subject, allow_nan=False)) for one in (ours, theirs)]
        assert compare_separation(*again) == compare_separation(ours.per_subject, theirs.per_subject)

    def test_what_one_of_them_lacks_is_left_out(self):
        points = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
        ours = separation_metrics(points, list("aabbcc"), list("ppqqrr"), resamples=50)
        flat = separation_metrics(np.ones((6, 3), np.float32), list("aabbcc"), list("ppqqrr"), resamples=50)
        assert set(compare_separation(ours.per_subject, flat.per_subject)) == {"silhouette"}
        lonely = separation_metrics(points, list("abcdef"), list("ppqqrr"), resamples=50)
        assert compare_separation(lonely.per_subject, lonely.per_subject) == {}
        one = separation_metrics(points, list("aaaaaa"), list("pppppp"), resamples=50)
        assert compare_separation(one.per_subject, one.per_subject) == {}

    def test_other_photos_are_refused(self):
        ours, theirs = (separation_metrics(*cloud(subjects=n), resamples=50) for n in (5, 6))
        with pytest.raises(DataError, match="different photos"):
            compare_separation(ours.per_subject, theirs.per_subject)
