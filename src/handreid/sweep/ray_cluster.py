"""Starts Ray for a sweep, or connects to a running cluster; quiet, and shut down afterwards.

* Ray's own files are in a temporary folder, which is removed at the end. It reports no usage statistics and opens no
  dashboard.
* Ray's processes end with the one that started them, however that ended.
* Beside a Ray that was started here is a trial server.
"""

import contextlib
import importlib.util
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from handreid.errors import HandreidError, RunError
from handreid.sweep import trial_server

_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # photos and runs are named from where the command was given
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is for us
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial that failed has no metric
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",  # the state is in the sweep's folder, not in Ray's
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
_STORE = 80 * 2**20  # bytes; Ray's least is 75 MiB, and no photos pass through it
_servers: list[str] = []  # the trial server beside the Ray that was started here, if any
_QUIET = ("ray", "ray.tune", "ray.air", "ray.train")


@dataclass(frozen=True)
class Resources:
    """What each trial gets, how many run at a time, and the folder for Ray's own files."""

    cpus: int
    gpus: float
    concurrent: int
    storage: Path
    server: str | None = None  # address of a trial server; without one trials are trained in Ray's own processes


def prepare() -> None:
    """Settings that Ray reads when it is imported. Raises HandreidError when Ray or Optuna is not installed."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    missing = [name for name in ("optuna", "ray") if importlib.util.find_spec(name) is None]
    if missing:
        raise HandreidError(f"sweeps need {' and '.join(missing)}: pip install 'handreid[sweep]'")


@contextlib.contextmanager
def running(
    address: str | None, storage: Path, *, cpus: int | None, gpus: float | None, concurrent: int | None
) -> Iterator[Resources]:
    """Ray, if it is not running yet in this process, with room for trials. Raises RunError when there is none.

    `storage` is a folder that every machine of a cluster sees; it is removed afterwards.
    """
    import ray

    started = not ray.is_initialized()
    temporary = Path(tempfile.mkdtemp(prefix="handreid-ray-"))
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(shutil.rmtree, storage, ignore_errors=True)
        cleanup.callback(shutil.rmtree, temporary, ignore_errors=True)
        if started:
            cleanup.callback(ray.shutdown)
            _start(address, temporary)
        for name in _QUIET:
            logging.getLogger(name).setLevel(logging.ERROR)
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        room = _room(machines, storage if address else temporary / "tune", cpus, gpus, concurrent)
        if started and address is None and trial_server.available(temporary):
            _servers.append(cleanup.enter_context(trial_server.serving(temporary, room.cpus)))
            cleanup.callback(_servers.pop)
        yield replace(room, server=_servers[-1] if _servers else None)


def _start(address: str | None, temporary: Path) -> None:
    import ray

    if address is None:
        # `local` is always one of our own, also where RAY_ADDRESS names a cluster
        ray.init(
            "local",
            num_cpus=_cores(),
            object_store_memory=_STORE,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=str(temporary),
        )
        return
    if address.startswith("ray://"):
        raise RunError(
            f"--address {address} is a Ray client address; the sweep would run where its folder may not exist: run the "
            "command on a machine of the cluster, with --address auto or HOST:PORT"
        )
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise RunError(
            f"cannot connect to a Ray cluster at {address}: {str(error).splitlines()[0]}; if it needs a token, set "
            "RAY_AUTH_MODE and RAY_AUTH_TOKEN to the values that it was started with"
        ) from None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _room(
    machines: list[Mapping[str, float]], storage: Path, cpus: int | None, gpus: float | None, concurrent: int | None
) -> Resources:
    """Resources per trial and trials at a time, from the `CPU` and `GPU` of each machine; a trial is on one machine."""
    share = (1.0 if any(machine.get("GPU") for machine in machines) else 0.0) if gpus is None else gpus
    usable = [machine for machine in machines if machine.get("CPU", 0) >= 1 and machine.get("GPU", 0) >= share]
    per_machine = -(-concurrent // max(len(usable), 1)) if concurrent else 1
    places = [int(machine["GPU"] // share) if share else per_machine for machine in usable]
    each = cpus or max(
        1, min((int(machine["CPU"]) // place for machine, place in zip(usable, places, strict=True)), default=1)
    )
    room = sum(min(int(machine["CPU"]) // each, place) for machine, place in zip(usable, places, strict=True))
    if not room:
        sizes = "; ".join(f"{machine.get('CPU', 0):g} cores and {machine.get('GPU', 0):g} GPUs" for machine in machines)
        raise RunError(
            f"a trial needs {each} cores and {share:g} GPUs of one machine, but there are {sizes}: lower `cpus` "
            "and `gpus` in the sweep"
        )
    return Resources(each, share, min(concurrent or room, room), storage)
