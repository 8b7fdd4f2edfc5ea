"""What ranking and intervals cost, and whether the intervals hold what they promise.

python benchmarks/ranking.py speed       hands (10 draws) and Market-1501's size, beside a loop that sorts in full
python benchmarks/ranking.py ours        the same without the loop, whose memory would hide ours
python benchmarks/ranking.py coverage    how often the 95 % intervals hold the true value
"""

import resource
import sys
import time
from collections.abc import Callable

import numpy as np
from scipy.special import betaincinv

from handreid.metrics.intervals import differences, intervals
from handreid.metrics.ranking import rank_matches
from handreid.metrics.ranking_metrics import metrics

Rows = dict[str, np.ndarray]


def people(
    random: np.random.Generator, counts: list[int], noise: float, dim: int, cameras: int
) -> tuple[np.ndarray, ...]:
    """Features scattered around one centre per identity; each entry of `counts` is a label's number of photos."""
    labels = np.repeat(np.arange(len(counts)), counts)
    centres = random.standard_normal((len(counts), dim))
    features = centres[labels] + noise * random.standard_normal((len(labels), dim))
    return features.astype(np.float32), labels, random.integers(0, cameras, len(labels))


def hands(random: np.random.Generator) -> list[Rows]:
    """Ten draws: one gallery photo of each of 290 identities, 1,000 queries."""
    features, labels, _ = people(random, [5] * 290, 3.5, 512, 1)
    draws = []
    for _ in range(10):
        gallery = np.arange(290) * 5 + random.integers(0, 5, 290)
        query = random.permutation(np.setdiff1d(np.arange(len(labels)), gallery))[:1000]
        draws.append(
            {
                "query": features[query],
                "gallery": features[gallery],
                "query_labels": labels[query],
                "gallery_labels": labels[gallery],
            }
        )
    return draws


def market(random: np.random.Generator, noise: float) -> list[Rows]:
    """3,368 queries of 750 identities under 6 cameras; 15,913 gallery photos, of which 2,798 are distractors."""
    features, labels, cameras = people(random, [22] * 750, noise, 512, 6)
    chosen = random.permutation(len(labels))
    query, gallery = chosen[:3368], chosen[3368 : 3368 + 13115]
    others, _, views = people(random, [1] * 2798, noise, 512, 6)
    return [
        {
            "query": features[query],
            "gallery": np.concatenate([features[gallery], others]),
            "query_labels": labels[query],
            "gallery_labels": np.concatenate([labels[gallery], np.full(len(others), -1)]),
            "query_cameras": cameras[query],
            "gallery_cameras": np.concatenate([cameras[gallery], views]),
        }
    ]


def ours(draws: list[Rows]) -> dict[str, float]:
    scores = [metrics(rank_matches(**draw)) for draw in draws]
    return {name: float(np.mean([np.nanmean(score[name]) for score in scores])) for name in ("rank1", "map")}


def loop(draws: list[Rows]) -> dict[str, float]:
    """The usual way: product, full sort of every row, a loop over the queries."""
    found: dict[str, list[float]] = {"rank1": [], "map": []}
    for draw in draws:
        query, gallery = (
            draw[name] / np.linalg.norm(draw[name], axis=1, keepdims=True) for name in ("query", "gallery")
        )
        order = np.argsort(-(query @ gallery.T), axis=1)
        first, precision = [], []
        for row in range(len(query)):
            right = draw["gallery_labels"][order[row]] == draw["query_labels"][row]
            if "query_cameras" in draw:
                same = draw["gallery_cameras"][order[row]] == draw["query_cameras"][row]
                right = right[~(right & same)]
            if right.any():
                hits = right.cumsum()
                first.append(float(right[0]))
                precision.append(float((hits / np.arange(1, len(right) + 1))[right].mean()))
        found["rank1"].append(float(np.mean(first)))
        found["map"].append(float(np.mean(precision)))
    return {name: float(np.mean(values)) for name, values in found.items()}


def timed(work: Callable[[], dict[str, float]], repeats: int) -> tuple[float, dict[str, float]]:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
    return min(seconds), result


def peak() -> str:
    return f"peak of the process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GB"


def speed(with_loop: bool) -> None:
    random = np.random.default_rng(0)
    for name, draws in (
        ("hands, 1,000 x 290 x 10 draws", hands(random)),
        ("Market-1501, 3,368 x 15,913, good features", market(random, 2.0)),
        ("Market-1501, 3,368 x 15,913, bad features", market(random, 4.0)),
    ):
        fast, found = timed(lambda draws=draws: ours(draws), 3)
        print(f"{name}: {fast:.2f} s, rank-1 {found['rank1']:.4f}, mAP {found['map']:.4f}; {peak()}")
        if with_loop:
            slow, expected = timed(lambda draws=draws: loop(draws), 1)
            print(f"    loop with a full sort: {slow:.2f} s, {slow / fast:.1f} times; {peak()}")
            print(f"    rank-1 {expected['rank1']:.4f}, mAP {expected['map']:.4f}")
    subjects, draw = np.tile(np.arange(1000) % 75, 10), np.repeat(np.arange(10), 1000)
    values = {f"metric {i}": random.random(10_000) for i in range(7)}
    seconds, _ = timed(lambda: {k: v.low for k, v in intervals(values, subjects, draw).items()}, 3)
    print(f"intervals, 10 draws x 1,000 queries x 7 metrics x 10,000 resamples, 75 subjects: {seconds:.2f} s")


def cluster(
    random: np.random.Generator, levels: list[float], correlation: float, pairing: float, subjects: int
) -> tuple[list[np.ndarray], np.ndarray]:
    """Right or wrong answers of one or two systems: beta-binomial within each of the subjects, 7 to 21 photos each.

    `pairing` is the share of subjects, and of photos, that are as easy or hard for the second system as for the first.
    """
    photos = random.integers(7, 22, subjects)
    subject = np.repeat(np.arange(subjects), photos)
    ease, luck = random.random(subjects), random.random(len(subject))
    answers = []
    for level in levels:
        scale = 1 / correlation - 1
        chance = betaincinv(level * scale, (1 - level) * scale, ease)
        answers.append((luck < chance[subject]).astype(float))
        ease = np.where(random.random(subjects) < pairing, ease, random.random(subjects))
        luck = np.where(random.random(len(luck)) < pairing, luck, random.random(len(luck)))
    return answers, subject


def coverage(trials: int = 1000) -> None:
    random = np.random.default_rng(0)
    for subjects in (5, 15, 30, 70):
        for level in (0.6, 0.9, 0.97, 0.99):
            for correlation in (0.02, 0.1, 0.4, 0.95):
                held, width = 0, 0.0
                for trial in range(trials):
                    (answers,), subject = cluster(random, [level], correlation, 0, subjects)
                    found = intervals({"rank1": answers}, subject, seed=trial)["rank1"]
                    held += found.low <= level <= found.high
                    width += found.high - found.low
                print(
                    f"{subjects:3d} subjects, true rank-1 {level:.2f}, correlation {correlation:.2f}: "
                    f"held {100 * held / trials:5.1f} %, mean width {100 * width / trials:5.1f} points"
                )
        for levels in ([0.9, 0.9], [0.97, 0.97], [0.97, 0.95], [0.9, 0.7]):
            for pairing in (0.3, 0.9):
                held, width, called = 0, 0.0, 0
                for trial in range(trials):
                    (a, b), subject = cluster(random, levels, 0.3, pairing, subjects)
                    found = differences({"rank1": a}, {"rank1": b}, subject, seed=trial)["rank1"]
                    held += found.low <= levels[0] - levels[1] <= found.high
                    width += found.high - found.low
                    called += found.low > 0
                print(
                    f"{subjects:3d} subjects, true difference {levels[0]} - {levels[1]}, pairing {pairing}: held "
                    f"{100 * held / trials:5.1f} %, mean width {100 * width / trials:5.1f} points, "
                    f"called better {100 * called / trials:5.1f} %"
                )


if __name__ == "__main__":
    what = sys.argv[1] if len(sys.argv) > 1 else "speed"
    coverage() if what == "coverage" else speed(with_loop=what == "speed")
