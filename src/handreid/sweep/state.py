"""The state of a running sweep: trials so far, the next trial, how a trial ended."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from handreid.errors import HandreidError
from handreid.progress import Progress
from handreid.recipe import Recipe, Tracker
from handreid.recipe.load_sweep import Design
from handreid.runs.dataset import RunDataset
from handreid.runs.epoch_metrics import read_metrics
from handreid.runs.folder import Run
from handreid.sweep.checks import resolve_start
from handreid.sweep.results import epochs_of, outcome, series
from handreid.sweep.search import Known, propose
from handreid.sweep.trials import Trial, TrialLog, format_value, trial_name
from handreid.tracking.state import resolve_trackers


class SweepState:
    """The state of a running sweep."""

    def __init__(
        self,
        design: Design,
        notes: TrialLog,
        material: RunDataset,
        progress: Progress,
        track: Sequence[Tracker] | None = None,
    ) -> None:
        self.design = design
        self.sweep = design.sweep
        self.notes = notes
        self.material = material
        self.progress = progress
        self.track = track
        self.seeds = self.sweep.seeds or (None,)
        self.total = self.sweep.settings * len(self.seeds)
        self.cut = [trial for trial in notes.trials if trial.state == "running"]
        self.exhausted = False

    @property
    def left(self) -> int:
        """Trials that have not ended."""
        return self.total - sum(trial.state != "running" for trial in self.notes.trials)

    def next(self) -> Trial | None:
        """The trial to train now, recorded; None when there is none. One without a valid recipe fails at once."""
        if self.cut:
            return self.cut.pop(0)
        while len(self.notes.trials) < self.total and not self.exhausted:
            trial = self._new(len(self.notes.trials))
            if trial is None:
                self.exhausted = True
                return None
            self.notes.put(trial)
            if trial.state == "running":
                return trial
            self.tell(trial, trial.message or "")
        return None

    def _new(self, place: int) -> Trial | None:
        number, seed_place = divmod(place, len(self.seeds))
        same = next((trial.parameters for trial in self.notes.trials if trial.setting == number + 1), None)
        parameters = same or propose(self.sweep, number, self.known() if self.sweep.search == "tpe" else [])
        if parameters is None:
            return None
        seed = self.seeds[seed_place]
        name = trial_name(self.sweep, place + 1, parameters, seed or 0)
        trial = Trial(place + 1, number + 1, name, parameters, seed or 0)
        try:
            recipe = self.recipe(trial, seed)
        except HandreidError as error:
            return replace(trial, state="failed", message=str(error))
        return replace(trial, seed=recipe.seed, epochs=epochs_of(recipe))

    def recipe(self, trial: Trial, seed: int | None) -> Recipe:
        """The run's recipe: named after the trial, with `init_from` as an absolute path."""
        about = f"trial {trial.number} of sweep {self.sweep.name}: {describe_trial(self.notes, trial)}"
        keys: dict[str, object] = {"name": trial.name, "about": about} | ({} if seed is None else {"seed": seed})
        recipe = self.design.recipe_of(trial.parameters, **keys)
        start = resolve_start(recipe, self.material, self.notes.folder)
        return recipe.model_copy(update={"init_from": start})

    def written(self, trial: Trial) -> Recipe:
        """The recipe in the trial's run folder, or the one it will have."""
        run = Run(self.notes.run_folder(trial))
        return run.recipe if run.begun else self.recipe(trial, trial.seed if self.sweep.seeds else None)

    def trackers(self, trial: Trial) -> Sequence[Tracker]:
        """Trackers of the trial's run; not those that only an existing folder names."""
        return resolve_trackers(self.track, self.design.recipe_of(trial.parameters))

    def known(self) -> list[Known]:
        return [Known(trial.parameters, trial.state, self.values(trial)) for trial in self.notes.trials]

    def values(self, trial: Trial) -> dict[int, float]:
        """The metric by epoch, as it was reported to the scheduler; the last of a finished trial is its result."""
        run = Run(self.notes.run_folder(trial))
        if not run.begun:
            return {}
        entries = read_metrics(run)
        values = {reached.epoch: reached.value for reached in series(entries, self.written(trial), self.sweep.metric)}
        if trial.state == "finished" and trial.value is not None:
            values[max(values)] = trial.value
        return values

    def settle(self, number: int, message: str | None) -> Trial:
        """Records how a trial ended, from its folder."""
        trial = self.notes.of(number)
        folder = self.notes.run_folder(trial)
        state: Any = "failed" if message else "finished" if Run(folder).finished else "stopped"
        trial = replace(trial, state=state, message=message)
        if Run(folder).begun:
            result = outcome(folder, Run(folder).recipe, self.sweep.metric)
            trial = replace(
                trial,
                value=result.value,
                epoch=result.epoch,
                done=result.done,
                epochs=result.epochs,
                seconds=result.seconds,
            )
        self.notes.put(trial)
        return trial

    def tell(self, trial: Trial, line: str) -> None:
        self.progress.say(f"[{trial.number}/{self.total}] {describe_trial(self.notes, trial)}: {line}")


def describe_trial(notes: TrialLog, trial: Trial) -> str:
    """A trial's parameters in one line."""
    short = notes.facts["short_names"]
    parts = [f"{short[name]} {format_value(value)}" for name, value in trial.parameters.items()]
    return ", ".join([*parts, *([f"seed {trial.seed}"] if len(notes.facts["seeds"]) > 1 else [])])


def describe_end(trial: Trial) -> str:
    """How a trial ended, in words."""
    reached = "" if trial.value is None else f", {trial.value:.1%}"
    match trial.state:
        case "failed":
            return f"failed after epoch {trial.done} of {trial.epochs}: {(trial.message or '').splitlines()[0]}"
        case "stopped":
            return f"stopped at epoch {trial.done} of {trial.epochs}{reached}"
        case "finished":
            where = f" (epoch {trial.epoch} of {trial.epochs})" if trial.epoch else ""
            return f"finished{reached}{where}"
        case _:
            return f"at epoch {trial.done} of {trial.epochs}{reached}"
