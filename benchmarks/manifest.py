"""How long does it take to read and check a manifest of the size of 11k Hands, pixels apart?

Writes 11,076 made-up rows (and as many empty photo files), then prints the median seconds of reading and checking them,
from CSV and from parquet, and of making the papers' split with ten draws.

    python benchmarks/manifest.py [--rows 11076] [--rounds 5]
"""

import argparse
import csv
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from handreid.data.check import check
from handreid.data.manifest import read
from handreid.data.splits import make_split

VIEWS = [("right", "dorsal"), ("left", "dorsal"), ("right", "palmar"), ("left", "palmar")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=11_076)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = write_rows(Path(folder), arguments.rows)
        parquet = table.with_suffix(".parquet")
        manifest = read(table)
        manifest.write(parquet)
        for name, timed in (
            ("read and check, csv", lambda: check(table, pixels=False)),
            ("read and check, parquet", lambda: check(parquet, pixels=False)),
            ("read, hash and split with ten draws", lambda: make_split(read(parquet), protocol="disjoint").draws_hash),
        ):
            print(f"{name}: {median_seconds(timed, arguments.rounds):.3f} s for {arguments.rows:,} rows")


def write_rows(folder: Path, rows: int) -> Path:
    (folder / "Hands").mkdir()
    table = folder / "hands.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "subject", "side", "aspect", "age", "gender", "skin", "accessories"])
        for row in range(rows):
            path = f"Hands/{row:07d}.jpg"
            (folder / path).touch()
            side, aspect = VIEWS[row % 4]
            skin = ("fair", "medium", "dark")[row % 3]
            writer.writerow([path, row // 58, side, aspect, 20 + row % 50, "female", skin, row % 5 == 0])
    return table


def median_seconds(timed: Callable[[], object], rounds: int) -> float:
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        timed()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
