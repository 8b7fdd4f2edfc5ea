"""Run folders that were never trained: what comparisons and curves read, with ranks as they are wanted."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from handreid.files import file_hash, write_json
from handreid.metrics.query_scores import scores_of_ranks, summarise_scores
from handreid.recipe import dump_recipe, parse_recipe
from handreid.runs.folder import Run
from handreid.runs.records import RUN_FORMAT
from handreid.runs.results import EVALUATION_FORMAT
from tests.conftest import MICRO_RECIPE
from tests.edits import write_metrics

SUBJECTS, EACH, DRAWS, GALLERY = 20, 4, 2, 30


def made_run(
    folder: Path,
    ranks: Sequence[Sequence[int]],
    *,
    name: str = "",
    changes: Sequence[str] = (),
    recipe: str = MICRO_RECIPE,
    draws: str = "d" * 64,
    manifest: str = "a" * 64,
    seconds: Sequence[float] = (2.0, 3.0),
) -> Path:
    """`ranks` are those of each query's right answers, the queries of the first draw before those of the second.

    Queries are 4 photos of each of 20 people, in both draws. A line of metrics.jsonl for each of `seconds`.
    """
    folder.mkdir(parents=True)
    parsed = parse_recipe(recipe, "made", [f"name={name or folder.name}", *changes])
    (folder / "recipe.yaml").write_text(dump_recipe(parsed))
    hashes = {"manifest_hash": manifest, "split_hash": "s" * 64, "draws_hash": draws, "photos_hash": "c" * 64}
    facts = {"format": RUN_FORMAT, "manifest": "made.parquet", **hashes, "notes": [], "device": "a machine"}
    versions = {"handreid": "0.1.0", "torch": "2.15.0"}
    files = {"recipe.yaml": file_hash(folder / "recipe.yaml")}
    write_json(folder / "run.json", {**facts, "seed": parsed.seed, "versions": versions, "files": files})
    write_json(folder / "evaluation.json", made_evaluation(parsed.name, ranks, draws, manifest))
    rates = {"lr, encoder, decayed": 1e-4, "lr, encoder, not decayed": 1e-4, "lr, head, decayed": 1e-3}
    lines = [
        {"stage": 0, "epoch": n, "step": n, "loss": 5.0 / n, "0_cross_entropy": 4.0 / n, "gradient_norm": 1.0, **rates}
        | {"seconds": took, "photos_per_second": 10.0 * n, "validation_rank1": 0.5, "validation_map": 0.6 - 0.01 * n}
        for n, took in enumerate(seconds, 1)
    ]
    write_metrics(Run(folder), lines)
    return folder


def made_evaluation(name: str, ranks: Sequence[Sequence[int]], draws: str, manifest: str) -> dict[str, Any]:
    """As evaluation.json has it."""
    queries = SUBJECTS * EACH
    rows, of_draw = np.tile(np.arange(queries), DRAWS), np.repeat(np.arange(DRAWS), queries)
    subjects = [f"p{row // EACH:02d}" for row in range(queries)]
    scores = scores_of_ranks(rows, of_draw, ranks)
    summary = summarise_scores(scores, np.ones(len(rows), bool), subjects, resamples=200, seed=0)
    counts = {"queries": summary.queries, "subjects": summary.subjects, "unanswerable": summary.unanswerable}
    return {
        "format": EVALUATION_FORMAT,
        "recipe": name,
        "protocol": {"name": "disjoint", "label": "subject", "view": "all"},
        "metrics": {k: {"value": i.value, "low": i.low, "high": i.high} for k, i in summary.metrics.items()},
        "counts": {**counts, "gallery": GALLERY, "identities": SUBJECTS, "draws": DRAWS, "dim": 8},
        "views": {},
        "hashes": {"manifest": manifest, "split": "s" * 64, "draws": draws, "model": "f" * 64},
        "flip_tta": False,
        "notes": [],
        "photos": [f"{row}.jpg" for row in range(queries)],
        "subjects": subjects,
        "draws": [
            {"query": list(range(queries)), "ranks": [list(of) for of in ranks[start : start + queries]]}
            for start in range(0, queries * DRAWS, queries)
        ],
    }


def made_ranks(share: float, seed: int = 0, right: int = 1) -> list[list[int]]:
    """About `share` of the queries right at once, the others anywhere; with the same seed, more are a superset."""
    random = np.random.default_rng(seed)
    count = SUBJECTS * EACH * DRAWS
    chance, elsewhere = random.random(count), random.integers(2, GALLERY + 1 - right, count)
    first = np.where(chance < share, 1, elsewhere)
    return [[int(rank) + k for k in range(right)] for rank in first]
