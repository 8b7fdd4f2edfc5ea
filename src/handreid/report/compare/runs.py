"""Comparison of runs: recipe changes, differences of metrics, cost.

* Differences are to one reference, paired by query, with simultaneous intervals over subjects
  (`metrics/simultaneous.py`). The verdict follows from the interval that is shown.
* Two runs can be compared if they have the same queries and galleries, which means equal hashes of the draws. Others
  are refused, or on request listed without a difference.
* Plain rankings are compared. The gain of re-ranking is relative to the plain ranking of the same run, and is computed
  by its evaluation.
* Everything is read from run folders; a run of an older version lacks what that version did not write.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from handreid.errors import RunError
from handreid.evaluation.compare import read_scores
from handreid.evaluation.convert import differences_of
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
    """`changed` has the same paths for all runs, "" if a recipe has no such path, without `name` and `about`. `against`
    is by metric; empty for the reference, and for runs that cannot be compared.
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
    """All intervals of a metric's differences hold simultaneously with `confidence`; `corrected` describes how."""

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
    """The runs in their order, compared with the first one or with the best one `by` a metric of evaluation.json.

    Raises RunError for a folder that is no run, a run that is not evaluated, a missing metric, and for runs that were
    tested on different draws unless `different` is set.
    """
    runs = [open_run(folder) for folder in folders]
    if not runs:
        raise RunError("there are no runs to compare")
    evaluations = _evaluations(runs)
    _check_metric(by, evaluations)
    recipes = [run.recipe for run in runs]  # read once: reading checks and parses a file
    names = _names(runs, recipes)
    comparable = _comparable(names, runs, evaluations, different)
    base = max(comparable, key=lambda n: evaluations[n].metrics[by].value) if reference == "best" else 0
    (progress or NullProgress()).say(f"comparing {len(runs)} runs with {names[base]} ...")
    against = _against(evaluations, comparable, base, best_reference=reference == "best", resamples=resamples)
    costs = [cost_of(run) for run in runs]
    changes = _changes(runs, recipes)
    notes = _notes(runs, evaluations, comparable, costs)
    if len(runs) > 1 and not changes[0]:
        notes.insert(0, "the recipes are equal except for their names")
    if reference == "best":
        notes.insert(0, f"{names[base]} was selected by the best {by} on this test, so its own score is optimistic")
    return Comparison(
        [
            Compared(name, run.folder, recipe, evaluation, changed, gained, cost)
            for name, run, recipe, evaluation, changed, gained, cost in zip(
                names, runs, recipes, evaluations, changes, against, costs, strict=True
            )
        ],
        by,
        names[base],
        CONFIDENCE,
        _corrected(len(comparable), best_reference=reference == "best"),
        notes,
    )


def _evaluations(runs: Sequence[Run]) -> list[Evaluation]:
    missing = [run.folder for run in runs if not run.evaluation.exists()]
    if missing:
        commands = "; ".join(f"handreid evaluate {folder}" for folder in missing)
        raise RunError(f"{len(missing)} of {len(runs)} runs have no evaluation.json; first: {commands}")
    return [read_evaluation(run.evaluation) for run in runs]


def _check_metric(by: str, evaluations: Sequence[Evaluation]) -> None:
    available = [
        name for name in evaluations[0].metrics if all(name in evaluation.metrics for evaluation in evaluations)
    ]
    if by not in available:
        raise RunError(f"the runs have no metric {by!r}; they have {', '.join(available)}")


def _names(runs: Sequence[Run], recipes: Sequence[Recipe]) -> list[str]:
    names = [recipe.name for recipe in recipes]
    longer = [f"{name} ({run.folder.name})" for name, run in zip(names, runs, strict=True)]
    longest = [f"{name} ({run.folder})" for name, run in zip(names, runs, strict=True)]
    return [
        next(option[n] for option in (names, longer, longest) if option.count(option[n]) == 1 or option is longest)
        for n in range(len(runs))
    ]


def _comparable(
    names: Sequence[str], runs: Sequence[Run], evaluations: Sequence[Evaluation], different: bool
) -> list[int]:
    """Numbers of the runs that can be compared with the first, and the first. Raises RunError if not all can, unless
    `different` is set.
    """
    reasons = [
        _mismatch(runs[0], evaluations[0], run, evaluation) for run, evaluation in zip(runs, evaluations, strict=True)
    ]
    if any(reasons) and not different:
        problems = "; ".join(f"{name}: {reason}" for name, reason in zip(names, reasons, strict=True) if reason)
        raise RunError(
            f"not tested as {names[0]} was, so differences mean nothing: {problems}. Evaluate them alike, or show them "
            "without differences with --allow-different-draws"
        )
    return [number for number, reason in enumerate(reasons) if not reason]


def _mismatch(reference_run: Run, reference: Evaluation, run: Run, evaluation: Evaluation) -> str:
    """Why two runs cannot be compared; an empty string if they can."""
    if evaluation.hashes.draws == reference.hashes.draws and _queries(evaluation) == _queries(reference):
        return ""
    protocol, reference_protocol = evaluation.protocol, reference.protocol
    facts = {key: (getattr(protocol, key), getattr(reference_protocol, key)) for key in ("name", "label", "view")}
    why = [
        f"protocol {key} {value} for {reference_value}"
        for key, (value, reference_value) in facts.items()
        if value != reference_value
    ]
    rules = [protocol.cameras, reference_protocol.cameras]
    why += [f"cameras {rules[0]} for {rules[1]}"] if rules[0] != rules[1] else []
    if evaluation.hashes.manifest != reference.hashes.manifest:
        why.append(f"manifest {evaluation.hashes.manifest[:8]} for {reference.hashes.manifest[:8]}")
    for path in ("evaluate.draws", "data.seed", "data.test_share"):
        setting, reference_setting = _setting(run.recipe, path), _setting(reference_run.recipe, path)
        why += [f"{path} {setting} for {reference_setting}"] if setting != reference_setting else []
    draws = f"draws {evaluation.hashes.draws[:8]} for {reference.hashes.draws[:8]}"
    return draws + (f" ({', '.join(why)})" if why else "")


def _queries(evaluation: Evaluation) -> list[tuple[str, str | None]]:
    """Photo and subject of every query of every draw."""
    photos, subjects = evaluation.photos, evaluation.subjects
    return [(photos[row], subjects[row]) for draw in evaluation.draws for row in draw.query]


def _setting(recipe: Recipe, path: str) -> Any:
    part, key = path.split(".")
    return getattr(getattr(recipe, part), key)


def _against(
    evaluations: Sequence[Evaluation],
    comparable: Sequence[int],
    reference: int,
    *,
    best_reference: bool,
    resamples: int,
) -> list[dict[str, Difference]]:
    by_run: list[dict[str, Difference]] = [{} for _ in evaluations]
    if len(comparable) < 2:
        return by_run
    scores = [read_scores(evaluations[number]) for number in comparable]
    subjects = evaluations[comparable[0]].subjects
    people = np.unique([subjects[row] for row in scores[0].rows], return_inverse=True)[1]
    common = [name for name in scores[0].metrics if all(name in run_scores.metrics for run_scores in scores)]
    differing = simultaneous_differences(
        [{name: run_scores.metrics[name] for name in common} for run_scores in scores],
        comparable.index(reference),
        people,
        scores[0].draws,
        reference_chosen=best_reference,
        confidence=CONFIDENCE,
        resamples=resamples,
    )
    for number, differences in zip(comparable, differing, strict=True):
        by_run[number] = differences_of(differences, confidence=True)
    return by_run


def _changes(runs: Sequence[Run], recipes: Sequence[Recipe]) -> list[dict[str, str]]:
    """Recipe changes, without the manifest's path if all manifests have the same content."""
    changes = recipe_changes(recipes)
    if len({run.facts.get("manifest_hash") for run in runs}) == 1:
        return [{path: text for path, text in changed.items() if path != "data.manifest"} for changed in changes]
    return changes


def _corrected(count: int, *, best_reference: bool) -> str:
    if count < 3:
        return "one comparison, nothing to correct" if count == 2 else "nothing is compared"
    pairs = f"all {count * (count - 1) // 2} pairs of the {count} runs, because the reference was chosen by its score"
    family = pairs if best_reference else f"{count - 1} comparisons with one reference"
    return f"simultaneous over {family}: all intervals of a metric hold together"


def _notes(
    runs: Sequence[Run], evaluations: Sequence[Evaluation], comparable: Sequence[int], costs: Sequence[Cost]
) -> list[str]:
    notes = []
    if excluded := len(runs) - len(comparable):
        notes.append(
            f"{excluded} of {len(runs)} runs were tested on other draws than the first: their numbers "
            "are shown but not compared"
        )
    if len({evaluation.hashes.manifest for evaluation in (evaluations[n] for n in comparable)}) > 1:
        notes.append("the manifests differ, but queries and galleries are the same in all compared runs")
    if len({cost.device for cost in costs}) > 1:
        devices = ", ".join(dict.fromkeys(cost.device or "unknown" for cost in costs))
        notes.append(f"trained on different devices ({devices}): do not compare times")
    for package in ("handreid", "torch"):
        versions = dict.fromkeys(run.facts.get("versions", {}).get(package, "unknown") for run in runs)
        if len(versions) > 1:
            notes.append(f"trained with different versions of {package} ({', '.join(versions)})")
    return notes
