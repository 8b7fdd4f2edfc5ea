"""Runs or resumes a sweep: Ray Tune trains, and the sweep's folder holds the whole state.

* A trial is recorded before it begins, so one that was interrupted is resumed with the same parameters. Trials that
  ended are not run again; the scheduler is given their metrics.
* Only validation is used. No trial is evaluated on test photos.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from handreid.errors import RunError
from handreid.progress import NullProgress, Progress
from handreid.recipe import Tracker
from handreid.recipe.load_sweep import Design
from handreid.runs.records import read_sweep
from handreid.runs.rendered_photos import recorded_manifest
from handreid.sweep.checks import check_builds, check_settings, idle_scheduler, load_inputs
from handreid.sweep.state import SweepState
from handreid.sweep.summary import write_summary
from handreid.sweep.trials import create_sweep, exclusive_lock, open_sweep


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
    progress = progress or NullProgress()
    check_settings(design)
    idle = idle_scheduler(design)
    if idle:
        progress.say(f"note: {idle}")
    begun = (out / "sweep.json").exists()
    if begun and data is None:
        data = recorded_manifest(read_sweep(out), progress)
    ground = load_inputs(design, data, progress)
    with exclusive_lock(out):
        if begun:
            notes = open_sweep(out, design, ground.facts, retry=retry)
        else:
            check_builds(design, ground.material.path, ground.material, out, elsewhere=address is not None)
            notes = create_sweep(out, design, ground.facts)
        going = SweepState(design, notes, ground.material, progress, track)
        if going.left:
            _train(going, address)
        if all(trial.state == "failed" for trial in notes.trials):
            earliest = notes.trials[0]
            raise RunError(
                f"all {len(notes.trials)} trials failed; {earliest.name}: {earliest.message} (--retry runs them again)"
            )
        return write_summary(design, notes)


def _train(going: "SweepState", address: str | None) -> None:
    """Trains the remaining trials with Ray."""
    from handreid.sweep.ray_cluster import prepare, running

    prepare()
    from handreid.sweep.ray_tune import tune_trials  # imports Ray, which reads its settings then

    sweep = going.sweep
    storage = going.notes.folder.absolute() / ".ray"
    with (
        running(address, storage, cpus=sweep.cpus, gpus=sweep.gpus, concurrent=sweep.concurrent) as room,
        going.progress.step(f"sweep {sweep.name}", going.total, "trials") as advance,
    ):
        advance(going.total - going.left)
        tune_trials(going, room, advance)
