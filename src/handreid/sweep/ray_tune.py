"""A sweep on Ray Tune: which trial is next, which are stopped early, and the progress lines."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ray import tune
from ray.tune import Callback
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from handreid.progress import Advance
from handreid.recipe import dump_recipe
from handreid.recipe.sweep import Asha
from handreid.sweep.ray_cluster import Resources
from handreid.sweep.results import epochs_of
from handreid.sweep.search import one_at_a_time
from handreid.sweep.state import SweepState, describe_end
from handreid.sweep.trial_server import describe_fault
from handreid.sweep.worker import run_trial


def tune_trials(going: SweepState, room: Resources, advance: Advance) -> None:
    """Trains the remaining trials; each is recorded in sweep.json when it begins and when it ends."""
    searcher = SweepSearcher(going, room, advance)
    scheduler = _scheduler(going)
    tune.Tuner(
        tune.with_resources(run_trial, {"cpu": room.cpus, "gpu": room.gpus}),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=-1,
            max_concurrent_trials=room.concurrent,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: f"trial-{trial.trial_id}",
        ),
        run_config=tune.RunConfig(
            name=going.sweep.name, storage_path=str(room.storage), verbose=0, callbacks=[ProgressCallback(going)]
        ),
    ).fit()
    if searcher.broken:
        raise searcher.broken


class SweepSearcher(Searcher):  # type: ignore[misc, unused-ignore]
    """Gives Ray the next trials, and records those that ended."""

    def __init__(self, going: SweepState, room: Resources, advance: Advance) -> None:
        super().__init__(metric=going.sweep.metric, mode="max")
        self.going = going
        self.room = room
        self.advance = advance
        self.numbers: dict[str, int] = {}
        self.broken: Exception | None = None

    def __reduce__(self) -> Any:
        return str, ("the sweep's folder is what is known",)  # Ray writes down what it was given, and never reads it

    def __deepcopy__(self, memo: Any) -> "SweepSearcher":
        return self

    def suggest(self, trial_id: str) -> Any:
        try:
            trial = self.going.next()
            if trial is None:
                return Searcher.FINISHED
            recipe = self.going.written(trial)
        except Exception as error:  # Ray would print a stack trace
            self.broken = error
            return Searcher.FINISHED
        self.numbers[trial_id] = trial.number
        self.going.tell(trial, "begins" if not trial.done else "goes on")
        return {
            "number": trial.number,
            "recipe": dump_recipe(recipe),
            "folder": str(self.going.notes.run_folder(trial).absolute()),
            "data": str(self.going.material.path.absolute()),
            "metric": self.going.sweep.metric,
            "threads": self.room.cpus,
            "server": self.room.server,
            "track": [tracker.model_dump(mode="json") for tracker in self.going.trackers(trial)],
        }

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        message = (result or {}).get("failed") or ("its process ended" if error else None)
        trial = self.going.settle(self.numbers[trial_id], message)
        self.going.tell(trial, describe_end(trial))
        self.advance(1)

    def save(self, checkpoint_path: str) -> None:
        """Does nothing: the state is in the sweep's folder."""

    def restore(self, checkpoint_path: str) -> None:
        """Does nothing, as `save`."""


class ProgressCallback(Callback):  # type: ignore[misc, unused-ignore]
    """Prints each validation, and records the error of a trial."""

    def __init__(self, going: SweepState) -> None:
        self.going = going

    def __reduce__(self) -> Any:
        return str, ("nothing to go on with",)

    def __deepcopy__(self, memo: Any) -> "ProgressCallback":
        return self

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Mapping[str, Any], **_: Any) -> None:
        metric = self.going.sweep.metric
        if metric in result and not result["again"]:
            noted = self.going.notes.of(trial.config["number"])
            name = metric.removeprefix("validation_")
            self.going.tell(noted, f"epoch {result['epoch']} of {noted.epochs}, validation {name} {result[metric]:.1%}")

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        noted = self.going.notes.of(trial.config["number"])
        self.going.notes.put(replace(noted, message=_died_of(trial.get_error())))


def _died_of(error: Any) -> str:
    return describe_fault(getattr(error, "cause", None) or error)


def _scheduler(going: SweepState) -> TrialScheduler:
    """Ray's scheduler, with the metrics of all trials that ended before."""
    options, metric = going.sweep.scheduler, going.sweep.metric
    if options is None:
        return FIFOScheduler()  # type: ignore[no-untyped-call]
    lengths = [epochs_of(going.design.recipe_of(setting)) for setting in one_at_a_time(going.sweep)]
    scheduler = asha_scheduler(
        options, metric, longest=max([*(trial.epochs for trial in going.notes.trials), *lengths])
    )
    for trial in going.notes.trials:
        if trial.state in ("finished", "stopped"):
            replay(scheduler, f"before-{trial.number}", metric, going.values(trial))
    return scheduler


def asha_scheduler(options: Asha, metric: str, *, longest: int) -> TrialScheduler:
    """Ray's ASHA over epochs; a trial that reaches the epochs of the `longest` is not counted as stopped."""
    return ASHAScheduler(
        time_attr="epoch",
        metric=metric,
        mode="max",
        max_t=max(longest, options.grace) + 1,
        grace_period=options.grace,
        reduction_factor=options.reduction,
        stop_last_trials=False,
    )


class _Past:
    """A trial with what Ray's schedulers read of one: its identifier."""

    def __init__(self, trial_id: str) -> None:
        self.trial_id = trial_id


def replay(scheduler: TrialScheduler, trial_id: str, metric: str, values: Mapping[int, float]) -> Any:
    """Gives a scheduler the metrics of a trial that ran before; returns the trial as the scheduler knows it."""
    past: Any = _Past(trial_id)
    nobody: Any = None  # these schedulers ask nothing of Ray's controller
    scheduler.on_trial_add(nobody, past)
    for epoch, value in values.items():
        scheduler.on_trial_result(nobody, past, {"epoch": epoch, metric: value})
    return past
