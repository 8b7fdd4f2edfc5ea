"""One trial, in a process that Ray started.

Where this machine has a trial server, the trial is trained in a process forked from it, and only its reports come here:
this process imports no torch, which takes it a quarter of a minute. Otherwise, as on a cluster, it is trained here.

Ray's answer to a report is the scheduler's decision: it stops a trial by raising SystemExit inside the report.
"""

import contextlib
import os
from collections.abc import Mapping
from multiprocessing.connection import Client
from pathlib import Path
from typing import Any

_PATIENCE = 1.5  # seconds for a stopped trial to let go of its folder; Ray waits 2 before it gives up this process


def run_trial(config: Mapping[str, Any]) -> None:
    """Trains or resumes the run in `folder`, and reports to Ray; `server` is a trial server's address or None."""
    from ray import tune

    if config["server"] is None:
        from handreid.sweep.train_trial import train_trial

        train_trial(config, tune.report)
        return
    try:
        _relay(config)
    except (EOFError, OSError):
        tune.report({"failed": "its process ended"})


def _relay(config: Mapping[str, Any]) -> None:
    """Reports what the trial's process reports. Raises EOFError or OSError when that process ends before it is done."""
    from ray import tune

    with Client(config["server"], "AF_UNIX") as connection:
        # the GPU that Ray gave to this process, among others, is in its environment
        connection.send((dict(config), dict(os.environ), str(Path.cwd())))
        while (values := connection.recv()) is not None:
            try:
                tune.report(values)
            except SystemExit:
                with contextlib.suppress(OSError):
                    connection.send(False)
                    connection.poll(_PATIENCE)  # until it has ended
                raise
            connection.send(True)
