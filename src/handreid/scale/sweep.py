"""A sweep, from wherever an earlier attempt was stopped: Ray Tune trains, the folder is what is known.

* A trial is noted before it begins, so one that was cut goes on with the same parameters. What has ended is never run
  again; its metrics are told to the scheduler anew.
* Only validation is looked at. No trial is evaluated.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from handreid.errors import HandreidError, RunError
from handreid.progress import Progress, Silent
from handreid.recipe import Recipe, Tracker
from handreid.recipe.sweep_reading import Design
from handreid.scale.checks import beginning, check_builds, check_settings, idle_scheduler, survey
from handreid.scale.notes import Notes, Trial, alone, begin, reopen, shown, trial_name
from handreid.scale.results import epochs_of, outcome, series
from handreid.scale.search import Known, propose
from handreid.scale.summary import conclude
from handreid.training.material import Material
from handreid.training.metrics import read_metrics
from handreid.training.records import read_sweep
from handreid.training.runs import Run
from handreid.training.tracking.memory import trackers_of


def run_sweep(
    design: Design,
    data: Path | None,
    out: Path,
    *,
    address: str | None = None,
    retry: bool = False,
    track: Sequence[Tracker] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """The content of sweep.json, when every trial has ended; with it are sweep.md and best.yaml.

    `address` is a Ray cluster's; `out` and the photos must then be where all its machines see them. The runs are
    tracked as `track` says, else as the recipe. Raises RunError when all trials failed, or `out` holds another sweep,
    and ProtocolError when it would look at test identities.
    """
    progress = progress or Silent()
    check_settings(design)
    idle = idle_scheduler(design)
    if idle:
        progress.say(f"note: {idle}")
    begun = (out / "sweep.json").exists()
    if begun and data is None:
        data = Path(read_sweep(out)["manifest"])
    ground = survey(design, data)
    with alone(out):
        if begun:
            notes = reopen(out, design, ground.facts, retry=retry)
        else:
            check_builds(design, ground.material.path, ground.material, out, elsewhere=address is not None)
            notes = begin(out, design, ground.facts)
        going = Going(design, notes, ground.material, progress, track)
        if going.left:
            _train(going, address)
        if all(trial.state == "failed" for trial in notes.trials):
            first = notes.trials[0]
            raise RunError(
                f"all {len(notes.trials)} trials failed; {first.name}: {first.message} (--retry runs them again)"
            )
        return conclude(design, notes)


def _train(going: "Going", address: str | None) -> None:
    """All that is left, with Ray."""
    from handreid.scale.cluster import prepare, running

    prepare()
    from handreid.scale.tuning import tune_trials  # imports Ray, which reads its settings then

    sweep = going.sweep
    storage = going.notes.folder.absolute() / ".ray"
    with (
        running(address, storage, cpus=sweep.cpus, gpus=sweep.gpus, concurrent=sweep.concurrent) as room,
        going.progress.step(f"sweep {sweep.name}", going.total, "trials") as advance,
    ):
        advance(going.total - going.left)
        tune_trials(going, room, advance)


class Going:
    """A sweep that goes on: what has been tried, and what comes next."""

    def __init__(
        self,
        design: Design,
        notes: Notes,
        material: Material,
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
        """The trial to train now, noted; None when there is none. One that makes no recipe fails at once."""
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
        number, of = divmod(place, len(self.seeds))
        same = next((trial.parameters for trial in self.notes.trials if trial.setting == number + 1), None)
        parameters = same or propose(self.sweep, number, self.known() if self.sweep.search == "tpe" else [])
        if parameters is None:
            return None
        seed = self.seeds[of]
        name = trial_name(self.sweep, place + 1, parameters, seed or 0)
        trial = Trial(place + 1, number + 1, name, parameters, seed or 0)
        try:
            recipe = self.recipe(trial, seed)
        except HandreidError as error:
            return replace(trial, state="failed", message=str(error))
        return replace(trial, seed=recipe.seed, epochs=epochs_of(recipe))

    def recipe(self, trial: Trial, seed: int | None) -> Recipe:
        """The run's recipe: its name says the trial, and it begins with a run whose place does not change."""
        about = f"trial {trial.number} of sweep {self.sweep.name}: {words(self.notes, trial)}"
        keys: dict[str, object] = {"name": trial.name, "about": about} | ({} if seed is None else {"seed": seed})
        recipe = self.design.recipe_of(trial.parameters, **keys)
        start = beginning(recipe, self.material, self.notes.folder)
        return recipe.model_copy(update={"start": start})

    def written(self, trial: Trial) -> Recipe:
        """The recipe as the trial has it, or will have it."""
        run = Run(self.notes.run_folder(trial))
        return run.recipe if run.begun else self.recipe(trial, trial.seed if self.sweep.seeds else None)

    def trackers(self, trial: Trial) -> Sequence[Tracker]:
        """Whom the trial's run is told to; nobody whom only a folder that was there before names."""
        return trackers_of(self.track, self.design.recipe_of(trial.parameters))

    def known(self) -> list[Known]:
        return [Known(trial.parameters, trial.state, self.values(trial)) for trial in self.notes.trials]

    def values(self, trial: Trial) -> dict[int, float]:
        """The metric by epochs, as it was told to the scheduler; of one that has finished it ends with its result."""
        run = Run(self.notes.run_folder(trial))
        if not run.begun:
            return {}
        entries = read_metrics(run)
        found = {reached.epoch: reached.value for reached in series(entries, self.written(trial), self.sweep.metric)}
        if trial.state == "finished" and trial.value is not None:
            found[max(found)] = trial.value
        return found

    def settle(self, number: int, message: str | None) -> Trial:
        """Notes how a trial ended, by what is in its folder."""
        trial = self.notes.of(number)
        folder = self.notes.run_folder(trial)
        state: Any = "failed" if message else "finished" if Run(folder).finished else "stopped"
        trial = replace(trial, state=state, message=message)
        if Run(folder).begun:
            found = outcome(folder, Run(folder).recipe, self.sweep.metric)
            trial = replace(
                trial, value=found.value, epoch=found.epoch, done=found.done, epochs=found.epochs, seconds=found.seconds
            )
        self.notes.put(trial)
        return trial

    def tell(self, trial: Trial, line: str) -> None:
        self.progress.say(f"[{trial.number}/{self.total}] {words(self.notes, trial)}: {line}")


def words(notes: Notes, trial: Trial) -> str:
    """A trial's parameters, as people say them."""
    short = notes.facts["short_names"]
    said = [f"{short[name]} {shown(value)}" for name, value in trial.parameters.items()]
    return ", ".join([*said, *([f"seed {trial.seed}"] if len(notes.facts["seeds"]) > 1 else [])])


def ended(trial: Trial) -> str:
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
