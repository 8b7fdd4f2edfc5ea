"""A ladder of recipes on the same photos: train and evaluate each, and compare it with the rung below.

A rung that is finished with the same recipe and data is not run again; one that was stopped is resumed.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from handreid.errors import HandreidError, RecipeError
from handreid.evaluation.compare import Rung, compare
from handreid.evaluation.evaluate import evaluate
from handreid.evaluation.tables.ladder import markdown
from handreid.files import write_json, write_text
from handreid.progress import NullProgress, Progress
from handreid.recipe import Recipe, Tracker
from handreid.recipe.load import check_names
from handreid.runs.folder import open_run
from handreid.runs.results import LADDER_FORMAT, Ladder, LadderRung, read_evaluation
from handreid.tracking.client import Sender
from handreid.tracking.locations import check_installed
from handreid.tracking.state import resolve_trackers
from handreid.training.train import check_recipe, train


def run_ladder(
    recipes: Sequence[Recipe],
    data: Path | None,
    out: Path,
    *,
    progress: Progress | None = None,
    done: Callable[[Rung], None] = lambda _: None,
    every: bool = True,
    track: Sequence[Tracker] | None = None,
) -> list[Rung]:
    """Writes runs to `out/<recipe name>`, and ladder.json and ladder.md to `out`.

    Before the first rung starts, all are checked. One that cannot be built, such as one that needs a column the
    manifest lacks, is an error, or without `every` is skipped with a note. Raises RunError for two recipes of one name.
    """
    progress = progress or NullProgress()
    check_names(recipes)
    check_installed(tracker for recipe in recipes for tracker in resolve_trackers(track, recipe))
    recipes = _buildable(recipes, data, out, None if every else progress.say, progress)
    rungs: list[Rung] = []
    with Sender(progress) as sender:
        for number, recipe in enumerate(recipes, 1):
            progress.say(f"rung {number} of {len(recipes)}: {recipe.name}")
            run = train(recipe, data, out / recipe.name, resume=True, progress=progress, track=track, sender=sender)
            if not run.evaluation.exists():
                trackers = resolve_trackers(track, recipe)
                evaluate(open_run(run.folder), data=data, progress=progress, track=trackers, sender=sender)
            evaluation = read_evaluation(run.evaluation)
            rungs.append(Rung(recipe.name, evaluation, compare(evaluation, rungs[-1].evaluation) if rungs else None))
            done(rungs[-1])
    ladder = Ladder(format=LADDER_FORMAT, rungs=[LadderRung.of(rung.evaluation, rung.below) for rung in rungs])
    write_json(out / "ladder.json", ladder.model_dump(mode="json"))
    write_text(out / "ladder.md", markdown(rungs))
    return rungs


def _buildable(
    recipes: Sequence[Recipe], data: Path | None, out: Path, say: Callable[[str], None] | None, progress: Progress
) -> list[Recipe]:
    """The recipes that can be built on this data. With `say`, a RecipeError is reported and the recipe skipped."""
    buildable = []
    for recipe in recipes:
        try:
            if not (out / recipe.name / "run.json").exists():
                check_recipe(recipe, data, progress=progress)
        except HandreidError as error:
            if say is None or not isinstance(error, RecipeError):
                raise type(error)(f"rung {recipe.name}: {error}; choose others with --rungs") from None
            say(f"note: rung {recipe.name} is left out: {error}")
        else:
            buildable.append(recipe)
    return buildable
