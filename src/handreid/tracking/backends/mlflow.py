"""A run of MLflow: parameters, metrics, artifacts, and its status."""

import re
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.tracking.context.registry import resolve_tags

from handreid.tracking.backends.base import Status, non_empty

_PARAMETERS = 100  # that MLflow takes in one request
_LONGEST = 250  # characters of a parameter that every server takes
_NO_NAME = re.compile(r"[^a-zA-Z0-9_/. -]+")  # what MLflow does not take in a metric's name
_STATUS = {"finished": "FINISHED", "failed": "FAILED", "killed": "KILLED"}


class MLflowBackend:
    """Opens the run `id` again, or creates one if it is None or no longer exists."""

    def __init__(self, uri: str, experiment: str, name: str, artifacts: str | None, id: str | None) -> None:  # noqa: A002
        mlflow.set_tracking_uri(uri)
        self.client = MlflowClient(uri)
        if id is not None and _exists(self.client, id):
            self.id = id
            group = self.client.get_run(id).info.experiment_id
            self.client.update_run(id, status="RUNNING")
        else:
            group = _experiment(self.client, experiment, artifacts)
            tags = resolve_tags({"mlflow.source.name": "handreid", "mlflow.runName": name})
            self.id = str(self.client.create_run(group, tags=tags).info.run_id)
        place = f"{uri.rstrip('/')}/#/experiments/{group}/runs/{self.id}"
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
            parameters = [Param(key, str(value)[:_LONGEST]) for key, value in non_empty(values).items()]
            for start in range(0, len(parameters), _PARAMETERS):
                self.client.log_batch(self.id, params=parameters[start : start + _PARAMETERS])

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        points = [Metric(_NO_NAME.sub("", key), value, now, step) for key, value in values.items()]
        self.client.log_batch(self.id, metrics=points)

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
        self.client.set_terminated(self.id, _STATUS[status])


def _experiment(client: MlflowClient, name: str, artifacts: str | None) -> str:
    """Its id; it is created when there is none."""
    found = client.get_experiment_by_name(name)
    if found is not None and found.lifecycle_stage != "deleted":
        return str(found.experiment_id)
    return str(client.create_experiment(name, artifact_location=artifacts))


def _exists(client: MlflowClient, id: str) -> bool:  # noqa: A002
    try:
        client.get_run(id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise
    return True
