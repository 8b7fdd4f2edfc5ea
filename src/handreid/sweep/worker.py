"""One trial, in a process that Ray started: an ordinary run that tells of each validation, and may be stopped there.

Ray's answer to a report is the scheduler's decision. It stops a trial by ending the thread inside the report, which
training makes after it has written its checkpoint: a trial that was stopped is a run that can be resumed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from handreid.errors import HandreidError
from handreid.recipe import Recipe, Tracker, parse_recipe
from handreid.runs.epoch_metrics import read_metrics
from handreid.runs.folder import Run
from handreid.sweep.results import epochs_of, series
from handreid.training.train import train


def run_trial(config: Mapping[str, Any]) -> None:
    """Trains, or goes on with, the run in `folder`; what goes wrong on purpose is told and no trace."""
    import torch
    from ray import tune

    torch.set_num_threads(config["threads"])
    recipe = parse_recipe(config["recipe"], config["folder"])
    track = TypeAdapter(tuple[Tracker, ...]).validate_python(config["track"])
    watching = _Watching(Path(config["folder"]), recipe, config["metric"])
    try:
        watching.tell_before()
        train(recipe, Path(config["data"]), watching.folder, resume=True, watch=[watching], track=track)
    except HandreidError as error:
        tune.report({"failed": str(error)})
    else:
        watching.tell_end()


class _Watching:
    """Reports the metric of the weights that would be kept, by epochs of fine-tuning; the last when all is written."""

    def __init__(self, folder: Path, recipe: Recipe, metric: str) -> None:
        self.folder = folder
        self.recipe = recipe
        self.metric = metric
        self.epochs = epochs_of(recipe)

    def __call__(self, entry: Mapping[str, Any]) -> None:
        number, _ = self.recipe.validated[-1]
        if entry["stage"] == number and self.metric in entry and entry["epoch"] < self.recipe.stages[number].epochs:
            self._report(-1)

    def tell_before(self) -> None:
        """What an earlier attempt at this trial told: a scheduler that was started anew does not know it."""
        for reached in series(read_metrics(Run(self.folder)), self.recipe, self.metric):
            if reached.epoch < self.epochs:
                _tell(reached.epoch, self.metric, reached.value, again=True)

    def tell_end(self) -> None:
        self._report(-1)

    def _report(self, place: int) -> None:
        reached = list(series(read_metrics(Run(self.folder)), self.recipe, self.metric))[place]
        _tell(reached.epoch, self.metric, reached.value)


def _tell(epoch: int, metric: str, value: float, *, again: bool = False) -> None:
    from ray import tune

    tune.report({"epoch": epoch, metric: value, "again": again})
