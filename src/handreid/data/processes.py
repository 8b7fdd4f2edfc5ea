"""Work on many photos, spread over processes."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from handreid.errors import DataError

T = TypeVar("T")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_processes(
    function: Callable[..., T], jobs: Sequence[tuple[Any, ...]], workers: int, *, broken: str
) -> Iterator[T]:
    """The function's results for the arguments of each job, as they get ready.

    Function and arguments must be importable or picklable: processes are spawned. An error or Ctrl-C ends all of them,
    and no process outlives this one. Raises DataError with the message `broken` if a process dies.
    """
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_settle)
    try:
        waiting = {pool.submit(function, *job) for job in jobs}
        while waiting:
            ready, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in ready:
                yield future.result()
    except BrokenProcessPool as error:
        raise DataError(broken) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _settle() -> None:
    """In a worker: leave Ctrl-C to the parent, and do not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent.join,), daemon=True).start()


def _follow(wait_for_parent: Callable[[], None]) -> None:
    wait_for_parent()
    os._exit(1)
