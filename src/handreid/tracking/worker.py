"""The worker process: reads on standard input how far each run is, and sends this to its trackers.

    python -m handreid.tracking.worker

An input line is `{"run": folder, "to": places in tracking.json, "until": [stage, epoch], "status": ...}`, or `{"wait":
seconds}` at the end; the end of the input without it means that the training process was killed. An output line is a
message for the user: `opened` (where), `failed` (why), or `done`, each with the `key` of the tracker.

* One thread per tracker: one that hangs does not block the others. One that fails is not used any further.
* Only the latest update of a run is processed, as the folder holds everything before it.
* Whatever libraries print, ask or log is discarded.
"""

import contextlib
import hashlib
import json
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from handreid.recipe import MLflow, Recipe, TensorBoard, Wandb, dump_recipe
from handreid.runs.folder import Run, finished_model
from handreid.tracking import locations, payload
from handreid.tracking.backends.base import Status, TrackingBackend
from handreid.tracking.payload import NOTHING, Epoch
from handreid.tracking.state import Entry, TrackingState

_GIVEN = dict(os.environ)  # as the user has set it: libraries change it
PATIENCE = 60.0  # seconds that trackers may take after the training process was killed
_CALM = {  # unreachable trackers are reported within seconds; the user's own settings have priority
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_INIT_TIMEOUT": "30",
}


@dataclass(frozen=True)
class Update:
    """Progress of a run that is to be sent."""

    run: Run
    place: int  # in tracking.json
    until: Epoch
    status: Status | None  # None while it is running


class BackendThread:
    """Synchronises one tracker to the latest update of each run, one run after another."""

    def __init__(
        self, key: str, state_of: Callable[[Run], TrackingState], say: Callable[[Mapping[str, str]], None]
    ) -> None:
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.key = key
        self.state_of = state_of
        self.say = say
        self.updates: dict[Path, Update] = {}
        self.changed = threading.Condition()
        self.ended = False

    def notify(self, update: Update) -> None:
        with self.changed:
            self.updates[update.run.folder] = update
            self.changed.notify()

    def end(self) -> None:
        with self.changed:
            self.ended = True
            self.changed.notify()

    def _work(self) -> None:
        open_run: OpenRun | None = None
        try:
            for update in self._updates():
                if open_run is None or open_run.run.folder != update.run.folder:
                    if open_run is not None:
                        open_run.close()
                    open_run = OpenRun(update, self.state_of(update.run))
                    self.say({"key": self.key, "opened": open_run.backend.where})
                open_run.sync_to(update)
            if open_run is not None:
                open_run.close()
        except Exception as error:  # no error of a tracker's library may stop the run
            self.say({"key": self.key, "failed": why(error)})
        else:
            self.say({"key": self.key, "done": ""})

    def _updates(self) -> Iterator[Update]:
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.updates or self.ended)
                if not self.updates:
                    return
                update = self.updates.pop(next(iter(self.updates)))
            yield update


class OpenRun:
    """One run, open in one tracker."""

    def __init__(self, update: Update, state: TrackingState) -> None:
        self.run, self.place, self.state = update.run, update.place, state
        self.recipe = self.run.recipe
        self.status: Status = "killed"  # if no status is received
        entry = state.entry(update.place)
        if (
            isinstance(entry.tracker, Wandb) and entry.id is None
        ):  # we choose the id: noted before this process can be killed
            entry = replace(entry, id=uuid.uuid4().hex[:8])
            self._note(id=entry.id)
        self.backend = _open(entry, self.run, self.recipe)
        again = entry.id == self.backend.id and entry.settings
        self.sent = (self.backend.last() or entry.sent) if again else NOTHING
        self.files = dict(entry.files) if again else {}
        self.with_model = not isinstance(entry.tracker, TensorBoard) and entry.tracker.model
        self._note(id=self.backend.id, where=self.backend.where, status="running")
        self.backend.settings(payload.settings(self.run), dump_recipe(self.recipe), again=again)
        self._note(settings=True, sent=self.sent)

    def sync_to(self, update: Update) -> None:
        for place, step, numbers in payload.epochs(self.run, self.recipe, self.sent, update.until):
            self.backend.numbers(numbers, step)
            self.sent = place
            self._note(sent=place)
        self._file("recipe.yaml", dump_recipe(self.recipe).encode())
        for path in payload.evaluations(self.run):
            self._tested(path)
        if update.status is not None:
            self.status = update.status

    def close(self) -> None:
        if self.with_model and self.run.finished:
            model = finished_model(self.run)
            self._once(model.name, model.read_bytes(), lambda: self.backend.model(model))
        self.backend.close(self.status)
        self._note(status=self.status)

    def _tested(self, path: Path) -> None:
        numbers, facts = payload.evaluation_payload(path)
        step = payload.step_of(self.recipe, (len(self.recipe.stages), 0))
        content = payload.as_file(facts).encode()

        def send() -> None:
            self.backend.tested(numbers, step)
            self.backend.file(path.name, content)

        self._once(path.name, content, send)

    def _file(self, name: str, content: bytes) -> None:
        self._once(name, content, lambda: self.backend.file(name, content))

    def _once(self, name: str, content: bytes, send: Callable[[], None]) -> None:
        digest = hashlib.sha256(content).hexdigest()
        if self.files.get(name) != digest:
            send()
            self.files[name] = digest
            self._note(files=dict(self.files))

    def _note(self, **changes: Any) -> None:
        self.state.note(self.place, **changes)


def _open(entry: Entry, run: Run, recipe: Recipe) -> TrackingBackend:
    name = payload.title(run, recipe)
    match entry.tracker:
        case MLflow() as tracker:
            from handreid.tracking.backends.mlflow import MLflowBackend

            group, files = locations.experiment(tracker, run, _GIVEN), locations.artifacts(tracker, run, _GIVEN)
            return MLflowBackend(locations.tracking_uri(tracker, run, _GIVEN), group, name, files, entry.id)
        case TensorBoard() as tracker:
            from handreid.tracking.backends.tensorboard import TensorBoardBackend

            return TensorBoardBackend(locations.log_dir(tracker, run), payload.step_of(recipe, entry.sent) + 1)
        case Wandb() as tracker:
            from handreid.tracking.backends.wandb import WandbBackend

            project = locations.project(tracker, run, _GIVEN)
            return WandbBackend(run.folder, project, tracker.entity, name, tracker.mode, str(entry.id))


def why(error: BaseException) -> str:
    """The root cause of an error, in a line: libraries wrap a refused connection in five other errors."""
    deepest, message, visited = error, "", {id(error)}
    while True:
        if isinstance(deepest, OSError) and deepest.strerror:
            message = deepest.strerror.lower()
        inner = [deepest.__cause__, deepest.__context__, getattr(deepest, "reason", None), *deepest.args]
        below = next((item for item in inner if isinstance(item, BaseException) and id(item) not in visited), None)
        if below is None:
            break
        deepest = below
        visited.add(id(below))
    lines = [line.strip() for item in (error, deepest) for line in str(item).splitlines() if line.strip()]
    return (message or next(iter(lines), "") or type(error).__name__)[:200]


def main() -> None:
    """Serves until the input ends, then sends the rest while patience lasts."""
    input_lines, output = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    for name, value in _CALM.items():
        os.environ.setdefault(name, value)
    if sys.platform != "win32":
        os.nice(5)  # training has priority, but imports of libraries must finish even if all cores are busy
    _serve(input_lines, output)
    os._exit(0)  # without waiting for hanging threads or exit handlers of libraries


def _serve(input_lines: TextIO, output: TextIO) -> None:
    threads: dict[str, BackendThread] = {}
    states: dict[Path, TrackingState] = {}
    lock, output_lock = threading.Lock(), threading.Lock()
    patience = PATIENCE

    def state_of(run: Run) -> TrackingState:
        with lock:
            if run.folder not in states:
                states[run.folder] = TrackingState(run)
            return states[run.folder]

    def say(line: Mapping[str, str]) -> None:
        with output_lock, contextlib.suppress(OSError):  # the reader may have ended
            output.write(json.dumps(line) + "\n")
            output.flush()

    for line in input_lines:
        message = json.loads(line)
        if "wait" in message:
            patience = message["wait"]
            break
        run = Run(Path(message["run"]))
        for key, place in message["to"].items():
            if key not in threads:
                threads[key] = BackendThread(key, state_of, say)
                threads[key].thread.start()
            threads[key].notify(Update(run, place, tuple(message["until"]), message["status"]))
    end = time.monotonic() + patience
    for thread in threads.values():
        thread.end()
    for thread in threads.values():
        thread.thread.join(max(0.0, end - time.monotonic()))


if __name__ == "__main__":
    main()
