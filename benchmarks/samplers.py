"""Seconds to draw an epoch's batches: 100,000 photos of 10,000 identities, P x K = 16 x 4, centres of 512 numbers.

python benchmarks/samplers.py
"""

import time
from collections.abc import Iterable

import numpy as np

from handreid.data.samplers import BalancedBatches, HardIdentityBatches, PkBatches
from handreid.data.sampling import RandomBatches

PHOTOS, IDENTITIES, P, K = 100_000, 10_000, 16, 4


def main() -> None:
    rng = np.random.default_rng(0)
    labels = np.concatenate([np.arange(IDENTITIES), rng.integers(0, IDENTITIES, PHOTOS - IDENTITIES)])
    centres = rng.normal(size=(IDENTITIES, 512)).astype(np.float32)
    measure("random", lambda: RandomBatches(PHOTOS, P * K, seed=0))
    measure("pk, every identity", lambda: PkBatches(labels, P, K, seed=0))
    measure("pk, every photo", lambda: PkBatches(labels, P, K, every="photo", seed=0))
    measure("balanced, 7 groups", lambda: BalancedBatches(labels % 7, P * K, seed=0))
    measure("hard_identity", lambda: HardIdentityBatches(labels, centres, P, K, neighbours=3, seed=0))


def measure(name: str, made) -> None:
    began = time.perf_counter()
    batches: Iterable[list[tuple[int, int]]] = made()
    photos = sum(len(batch) for batch in batches)
    print(f"{name:20} {time.perf_counter() - began:6.2f} s for {photos:,} photos")


if __name__ == "__main__":
    main()
