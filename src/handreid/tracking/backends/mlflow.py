"""A run of MLflow: parameters, metrics, artifacts, and its status."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import MLFlowLogger
from mlflow.exceptions import MlflowException

from handreid.tracking.backends.base import Status

_STATUS = {"finished": "FINISHED", "failed": "FAILED", "killed": "KILLED"}


class MLflowBackend:
    """Opens the run `id` again, or creates one if it is None or no longer exists."""

    def __init__(self, uri: str, experiment: str, name: str, artifacts: str | None, id: str | None) -> None:  # noqa: A002
        tags = {"mlflow.source.name": "handreid"}
        existing_id = id if id is not None and _exists(uri, id) else None
        self.logger = MLFlowLogger(experiment, name, uri, tags, artifact_location=artifacts, run_id=existing_id)
        self.client = self.logger.experiment
        self.id = str(self.logger.run_id)
        if existing_id is not None:
            self.client.update_run(self.id, status="RUNNING")
        place = f"{uri.rstrip('/')}/#/experiments/{self.logger.experiment_id}/runs/{self.id}"
        self.where = place if uri.startswith("http") else f"{uri}, experiment {experiment}, run {self.id}"

    def last(self) -> tuple[int, int] | None:
        stages, epochs = (
            {metric.step: int(metric.value) for metric in self.client.get_metric_history(self.id, key)}
            for key in ("stage", "epoch")
        )
        step = max(stages.keys() & epochs.keys(), default=None)
        return None if step is None else (stages[step], epochs[step])

    def settings(self, values: Mapping[str, Any], text: str, *, again: bool) -> None:
        if not again:
            self.logger.log_hyperparams(dict(values))

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        self.logger.log_metrics(dict(values), step)

    def tested(self, values: Mapping[str, float], step: int) -> None:
        self.numbers(values, step)

    def file(self, name: str, content: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_bytes(content)
            self.client.log_artifact(self.id, str(path))

    def model(self, path: Path) -> None:
        self.client.log_artifact(self.id, str(path))

    def close(self, status: Status) -> None:
        self.logger.finalize(_STATUS[status])


def _exists(uri: str, id: str) -> bool:  # noqa: A002
    from mlflow.tracking import MlflowClient

    try:
        MlflowClient(uri).get_run(id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise
    return True
