"""A run of TensorBoard: event files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger

from handreid.tracking.backends.base import Status


class TensorBoardBackend:
    """Event files in `folder`. Entries of earlier files from `step` on are discarded."""

    def __init__(self, folder: Path, step: int) -> None:
        self.id: str | None = None
        self.where = str(folder)
        self.logger = TensorBoardLogger(folder, name="", version="", default_hp_metric=False, purge_step=step)
        self.values: dict[str, Any] = {}

    def last(self) -> tuple[int, int] | None:
        return None

    def settings(self, values: Mapping[str, Any], text: str, *, again: bool) -> None:
        self.values = dict(values)
        if not again:
            self.logger.experiment.add_text("recipe", "".join(f"    {line}\n" for line in text.splitlines()))

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        self.logger.log_metrics(dict(values), step)
        self.logger.experiment.flush()

    def tested(self, values: Mapping[str, float], step: int) -> None:
        """Sent with the settings, for TensorBoard's HParams tab."""
        self.logger.log_hyperparams(self.values, dict(values), step)
        self.logger.experiment.flush()

    def file(self, name: str, content: bytes) -> None:
        pass  # TensorBoard has no files; they are in the run folder

    def model(self, path: Path) -> None:
        pass

    def close(self, status: Status) -> None:
        self.logger.finalize(status)
