"""What re-ranking costs beside the implementation in a re-identification package: seconds, memory, and the ratio.

    python benchmarks/rerank.py --other-python other/bin/python
    python benchmarks/rerank.py                                    ours alone

The other package is torchreid, in an environment of its own (its import wants a few packages that it does not name):

    python -m venv other
    other/bin/pip install torchreid torch torchvision scipy h5py opencv-python-headless tensorboard gdown

Both get the same made-up features (people with 22 photos each) and give every distance between a query and a gallery
photo, from features to distances. Each round is a process of its own, whose peak memory is the operating system's
count; rounds of ours come before and after the other's. Processor seconds, over all cores, tell what a quiet machine
would take better than the clock does. The product is that of all photos with all, in float32 by
blocks and of each pair of photos once: what nobody can do without. Both use as many threads as NumPy takes.

At full size the other needs 9 GB of memory.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

PER_PERSON, NOISE = 22, 3.0
K1, K2, LAMBDA = 20, 6, 0.3


def main() -> None:
    asked = arguments()
    if asked.work:
        work(asked)
        return
    with tempfile.TemporaryDirectory() as folder:
        asked.folder = Path(folder)
        child(asked, sys.executable, "features")
        product = [child(asked, sys.executable, "product") for _ in range(asked.rounds)]
        ours = [child(asked, sys.executable, "ours") for _ in range((asked.rounds + 1) // 2)]
        other_rounds = asked.other_rounds if asked.other_python else 0
        others = [child(asked, asked.other_python, "torchreid") for _ in range(other_rounds)]
        ours += [child(asked, sys.executable, "ours") for _ in range(asked.rounds // 2)]
        print(f"{asked.queries:,} queries x {asked.gallery:,} gallery photos x {asked.dim} features")
        tell("product of all with all, each pair once", product)
        mine = tell("handreid", ours)
        if others:
            other = tell("torchreid", others)
            times, memory = (theirs / own for theirs, own in zip(other, mine, strict=True))
            print(f"torchreid over handreid: {times:.1f} times the seconds, {memory:.1f} times the memory")
            agreement(asked.folder)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--other-python", type=Path, help="Python of an environment that has torchreid.")
    parser.add_argument("--queries", type=int, default=3368)
    parser.add_argument("--gallery", type=int, default=15913)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--other-rounds", type=int, default=1)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def child(asked: argparse.Namespace, python: str | Path, what: str) -> dict[str, float]:
    sizes = [f"--{name}={getattr(asked, name)}" for name in ("queries", "gallery", "dim")]
    line = [str(python), "-W", "ignore", __file__, *sizes, "--folder", str(asked.folder), "--work", what]
    done = subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def tell(name: str, rounds: list[dict[str, float]]) -> tuple[float, float]:
    seconds, busy, peak = (statistics.median(one[key] for one in rounds) for key in ("seconds", "busy", "peak"))
    every = ", ".join(f"{one['seconds']:.1f}" for one in rounds)
    print(f"{name}: median {seconds:.1f} s (rounds: {every}), {busy:.1f} processor seconds, peak memory {peak:.2f} GB")
    return seconds, peak


def agreement(folder: Path) -> None:
    ours, theirs = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("ours", "torchreid"))
    apart = np.abs(ours - theirs)
    print(
        f"distances differ by {apart.max():.1e} at most, by {np.median(apart):.1e} in the median; "
        f"{100 * np.mean(apart > 1e-4):.4f} % of them by more than 1e-4"
    )


def work(asked: argparse.Namespace) -> None:
    """What a child process does; prints its seconds and peak memory."""
    if asked.work == "features":
        np.save(asked.folder / "features.npy", made_up(asked.queries + asked.gallery, asked.dim))
    features = np.load(asked.folder / "features.npy")
    query, gallery = features[: asked.queries], features[asked.queries :]
    ways = {"product": product, "ours": ours, "torchreid": torchreid}
    before = time.process_time()
    result, seconds = ways[asked.work](query, gallery) if asked.work in ways else (None, 0.0)
    used = resource.getrusage(resource.RUSAGE_SELF)
    busy = used.ru_utime + used.ru_stime - before
    if result is not None:
        np.save(asked.folder / f"{asked.work}.npy", result)
    print(json.dumps({"seconds": seconds, "busy": busy, "peak": used.ru_maxrss / 2**20}))


def made_up(photos: int, dim: int) -> np.ndarray:
    random = np.random.default_rng(0)
    people = np.repeat(random.standard_normal((-(-photos // PER_PERSON), dim), np.float32), PER_PERSON, axis=0)
    features = people + NOISE * random.standard_normal(people.shape, np.float32)
    return random.permutation(features / np.linalg.norm(features, axis=1, keepdims=True))[:photos]


def product(query: np.ndarray, gallery: np.ndarray) -> tuple[None, float]:
    photos = np.concatenate([query, gallery])
    start = time.perf_counter()
    for first in range(0, len(photos), 1024):
        for second in range(first, len(photos), 1024):
            photos[first : first + 1024] @ photos[second : second + 1024].T
    return None, time.perf_counter() - start


def ours(query: np.ndarray, gallery: np.ndarray) -> tuple[np.ndarray, float]:
    """By the authors' formula, which torchreid has. All distances are kept, as float32, to be compared."""
    from handreid.metrics.k_reciprocal import rerank

    kept = np.empty((len(query), len(gallery)), np.float32)
    start, row = time.perf_counter(), 0
    for block in rerank(query, gallery, k1=K1, k2=K2, original=LAMBDA, formula="code"):
        kept[row : row + len(block)] = block
        row += len(block)
    return kept, time.perf_counter() - start


def torchreid(query: np.ndarray, gallery: np.ndarray) -> tuple[np.ndarray, float]:
    """Its `re_ranking` squares the distances that it is given: it gets plain Euclidean ones."""
    from torchreid.reid.utils.rerank import re_ranking

    start = time.perf_counter()
    both = ((query, gallery), (query, query), (gallery, gallery))
    found = re_ranking(*(np.sqrt(np.maximum(2 - 2 * a @ b.T, 0)) for a, b in both), k1=K1, k2=K2, lambda_value=LAMBDA)
    return found, time.perf_counter() - start


if __name__ == "__main__":
    main()
