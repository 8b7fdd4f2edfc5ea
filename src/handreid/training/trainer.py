"""Lightning's training loop for one stage; continues where an earlier attempt stopped."""

import logging
import warnings
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from handreid.errors import RunError
from handreid.files import interrupted
from handreid.recipe.stage_base import StageValue
from handreid.runs.epoch_metrics import truncate_metrics
from handreid.runs.stage_weights import checked, forget, settle
from handreid.training.context import Job
from handreid.training.epoch_callback import EpochCallback, ValidationSpec, read_checkpoint_progress
from handreid.training.precision import LIGHTNING, precision_of
from handreid.training.stage_module import StageModule

_UNFIT = (RuntimeError, LookupError, TypeError, ValueError, AttributeError)  # of a checkpoint of something else


class _InPlace(TorchCheckpointIO):
    """Writes to the given path. Lightning's own first makes a copy in memory and another in the temporary folder."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        torch.save(checkpoint, path)


def prepare_resume(job: Job, number: int) -> bool:
    """Whether a stage has epochs left. Lines in metrics.jsonl of epochs that will be repeated are removed."""
    folder = job.folder(number)
    done = read_checkpoint_progress(folder)
    if done is None:
        discard_from(job, number)
        return True
    settle(folder)
    if done[1]:
        return False
    truncate_metrics(job.run, number, done[0])
    return True


def discard_from(job: Job, number: int) -> None:
    """Removes all files of a stage and of those after it, which depend on it and are repeated too."""
    for later in range(number, len(job.recipe.stages)):
        forget(job.folder(later))
    truncate_metrics(job.run, number, 0)


def fit(job: Job, number: int, module: StageModule, check: ValidationSpec) -> None:
    """Trains the remaining epochs of a stage; its files are then in the stage's folder."""
    folder, stage = job.folder(number), job.recipe.stages[number]
    done = read_checkpoint_progress(folder)
    epochs_done = done[0] if done else 0
    total = (stage.epochs - epochs_done) * module.photos_per_epoch
    with job.progress.step(f"{job.recipe.name} {stage.kind}", total, "photos") as advance:
        keeper = EpochCallback(job.run, number, folder, check, job.progress.say, advance, job.watch)
        trainer = build_trainer(stage, [keeper])
        checkpoint = checked(folder / "last.ckpt") if epochs_done else None
        module.train()
        try:
            with warnings.catch_warnings():
                # the number of workers is deliberate, and Lightning's internals do not concern the user
                warnings.filterwarnings("ignore", message=".*does not have many workers.*")
                warnings.filterwarnings("ignore", message=".*LeafSpec.*")
                warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")  # frozen norms
                trainer.fit(module, ckpt_path=checkpoint, weights_only=True)
        except (
            SystemExit,
            Exception,
        ) as stopped:  # Ctrl-C, as Lightning or a file being written turns it into other exceptions
            if interrupted(stopped):
                raise KeyboardInterrupt from None
            room = not isinstance(stopped, torch.OutOfMemoryError)
            if checkpoint and not keeper.trains and isinstance(stopped, _UNFIT) and room:
                raise RunError(
                    f"{checkpoint} does not fit this stage ({type(stopped).__name__}): remove {folder} and resume the "
                    "run, which repeats this stage and those after it"
                ) from None
            raise
    job.embedder.to("cpu")
    job.text.to("cpu")


def build_trainer(stage: StageValue, callbacks: list[L.Callback]) -> L.Trainer:
    """Lightning's trainer with a stage's settings; only the callbacks log and save."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    return L.Trainer(
        accelerator="auto",
        devices=1,
        max_epochs=stage.epochs,
        accumulate_grad_batches=stage.batches_per_step,
        gradient_clip_val=stage.clip_gradients,
        precision=cast(Any, LIGHTNING[precision_of(stage)]),
        callbacks=callbacks,
        plugins=[_InPlace()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        reload_dataloaders_every_n_epochs=1,
        use_distributed_sampler=False,
    )
