"""A run of Weights & Biases: its configuration, history and files."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import wandb

from handreid.tracking.backends.base import Status

_STEP = "trainer/global_step"  # the axis of every metric, named as Lightning names it


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
        self.run = wandb.run or wandb.init(
            name=name,
            dir=place,
            id=id,
            resume="allow",
            project=project,
            entity=entity,
            mode=_mode(mode),
            settings=settings,
        )
        self.run.define_metric(_STEP)
        self.run.define_metric("*", step_metric=_STEP, step_sync=True)
        self.id = id
        offline = self.run.settings.mode != "online"
        self.where = str(Path(self.run.dir).parent) if offline else str(self.run.url)

    def last(self) -> tuple[int, int] | None:
        return None

    def settings(self, values: Mapping[str, Any], text: str, *, again: bool) -> None:
        if not again:
            self.run.config.update(dict(values), allow_val_change=True)  # type: ignore[no-untyped-call, unused-ignore]

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        self.run.log({**values, _STEP: step})

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


def _mode(mode: Literal["auto", "online", "offline"]) -> Any:
    """`auto`: as WANDB_MODE says, else online if a key is configured; never asks for one."""
    if mode != "auto":
        return mode
    variable = os.environ.get("WANDB_MODE")
    return variable or ("online" if wandb.login(prompt=False, verify=False) else "offline")
