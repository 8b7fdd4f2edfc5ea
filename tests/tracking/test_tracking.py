"""Tracking: the run folder is the truth, trackers get all of it once, and none of them can hold up or change a run.

Three things cost seconds and are shared: a real MLflow server, a ladder from the command line told to it and to
TensorBoard and Weights & Biases, and one sending process that lives through everything that can go wrong.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from handreid.errors import RecipeError, RunError
from handreid.evaluation.evaluate import evaluate
from handreid.evaluation.matrix import matrix_of
from handreid.files import read_json
from handreid.progress import NullProgress
from handreid.recipe import MLflow, Recipe, TensorBoard, Wandb, dump_recipe, parse_recipe, read_trackers
from handreid.runs.epoch_metrics import read_metrics
from handreid.runs.folder import Run
from handreid.tracking import locations, payload, worker
from handreid.tracking.client import Sender, follow
from handreid.tracking.state import TrackingState, entries, register, resolve_trackers, tracked
from handreid.tracking.worker import why
from handreid.training.train import train
from handreid.workflows.ladder import run_ladder
from tests.cli.test_commands import handreid
from tests.conftest import MICRO_RECIPE
from tests.edits import note

LONG = 300.0  # seconds; nothing here takes that long, but machines are busy
SETTINGS = {
    "HANDREID_TRACKING_WAIT": str(LONG),
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "WANDB_MODE": "offline",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def micro(*overrides: str) -> Recipe:
    return parse_recipe(MICRO_RECIPE, "micro", overrides)


class Told(NullProgress):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def until(what: Callable[[], object]) -> None:
    end = time.monotonic() + LONG
    while not what():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@dataclass
class Server:
    url: str
    process: subprocess.Popen[bytes]

    def ask(self, path: str, **query: Any) -> dict[str, Any]:
        """MLflow's REST interface, 2.0."""
        words = "&".join(f"{key}={value}" for key, value in query.items())
        with urllib.request.urlopen(f"{self.url}/api/2.0/mlflow/{path}?{words}", timeout=60) as answer:  # noqa: S310
            found: dict[str, Any] = json.load(answer)
            return found

    def search(self, experiment: str) -> list[dict[str, Any]]:
        body = json.dumps({"experiment_ids": [experiment]}).encode()
        request = urllib.request.Request(  # noqa: S310
            f"{self.url}/api/2.0/mlflow/runs/search", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            found: list[dict[str, Any]] = json.load(answer)["runs"]
            return found

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # its workers too
        self.process.wait()


@pytest.fixture(scope="module")
def settings() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SETTINGS.items():
            patch.setenv(name, value)
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_PROJECT", "WANDB_DIR"):
            patch.delenv(name, raising=False)
        yield


# `mlflow server` imports MLflow twice: in a process that starts, and in the one that serves. This is the second.
SERVER = """
import os, sys
import uvicorn
from mlflow import server
from mlflow.server import handlers

folder, port = sys.argv[1:]
store, files = f"sqlite:///{folder}/all.db", "mlflow-artifacts:/"
os.environ[server.BACKEND_STORE_URI_ENV_VAR] = store
os.environ[server.ARTIFACT_ROOT_ENV_VAR] = files
os.environ[server.ARTIFACTS_DESTINATION_ENV_VAR] = f"{folder}/files"
os.environ[server.SERVE_ARTIFACTS_ENV_VAR] = "true"
handlers.initialize_backend_stores(store, default_artifact_root=files)  # not in the first request, which would time out
uvicorn.run("mlflow.server.fastapi_app:app", host="127.0.0.1", port=int(port))
"""


@pytest.fixture(scope="module", autouse=True)
def starting(settings: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    """A server that will be there in some seconds, and its log."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(folder), str(port)], stdout=log, stderr=log, start_new_session=True
        )
    found = Server(f"http://127.0.0.1:{port}", process)
    try:
        yield found, folder / "log"
    finally:
        found.stop()


@pytest.fixture(scope="module")
def plain(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of one epoch that nobody tracks."""
    return train(micro("stages.0.epochs=1"), photos, tmp_path_factory.mktemp("plain") / "run")


@pytest.fixture
def copied(plain: Run, tmp_path: Path) -> Run:
    return Run(shutil.copytree(plain.folder, tmp_path / "copied"))


class Script:
    """A sending process that is replaced by a few words of Python."""

    def __init__(self, patch: pytest.MonkeyPatch, code: str) -> None:
        original = subprocess.Popen
        patch.setattr(
            "handreid.tracking.client.subprocess.Popen",
            lambda command, **how: original([command[0], "-c", code], **how),
        )


class TestTheSender:
    def test_nothing_of_it_is_there_without_trackers(self, plain: Run, monkeypatch: pytest.MonkeyPatch):
        Script(monkeypatch, "raise SystemExit(1)")
        with Sender() as sender, follow(plain, (), sender, NullProgress()) as told:
            assert told == ()
            assert sender._child is None
        assert not (plain.folder / "tracking.json").exists()

    def test_a_process_that_reads_nothing_holds_nobody_up(self, copied: Run, monkeypatch: pytest.MonkeyPatch):
        """The pipe fills after some hundred words; a write that waited would wait for a minute."""
        Script(monkeypatch, "import time; time.sleep(60)")
        said = Told()
        with Sender(said, patience=0.0) as sender:
            for epoch in range(700):
                sender.notify(copied, [MLflow()], (0, epoch), None)
            child = sender._child
        assert child is not None
        assert child.poll() == -signal.SIGKILL
        (note,) = [line for line in said.lines if line.startswith("note")]
        assert "has not taken everything 0 s after the end; send the rest with" in note

    def test_a_process_that_dies_is_said_once(self, copied: Run, monkeypatch: pytest.MonkeyPatch):
        Script(monkeypatch, "raise SystemExit(1)")
        said = Told()
        with Sender(said) as sender:
            sender.notify(copied, [TensorBoard()], (0, 0), None)
            assert sender._child is not None
            sender._child.wait()
            for epoch in range(3):
                sender.notify(copied, [TensorBoard()], (0, epoch), None)
        (note,) = said.lines
        assert "tensorboard in" in note
        assert "its process ended; the run goes on without it" in note

    def test_a_process_that_cannot_be_started_is_said_once(self, copied: Run, monkeypatch: pytest.MonkeyPatch):
        def none(*_: Any, **__: Any) -> None:
            raise OSError(12, "Cannot allocate memory")

        monkeypatch.setattr("handreid.tracking.client.subprocess.Popen", none)
        said = Told()
        with Sender(said) as sender:
            for epoch in range(3):
                sender.notify(copied, [TensorBoard()], (0, epoch), None)
        (note,) = said.lines
        assert "Cannot allocate memory; the run goes on" in note

    def test_what_is_random_in_training_is_not_touched(self, copied: Run, monkeypatch: pytest.MonkeyPatch):
        Script(monkeypatch, "raise SystemExit(0)")

        def states() -> tuple[object, ...]:  # not Python's own: the checks of types draw from it
            drawn = np.random.get_state()  # noqa: NPY002 - the global one is what is looked at
            return torch.get_rng_state().tolist(), drawn[1].tolist(), drawn[2]

        before = states()
        with Sender() as sender, follow(copied, [MLflow(), Wandb()], sender, NullProgress()) as (watch,):
            watch({"stage": 0, "epoch": 1})
        assert states() == before

    @pytest.mark.parametrize(
        ("error", "status", "last"),
        [(KeyboardInterrupt, "killed", 1), (ValueError, "failed", 1), (None, "finished", 0)],
    )
    def test_how_it_ended_is_told(
        self, copied: Run, monkeypatch: pytest.MonkeyPatch, error: type[BaseException] | None, status: str, last: int
    ):
        told: list[tuple[Any, Any]] = []
        monkeypatch.setattr(Sender, "notify", lambda self, run, trackers, until, status: told.append((until, status)))
        with (
            contextlib.suppress(KeyboardInterrupt, ValueError),
            follow(copied, [MLflow()], None, NullProgress()) as (watch,),
        ):
            watch({"stage": 0, "epoch": 1})
            if error is not None:
                raise error
        assert told[0] == (payload.NOTHING, None)
        assert told[1] == ((0, 1), None)
        assert told[2:] == [((0, 1) if last else payload.EVERYTHING, status)]

    def test_how_long_the_end_waits_is_a_number(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("HANDREID_TRACKING_WAIT", "soon")
        with pytest.raises(RunError, match="HANDREID_TRACKING_WAIT is 'soon': set it to a number of seconds"):
            Sender()


class TestWhatIsNoPartOfTheExperiment:
    def test_a_run_goes_on_with_other_trackers_or_none(self, plain: Run, photos: Path, monkeypatch: pytest.MonkeyPatch):
        told: list[object] = []
        monkeypatch.setattr(Sender, "notify", lambda self, run, trackers, until, status: told.append(trackers))
        recipe = micro("stages.0.epochs=1", "tracking=[tensorboard]")
        train(recipe, photos, plain.folder, resume=True)
        assert told[0] == (TensorBoard(),)
        with pytest.raises(RunError, match=r"stages\.0\.epochs was 1, now 2"):
            train(micro("tracking=[mlflow]", "stages.0.epochs=2"), photos, plain.folder, resume=True)

    def test_a_stage_is_the_same_stage(self, plain: Run, photos: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(Sender, "notify", lambda *_: None)
        said = Told()
        beside = plain.folder.parent / "beside"
        train(micro("stages.0.epochs=1", "tracking=[wandb]"), photos, beside, progress=said)
        assert [line for line in said.lines if "which trained the same" in line]

    def test_what_was_asked_comes_before_the_recipe(self):
        assert resolve_trackers(None, micro("tracking=mlflow")) == (MLflow(),)
        assert resolve_trackers((), micro("tracking=mlflow")) == ()
        assert resolve_trackers((Wandb(),), micro("tracking=mlflow")) == (Wandb(),)
        assert resolve_trackers(None, micro()) == ()
        assert resolve_trackers(None, None) == ()


class TestFoldersOfOthers:
    """A run folder may come from anybody, and name any address: it is contacted when somebody asks for it."""

    @pytest.fixture
    def foreign(self, copied: Run) -> Run:
        register(copied, [MLflow(uri="http://somewhere.invalid:5000")])
        (copied.folder / "recipe.yaml").write_text(dump_recipe(micro("stages.0.epochs=1", "tracking=[wandb]")))
        note(copied.folder, "recipe.yaml")
        return copied

    @pytest.fixture
    def told(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, object]]:
        told: list[tuple[object, object]] = []
        monkeypatch.setattr(Sender, "notify", lambda self, run, to, until, status: told.append((tuple(to), status)))
        return told

    @pytest.mark.parametrize(
        "command", [("evaluate",), ("evaluate", "--json"), ("train", "--resume", "--out"), ("evaluate", "--flip-tta")]
    )
    def test_nobody_whom_they_name_is_contacted(
        self, foreign: Run, told: list[tuple[object, object]], command: tuple[str, ...]
    ):
        called = handreid(*command, foreign.folder)
        assert called.code == 0, called.err
        assert {to for to, _ in told} == {()}
        (note,) = [line for line in called.err.splitlines() if line.startswith("note: mlflow at")]
        assert "mlflow at http://somewhere.invalid:5000, wandb, project" in note
        assert f"`handreid track {foreign.folder}`" in note

    @pytest.mark.parametrize("command", [("evaluate",), ("train", "--resume", "--out")])
    def test_whom_the_command_names_is_told(
        self, foreign: Run, told: list[tuple[object, object]], command: tuple[str, ...]
    ):
        called = handreid(*command, foreign.folder, "--track", "tensorboard")
        assert called.code == 0, called.err
        assert told[-1] == ((TensorBoard(),), "finished")
        assert "note: mlflow" not in called.err

    def test_a_recipe_that_is_named_names_trackers(
        self, foreign: Run, photos: Path, told: list[tuple[object, object]], tmp_path: Path
    ):
        recipe = micro("stages.0.epochs=1", "tracking=[tensorboard]")
        train(recipe, photos, foreign.folder, resume=True)
        assert told[-1] == ((TensorBoard(),), "finished")

    def test_a_ladder_tells_the_trackers_of_its_recipes_of_training_and_evaluation(
        self, foreign: Run, photos: Path, told: list[tuple[object, object]], tmp_path: Path
    ):
        shutil.copytree(foreign.folder, tmp_path / "ladder" / "micro")
        run_ladder([micro("stages.0.epochs=1", "tracking=[tensorboard]")], photos, tmp_path / "ladder")
        assert {to for to, _ in told} == {(TensorBoard(),)}
        assert len(told) >= 2

    def test_a_tracking_json_that_cannot_be_read_stops_no_evaluation(self, copied: Run):
        (copied.folder / "tracking.json").write_text("{")
        assert handreid("evaluate", copied.folder).code == 0


class TestMemory:
    def test_a_tracker_keeps_its_place(self, copied: Run):
        server = MLflow(uri="http://localhost:5000")
        assert register(copied, [MLflow(), TensorBoard()]) == [0, 1]
        assert register(copied, [server, MLflow()]) == [2, 0]
        assert register(copied, [MLflow(model=True)]) == [0]
        assert tracked(copied) == (MLflow(model=True), TensorBoard(), server)

    @pytest.mark.parametrize("text", ["{}", '{"trackers": [{"tracker": {"kind": "x"}}]}', '{"trackers": [3]}', "{"])
    def test_one_that_cannot_be_read_stops_no_run(self, copied: Run, monkeypatch: pytest.MonkeyPatch, text: str):
        Script(monkeypatch, "import sys; sys.stdin.read()")
        (copied.folder / "tracking.json").write_text(text)
        with pytest.raises(RunError, match=r"tracking\.json"):
            tracked(copied)
        said = Told()
        with Sender(said, patience=0.0) as sender:
            sender.notify(copied, [TensorBoard()], (0, 1), None)
        (note,) = said.lines
        assert "the run goes on without it" in note

    def test_it_is_not_written_where_nothing_is_new(self, copied: Run):
        """The sending process may be writing it."""
        register(copied, [MLflow()])
        before = (copied.folder / "tracking.json").stat().st_ino
        register(copied, [MLflow()])
        assert (copied.folder / "tracking.json").stat().st_ino == before


class TestWhatIsSaid:
    @pytest.mark.parametrize(
        ("texts", "expected"),
        [
            (["mlflow"], (MLflow(),)),
            (["mlflow=http://localhost:5000"], (MLflow(uri="http://localhost:5000"),)),
            (
                ["mlflow, tensorboard=logs", "wandb=hands"],
                (MLflow(), TensorBoard(folder="logs"), Wandb(project="hands")),
            ),
            (["none"], ()),
        ],
    )
    def test_a_command_line_is_read(self, texts: list[str], expected: tuple[object, ...]):
        assert read_trackers(texts) == expected

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ("mlfow", "'mlfow' is not one of mlflow, tensorboard, wandb"),
            ("mlflow=localhost", "an address begins with http://"),
            ("mlflow=http://me:secret@host", "remove the password"),
            ("wandb,wandb=two", "wandb is listed twice"),
            ("tensorboard=", "tensorboard="),
        ],
    )
    def test_a_command_line_that_makes_no_sense_is_refused(self, text: str, complaint: str):
        with pytest.raises(RecipeError, match=complaint):
            read_trackers([text])

    def test_a_recipe_names_trackers_or_gives_keys(self):
        recipe = micro("tracking=[tensorboard, {kind: mlflow, experiment: hands}]")
        assert recipe.tracking == (TensorBoard(), MLflow(experiment="hands"))
        assert parse_recipe(dump_recipe(recipe), "dumped") == recipe
        assert micro("tracking=mlflow").tracking == (MLflow(),)
        with pytest.raises(RecipeError, match=r"tracking\.0\.kind 'mlfow' is not one of .*; did you mean 'mlflow'\?"):
            micro("tracking=[mlfow]")
        with pytest.raises(RecipeError, match=r"unknown key 'tracking\.0\.url'; did you mean 'uri'\?"):
            micro("tracking=[{kind: mlflow, url: x}]")

    def test_a_package_that_is_not_there_is_known_before_anything_begins(
        self, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr("handreid.tracking.locations.importlib.util.find_spec", lambda name: None)
        message = r"tracking: mlflow and wandb are not installed; pip install 'handreid\[tracking\]'"
        with pytest.raises(RunError, match=message):
            train(micro("tracking=[mlflow, wandb]"), photos, tmp_path / "run")
        called = handreid("ladder", "--data", photos, "--out", tmp_path / "ladder", "--track", "wandb,mlflow")
        assert called.code == 2
        assert "pip install 'handreid[tracking]'" in called.err
        assert not list(tmp_path.iterdir())

    def test_a_run_without_trackers_cannot_be_sent(self, plain: Run):
        called = handreid("track", plain.folder)
        assert called.code == 2
        assert "was never logged to a tracker; name one, such as --to mlflow" in called.err

    def test_an_error_is_what_is_at_its_bottom(self):
        def refused() -> None:
            try:
                raise ConnectionRefusedError(111, "Connection refused")
            except OSError as error:
                raise ValueError(f"Max retries exceeded\nwith {error}") from None

        with pytest.raises(ValueError, match="Max retries") as caught:
            refused()
        assert why(caught.value) == "connection refused"
        assert why(ValueError("first line\nsecond line")) == "first line"
        assert why(ValueError()) == "ValueError"

    def test_a_password_from_the_environment_is_not_shown(self, plain: Run, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:secret@host/db")
        assert locations.tracking_uri(MLflow(), plain) == "postgresql://me:secret@host/db"
        assert locations.describe(MLflow(), plain) == "mlflow at postgresql://host/db"

    def test_the_tools_own_settings_come_before_defaults_and_after_the_recipe(
        self, plain: Run, monkeypatch: pytest.MonkeyPatch
    ):
        group = plain.folder.parent.name
        for name in ("MLFLOW_EXPERIMENT_NAME", "WANDB_PROJECT", "MLFLOW_TRACKING_URI"):
            monkeypatch.delenv(name, raising=False)
        assert (locations.experiment(MLflow(), plain), locations.project(Wandb(), plain)) == (group, group)
        assert locations.tracking_uri(MLflow(), plain) == f"sqlite:///{plain.folder.parent}/mlflow.db"
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
        monkeypatch.setenv("WANDB_PROJECT", "ours")
        assert (locations.experiment(MLflow(), plain), locations.project(Wandb(), plain)) == ("mine", "ours")
        assert locations.experiment(MLflow(experiment="said"), plain) == "said"

    def test_epochs_are_counted_over_all_stages(self):
        recipe = micro()
        two = recipe.model_copy(update={"stages": (*recipe.stages, *recipe.stages)})
        assert [payload.step_of(two, place) for place in ((0, 1), (0, 3), (1, 1), (1, 3), (2, 0))] == [1, 3, 4, 6, 6]
        assert payload.step_of(two, payload.NOTHING) == 0


@pytest.mark.parametrize(("ending", "told"), [('{"wait": 30}\n', ["done"]), ("", [])])
def test_who_sends_runs_afterwards_waits_as_long_as_it_takes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ending: str, told: list[str]
):
    """Where whoever trained is no more there is an end to it; a person who asked for it decides."""

    working = []

    def slow(self: worker.BackendThread) -> None:
        working.append(self.thread)
        list(self._updates())
        time.sleep(0.5)
        self.say({"key": self.key, "done": ""})

    monkeypatch.setattr(worker.BackendThread, "_work", slow)
    monkeypatch.setattr(worker, "PATIENCE", 0.0)
    word = {"run": str(tmp_path), "to": {"one": 0}, "until": [0, 1], "status": "finished"}
    (tmp_path / "heard").write_text(json.dumps(word) + "\n" + ending)
    with (tmp_path / "heard").open() as heard, (tmp_path / "said").open("w") as said:
        worker._serve(heard, said)
        lines = (tmp_path / "said").read_text().splitlines()
        for thread in working:  # the process would have ended; here it must not speak into a closed file
            thread.join()
    assert [kind for line in lines for kind in json.loads(line) if kind != "key"] == told


@pytest.fixture(scope="module")
def crossed(hard_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that was evaluated, and crossed by view."""
    run = train(micro("stages=[]"), hard_photos, tmp_path_factory.mktemp("crossed") / "run")
    evaluate(run)
    matrix_of(run, "view")
    return run


class TestEveryKindOfEvaluation:
    """`track` of a run with a matrix crashed: every evaluation-*.json was read as if it were an evaluation."""

    def test_a_matrix_is_told_cell_by_cell(self, crossed: Run):
        path = crossed.folder / "evaluation-matrix-view.json"
        named, told = payload.evaluation_payload(path)
        cells = {(cell["query"], cell["gallery"]): cell for cell in read_json(path)["cells"] if cell["metrics"]}
        assert len(cells) > 3
        for (query, gallery), cell in cells.items():
            for metric in ("rank1", "map"):
                name = f"test-matrix-view/{query} in {gallery}/{metric}"
                assert named[name] == cell["metrics"][metric]["value"]
                assert named[f"{name}_low"] == cell["metrics"][metric]["low"]
        assert all(re.fullmatch(r"[\w.\- /]+", name) for name in named)  # what MLflow allows, and others
        assert told["cells"] == read_json(path)["cells"]
        assert not {"left_out", "notes"} & told.keys()
        assert not re.search(r"p\d\d(/|\")", json.dumps(told)), "people are named"

    def test_a_file_of_another_kind_is_left_out_and_says_why(self, tmp_path: Path):
        (tmp_path / "evaluation-notes.json").write_text('{"metrics": "none yet"}')
        named, told = payload.evaluation_payload(tmp_path / "evaluation-notes.json")
        assert not named
        assert "evaluation-notes.json is neither an evaluation nor a matrix" in told["left_out"]

    def test_a_tracker_takes_them_all(self, crossed: Run, tmp_path: Path):
        """With the code that the sending process runs, in this one."""
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        folder = tmp_path / "run"
        shutil.copytree(crossed.folder, folder)
        (folder / "evaluation-of-mine.json").write_text('{"remark": "a file of a person"}')
        run = Run(folder)
        (place,) = register(run, [TensorBoard()])
        page = worker.OpenRun(worker.Update(run, place, payload.EVERYTHING, "finished"), TrackingState(run))
        page.sync_to(worker.Update(run, place, payload.EVERYTHING, "finished"))
        page.close()
        found = EventAccumulator(str(folder / "tensorboard"))
        found.Reload()
        assert {"test/rank1", "test-matrix-view/dorsal-right in palmar-right/rank1"} <= set(found.Tags()["scalars"])
        assert {"evaluation.json", "evaluation-matrix-view.json", "evaluation-of-mine.json"} <= page.files.keys()


# From here on the server is used, which has had the time of the tests above to start.


@pytest.fixture(scope="module")
def server(starting: tuple[Server, Path]) -> Server:
    found, log = starting

    def healthy() -> bool:
        assert found.process.poll() is None, log.read_text()
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{found.url}/health", timeout=5) as answer:  # noqa: S310
            return bool(answer.status == 200)
        return False

    until(healthy)
    return found


@dataclass(frozen=True)
class Ladder:
    folder: Path
    said: str
    runs: dict[str, dict[str, Any]]  # by name: what the server holds
    histories: dict[str, dict[str, list[tuple[int, float]]]]
    files: dict[str, set[str]]

    def run(self, name: str) -> Run:
        return Run(self.folder / name)


@pytest.fixture(scope="module")
def ladder(server: Server, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Ladder:
    """Two rungs from the command line, the second with the stage of the first, told to three trackers at once."""
    folder = tmp_path_factory.mktemp("ladders")
    for name in ("first", "second"):
        (folder / f"{name}.yaml").write_text(MICRO_RECIPE.replace("name: micro\n", f"name: {name}\n", 1))
    out = folder / "hands"
    rungs = ",".join(str(folder / f"{name}.yaml") for name in ("first", "second"))
    track = ("--track", f"mlflow={server.url}", "--track", "tensorboard,wandb")
    called = handreid("ladder", "--rungs", rungs, "--data", photos, "--out", out, *track)
    assert called.code == 0, called.err
    experiment = server.ask("experiments/get-by-name", experiment_name="hands")["experiment"]["experiment_id"]
    runs = {run["info"]["run_name"]: run for run in server.search(experiment)}
    histories, files = {}, {}
    for name, run in runs.items():
        own = {"run_id": run["info"]["run_id"]}
        histories[name] = {
            metric["key"]: [
                (int(point.get("step", 0)), point["value"])
                for point in server.ask("metrics/get-history", **own, metric_key=metric["key"].replace(" ", "%20"))[
                    "metrics"
                ]
            ]
            for metric in run["data"]["metrics"]
        }
        files[name] = {file["path"] for file in server.ask("artifacts/list", **own)["files"]}
    return Ladder(out, called.err, runs, histories, files)


def lines_of(run: Run) -> dict[str, list[tuple[int, float]]]:
    """metrics.jsonl as points per name; micro runs have one stage."""
    points: dict[str, list[tuple[int, float]]] = {}
    for entry in read_metrics(run):
        for name, value in payload.epoch_payload(entry).items():
            points.setdefault(name, []).append((entry["epoch"], value))
    return points


class TestALadderFromTheCommandLine:
    @pytest.mark.parametrize("name", ["first", "second"])
    def test_mlflow_has_every_number_of_every_epoch_once(self, ladder: Ladder, name: str):
        """The second rung's stage was taken over: no epoch of it was trained while somebody watched."""
        own = lines_of(ladder.run(name))
        assert {"loss", "0_cross_entropy", "gradient_norm", "validation/map", "lr/encoder decayed"} <= own.keys()
        held = ladder.histories[name]
        assert {key: sorted(held[key]) for key in own} == own

    def test_mlflow_has_the_evaluation_with_intervals_after_the_last_epoch(self, ladder: Ladder):
        found = read_json(ladder.run("first").evaluation)
        held = ladder.histories["first"]
        for metric, of in found["metrics"].items():
            for ending, end in (("", "value"), ("_low", "low"), ("_high", "high")):
                assert held[f"test/{metric}{ending}"] == [(3, pytest.approx(of[end]))]
        assert held["test/separation/ratio"] == [(3, pytest.approx(found["separation"]["numbers"]["ratio"]["value"]))]

    def test_mlflow_has_settings_hashes_files_and_the_status(self, ladder: Ladder):
        run = ladder.runs["first"]
        params = {param["key"]: param["value"] for param in run["data"]["params"]}
        facts = ladder.run("first").facts
        assert params["stages.0.optimizer.lr"] == "0.001"
        assert params["run.manifest_hash"] == facts["manifest_hash"]
        assert params["run.versions.torch"] == facts["versions"]["torch"]
        assert not any(key.startswith(("tracking", "run.notes")) for key in params)
        assert run["info"]["status"] == "FINISHED"
        assert ladder.files["first"] == {"recipe.yaml", "evaluation.json"}

    def test_tensorboard_shows_every_rung(self, ladder: Ladder):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        for name in ("first", "second"):
            events = EventAccumulator(str(ladder.folder / name / "tensorboard")).Reload()
            own = lines_of(ladder.run(name))
            shown = {key: [(point.step, point.value) for point in events.Scalars(key)] for key in own}
            assert shown == {key: [(step, pytest.approx(value, rel=1e-6)) for step, value in own[key]] for key in own}
            assert [point.step for point in events.Scalars("test/map")] == [3]
            assert "_hparams_/session_start_info" in events.summary_metadata

    def test_wandb_writes_a_run_offline(self, ladder: Ladder):
        (entry,) = (one for one in entries(ladder.run("first")) if one.tracker.kind == "wandb")
        (written,) = (ladder.folder / "first" / "wandb").glob("offline-run-*")
        content = (written / f"run-{entry.id}.wandb").read_bytes()
        assert entry.where == str(written)
        assert b"validation/map" in content
        assert b"test/rank1_low" in content

    def test_nobody_reads_names_of_people_or_photos(self, ladder: Ladder):
        found = read_json(ladder.run("first").evaluation)
        named = [*found["photos"], *found["subjects"]]
        _, told = payload.evaluation_payload(ladder.run("first").evaluation)
        sent = payload.as_file(told) + json.dumps(payload.settings(ladder.run("first")))
        assert named
        assert not [name for name in named if f'"{name}"' in sent]
        for path in (ladder.folder / "first" / "wandb").rglob("*.wandb"):
            assert not [name for name in found["photos"] if name.encode() in path.read_bytes()]

    def test_what_is_said_is_where_each_run_can_be_found_and_nothing_else(self, ladder: Ladder):
        tracking = [line for line in ladder.said.splitlines() if "track" in line]
        assert [line.split(":")[0] for line in tracking].count("tracked by mlflow") == 1
        assert not [line for line in ladder.said.splitlines() if "alembic" in line or line.startswith("wandb:")]
        assert "note: mlflow" not in ladder.said

    def test_all_is_in_tracking_json(self, ladder: Ladder):
        first, second = (entries(ladder.run(name)) for name in ("first", "second"))
        assert [entry.tracker.kind for entry in first] == ["mlflow", "tensorboard", "wandb"]
        assert {entry.status for entry in (*first, *second)} == {"finished"}
        assert {entry.sent for entry in (*first, *second)} == {(0, 3)}
        assert first[0].id != second[0].id


class Held(BaseHTTPRequestHandler):
    """A server that takes a request, and does not answer before it is let go."""

    asked = threading.Event()
    go = threading.Event()

    def do_GET(self) -> None:
        self.asked.set()
        self.go.wait(LONG)
        with contextlib.suppress(OSError):
            self.send_error(404)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def slow_server() -> Iterator[str]:
    held = ThreadingHTTPServer(("127.0.0.1", 0), Held)
    threading.Thread(target=held.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{held.server_address[1]}"
    finally:
        Held.go.set()
        held.shutdown()
        held.server_close()


@dataclass(frozen=True)
class Trouble:
    folder: Path
    said: list[str]
    urls: dict[str, str]
    unanswered: bool  # the slow server had the request and had not answered it when the run was finished

    def weights(self, name: str) -> bytes:
        return Run(self.folder / name).model.read_bytes()

    def store(self, name: str) -> dict[str, Any]:
        """What mlflow.db holds of a run."""
        (entry,) = entries(Run(self.folder / name))
        with contextlib.closing(sqlite3.connect(self.folder / "mlflow.db")) as store:
            points = store.execute("SELECT key, step, value FROM metrics WHERE run_uuid = ?", (entry.id,)).fetchall()
            ((status,),) = store.execute("SELECT status FROM runs WHERE run_uuid = ?", (entry.id,)).fetchall()
            runs = store.execute("SELECT count(*) FROM runs").fetchone()[0]
        history: dict[str, list[tuple[int, float]]] = {}
        for key, step, value in sorted(points):
            history.setdefault(key, []).append((step, value))
        return {"history": history, "status": status, "runs": runs}


@pytest.fixture(scope="module")
def trouble(server: Server, ladder: Ladder, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Trouble:
    """One sending process, to which happens all that can. The ladder comes first: here the server is killed."""
    folder, said = tmp_path_factory.mktemp("trouble"), Told()
    sender = Sender(said, patience=LONG)
    beside, down = MLflow(), MLflow(uri=f"http://127.0.0.1:{free_port()}")

    def go(name: str, *trackers: Any, watch: Any = (), resume: bool = False) -> Run:
        return train(
            micro(), photos, folder / name, track=trackers, watch=watch, resume=resume, reuse=False, sender=sender
        )

    def stop(entry: Mapping[str, Any]) -> None:
        if entry["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go("stopped", beside, watch=[stop])
    go("late")
    go("down", down)
    sender.notify(Run(folder / "late"), [beside], payload.EVERYTHING, "finished")  # all of it afterwards
    until(lambda: entries(Run(folder / "stopped"))[0].status == "killed")  # closed, for another run is told of
    go("stopped", beside, resume=True)

    with slow_server() as slow:

        def wait(_: Mapping[str, Any]) -> None:
            assert Held.asked.wait(LONG)

        go("slow", MLflow(uri=slow), watch=[wait])
        unanswered = Held.asked.is_set() and not Held.go.is_set()

    def kill(entry: Mapping[str, Any]) -> None:
        if entry["epoch"] == 1:
            until(lambda: entries(Run(folder / "died"))[0].sent == (0, 1))
            server.stop()

    go("died", MLflow(uri=server.url), watch=[kill])
    shutil.copytree(folder / "late", folder / "going", ignore=shutil.ignore_patterns("tracking.json"))
    sender.notify(Run(folder / "going"), [beside], (0, 2), None)
    child = sender._child
    assert child is not None
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.close()  # as if we were killed: no last word
    child.wait(LONG)
    sender.poll()
    child.stdout.close()
    return Trouble(folder, said.lines, {"down": str(down.uri), "slow": slow, "died": server.url}, unanswered)


class TestWhenThingsGoWrong:
    @pytest.mark.parametrize("name", ["stopped", "down", "slow", "died"])
    def test_weights_are_those_of_a_run_that_nobody_tracks(self, trouble: Trouble, name: str):
        assert trouble.weights(name) == trouble.weights("late")

    @pytest.mark.parametrize(
        ("name", "reason"), [("down", "connection refused"), ("slow", ""), ("died", "connection refused")]
    )
    def test_a_tracker_that_fails_is_said_once(self, trouble: Trouble, name: str, reason: str):
        (note,) = (line for line in trouble.said if f"mlflow at {trouble.urls[name]}" in line)
        assert note.startswith(f"note: mlflow at {trouble.urls[name]}: ")
        assert reason in note
        assert note.endswith(
            "the run goes on without it, its folder has everything; send it later with "
            f"`handreid track {trouble.folder / name}`"
        )

    def test_a_run_does_not_wait_for_a_server_that_does_not_answer(self, trouble: Trouble):
        assert trouble.unanswered

    def test_a_run_that_goes_on_goes_on_in_its_tracker(self, trouble: Trouble):
        held = trouble.store("stopped")
        own = lines_of(Run(trouble.folder / "stopped"))
        assert {key: held["history"][key] for key in own} == own
        assert held["status"] == "FINISHED"
        assert held["runs"] == 3  # stopped, late, going: none was begun twice

    def test_a_run_that_was_there_before_is_sent_whole(self, trouble: Trouble):
        run = Run(trouble.folder / "late")
        assert trouble.store("late")["history"] == lines_of(run)
        assert trouble.store("late")["status"] == "FINISHED"

    def test_whoever_trains_is_killed_and_the_tracker_knows(self, trouble: Trouble):
        held = trouble.store("going")
        assert held["status"] == "KILLED"
        assert [step for step, _ in held["history"]["loss"]] == [1, 2]  # epoch 3 had no checkpoint yet

    def test_files_lie_beside_the_store(self, trouble: Trouble):
        assert len(list((trouble.folder / "mlflow-artifacts").glob("*/artifacts/recipe.yaml"))) == 3
