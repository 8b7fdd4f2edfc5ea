"""Default locations of tracked data: beside the run folder, or in it."""

import importlib.util
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from handreid.errors import RunError
from handreid.recipe import MLflow, TensorBoard, Tracker, Wandb
from handreid.runs.folder import Run


def check_installed(trackers: Iterable[Tracker]) -> None:
    """Raises RunError when a tracker's package is not installed."""
    missing = sorted({tracker.kind for tracker in trackers if importlib.util.find_spec(tracker.kind) is None})
    if missing:
        raise RunError(
            f"tracking: {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed; "
            "pip install 'handreid[tracking]', or turn tracking off with --track none"
        )


def tracking_uri(tracker: MLflow, run: Run, environment: Mapping[str, str] = os.environ) -> str:
    """MLflow's address for this run. `environment` must be the user's: MLflow overwrites the variables it reads."""
    beside = run.folder.absolute().parent / "mlflow.db"
    return tracker.uri or environment.get("MLFLOW_TRACKING_URI") or f"sqlite:///{beside.as_posix()}"


def artifacts(tracker: MLflow, run: Run, environment: Mapping[str, str] = os.environ) -> str | None:
    """Folder for files of the store beside the run; None for any other store, which decides this itself."""
    uri = tracker.uri or environment.get("MLFLOW_TRACKING_URI")
    return None if uri else (run.folder.absolute().parent / "mlflow-artifacts").as_uri()


def experiment(tracker: MLflow, run: Run, environment: Mapping[str, str] = os.environ) -> str:
    return tracker.experiment or environment.get("MLFLOW_EXPERIMENT_NAME") or group(run)


def project(tracker: Wandb, run: Run, environment: Mapping[str, str] = os.environ) -> str:
    return tracker.project or environment.get("WANDB_PROJECT") or group(run)


def group(run: Run) -> str:
    """The name of the run folder's parent, such as that of a ladder."""
    return run.folder.absolute().parent.name or "handreid"


def log_dir(tracker: TensorBoard, run: Run) -> Path:
    """The folder of TensorBoard's files."""
    return Path(tracker.folder).absolute() / run.folder.name if tracker.folder else run.folder / "tensorboard"


def describe(tracker: Tracker, run: Run) -> str:
    """The tracker for messages, without a password in its address."""
    match tracker:
        case MLflow():
            return f"mlflow at {_without_password(tracking_uri(tracker, run))}"
        case TensorBoard():
            return f"tensorboard in {log_dir(tracker, run)}"
        case Wandb():
            return f"wandb, project {project(tracker, run)}"


def _without_password(address: str) -> str:
    parts = urlsplit(address)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else address
