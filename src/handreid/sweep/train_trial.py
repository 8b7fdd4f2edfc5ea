"""One trial: an ordinary run that reports each validation, and may be stopped there.

`report` returns when training may go on, and raises SystemExit when the scheduler stops the trial. Training calls it
after it has written its checkpoint, so a trial that was stopped is a run that can be resumed.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from handreid.errors import HandreidError
from handreid.recipe import Recipe, Tracker, parse_recipe
from handreid.runs.epoch_metrics import read_metrics
from handreid.runs.folder import Run
from handreid.sweep.results import Reached, epochs_of, series
from handreid.training.train import train

Report = Callable[[dict[str, Any]], None]


def train_trial(config: Mapping[str, Any], report: Report) -> None:
    """Trains or resumes the run in `folder`. An error of ours is reported as `failed`, without a stack trace."""
    torch.set_num_threads(config["threads"])
    recipe = parse_recipe(config["recipe"], config["folder"])
    track = TypeAdapter(tuple[Tracker, ...]).validate_python(config["track"])
    reporter = _Reporter(Path(config["folder"]), recipe, config["metric"], report)
    try:
        reporter.repeat_earlier()
        train(recipe, Path(config["data"]), reporter.folder, resume=True, watch=[reporter], track=track)
    except HandreidError as error:
        report({"failed": str(error)})
    else:
        reporter.report_end()


class _Reporter:
    """Reports the metric of the weights that would be kept, by epochs of fine-tuning; the last when all is written."""

    def __init__(self, folder: Path, recipe: Recipe, metric: str, report: Report) -> None:
        self.folder = folder
        self.recipe = recipe
        self.metric = metric
        self.report = report
        self.epochs = epochs_of(recipe)

    def __call__(self, entry: Mapping[str, Any]) -> None:
        number, _ = self.recipe.validated[-1]
        if entry["stage"] == number and self.metric in entry and entry["epoch"] < self.recipe.stages[number].epochs:
            self._report_last()

    def repeat_earlier(self) -> None:
        """Reports again what an earlier attempt at this trial reported: a scheduler that was restarted lacks it."""
        for reached in self._reached():
            if reached.epoch < self.epochs:
                self._report(reached.epoch, reached.value, again=True)

    def report_end(self) -> None:
        self._report_last()

    def _report_last(self) -> None:
        reached = self._reached()[-1]
        self._report(reached.epoch, reached.value)

    def _reached(self) -> list[Reached]:
        return list(series(read_metrics(Run(self.folder)), self.recipe, self.metric))

    def _report(self, epoch: int, value: float, *, again: bool = False) -> None:
        self.report({"epoch": epoch, self.metric: value, "again": again})
