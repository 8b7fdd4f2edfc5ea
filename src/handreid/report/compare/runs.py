"""Runs beside each other: what was changed, what it gained, what it cost.

* Differences are to one reference, paired query by query, with intervals over subjects that hold all at once
  (`metrics/simultaneous.py`). The verdict is read off the interval that is shown.
* Two runs can be compared if they answered the same queries in the same galleries: where the draws' hashes are equal.
  Others are refused, or, when that is asked for, stand beside each other without a difference.
* Plain rankings are compared. What a run gained by ranking anew is compared with the same run, and was measured when
  it was evaluated.
* Everything is read from run folders; a run made by an older version lacks what that version did not write.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from handreid.errors import RunError
from handreid.evaluation.compare import read_scores
from handreid.evaluation.differences import differences_of
from handreid.metrics.simultaneous import simultaneous_differences
from handreid.progress import NullProgress, Progress
from handreid.recipe import Recipe
from handreid.report.compare.cost import Cost, cost_of
from handreid.report.compare.recipe_diff import recipe_changes
from handreid.report.run_folders import run_folders as run_folders
from handreid.runs.folder import Run, open_run
from handreid.runs.results import Difference, Evaluation, read_evaluation

CONFIDENCE = 0.95


@dataclass(frozen=True, eq=False)
class Compared:
    """`changed` has the same paths for all runs, with "" where a recipe has no such path; `name` and `about` are left
    out. `against` is by metric; empty for the reference, and where there is no comparing.
    """

    name: str  # unique among the runs
    folder: Path
    recipe: Recipe
    evaluation: Evaluation
    changed: dict[str, str]
    against: dict[str, Difference]
    cost: Cost


@dataclass(frozen=True, eq=False)
class Comparison:
    """All intervals of a metric's differences hold together with `confidence`; `corrected` says how, in words."""

    runs: list[Compared]
    by: str
    reference: str
    confidence: float
    corrected: str
    notes: list[str]

    def __getitem__(self, name: str) -> Compared:
        return next(run for run in self.runs if run.name == name)


def compare_runs(
    folders: Sequence[Path],
    *,
    by: str = "rank1",
    reference: Literal["first", "best"] = "first",
    different: bool = False,
    resamples: int = 10_000,
    progress: Progress | None = None,
) -> Comparison:
    """The runs in their order, compared with the first, or the best `by` a metric of evaluation.json.

    Raises RunError for a folder that is no run, runs that are not evaluated, a metric that they lack, and runs that
    were tested on different draws, unless `different` allows them.
    """
    runs = [open_run(folder) for folder in folders]
    if not runs:
        raise RunError("there are no runs to compare")
    evaluations = _evaluations(runs)
    _check_metric(by, evaluations)
    names = _names(runs)
    alike = _same_test(names, runs, evaluations, different)
    base = max(alike, key=lambda n: evaluations[n].metrics[by].value) if reference == "best" else 0
    (progress or NullProgress()).say(f"comparing {len(runs)} runs with {names[base]} ...")
    against = _against(evaluations, alike, base, chosen=reference == "best", resamples=resamples)
    costs = [cost_of(run) for run in runs]
    changes = _changes(runs)
    notes = _notes(runs, evaluations, alike, costs)
    if len(runs) > 1 and not changes[0]:
        notes.insert(0, "the recipes are equal except for their names")
    if reference == "best":
        notes.insert(0, f"{names[base]} was selected by the best {by} on this test, so its own score is optimistic")
    return Comparison(
        [
            Compared(name, run.folder, run.recipe, evaluation, changed, gained, cost)
            for name, run, evaluation, changed, gained, cost in zip(
                names, runs, evaluations, changes, against, costs, strict=True
            )
        ],
        by,
        names[base],
        CONFIDENCE,
        _corrected(len(alike), chosen=reference == "best"),
        notes,
    )


def _evaluations(runs: Sequence[Run]) -> list[Evaluation]:
    missing = [run.folder for run in runs if not run.evaluation.exists()]
    if missing:
        commands = "; ".join(f"handreid evaluate {folder}" for folder in missing)
        raise RunError(f"{len(missing)} of {len(runs)} runs have no evaluation.json; first: {commands}")
    return [read_evaluation(run.evaluation) for run in runs]


def _check_metric(by: str, evaluations: Sequence[Evaluation]) -> None:
    known = [name for name in evaluations[0].metrics if all(name in one.metrics for one in evaluations)]
    if by not in known:
        raise RunError(f"the runs have no metric {by!r}; they have {', '.join(known)}")


def _names(runs: Sequence[Run]) -> list[str]:
    names = [run.recipe.name for run in runs]
    longer = [f"{name} ({run.folder.name})" for name, run in zip(names, runs, strict=True)]
    longest = [f"{name} ({run.folder})" for name, run in zip(names, runs, strict=True)]
    return [
        next(option[n] for option in (names, longer, longest) if option.count(option[n]) == 1 or option is longest)
        for n in range(len(runs))
    ]


def _same_test(
    names: Sequence[str], runs: Sequence[Run], evaluations: Sequence[Evaluation], different: bool
) -> list[int]:
    """The runs that can be compared with the first, itself among them. Raises RunError if not all can."""
    reasons = [_unlike(runs[0], evaluations[0], run, one) for run, one in zip(runs, evaluations, strict=True)]
    if any(reasons) and not different:
        told = "; ".join(f"{name}: {reason}" for name, reason in zip(names, reasons, strict=True) if reason)
        raise RunError(
            f"not tested as {names[0]} was, so differences mean nothing: {told}. Evaluate them alike, or show them "
            "without differences with --allow-different-draws"
        )
    return [number for number, reason in enumerate(reasons) if not reason]


def _unlike(first: Run, theirs: Evaluation, run: Run, ours: Evaluation) -> str:
    """Why two runs cannot be compared; nothing if they can."""
    if ours.hashes.draws == theirs.hashes.draws and _asked(ours) == _asked(theirs):
        return ""
    asked, before = ours.protocol, theirs.protocol
    facts = {key: (getattr(asked, key), getattr(before, key)) for key in ("name", "label", "view")}
    why = [f"protocol {key} {here} for {there}" for key, (here, there) in facts.items() if here != there]
    rules = [asked.cameras, before.cameras]
    why += [f"cameras {rules[0]} for {rules[1]}"] if rules[0] != rules[1] else []
    if ours.hashes.manifest != theirs.hashes.manifest:
        why.append(f"manifest {ours.hashes.manifest[:8]} for {theirs.hashes.manifest[:8]}")
    for path in ("evaluate.draws", "data.seed", "data.test_share"):
        mine, other = _at(run.recipe, path), _at(first.recipe, path)
        why += [f"{path} {mine} for {other}"] if mine != other else []
    draws = f"draws {ours.hashes.draws[:8]} for {theirs.hashes.draws[:8]}"
    return draws + (f" ({', '.join(why)})" if why else "")


def _asked(evaluation: Evaluation) -> list[tuple[str, str | None]]:
    """Photo and subject of every query of every draw."""
    photos, subjects = evaluation.photos, evaluation.subjects
    return [(photos[row], subjects[row]) for draw in evaluation.draws for row in draw.query]


def _at(recipe: Recipe, path: str) -> Any:
    part, key = path.split(".")
    return getattr(getattr(recipe, part), key)


def _against(
    evaluations: Sequence[Evaluation], alike: Sequence[int], reference: int, *, chosen: bool, resamples: int
) -> list[dict[str, Difference]]:
    found: list[dict[str, Difference]] = [{} for _ in evaluations]
    if len(alike) < 2:
        return found
    scores = [read_scores(evaluations[number]) for number in alike]
    subjects = evaluations[alike[0]].subjects
    people = np.unique([subjects[row] for row in scores[0].rows], return_inverse=True)[1]
    common = [name for name in scores[0].metrics if all(name in one.metrics for one in scores)]
    differing = simultaneous_differences(
        [{name: one.metrics[name] for name in common} for one in scores],
        alike.index(reference),
        people,
        scores[0].draws,
        chosen=chosen,
        confidence=CONFIDENCE,
        resamples=resamples,
    )
    for number, differences in zip(alike, differing, strict=True):
        found[number] = differences_of(differences, confidence=True)
    return found


def _changes(runs: Sequence[Run]) -> list[dict[str, str]]:
    """A manifest that says the same under another name is no change."""
    changes = recipe_changes([run.recipe for run in runs])
    if len({run.facts.get("manifest_hash") for run in runs}) == 1:
        return [{path: text for path, text in changed.items() if path != "data.manifest"} for changed in changes]
    return changes


def _corrected(count: int, *, chosen: bool) -> str:
    if count < 3:
        return "one comparison, nothing to correct" if count == 2 else "nothing is compared"
    pairs = f"all {count * (count - 1) // 2} pairs of the {count} runs, because the reference was chosen by its score"
    family = pairs if chosen else f"{count - 1} comparisons with one reference"
    return f"simultaneous over {family}: all intervals of a metric hold together"


def _notes(
    runs: Sequence[Run], evaluations: Sequence[Evaluation], alike: Sequence[int], costs: Sequence[Cost]
) -> list[str]:
    notes = []
    if len(alike) < len(runs):
        notes.append(
            f"{len(runs) - len(alike)} of {len(runs)} runs were tested on other draws than the first: their numbers "
            "are shown but not compared"
        )
    if len({one.hashes.manifest for one in (evaluations[n] for n in alike)}) > 1:
        notes.append("the manifests differ, but queries and galleries are the same in all compared runs")
    if len({cost.device for cost in costs}) > 1:
        devices = ", ".join(dict.fromkeys(cost.device or "unknown" for cost in costs))
        notes.append(f"trained on different devices ({devices}): do not compare times")
    for package in ("handreid", "torch"):
        versions = dict.fromkeys(run.facts.get("versions", {}).get(package, "unknown") for run in runs)
        if len(versions) > 1:
            notes.append(f"trained with different versions of {package} ({', '.join(versions)})")
    return notes
