"""tracking.json: which trackers a run is told to, under which id, and what of it they have."""

import contextlib
import dataclasses
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from handreid.errors import HandreidError, RunError
from handreid.files import read_json, write_json
from handreid.messages import listed
from handreid.progress import Progress
from handreid.recipe import Recipe, Tracker
from handreid.runs.folder import Run
from handreid.tracking.locations import describe
from handreid.tracking.payload import NOTHING, Epoch

_TRACKER: TypeAdapter[Tracker] = TypeAdapter(Tracker)


@dataclass(frozen=True)
class Entry:
    """What one tracker knows of a run. `id` is the tracker's own name for it, `sent` the last epoch that it has,
    `files` the content hashes of files and evaluations that it has.
    """

    tracker: Tracker
    id: str | None = None
    where: str | None = None
    sent: Epoch = NOTHING
    settings: bool = False
    files: Mapping[str, str] = field(default_factory=dict)
    status: str | None = None


def path_of(run: Run) -> Path:
    return run.folder / "tracking.json"


def entries(run: Run) -> list[Entry]:
    """Of every tracker that this run was ever told to; none for a run that never was. Raises RunError."""
    if not path_of(run).exists():
        return []
    try:
        return [_read(raw) for raw in read_json(path_of(run))["trackers"]]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise RunError(
            f"{path_of(run)} was changed or damaged; move it away to log the run from the beginning"
        ) from None


def resolve_trackers(asked: Sequence[Tracker] | None, recipe: Recipe | None) -> Sequence[Tracker]:
    """Those asked for now, else those of the recipe that was named now.

    Never those that a run folder names, in its recipe or in tracking.json: it may come from anybody, and the address
    be anywhere. Whoever wants them says so, with --track or `handreid track`.
    """
    if asked is not None:
        return asked
    return recipe.tracking if recipe else ()


def tracked(run: Run) -> Sequence[Tracker]:
    """Trackers that a run has been told to, whatever its recipe says."""
    return tuple(entry.tracker for entry in entries(run))


def note_untold(run: Run, asked: Sequence[Tracker] | None, told: Sequence[Tracker], progress: Progress) -> None:
    """Says which trackers the run's folder names that are not told, unless somebody has decided on trackers now."""
    if asked is not None:
        return
    named: list[Tracker] = []
    with contextlib.suppress(HandreidError):  # a folder that cannot be read names nobody
        named = [*tracked(run), *run.recipe.tracking]
    untold = dict.fromkeys(describe(one, run) for one in named if not any(_same(one, other) for other in told))
    if untold:
        progress.say(
            f"note: {listed(untold, 3)}: named by the folder {run.folder}, and not told, as a folder may be anybody's; "
            f"--track says whom to tell, and `handreid track {run.folder}` tells these"
        )


def register(run: Run, trackers: Sequence[Tracker]) -> list[int]:
    """Places of the trackers in tracking.json, new ones at its end."""
    known = entries(run)
    places = []
    for tracker in trackers:
        found = next((place for place, entry in enumerate(known) if _same(entry.tracker, tracker)), None)
        if found is None:
            found = len(known)
            known.append(Entry(tracker))
        known[found] = dataclasses.replace(known[found], tracker=tracker)
        places.append(found)
    if known != entries(run):  # else who sends may be writing
        _write(run, known)
    return places


class TrackingState:
    """The sending process's hold on a run's tracking.json, for its trackers together.

    No two processes send the same run: the second waits for the first, which a resumed run may have left behind.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self._lock = threading.Lock()
        self._held = _hold(run.folder)

    def entry(self, place: int) -> Entry:
        with self._lock:
            return entries(self.run)[place]

    def note(self, place: int, **changes: Any) -> None:
        with self._lock:
            known = entries(self.run)
            known[place] = dataclasses.replace(known[place], **changes)
            _write(self.run, known)


def _same(one: Tracker, other: Tracker) -> bool:
    """Whether they are one place; sending the model or not makes no other of it."""
    return one.model_dump(exclude={"model", "mode"}) == other.model_dump(exclude={"model", "mode"})


def _hold(folder: Path) -> int | None:
    """The folder, locked until this process ends or lets go; waits while another has it."""
    if sys.platform == "win32":
        return None
    import fcntl

    held = os.open(folder, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    return held


def _read(raw: Mapping[str, Any]) -> Entry:
    fields = {name: value for name, value in raw.items() if name != "tracker"}
    return Entry(_TRACKER.validate_python(raw["tracker"]), **fields | {"sent": tuple(raw["sent"])})


def _write(run: Run, known: Sequence[Entry]) -> None:
    raw = [{**vars(entry), "tracker": entry.tracker.model_dump(mode="json")} for entry in known]
    write_json(path_of(run), {"trackers": raw})
