"""A run of Weights & Biases: its configuration, history and files."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import wandb
from lightning.pytorch.loggers import WandbLogger

from handreid.tracking.backends.base import Status


class WandbBackend:
    """Continues the run `id`, or creates it if it does not exist."""

    def __init__(
        self,
        folder: Path,
        project: str,
        entity: str | None,
        name: str,
        mode: Literal["auto", "online", "offline"],
        id: str,  # noqa: A002
    ) -> None:
        settings = wandb.Settings(silent=True, console="off", x_disable_stats=True, save_code=False)
        place = os.environ.get("WANDB_DIR") or str(folder)
        self.logger = WandbLogger(
            name, place, id=id, project=project, entity=entity, mode=_mode(mode), settings=settings
        )
        self.run = self.logger.experiment
        self.id = id
        offline = self.run.settings.mode != "online"
        self.where = str(Path(self.run.dir).parent) if offline else str(self.run.url)

    def last(self) -> tuple[int, int] | None:
        return None

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
            self._artifact(path, "file")

    def model(self, path: Path) -> None:
        self._artifact(path, "model")

    def close(self, status: Status) -> None:
        self.run.finish(exit_code=0 if status == "finished" else 1)

    def _artifact(self, path: Path, kind: str) -> None:
        artifact = wandb.Artifact(f"{path.stem}-{self.id}", kind)
        artifact.add_file(str(path))  # copied at once
        self.run.log_artifact(artifact)


def _mode(mode: Literal["auto", "online", "offline"]) -> str:
    """`auto`: as WANDB_MODE says, else online if a key is configured; never asks for one."""
    if mode != "auto":
        return mode
    variable = os.environ.get("WANDB_MODE")
    return variable or ("online" if wandb.login(prompt=False, verify=False) else "offline")
