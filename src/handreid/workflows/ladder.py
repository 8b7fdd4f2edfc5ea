"""A ladder of recipes on the same photos: train and evaluate each, and compare it with the rung below.

A rung that is finished with the same recipe and data is not run again; one that was stopped is resumed. With several
seeds, each rung is trained with each of them (`seeds.py`).
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from handreid.errors import HandreidError, RecipeError
from handreid.evaluation.compare import Rung, compare
from handreid.evaluation.evaluate import evaluate
from handreid.evaluation.seeds import SeedRun, rung_over_seeds
from handreid.evaluation.tables.ladder import markdown
from handreid.files import write_json, write_text
from handreid.progress import NullProgress, Progress
from handreid.recipe import Recipe, Tracker
from handreid.recipe.load import check_names
from handreid.runs.folder import Run, open_run
from handreid.runs.results import (
    LADDER_FORMAT,
    SEEDS_FORMAT,
    Evaluation,
    Ladder,
    LadderRung,
    SeedLadder,
    SeedRung,
    read_evaluation,
)
from handreid.tracking.client import Sender
from handreid.tracking.locations import check_installed
from handreid.tracking.state import resolve_trackers
from handreid.training.train import check_recipe, train
from handreid.workflows.seeds import PlannedRung, plan_rungs


def run_ladder(
    recipes: Sequence[Recipe],
    data: Path | None,
    out: Path,
    *,
    seeds: int = 1,
    progress: Progress | None = None,
    done: Callable[[Rung], None] = lambda _: None,
    every: bool = True,
    track: Sequence[Tracker] | None = None,
) -> list[Rung]:
    """Writes runs to `out/<recipe name>`, and ladder.json and ladder.md to `out`.

    With several `seeds`, each rung is trained with its recipe's `seed` and those that follow, the others in
    `out/<recipe name>-seed-<n>`, and the rungs are `SeedRung`s: means over the seeds. Before the first rung starts, all
    are checked. One that cannot be built, such as one that needs a column the manifest lacks, is an error, or without
    `every` is skipped with a note. Raises RunError for two recipes of one name, and as `seeds.plan_rungs` does.
    """
    progress = progress or NullProgress()
    check_names(recipes)
    check_installed(tracker for recipe in recipes for tracker in resolve_trackers(track, recipe))
    planned = _buildable(plan_rungs(recipes, out, seeds), data, out, None if every else progress.say, progress)
    rungs: list[Rung] = []
    below: list[SeedRun] | None = None
    with Sender(progress) as sender:
        for number, rung in enumerate(planned, 1):
            runs: list[SeedRun] = []
            for recipe in rung.runs:
                seed = f", seed {recipe.seed} ({len(runs) + 1} of {len(rung.runs)})" if len(rung.runs) > 1 else ""
                progress.say(f"rung {number} of {len(planned)}: {rung.recipe.name}{seed}")
                if rung.note and not runs:
                    progress.say(f"note: {rung.note}")
                evaluation = _evaluated(recipe, data, out, progress, track, sender)
                runs.append(SeedRun(recipe.seed, recipe.name, evaluation))
            rungs.append(_rung(rung.recipe, runs, below, seeds))
            below = runs
            done(rungs[-1])
    _write(rungs, out, seeds)
    return rungs


def _evaluated(
    recipe: Recipe,
    data: Path | None,
    out: Path,
    progress: Progress,
    track: Sequence[Tracker] | None,
    sender: Sender,
) -> Evaluation:
    run = train(recipe, data, out / recipe.name, resume=True, progress=progress, track=track, sender=sender)
    if not run.evaluation.exists():
        trackers = resolve_trackers(track, recipe)
        evaluate(open_run(run.folder), data=data, progress=progress, track=trackers, sender=sender)
    return read_evaluation(run.evaluation)


def _rung(recipe: Recipe, runs: Sequence[SeedRun], below: Sequence[SeedRun] | None, seeds: int) -> Rung:
    if seeds > 1:
        over_seeds = rung_over_seeds(recipe.name, runs, below, resamples=recipe.evaluate.resamples)
        return Rung(recipe.name, over_seeds, over_seeds.below)
    evaluation = runs[0].evaluation
    return Rung(recipe.name, evaluation, None if below is None else compare(evaluation, below[0].evaluation))


def _write(rungs: Sequence[Rung], out: Path, seeds: int) -> None:
    over_seeds = [rung.evaluation for rung in rungs if isinstance(rung.evaluation, SeedRung)]
    plain = [LadderRung.of(rung.evaluation, rung.below) for rung in rungs if isinstance(rung.evaluation, Evaluation)]
    ladder: Ladder | SeedLadder = (
        SeedLadder(format=SEEDS_FORMAT, seeds=seeds, rungs=over_seeds)
        if seeds > 1
        else Ladder(format=LADDER_FORMAT, rungs=plain)
    )
    write_json(out / "ladder.json", ladder.model_dump(mode="json"))
    write_text(out / "ladder.md", markdown(rungs))


def _buildable(
    rungs: Sequence[PlannedRung],
    data: Path | None,
    out: Path,
    say: Callable[[str], None] | None,
    progress: Progress,
) -> list[PlannedRung]:
    """The rungs that can be built on this data. With `say`, a RecipeError is reported and the rung skipped."""
    buildable = []
    for rung in rungs:
        name = rung.recipe.name
        try:
            if not all(Run(out / run.name).begun for run in rung.runs):
                check_recipe(rung.recipe, data, progress=progress)
        except HandreidError as error:
            if say is None or not isinstance(error, RecipeError):
                raise type(error)(f"rung {name}: {error}; choose others with --rungs") from None
            say(f"note: rung {name} is left out: {error}")
        else:
            buildable.append(rung)
    return buildable
