"""How long do the checks before the first step take, and how much memory?

Prints seconds of each check, of all, and the peak of the process's memory before and after. Weights are random.

    python benchmarks/checks.py [--recipe stage2-triplet-center-arcface] [--rounds 3]
"""

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does

from handreid.build import build_embedder, build_towers
from handreid.data import sources
from handreid.data.rendered import render
from handreid.progress import NullProgress
from handreid.recipe import load_recipe
from handreid.runs.dataset import load_dataset
from handreid.runs.folder import Run
from handreid.training.checks import check_stage
from handreid.training.context import Handover, Job
from handreid.training.stages.registry import stage_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="stage2-triplet-center-arcface")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], help="as handreid train --set")
    arguments = parser.parse_args()
    recipe = load_recipe(arguments.recipe, ["model.backbone.weights=none", "init_from=null", *arguments.set])
    with tempfile.TemporaryDirectory() as name:
        hands = render(Path(name) / "hands", identities=24, photos=8, size=128, workers=1)
        path = Path(name) / "hands.parquet"
        sources.csv(hands).write(path)
        material, towers = load_dataset(recipe, path), build_towers(recipe)
        embedder = build_embedder(recipe, towers)
        job = Job(Run(Path(name)), recipe, Handover(embedder, towers.text), material, NullProgress())
        stage = stage_of(recipe, 0)
        probe = stage.probe(stage.module(job))
        before = peak()
        for _ in range(arguments.rounds):
            began, cpu = time.perf_counter(), time.process_time()
            results = check_stage(job, probe)
            took, worked = time.perf_counter() - began, time.process_time() - cpu
            parts = ", ".join(f"{result.name} {result.seconds:.2f}" for result in results if result.seconds >= 0.005)
            print(
                f"{took:.2f} s ({worked:.2f} s of CPU), all passed: {all(result.passed for result in results)}; {parts}"
            )
        print(f"peak memory {before:.2f} GB before the checks, {peak():.2f} GB with them")


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


if __name__ == "__main__":
    main()
