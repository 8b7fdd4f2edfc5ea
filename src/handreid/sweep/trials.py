"""A sweep's folder: each trial is recorded before it begins and when it ends.

sweep.yaml, recipe.yaml   what the sweep is, complete: `handreid sweep --resume` needs nothing else
trials/001-lr-1e-05/      a run folder for each trial
sweep.json                every trial: parameters, state, metric, epoch, seconds; at the end, what follows from them
"""

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from handreid import __version__
from handreid.errors import OutputError, RunError
from handreid.files import (
    BEGINNING,
    beginning,
    check_folder_writable,
    first_difference,
    is_free,
    locked,
    remove_stale,
    write_json,
    write_text,
)
from handreid.recipe.load_sweep import Design, dump_sweep, load_sweep
from handreid.recipe.sweep import Sweep, number_words, short_names
from handreid.runs.records import SWEEP_FORMAT, read_sweep

State = Literal["running", "finished", "stopped", "failed"]


@dataclass(frozen=True)
class Trial:
    """One run of a sweep. `value` is the metric of the weights it ended with, those of `epoch`, of `done` of `epochs`;
    both are null where nothing was validated, `epoch` also where WiSE-FT took weights between two.
    """

    number: int  # from 1
    setting: int  # from 1; trials of one setting differ in their seed
    name: str
    parameters: dict[str, str | int | float]
    seed: int
    state: State = "running"
    value: float | None = None
    epoch: int | None = None
    done: int = 0
    epochs: int = 0
    seconds: float = 0.0
    message: str | None = None


@dataclass
class TrialLog:
    """The folder's sweep.json, rewritten at every change."""

    folder: Path
    facts: dict[str, Any]
    trials: list[Trial] = field(default_factory=list)

    def put(self, trial: Trial) -> None:
        """Adds a trial, or replaces the one of its number."""
        others = [entry for entry in self.trials if entry.number != trial.number]
        self.trials = sorted([*others, trial], key=lambda entry: entry.number)
        self.write()

    def write(self, **results: Any) -> dict[str, Any]:
        content = {
            **self.facts,
            **results,
            "format": SWEEP_FORMAT,
            "trials": [self._entry(trial) for trial in self.trials],
        }
        write_json(self.folder / "sweep.json", content)
        return content

    def run_folder(self, trial: Trial) -> Path:
        return self.folder / "trials" / trial.name

    def of(self, number: int) -> Trial:
        return next(trial for trial in self.trials if trial.number == number)

    def _entry(self, trial: Trial) -> dict[str, Any]:
        return {**asdict(trial), "folder": f"trials/{trial.name}"}


def create_sweep(folder: Path, design: Design, facts: Mapping[str, Any]) -> TrialLog:
    """A fresh sweep folder. Raises RunError when it holds something else."""
    if not is_free(folder, "sweep.json"):
        raise RunError(f"{folder} is not empty and holds no sweep; choose another --out")
    sweep = design.sweep
    basics = {"sweep": sweep.name, "about": sweep.about, "metric": sweep.metric, "search": sweep.search}
    about = {"settings": sweep.settings, "seeds": list(sweep.seeds or ()), "short_names": short_names([*sweep.space])}
    notes = TrialLog(
        folder,
        {
            **basics,
            **about,
            "handreid": __version__,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            **facts,
            "identity": design.identity,
        },
    )
    with beginning(folder):
        write_text(folder / "recipe.yaml", design.recipe)
        write_text(folder / "sweep.yaml", dump_sweep(sweep.model_copy(update={"recipe": "recipe.yaml"})))
        notes.write()
    return notes


def load_design(out: Path) -> Design:
    """The sweep that a folder holds. Raises RunError when it holds none."""
    if not (out / "sweep.json").exists():
        raise RunError(
            f"{out} is not the folder of a sweep, or its sweep never started (it has no sweep.json); start it: "
            f"handreid sweep SWEEP --data MANIFEST --out {out}"
        )
    return load_sweep(out / "sweep.yaml")


def open_sweep(folder: Path, design: Design, facts: Mapping[str, Any], *, retry: bool) -> TrialLog:
    """A sweep that was begun. Raises RunError when it was another, or on other photos.

    With `retry`, failed trials are run again.
    """
    content = read_sweep(folder)
    (folder / BEGINNING).unlink(missing_ok=True)
    if content["identity"] != design.identity:
        raise RunError(
            f"{folder} holds another sweep ({first_difference(content['identity'], design.identity)}); choose another "
            "--out, or continue the old one: "
            f"handreid sweep --resume {folder}"
        )
    for name in ("manifest_hash", "split_hash"):
        if content[name] != facts[name]:
            raise RunError(
                f"{folder} was started on other data: its {name} is {content[name]}, now it is {facts[name]}"
            )
    trials = [Trial(**{k: v for k, v in entry.items() if k != "folder"}) for entry in content.pop("trials")]
    if retry:
        trials = [
            replace(trial, state="running", message=None) if trial.state == "failed" else trial for trial in trials
        ]
    for result in ("best", "settled", "importance"):
        content.pop(result, None)
    return TrialLog(folder, content, trials)


def trial_name(sweep: Sweep, number: int, parameters: Mapping[str, str | int | float], seed: int) -> str:
    """A folder's name: the number and the parameters, at most 80 characters of them."""
    short = short_names([*sweep.space])
    words = [f"{short[name]}-{format_value(value)}" for name, value in parameters.items()]
    words += [f"seed-{seed}"] if sweep.seeds and len(sweep.seeds) > 1 else []
    slug = re.sub(r"-*[^A-Za-z0-9._]+-*", "-", "-".join(words)).strip("-.")[:80].rstrip("-.")
    return f"{number:03d}-{slug}"


def format_value(value: str | int | float) -> str:
    return value if isinstance(value, str) else number_words(value)


@contextlib.contextmanager
def exclusive_lock(folder: Path) -> Iterator[None]:
    """Holds the lock of a sweep's folder. Raises RunError when another process holds it."""
    check_folder_writable(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be created: {error.strerror}; choose another --out") from None
    with locked(folder, "works on this sweep"):
        remove_stale(folder, everyone=True)
        yield
