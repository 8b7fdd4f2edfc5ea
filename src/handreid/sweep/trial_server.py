"""The process from which trials on this machine are forked: it has imported torch and all else once.

Importing takes a new process a quarter of a minute, a fork milliseconds. Every trial still has its own process: one
that dies takes no other with it, and its memory, a GPU's too, is free afterwards.

* A trial is asked for with a connection to the server's socket, and reports through it. The other side answers each
  report with True, to go on, or False, to stop.
* The server never uses torch itself, and initialises no GPU: forking would not work afterwards.
* The server and its trials end with the process that started it, however that ended, and a trial with whoever asked for
  it. Ctrl-C in the terminal does not reach them.
"""

import contextlib
import os
import queue
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

import handreid

_SOCKET = "trials.sock"
_LONGEST = 107  # bytes of a socket's path, by Linux
_WAITING = 64  # connections that are not yet accepted


def available(folder: Path) -> bool:
    """Whether a server can be made with its socket in this folder, whose path may be too long.

    On other systems a process that has imported torch cannot safely be forked, or not at all.
    """
    return sys.platform == "linux" and len(os.fsencode(folder / _SOCKET)) <= _LONGEST


@contextlib.contextmanager
def serving(folder: Path, threads: int) -> Iterator[str]:
    """A server, as the address to connect to; `threads` are the cores of a trial."""
    address = str(folder / _SOCKET)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(_WAITING)  # a trial can ask, and wait, before the server is ready
        server = start(listener, threads)
    try:
        yield address
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)  # its trials too
        server.communicate()


def start(listener: socket.socket, threads: int) -> "subprocess.Popen[bytes]":
    """A server that ends when its standard input does, or its process group is killed."""
    roots = [str(Path(handreid.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    code = f"from handreid.sweep.trial_server import serve; serve({listener.fileno()})"
    return subprocess.Popen(
        [sys.executable, "-P", "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=[listener.fileno()],
        start_new_session=True,
        env={"OMP_NUM_THREADS": str(threads), **os.environ, "PYTHONPATH": os.pathsep.join(roots)},
    )


def serve(descriptor: int) -> NoReturn:
    """Forks a trial for each connection to the socket, until standard input is at its end."""
    import handreid.sweep.train_trial  # noqa: F401 - so that trials have it

    listener = socket.socket(fileno=descriptor)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # trials that have ended leave nothing to be collected
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            os.killpg(0, signal.SIGKILL)  # this process too
        connected, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _train(Connection(connected.detach()))
        connected.close()


def _train(connection: "Connection[Any, Any]") -> NoReturn:
    """A trial from its beginning to the end of its process."""
    from handreid.sweep.train_trial import train_trial

    try:
        config, environment, place = connection.recv()
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(place)
        reports = _Reports(connection)
        try:
            train_trial(config, reports.send)
        except Exception as error:  # a fault of ours: not of the recipe
            reports.send({"failed": describe_fault(error)})
        connection.send(None)
    except (EOFError, OSError, SystemExit):
        pass
    finally:
        os._exit(0)


def describe_fault(error: BaseException) -> str:
    """Its kind and the last line of its message."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1].strip() if lines else ''}".removesuffix(": ")


class _Reports:
    """A trial's reports, each of which waits for its answer."""

    def __init__(self, connection: "Connection[Any, Any]") -> None:
        self.connection = connection
        self.answers: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self.waiting = False
        threading.Thread(target=self._listen, daemon=True).start()

    def send(self, values: dict[str, Any]) -> None:
        """Raises SystemExit when the trial is to stop."""
        self.waiting = True
        self.connection.send(values)
        if not self.answers.get():
            raise SystemExit
        self.waiting = False

    def _listen(self) -> None:
        """Passes answers on; whoever asked for the trial may end at any time, and the trial then ends with it."""
        try:
            while self.connection.recv():
                self.answers.put(True)
        except (EOFError, OSError):
            if not self.waiting:
                os._exit(1)
        self.answers.put(False)
