"""After each epoch: validation, best weights, metrics, checkpoint, early stopping.

* The checkpoint is the last thing an epoch writes. A run killed before that repeats the epoch, bit for bit, because
  nothing random depends on what came before the epoch (see `data/sampling.py`).
* The best model is saved to a file, not referenced, as the weights keep changing.
* The state of early stopping is in the checkpoint: a run that had decided to stop stays stopped when it is resumed.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from handreid.errors import RunError
from handreid.files import write_atomic
from handreid.models.embedder import Embedder
from handreid.progress import Advance, EpochListener
from handreid.runs import stage_weights
from handreid.runs.epoch_metrics import append_metrics
from handreid.runs.folder import Run
from handreid.training.peak_memory import peak_memory, reset_peak_memory
from handreid.training.precision import named
from handreid.training.stage_module import StageModule

Validate = Callable[[Embedder], dict[str, float]]
MONITOR = "map"
NOTHING = -1.0  # `best` before the first validation
_ADVICE = "remove the stage's folder and resume the run, which repeats this stage and those after it"


@dataclass(frozen=True)
class ValidationSpec:
    """What is measured of a stage's result every `every` epochs, and after the last. `name` is the numbers' prefix.

    With a `monitor`, the result with the highest such number is saved as the best. With `quiet`, epochs without a
    validation are not printed.
    """

    measure: Callable[[Any], dict[str, float]]
    every: int
    name: str = "validation"
    monitor: str | None = MONITOR
    patience: int | None = None
    quiet: bool = False


class EpochCallback(L.Callback):
    """Writes metrics, weights and the checkpoint of every epoch of a stage."""

    def __init__(
        self,
        run: Run,
        number: int,
        folder: Path,
        check: ValidationSpec,
        say: Callable[[str], None],
        advance: Advance,
        watch: Sequence[EpochListener] = (),
    ) -> None:
        self.run = run
        self.number = number
        self.folder = folder
        self.check = check
        self.say = say
        self.advance = advance
        self.watch = watch
        self.best = NOTHING
        self.since = 0  # validations since the best
        self.finished = False
        self.trains = False  # True once training has started
        self.began = 0.0
        self.seen = 0

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "since": self.since, "finished": self.finished}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.since, self.finished = state_dict["best"], state_dict["since"], state_dict["finished"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.trains = True

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.began, self.seen = time.monotonic(), 0
        reset_peak_memory()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, StageModule)  # noqa: S101 - for the type checker
        photos = pl_module.photos_in(batch) * trainer.world_size
        self.seen += photos
        self.advance(photos)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, StageModule)  # noqa: S101 - for the type checker
        epochs, epoch = pl_module.epochs, trainer.current_epoch + 1
        seconds = time.monotonic() - self.began
        pl_module.close_epoch()
        entry: dict[str, Any] = {
            "stage": self.number,
            "epoch": epoch,
            "step": trainer.global_step,
            **pl_module.epoch_means(),
        }
        entry |= {f"lr, {group['name']}": group["lr"] for group in trainer.optimizers[0].param_groups}
        entry |= {"seconds": seconds, "photos_per_second": self.seen / seconds, "precision": named(trainer.precision)}
        is_last = epoch == epochs
        checked = is_last or epoch % self.check.every == 0
        if checked:
            entry |= self._checked(trainer, pl_module)
        stopping = self.check.patience is not None and self.since >= self.check.patience
        self.finished = is_last or stopping
        peak = peak_memory()
        entry |= {} if peak is None else {"peak_memory": peak}
        if trainer.is_global_zero:
            append_metrics(self.run, entry)
            if checked or not self.check.quiet:
                self.say(_line(entry, epochs, best=self.since == 0 and self.check.monitor is not None))
            pl_module.judge_epoch(entry)
            if self.finished:
                _keep(pl_module, self.folder, "last")
        self._checkpoint(trainer)
        if trainer.is_global_zero:
            for listener in self.watch:  # after the checkpoint, so that stopping the run here loses nothing
                listener(entry)
        if stopping and not is_last:
            self.say(f"validation mAP has not improved in {self.since} validations: stopped after epoch {epoch}")
            trainer.should_stop = True

    def _checked(self, trainer: L.Trainer, module: StageModule) -> dict[str, float]:
        result = self.check.measure(module.result) if trainer.is_global_zero else {}
        result = trainer.strategy.broadcast(result)
        self.since += 1
        if self.check.monitor and result[self.check.monitor] > self.best:
            self.best, self.since = result[self.check.monitor], 0
            if trainer.is_global_zero:
                _keep(module, self.folder, "best")
        return {f"{self.check.name}_{name}": value for name, value in result.items()}

    def _checkpoint(self, trainer: L.Trainer) -> None:
        if trainer.is_global_zero:  # enough for one device; with several, all must take part in saving
            path = self.folder / "last.ckpt"
            write_atomic(path, trainer.save_checkpoint, durable=True, before=stage_weights.noting(path))


class _KeeperState(BaseModel):
    model_config = ConfigDict(strict=True)

    best: float
    since: int
    finished: bool


class _Callbacks(BaseModel):
    EpochCallback: _KeeperState


class _Checkpoint(BaseModel):
    """The parts of a checkpoint that are read here or that Lightning requires."""

    model_config = ConfigDict(strict=True, arbitrary_types_allowed=True)

    epoch: int
    global_step: int
    callbacks: _Callbacks
    state_dict: dict[str, torch.Tensor]
    optimizer_states: list[dict[str, Any]]
    lr_schedulers: list[dict[str, Any]]
    loops: dict[str, Any]


def read_checkpoint_progress(folder: Path) -> tuple[int, bool] | None:
    """Epochs done and whether the stage is finished, from its last checkpoint; None when there is none.

    Raises RunError for a checkpoint that was changed or damaged.
    """
    path = folder / "last.ckpt"
    if not path.exists():
        return None
    stage_weights.checked(path)
    try:
        content = _Checkpoint.model_validate(torch.load(path, map_location="cpu", weights_only=True, mmap=True))
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise RunError(f"{path} was not written by handreid ({where or 'it holds no keys'}); {_ADVICE}") from None
    except Exception as error:  # any error of unpickling a foreign file; torch's own message gives unsafe advice
        raise RunError(f"{path} was not written by handreid ({type(error).__name__}); {_ADVICE}") from None
    keeper = content.callbacks.EpochCallback
    if keeper.best > NOTHING:
        stage_weights.checked(folder / "best.safetensors")
        if stage_weights.belongs(stage_weights.text_file(folder, "best")):
            stage_weights.checked(stage_weights.text_file(folder, "best"))
    return content.epoch + 1, keeper.finished


def _keep(module: StageModule, folder: Path, which: str) -> None:
    path, text = folder / f"{which}.safetensors", stage_weights.text_file(folder, which)
    module.result.save(path, before=stage_weights.noting(path))
    if module.learned_text is not None:
        module.learned_text.save(text, before=stage_weights.noting(text))


def _line(entry: dict[str, Any], epochs: int, *, best: bool) -> str:
    line = f"epoch {entry['epoch']}/{epochs}  loss {entry['loss']:.3f}  {entry['photos_per_second']:,.0f} photos/s"
    if f"validation_{MONITOR}" in entry:
        line += f"  validation rank-1 {entry['validation_rank1']:.1%}  mAP {entry[f'validation_{MONITOR}']:.1%}"
        line += "  best so far" if best else ""
    if "prompts_rank1" in entry:
        line += f"  nearest text is the photo's own {entry['prompts_rank1']:.1%}"
    return line
