"""The process that sends: reads on standard input how far each run is, and brings its trackers there.

    python -m handreid.tracking.worker

A line in is `{"run": folder, "to": places in tracking.json, "until": [stage, epoch], "status": ...}`, or `{"wait":
seconds}` for the end; the end of the input without one means that whoever was training is no more. A line out is what
a person may want to know: `opened` where, `failed` why, or `done`, each with the `key` of the tracker.

* One thread per tracker: one that hangs does not hinder the others. One that fails is left alone from then on.
* What was said of a run before the last word on it is not looked at: the folder holds it all.
* Libraries print, ask and log as they like, into nothing.
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

_GIVEN = dict(os.environ)  # as a person has set it: libraries change it
PATIENCE = 60.0  # seconds that trackers may take where whoever was training is no more
_CALM = {  # a tracker that cannot be reached is said to be so within seconds; whoever sets these decides
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_INIT_TIMEOUT": "30",
}


@dataclass(frozen=True)
class Update:
    """How far a run is."""

    run: Run
    place: int  # in tracking.json
    until: Epoch
    status: Status | None  # None while it goes on


class BackendThread:
    """Brings one tracker to the last word on each run, one run after another."""

    def __init__(
        self, key: str, memory_of: Callable[[Run], TrackingState], say: Callable[[Mapping[str, str]], None]
    ) -> None:
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.key = key
        self.memory_of = memory_of
        self.say = say
        self.words: dict[Path, Update] = {}
        self.news = threading.Condition()
        self.ended = False

    def tell(self, word: Update) -> None:
        with self.news:
            self.words[word.run.folder] = word
            self.news.notify()

    def end(self) -> None:
        with self.news:
            self.ended = True
            self.news.notify()

    def _work(self) -> None:
        page: OpenRun | None = None
        try:
            for word in self._words():
                if page is None or page.run.folder != word.run.folder:
                    if page is not None:
                        page.close()
                    page = OpenRun(word, self.memory_of(word.run))
                    self.say({"key": self.key, "opened": page.book.where})
                page.bring(word)
            if page is not None:
                page.close()
        except Exception as error:  # whatever a tracker's library raises, the run goes on
            self.say({"key": self.key, "failed": why(error)})
        else:
            self.say({"key": self.key, "done": ""})

    def _words(self) -> Iterator[Update]:
        while True:
            with self.news:
                self.news.wait_for(lambda: self.words or self.ended)
                if not self.words:
                    return
                word = self.words.pop(next(iter(self.words)))
            yield word


class OpenRun:
    """One run in one tracker, open."""

    def __init__(self, word: Update, memory: TrackingState) -> None:
        self.run, self.place, self.memory = word.run, word.place, memory
        self.recipe = self.run.recipe
        self.status: Status = "killed"  # what is so if nobody says otherwise
        entry = memory.entry(word.place)
        if isinstance(entry.tracker, Wandb) and entry.id is None:  # chosen by us: noted before anybody may kill us
            entry = replace(entry, id=uuid.uuid4().hex[:8])
            self._note(id=entry.id)
        self.book = _open(entry, self.run, self.recipe)
        again = entry.id == self.book.id and entry.settings
        self.sent = (self.book.last() or entry.sent) if again else NOTHING
        self.files = dict(entry.files) if again else {}
        self.with_model = not isinstance(entry.tracker, TensorBoard) and entry.tracker.model
        self._note(id=self.book.id, where=self.book.where, status="running")
        self.book.settings(payload.settings(self.run), dump_recipe(self.recipe), again=again)
        self._note(settings=True, sent=self.sent)

    def bring(self, word: Update) -> None:
        for place, step, named in payload.epochs(self.run, self.recipe, self.sent, word.until):
            self.book.numbers(named, step)
            self.sent = place
            self._note(sent=place)
        self._file("recipe.yaml", dump_recipe(self.recipe).encode())
        for path in payload.evaluations(self.run):
            self._tested(path)
        if word.status is not None:
            self.status = word.status

    def close(self) -> None:
        if self.with_model and self.run.finished:
            model = finished_model(self.run)
            self._once(model.name, model.read_bytes(), lambda: self.book.model(model))
        self.book.close(self.status)
        self._note(status=self.status)

    def _tested(self, path: Path) -> None:
        named, told = payload.evaluation_payload(path)
        step = payload.step_of(self.recipe, (len(self.recipe.stages), 0))
        content = payload.as_file(told).encode()

        def send() -> None:
            self.book.tested(named, step)
            self.book.file(path.name, content)

        self._once(path.name, content, send)

    def _file(self, name: str, content: bytes) -> None:
        self._once(name, content, lambda: self.book.file(name, content))

    def _once(self, name: str, content: bytes, send: Callable[[], None]) -> None:
        digest = hashlib.sha256(content).hexdigest()
        if self.files.get(name) != digest:
            send()
            self.files[name] = digest
            self._note(files=dict(self.files))

    def _note(self, **changes: Any) -> None:
        self.memory.note(self.place, **changes)


def _open(entry: Entry, run: Run, recipe: Recipe) -> TrackingBackend:
    name = payload.title(run, recipe)
    match entry.tracker:
        case MLflow() as tracker:
            from handreid.tracking.backends.mlflow import MLflowBook

            group, files = locations.experiment(tracker, run, _GIVEN), locations.artifacts(tracker, run, _GIVEN)
            return MLflowBook(locations.tracking_uri(tracker, run, _GIVEN), group, name, files, entry.id)
        case TensorBoard() as tracker:
            from handreid.tracking.backends.tensorboard import TensorBoardBook

            return TensorBoardBook(locations.log_dir(tracker, run), payload.step_of(recipe, entry.sent) + 1)
        case Wandb() as tracker:
            from handreid.tracking.backends.wandb import WandbBook

            project = locations.project(tracker, run, _GIVEN)
            return WandbBook(run.folder, project, tracker.entity, name, tracker.mode, str(entry.id))


def why(error: BaseException) -> str:
    """What is at the bottom of an error, in a line: libraries wrap a refused connection in five others."""
    deepest, told, seen = error, "", {id(error)}
    while True:
        if isinstance(deepest, OSError) and deepest.strerror:
            told = deepest.strerror.lower()
        inner = [deepest.__cause__, deepest.__context__, getattr(deepest, "reason", None), *deepest.args]
        below = next((one for one in inner if isinstance(one, BaseException) and id(one) not in seen), None)
        if below is None:
            break
        deepest = below
        seen.add(id(below))
    lines = [line.strip() for one in (error, deepest) for line in str(one).splitlines() if line.strip()]
    return (told or next(iter(lines), "") or type(error).__name__)[:200]


def main() -> None:
    """Until the input ends, and then as long as there is something to send and patience."""
    heard, said = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    for name, value in _CALM.items():
        os.environ.setdefault(name, value)
    if sys.platform != "win32":
        os.nice(5)  # training goes first, but where all cores are busy the import of a library must end some day
    _serve(heard, said)
    os._exit(0)  # a thread that hangs in a library does not keep us, nor what libraries do at an exit


def _serve(heard: TextIO, said: TextIO) -> None:
    tellers: dict[str, BackendThread] = {}
    memories: dict[Path, TrackingState] = {}
    lock, speaking = threading.Lock(), threading.Lock()
    patience = PATIENCE

    def memory_of(run: Run) -> TrackingState:
        with lock:
            if run.folder not in memories:
                memories[run.folder] = TrackingState(run)
            return memories[run.folder]

    def say(line: Mapping[str, str]) -> None:
        with speaking, contextlib.suppress(OSError):  # whoever would listen may be no more
            said.write(json.dumps(line) + "\n")
            said.flush()

    for line in heard:
        message = json.loads(line)
        if "wait" in message:
            patience = message["wait"]
            break
        run = Run(Path(message["run"]))
        for key, place in message["to"].items():
            if key not in tellers:
                tellers[key] = BackendThread(key, memory_of, say)
                tellers[key].thread.start()
            tellers[key].tell(Update(run, place, tuple(message["until"]), message["status"]))
    end = time.monotonic() + patience
    for teller in tellers.values():
        teller.end()
    for teller in tellers.values():
        teller.thread.join(max(0.0, end - time.monotonic()))


if __name__ == "__main__":
    main()
