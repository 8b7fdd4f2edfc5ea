"""The training process's side of tracking: reports progress to the worker process, and never waits before the end."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import handreid
from handreid.errors import HandreidError, RunError
from handreid.progress import EpochListener, NullProgress, Progress
from handreid.recipe import Tracker
from handreid.runs.folder import Run
from handreid.tracking import locations
from handreid.tracking.backends.base import Status
from handreid.tracking.locations import check_installed
from handreid.tracking.payload import EVERYTHING, NOTHING, Epoch
from handreid.tracking.state import register, tracked

HURRY = 5.0  # seconds of patience after Ctrl-C
FOREVER = 1e6
_QUIET = 2.0  # seconds of waiting without a message


class Sender:
    """Sends runs to trackers through a worker process, started with the first run that has a tracker.

    As a context manager it waits at the end until the trackers have everything, at most `patience` seconds, and reports
    what is missing. A tracker that fails is reported once, with advice; without `notes` failures are only in `failed`.
    """

    def __init__(self, progress: Progress | None = None, *, patience: float | None = None, notes: bool = True) -> None:
        self.progress = progress or NullProgress()
        self.notes = notes
        self.patience = _patience() if patience is None else patience
        self.failed: dict[str, str] = {}  # key of a tracker: why
        self._child: subprocess.Popen[bytes] | None = None
        self._runs: dict[str, tuple[str, Run]] = {}  # description of the tracker, and its last run
        self._opened: set[str] = set()
        self._done: set[str] = set()
        self._received = b""

    def __enter__(self) -> "Sender":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(HURRY if kind is not None and issubclass(kind, KeyboardInterrupt) else self.patience)

    def notify(self, run: Run, trackers: Sequence[Tracker], until: Epoch, status: Status | None) -> None:
        """Lets the trackers have everything of the run up to this epoch. Never waits, never raises."""
        if not trackers:
            return
        run = Run(run.folder.absolute())
        keyed = {tracker.model_dump_json(): tracker for tracker in trackers}
        self._runs |= {key: (locations.describe(tracker, run), run) for key, tracker in keyed.items()}
        try:
            self._start()
            to = dict(zip(keyed, register(run, trackers), strict=True))
            self._write({"run": str(run.folder), "to": to, "until": until, "status": status})
        except (OSError, HandreidError) as error:
            for key in keyed:
                self._fail(key, "its process ended" if isinstance(error, BrokenPipeError) else str(error))
        self.poll()

    def name(self, key: str) -> str:
        """Description of a tracker, for messages."""
        return self._runs[key][0]

    def poll(self) -> None:
        """Shows messages that the worker process has sent, if any."""
        if self._child is None or self._child.stdout is None:
            return
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self._child.stdout.fileno(), 1 << 16):
                self._received += chunk
        *lines, self._received = self._received.split(b"\n")
        for line in lines:
            self._say(json.loads(line))

    def close(self, patience: float) -> None:
        """Waits until trackers have everything, at most `patience` seconds, and ends the worker process."""
        if self._child is None:
            return
        try:
            with contextlib.suppress(OSError):
                self._write({"wait": patience})
            self._wait(patience)
        finally:
            self._child.kill()
            self._child.wait()
            self.poll()
            for pipe in (self._child.stdin, self._child.stdout):
                if pipe is not None:
                    pipe.close()
            self._child = None
        for key in self._pending():
            name, run = self._runs[key]
            self.failed[key] = "not everything was taken"
            self.progress.say(
                f"note: {name} has not taken everything {patience:g} s after the end; send the rest with "
                f"`handreid track {run.folder}`"
            )

    def _wait(self, patience: float) -> None:
        """Until the worker process has ended, at most `patience` seconds; says what it waits for after `_QUIET`."""
        if self._child is None or not self._pending():  # nothing pending: all trackers are done or have failed
            return
        short = min(_QUIET, patience)
        try:
            self._child.wait(short)
        except subprocess.TimeoutExpired:
            self.poll()
            if patience > short and self._pending():
                self.progress.say(f"waiting for {' and '.join(map(self.name, self._pending()))} ...")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(patience - short)

    def _pending(self) -> list[str]:
        """Trackers that are neither done nor have failed."""
        return [key for key in self._runs if key not in self._done and key not in self.failed]

    def _start(self) -> None:
        if self._child is not None:
            return
        roots = [str(Path(handreid.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", "handreid.tracking.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in the terminal must not reach it
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(roots),
                "CUDA_VISIBLE_DEVICES": "",
                "OMP_NUM_THREADS": "1",
            },
        )
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                os.set_blocking(pipe.fileno(), False)

    def _write(self, message: Mapping[str, Any]) -> None:
        """Writes a line; drops it if the pipe is full, since its reader is then stuck and would not read it anyway."""
        if self._child is not None and self._child.stdin is not None:
            with contextlib.suppress(BlockingIOError):
                os.write(self._child.stdin.fileno(), json.dumps(message).encode() + b"\n")

    def _say(self, line: Mapping[str, str]) -> None:
        key = line["key"]
        if "opened" in line and key not in self._opened:
            self._opened.add(key)
            self.progress.say(f"tracked by {json.loads(key)['kind']}: {line['opened']}")
        if "failed" in line:
            self._fail(key, line["failed"])
        if "done" in line:
            self._done.add(key)

    def _fail(self, key: str, why: str) -> None:
        if key not in self.failed:
            self.failed[key] = why
            name, run = self._runs[key]
            if not self.notes:
                return
            self.progress.say(
                f"note: {name}: {why}; the run goes on without it, its folder has everything; send it later with "
                f"`handreid track {run.folder}`"
            )


def _patience() -> float:
    """Seconds that a command may wait for trackers at its end; importing MLflow alone takes five to ten."""
    text = os.environ.get("HANDREID_TRACKING_WAIT", "30")
    try:
        return max(0.0, float(text))
    except ValueError:
        raise RunError(f"HANDREID_TRACKING_WAIT is {text!r}: set it to a number of seconds") from None


@contextlib.contextmanager
def follow(
    run: Run, trackers: Sequence[Tracker], sender: Sender | None, progress: Progress, *, ended: bool = False
) -> Iterator[tuple[EpochListener, ...]]:
    """Yields the listeners for the epochs of a run. At the end its trackers get its status, however it ended.

    With a shared `sender`, nothing is waited for; otherwise the trackers are waited for at the end. With `ended` the
    run was finished before, and stays so whatever happens within the context.
    """
    with contextlib.nullcontext(sender) if sender else Sender(progress) as active:
        until: Epoch = EVERYTHING if ended else NOTHING
        status: Status = "finished" if ended else "failed"

        def watch(entry: Mapping[str, Any]) -> None:
            nonlocal until
            until = (entry["stage"], entry["epoch"])
            active.notify(run, trackers, until, None)

        active.notify(run, trackers, until, status if ended else None)
        try:
            yield (watch,) if trackers else ()
            until, status = EVERYTHING, "finished"
        except KeyboardInterrupt:
            status = status if ended else "killed"
            raise
        finally:
            active.notify(run, trackers, until, status)


def send(runs: Sequence[Run], trackers: Sequence[Tracker] | None, progress: Progress | None = None) -> list[str]:
    """Sends the missing parts of runs to trackers, by default to the runs' own; returns the trackers' descriptions.

    An unfinished run gets the status killed, until it is resumed. Raises RunError where there is no tracker, or, after
    all others are done, where one failed.
    """
    trackers_of = [trackers if trackers is not None else tracked(run) or run.recipe.tracking for run in runs]
    untold = next((run for run, run_trackers in zip(runs, trackers_of, strict=True) if not run_trackers), None)
    if untold is not None:
        raise RunError(f"{untold.folder} was never logged to a tracker; name one, such as --to mlflow")
    check_installed(tracker for run_trackers in trackers_of for tracker in run_trackers)
    with Sender(progress, patience=FOREVER, notes=False) as sender:
        for run, run_trackers in zip(runs, trackers_of, strict=True):
            sender.notify(run, run_trackers, EVERYTHING, "finished" if run.finished else "killed")
    if sender.failed:
        raise RunError("; ".join(f"{sender.name(key)}: {why}" for key, why in sender.failed.items()))
    return list(
        dict.fromkeys(
            locations.describe(tracker, run)
            for run, run_trackers in zip(runs, trackers_of, strict=True)
            for tracker in run_trackers
        )
    )
