"""What `import handreid` costs, and what the first use of its parts adds: each in fresh processes, by turns.

python benchmarks/importing.py [--rounds 7]

Milliseconds beyond an empty Python process: the median, and the range.
"""

import argparse
import statistics
import subprocess
import sys
import time

STATEMENTS = {
    "an empty process": "pass",
    "import handreid": "import handreid",
    "handreid.rank (numpy)": "import handreid; handreid.rank",
    "handreid.load_recipe (pydantic)": "import handreid; handreid.load_recipe",
    "handreid.train (torch, lightning, open_clip)": "import handreid; handreid.train",
}


def milliseconds(statement: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return 1000 * (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    for statement in STATEMENTS.values():
        milliseconds(statement)  # the disk's cache, and compiled files
    taken = {name: [milliseconds(statement) for _ in range(rounds)] for name, statement in STATEMENTS.items()}
    empty = statistics.median(taken.pop("an empty process"))
    for name, times in taken.items():
        beyond = [one - empty for one in times]
        print(f"{name:48} {statistics.median(beyond):8.0f}  ({min(beyond):.0f} to {max(beyond):.0f})")


if __name__ == "__main__":
    main()
