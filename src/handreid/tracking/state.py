"""tracking.json: the trackers of a run, the run's id in each, and what has been sent."""

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
    """State of one tracker. `id` is the run's id in it, `sent` the last epoch that it has, `files` the content hashes
    of files and evaluations that it has.
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
    """All trackers that this run was ever sent to. Raises RunError for a damaged file."""
    if not path_of(run).exists():
        return []
    try:
        return [_read(raw) for raw in read_json(path_of(run))["trackers"]]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise RunError(
            f"{path_of(run)} was changed or damaged; move it away to log the run from the beginning"
        ) from None


def resolve_trackers(track: Sequence[Tracker] | None, recipe: Recipe | None) -> Sequence[Tracker]:
    """Those of `track`, else those of the recipe given by the user.

    Never those of a run folder, in its recipe or in tracking.json: the folder may come from anybody, and the address
    may be anywhere. To use them, name them with --track or use `handreid track`.
    """
    if track is not None:
        return track
    return recipe.tracking if recipe else ()


def tracked(run: Run) -> Sequence[Tracker]:
    """Trackers that a run has been sent to, whatever its recipe says."""
    return tuple(entry.tracker for entry in entries(run))


def note_untold(run: Run, track: Sequence[Tracker] | None, active: Sequence[Tracker], progress: Progress) -> None:
    """Notes trackers of the run's folder that are not used, unless `track` was given."""
    if track is not None:
        return
    candidates: list[Tracker] = []
    with contextlib.suppress(HandreidError):  # an unreadable folder names no tracker
        candidates = [*tracked(run), *run.recipe.tracking]
    untold = dict.fromkeys(
        describe(candidate, run) for candidate in candidates if not any(_same(candidate, tracker) for tracker in active)
    )
    if untold:
        progress.say(
            f"note: {listed(untold, 3)}: named in the folder {run.folder}, and not used, as it may come from anybody; "
            f"log to trackers with --track, or to these with `handreid track {run.folder}`"
        )


def register(run: Run, trackers: Sequence[Tracker]) -> list[int]:
    """Positions of the trackers in tracking.json; new ones are appended."""
    stored = entries(run)
    places = []
    for tracker in trackers:
        position = next((place for place, entry in enumerate(stored) if _same(entry.tracker, tracker)), None)
        if position is None:
            position = len(stored)
            stored.append(Entry(tracker))
        stored[position] = dataclasses.replace(stored[position], tracker=tracker)
        places.append(position)
    if stored != entries(run):  # unchanged files are not written, as the worker may be writing
        _write(run, stored)
    return places


class TrackingState:
    """The worker's access to a run's tracking.json, shared by the threads of its trackers.

    Two processes never send the same run: the second waits for the first, such as one left over before a resume.
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
            stored = entries(self.run)
            stored[place] = dataclasses.replace(stored[place], **changes)
            _write(self.run, stored)


def _same(tracker: Tracker, candidate: Tracker) -> bool:
    """Whether both are the same destination; `model` and `mode` do not matter."""
    return tracker.model_dump(exclude={"model", "mode"}) == candidate.model_dump(exclude={"model", "mode"})


def _hold(folder: Path) -> int | None:
    """A descriptor of the folder, locked until it is closed; waits while another process has the lock."""
    if sys.platform == "win32":
        return None
    import fcntl

    held = os.open(folder, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    return held


def _read(raw: Any) -> Entry:
    fields = {name: value for name, value in raw.items() if name != "tracker"}
    return Entry(_TRACKER.validate_python(raw["tracker"]), **fields | {"sent": tuple(raw["sent"])})


def _write(run: Run, stored: Sequence[Entry]) -> None:
    raw = [{**vars(entry), "tracker": entry.tracker.model_dump(mode="json")} for entry in stored]
    write_json(path_of(run), {"trackers": raw})
