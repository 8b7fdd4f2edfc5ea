"""Whether verdicts on several systems can be believed, and what a comparison costs.

python benchmarks/comparing.py equal      how often any of k equal systems is called better or worse than the first
python benchmarks/comparing.py best       the same when the best of them, by its score, is the reference
python benchmarks/comparing.py power      how often systems that are better by some points are found
python benchmarks/comparing.py seeds      how often two equal recipes differ, and coverage, over training seeds
python benchmarks/comparing.py speed      seconds for 2, 8 and 25 systems of 1,000 queries and ten draws

Subjects as in benchmarks/ranking.py: beta-binomial, 7 to 21 photos each; a subject that is hard for one system is hard
for the others. "each by itself" has 95 % for every comparison, "Bonferroni" 1 - 0.05 / k.
"""

import sys
import time

import numpy as np

from handreid.metrics.intervals import differences, intervals, verdict
from handreid.metrics.simultaneous import simultaneous_differences

RESAMPLES, TRIALS = 2000, 400


def systems(
    random: np.random.Generator, subjects: int, gains: list[float], likeness: float
) -> tuple[list[dict[str, np.ndarray]], np.ndarray]:
    """Rank-1 of every query, and whose it is: systems share `likeness` of what they get right by chance."""
    owner = np.repeat(np.arange(subjects), random.integers(7, 22, subjects))
    ability = random.beta(4, 1, subjects)[owner]  # mean 0.8, correlation 1/6 within a subject
    shared = random.random(len(owner))
    found = []
    for gain in gains:
        chance = np.where(random.random(len(owner)) < likeness, shared, random.random(len(owner)))
        found.append({"rank1": (chance < ability + gain).astype(float)})
    return found, owner


def verdicts(
    found: list[dict[str, np.ndarray]], owner: np.ndarray, reference: int, chosen: bool
) -> dict[str, list[str]]:
    others = [one for number, one in enumerate(found) if number != reference]
    pairs = len(found) * (len(found) - 1) // 2 if chosen else len(others)
    told = {}
    for name, confidence in (("each by itself", 0.95), ("Bonferroni", 1 - 0.05 / pairs)):
        each = [differences(o, found[reference], owner, confidence=confidence, resamples=RESAMPLES) for o in others]
        told[name] = [verdict(one["rank1"]) for one in each]
    together = simultaneous_differences(found, reference, owner, reference_chosen=chosen, resamples=RESAMPLES)
    told["together"] = [verdict(one["rank1"]) for one in together if one]
    return told


def equal(chosen: bool) -> None:
    print(f"any of k equal systems called better or worse, {TRIALS} trials each")
    for subjects in (15, 30, 70):
        for likeness in (0.0, 0.8):
            for count in (2, 5, 10):
                random = np.random.default_rng([subjects, count, int(10 * likeness)])
                wrong: dict[str, int] = {}
                for _ in range(TRIALS):
                    found, owner = systems(random, subjects, [0.0] * (count + 1), likeness)
                    best = int(np.argmax([one["rank1"].mean() for one in found]))
                    for name, told in verdicts(found, owner, best if chosen else 0, chosen).items():
                        wrong[name] = wrong.get(name, 0) + any(one != "within noise" for one in told)
                rates = ", ".join(f"{name} {100 * number / TRIALS:.1f} %" for name, number in wrong.items())
                print(f"{subjects:3d} subjects, {count:2d} comparisons, likeness {likeness}: {rates}", flush=True)


def power() -> None:
    print(f"systems better by some points found, of 9 with gains and 1 reference, 70 subjects, {TRIALS} trials")
    for gain in (0.02, 0.04, 0.06):
        random = np.random.default_rng(int(100 * gain))
        right: dict[str, int] = {}
        for _ in range(TRIALS):
            found, owner = systems(random, 70, [0.0, *[gain] * 9], 0.8)
            for name, told in verdicts(found, owner, 0, False).items():
                right[name] = right.get(name, 0) + told.count("better")
        rates = ", ".join(f"{name} {100 * number / TRIALS / 9:.1f} %" for name, number in right.items())
        print(f"{100 * gain:.0f} points: {rates}", flush=True)


def seeds() -> None:
    """Each seed of a recipe is better or worse by `spread` points as a whole, and anew for each subject."""
    print(f"two equal recipes called better or worse, and intervals that cover the true rank-1, {TRIALS} trials each")
    for subjects in (30, 70):
        for spread in (0.0, 0.02, 0.05):
            for count in (1, 2, 3, 5, 10):
                random = np.random.default_rng([subjects, count, int(100 * spread)])
                wrong = covered = 0
                for _ in range(TRIALS):
                    owner = np.repeat(np.arange(subjects), random.integers(7, 22, subjects))
                    ability = 0.1 + 0.8 * random.beta(
                        4, 1, subjects
                    )  # mean 0.74, away from the ends, where seeds add up
                    ours, theirs = (_trained(random, ability, owner, count, spread) for _ in range(2))
                    told = differences({"rank1": ours}, {"rank1": theirs}, owner, resamples=RESAMPLES)["rank1"]
                    wrong += verdict(told) != "within noise"
                    found = intervals({"rank1": ours}, owner, resamples=RESAMPLES)["rank1"]
                    covered += found.low <= 0.74 <= found.high
                print(
                    f"{subjects:3d} subjects, {count:2d} seeds that differ by {100 * spread:.0f} points: "
                    f"called different {100 * wrong / TRIALS:.1f} %, covered {100 * covered / TRIALS:.1f} %",
                    flush=True,
                )


def _trained(
    random: np.random.Generator, ability: np.ndarray, owner: np.ndarray, count: int, spread: float
) -> np.ndarray:
    """Rank-1 of every query, a row for each seed."""
    better = random.normal(0, spread, (count, 1)) + random.normal(0, spread, (count, len(ability)))
    return (random.random((count, len(owner))) < np.clip(ability + better, 0, 1)[:, owner]).astype(float)


def speed() -> None:
    random = np.random.default_rng(0)
    draws = np.repeat(np.arange(10), 1000)
    owner = np.tile(np.arange(1000) % 70, 10)
    for count in (2, 8, 25):
        found = [{name: random.random(10_000) for name in "abcdefg"} for _ in range(count)]
        for chosen in (False, True):
            start = time.perf_counter()
            simultaneous_differences(found, 0, owner, draws, reference_chosen=chosen)
            seconds = time.perf_counter() - start
            print(f"{count} systems, {'best' if chosen else 'first'} as reference: {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    {"equal": lambda: equal(False), "best": lambda: equal(True), "power": power, "seeds": seeds, "speed": speed}[
        sys.argv[1]
    ]()
