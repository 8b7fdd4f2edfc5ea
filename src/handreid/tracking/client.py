"""How the process that trains has trackers told of its runs: it says how far it is, and never waits before the end."""

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

HURRY = 5.0  # after Ctrl-C
FOREVER = 1e6
_QUIET = 2.0


class Sender:
    """Tells trackers of runs, through a process of its own that starts with the first run that has a tracker.

    As a context it waits at its end for the trackers to have everything, `patience` seconds at most, and says what they
    have not got. Trackers that fail are said once, with what to do; without `notes` whoever asked looks at `failed`.
    """

    def __init__(self, progress: Progress | None = None, *, patience: float | None = None, notes: bool = True) -> None:
        self.progress = progress or NullProgress()
        self.notes = notes
        self.patience = _patience() if patience is None else patience
        self.failed: dict[str, str] = {}  # key of a tracker: why
        self._child: subprocess.Popen[bytes] | None = None
        self._told: dict[str, tuple[str, Run]] = {}  # its name for people, and the last run it was told of
        self._opened: set[str] = set()
        self._done: set[str] = set()
        self._heard = b""

    def __enter__(self) -> "Sender":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(HURRY if kind is not None and issubclass(kind, KeyboardInterrupt) else self.patience)

    def tell(self, run: Run, trackers: Sequence[Tracker], until: Epoch, status: Status | None) -> None:
        """That the trackers may have everything of the run up to this epoch. Never waits, never raises."""
        if not trackers:
            return
        run = Run(run.folder.absolute())
        keyed = {tracker.model_dump_json(): tracker for tracker in trackers}
        self._told |= {key: (locations.describe(tracker, run), run) for key, tracker in keyed.items()}
        try:
            self._start()
            to = dict(zip(keyed, register(run, trackers), strict=True))
            self._write({"run": str(run.folder), "to": to, "until": until, "status": status})
        except (OSError, HandreidError) as error:
            for key in keyed:
                self._fail(key, "its process ended" if isinstance(error, BrokenPipeError) else str(error))
        self.hear()

    def name(self, key: str) -> str:
        """A tracker as a person would call it."""
        return self._told[key][0]

    def hear(self) -> None:
        """Says what the other process has to say, if anything."""
        if self._child is None or self._child.stdout is None:
            return
        with contextlib.suppress(BlockingIOError):
            while some := os.read(self._child.stdout.fileno(), 1 << 16):
                self._heard += some
        *lines, self._heard = self._heard.split(b"\n")
        for line in lines:
            self._say(json.loads(line))

    def close(self, patience: float) -> None:
        """Waits until trackers have everything, at most so long; then the other process is no more."""
        if self._child is None:
            return
        try:
            with contextlib.suppress(OSError):
                self._write({"wait": patience})
            self._wait(patience)
        finally:
            self._child.kill()
            self._child.wait()
            self.hear()
            for pipe in (self._child.stdin, self._child.stdout):
                if pipe is not None:
                    pipe.close()
            self._child = None
        for key in self._pending():
            name, run = self._told[key]
            self.failed[key] = "not everything was taken"
            self.progress.say(
                f"note: {name} has not taken everything {patience:g} s after the end; send the rest with "
                f"`handreid track {run.folder}`"
            )

    def _wait(self, patience: float) -> None:
        """Until the other process has ended, or so long; a person who waits for seconds is told for what."""
        if self._child is None or not self._pending():  # all have failed: there is nothing to wait for
            return
        short = min(_QUIET, patience)
        try:
            self._child.wait(short)
        except subprocess.TimeoutExpired:
            self.hear()
            if patience > short and self._pending():
                self.progress.say(f"waiting for {' and '.join(map(self.name, self._pending()))} ...")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(patience - short)

    def _pending(self) -> list[str]:
        """Trackers that have neither everything nor failed."""
        return [key for key in self._told if key not in self._done and key not in self.failed]

    def _start(self) -> None:
        if self._child is not None:
            return
        roots = [str(Path(handreid.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", "handreid.tracking.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in the terminal is for us
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
        """A line; none where the pipe is full, whose reader then is stuck and would not read it either."""
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
            name, run = self._told[key]
            if not self.notes:
                return
            self.progress.say(
                f"note: {name}: {why}; the run goes on without it, its folder has everything; send it later with "
                f"`handreid track {run.folder}`"
            )


def _patience() -> float:
    """Seconds that the end of a command may wait for trackers; importing MLflow alone takes five or ten."""
    said = os.environ.get("HANDREID_TRACKING_WAIT", "30")
    try:
        return max(0.0, float(said))
    except ValueError:
        raise RunError(f"HANDREID_TRACKING_WAIT is {said!r}: set it to a number of seconds") from None


@contextlib.contextmanager
def follow(
    run: Run, trackers: Sequence[Tracker], sender: Sender | None, progress: Progress, *, ended: bool = False
) -> Iterator[tuple[EpochListener, ...]]:
    """While a run goes on: whom to tell of its epochs. Its trackers learn how it ended, however that is.

    Without a `sender`, which others share, the trackers are waited for at the end. With `ended` the run is finished
    before, whatever happens to what is done with it here.
    """
    with contextlib.nullcontext(sender) if sender else Sender(progress) as telling:
        until: Epoch = EVERYTHING if ended else NOTHING
        status: Status = "finished" if ended else "failed"

        def watch(entry: Mapping[str, Any]) -> None:
            nonlocal until
            until = (entry["stage"], entry["epoch"])
            telling.tell(run, trackers, until, None)

        telling.tell(run, trackers, until, status if ended else None)
        try:
            yield (watch,) if trackers else ()
            until, status = EVERYTHING, "finished"
        except KeyboardInterrupt:
            status = status if ended else "killed"
            raise
        finally:
            telling.tell(run, trackers, until, status)


def send(runs: Sequence[Run], trackers: Sequence[Tracker] | None, progress: Progress | None = None) -> list[str]:
    """Sends what trackers have not got of runs, with the runs' own trackers where none are given; their names.

    A run that is not finished is said to be killed, until somebody goes on with it. Raises RunError where there is no
    tracker, and, after the others, where one failed.
    """
    chosen = [trackers if trackers is not None else tracked(run) or run.recipe.tracking for run in runs]
    untold = next((run for run, of in zip(runs, chosen, strict=True) if not of), None)
    if untold is not None:
        raise RunError(f"{untold.folder} was never logged to a tracker; name one, such as --to mlflow")
    check_installed(tracker for of in chosen for tracker in of)
    with Sender(progress, patience=FOREVER, notes=False) as sender:
        for run, of in zip(runs, chosen, strict=True):
            sender.tell(run, of, EVERYTHING, "finished" if run.finished else "killed")
    if sender.failed:
        raise RunError("; ".join(f"{sender.name(key)}: {why}" for key, why in sender.failed.items()))
    return list(
        dict.fromkeys(locations.describe(tracker, run) for run, of in zip(runs, chosen, strict=True) for tracker in of)
    )
