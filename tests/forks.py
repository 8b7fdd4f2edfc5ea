"""Processes of their own for what is killed or interrupted, forked from a server that has imported everything once.

A fork takes milliseconds, where importing torch takes seconds. The server has never used torch or polars: forking where
torch has trained, or where polars has threads, does not work. A worker of pytest-xdist, which needs the same imports
for its tests, forks the server before it collects them (`serve_from_here`); elsewhere the server imports them when it
is first asked.
"""

import importlib
import multiprocessing
import multiprocessing.util
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing import forkserver, resource_tracker
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import DupFd
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from handreid import cli

# what the server imports: tests.killing brings training and evaluation with it, the others are commands of their own
PRELOADED = ("tests.killing", "tests.forks", "handreid.cli.ending", "handreid.cli.commands", "handreid.cli.train")


def fork(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Runs a function of a module of the tests, with this process's environment."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(list(PRELOADED))  # which a server that runs already doesn't look at
    child = server.Process(target=_run, args=(target, arguments, dict(os.environ)))
    child.start()
    return child


def serve_from_here() -> None:
    """From now on `fork` asks a server that is a fork of this process as it is now."""
    for name in PRELOADED:
        importlib.import_module(name)
    threads = {(thread / "comm").read_text().strip() for thread in Path("/proc/self/task").iterdir()}
    assert not [name for name in threads if name.startswith(("polars-0", "tokio"))], "polars has been used"
    multiprocessing.get_context("forkserver").set_forkserver_preload([])
    resource_tracker.ensure_running()  # a Python of its own, as always
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(multiprocessing.util, "spawnv_passfds", _forked)
        forkserver.ensure_running()


def _forked(_: bytes, words: Sequence[str], descriptors: Sequence[int]) -> int:
    """A fork in the place of a new Python with these words; it has these descriptors and the standard ones."""
    number = os.fork()
    if number:
        return number
    try:
        first = 3
        for descriptor in (*sorted(descriptors), os.sysconf("SC_OPEN_MAX")):
            os.closerange(first, descriptor)
            first = descriptor + 1
        exec(words[-1], {})  # multiprocessing's own call of its server
    finally:
        os._exit(1)


def _run(target: Callable[..., None], arguments: tuple[Any, ...], environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may start jobs with SIGINT ignored
    target(*arguments)


class CommandLine:
    """`handreid` with these words in a process of its own; as much of `subprocess.Popen` as tests need."""

    def __init__(self, *words: object) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="handreid-forked-"))
        self.process = fork(self.begin, str(self.folder), [str(word) for word in words])

    @staticmethod
    def begin(folder: str, words: list[str]) -> None:
        _command_line(folder, words)

    def __enter__(self) -> "CommandLine":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None:
            self.process.kill()
        self.process.join()

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self, timeout: float | None = None) -> int | None:
        self.process.join(timeout)
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        assert self.process.pid is not None
        if self.poll() is None:
            os.kill(self.process.pid, number)

    def wait_for(self, path: Path) -> None:
        """Until there is such a file, or the process has ended."""
        while not path.exists() and self.poll() is None:
            time.sleep(0.005)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it wrote to standard output and standard error, once it has ended."""
        assert self.wait(timeout) is not None, "it goes on"
        return (self.folder / "out").read_text(), (self.folder / "err").read_text()


class SweepCommandLine(CommandLine):
    """`handreid sweep` with these words, and its trial server: this forks before torch is used."""

    @staticmethod
    def begin(folder: str, words: list[str]) -> None:
        from handreid.sweep import trial_server

        ours, theirs = socket.socketpair()
        server = os.fork()
        if server == 0:
            ours.close()
            received = socket.recv_fds(theirs, 1, 2)
            if received[1]:  # else the command line has ended
                listener, stdin = received[1]
                _serve_trials(socket.socket(fileno=listener), stdin, 1)
            os._exit(0)
        theirs.close()

        def start(listener: socket.socket, threads: int) -> _Forked:
            stdin, end = os.pipe()
            socket.send_fds(ours, [b"."], [listener.fileno(), stdin])
            os.close(stdin)
            return _Forked(server, end)

        trial_server.start = start  # type: ignore[assignment, unused-ignore]
        _command_line(folder, words)


class _Forked:
    def __init__(self, pid: int, end: int) -> None:
        self.pid = pid
        self.end = end

    def communicate(self) -> None:
        os.close(self.end)
        os.waitpid(self.pid, 0)


class TrialServer:
    """A trial server, as `handreid.sweep.trial_server.start` starts one."""

    def __init__(self, listener: socket.socket, threads: int) -> None:
        stdin, self.end = os.pipe()
        self.process = fork(_serve_trials, listener, _Passed(stdin), threads)
        os.close(stdin)

    @property
    def pid(self) -> int | None:
        return self.process.pid

    def communicate(self) -> None:
        os.close(self.end)
        self.process.join()


class _Passed:
    """A descriptor for a process that is forked."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[Callable[[Any], int], tuple[Any]]:
        return _received, (DupFd(self.number),)


def _received(passed: Any) -> int:
    return int(passed.detach())


def _serve_trials(listener: socket.socket, stdin: int, threads: int) -> None:
    from handreid.sweep.trial_server import serve

    os.setsid()
    nothing = os.open(os.devnull, os.O_WRONLY)
    for number, file in enumerate((stdin, nothing, nothing)):
        os.dup2(file, number)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    serve(listener.detach())


def _command_line(folder: str, words: list[str]) -> None:
    for name, number in (("out", 1), ("err", 2)):
        file = os.open(Path(folder) / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - the server's own may be closed
    sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    sys.argv = ["handreid", *words]
    cli.main()
