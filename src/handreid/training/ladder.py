"""Rung after rung on the same photos: train, evaluate, and say whether each beats the one below.

A rung that is finished, with the same recipe and data, is not run again; one that was stopped goes on.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from handreid.errors import RunError
from handreid.evaluation.intervals import differences, verdict
from handreid.evaluation.protocol import QueryScores, scores_of_ranks
from handreid.progress import Progress, Silent
from handreid.recipe import Recipe
from handreid.training.assess import evaluate, read_evaluation
from handreid.training.runs import open_run, write_json, write_text
from handreid.training.train import train


@dataclass(frozen=True)
class Rung:
    name: str
    evaluation: dict[str, Any]
    below: dict[str, Any] | None  # per metric: difference to the rung below, its interval, verdict


def climb(
    recipes: Sequence[Recipe],
    data: Path | None,
    out: Path,
    *,
    progress: Progress | None = None,
    done: Callable[[Rung], None] = lambda _: None,
) -> list[Rung]:
    """Runs in `out/<recipe name>`, ladder.json and ladder.md in `out`. Raises RunError for two recipes of one name."""
    progress = progress or Silent()
    names = [recipe.name for recipe in recipes]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise RunError(f"two rungs are called {twice!r}; give one another name with name: in its recipe")
    rungs: list[Rung] = []
    for number, recipe in enumerate(recipes, 1):
        progress.say(f"rung {number} of {len(recipes)}: {recipe.name}")
        run = train(recipe, data, out / recipe.name, resume=True, progress=progress)
        if not run.evaluation.exists():
            evaluate(open_run(run.folder), data=data, progress=progress)
        found = read_evaluation(run.evaluation)
        rungs.append(Rung(recipe.name, found, compare(found, rungs[-1].evaluation) if rungs else None))
        done(rungs[-1])
    write_json(out / "ladder.json", {"rungs": [_entry(rung) for rung in rungs]})
    write_text(out / "ladder.md", markdown(rungs))
    return rungs


def compare(ours: Mapping[str, Any], theirs: Mapping[str, Any], *, resamples: int = 10_000) -> dict[str, Any]:
    """Paired difference of two evaluations on the same draws, over subjects. Raises RunError when they are not."""
    if ours["hashes"]["draws"] != theirs["hashes"]["draws"]:
        raise RunError(
            f"{ours['recipe']} and {theirs['recipe']} were evaluated on different draws "
            f"({ours['hashes']['draws'][:8]} and {theirs['hashes']['draws'][:8]}): they cannot be compared"
        )
    mine, other = read_scores(ours), read_scores(theirs)
    people = np.unique([ours["subjects"][row] for row in mine.rows], return_inverse=True)[1]
    found = differences(mine.metrics, other.metrics, people, mine.draws, resamples=resamples)
    return {name: {"value": d.value, "low": d.low, "high": d.high, "verdict": verdict(d)} for name, d in found.items()}


def read_scores(evaluation: Mapping[str, Any]) -> QueryScores:
    """Scores per query from evaluation.json; rows are positions in its `photos`."""
    draws = evaluation["draws"]
    return scores_of_ranks(
        np.concatenate([np.array(draw["query"], np.int64) for draw in draws]),
        np.repeat(np.arange(len(draws)), [len(draw["query"]) for draw in draws]),
        [ranks for draw in draws for ranks in draw["ranks"]],
    )


COLUMNS = ("rung", "rank-1", "rank-5", "mAP", "mAP trapezoid", "mINP", "rank-1 against the rung below")


def cells(rung: Rung) -> list[str]:
    """One row of the table; percent, with 95 % intervals over subjects."""
    metrics = rung.evaluation["metrics"]
    shown = [
        percent(metrics["rank1"]),
        percent(metrics["rank5"], interval=False),
        percent(metrics["map"]),
        percent(metrics["map_trapezoid"], interval=False),
        percent(metrics["minp"], interval=False),
    ]
    return [rung.name, *shown, _against(rung.below["rank1"]) if rung.below else ""]


def percent(metric: Mapping[str, float], *, interval: bool = True) -> str:
    bounds = f" [{100 * metric['low']:.1f}, {100 * metric['high']:.1f}]" if interval else ""
    return f"{100 * metric['value']:.1f}{bounds}"


def caption(rung: Rung) -> str:
    """What the numbers are of, in a line."""
    evaluation = rung.evaluation
    counts, hashes, protocol = evaluation["counts"], evaluation["hashes"], evaluation["protocol"]
    queries = counts["queries"] if isinstance(counts["queries"], int) else max(counts["queries"])
    return (
        f"protocol {protocol['name']}, aspects {protocol['aspect']}, identity = {protocol['label']}: {queries} queries "
        f"of {counts['subjects']} subjects in {counts['gallery']} gallery photos, mean of {counts['draws']} draws; "
        f"percent, 95 % intervals over subjects; manifest {hashes['manifest'][:8]}, draws {hashes['draws'][:8]}"
    )


def markdown(rungs: Sequence[Rung]) -> str:
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---|" + "---:|" * (len(COLUMNS) - 2) + "---|"]
    lines += ["| " + " | ".join(cells(rung)) + " |" for rung in rungs]
    return "\n".join([*lines, "", caption(rungs[-1])]) + "\n"


def _against(difference: Mapping[str, Any]) -> str:
    bounds = f"[{100 * difference['low']:+.1f}, {100 * difference['high']:+.1f}]"
    return f"{difference['verdict']} {100 * difference['value']:+.1f} {bounds}"


def _entry(rung: Rung) -> dict[str, Any]:
    kept = ("recipe", "protocol", "metrics", "counts", "aspects", "hashes", "prompts")
    return {**{k: rung.evaluation[k] for k in kept if k in rung.evaluation}, "below": rung.below}
