"""Lightning's loop around one stage, from wherever an earlier attempt was stopped."""

import logging
import warnings
from typing import Any, cast

import lightning as L

from handreid.recipe import Stage
from handreid.recipe.prompts import LearnPrompts
from handreid.training.job import Job
from handreid.training.keeping import Check, Keeper, checkpoint_state
from handreid.training.precision import LIGHTNING, precision_of
from handreid.training.runs import truncate_metrics
from handreid.training.stages.stage import StageModule


def unfinished(job: Job, number: int) -> bool:
    """Whether a stage has epochs left to do; lines of epochs that will be done again are dropped."""
    done = checkpoint_state(job.folder(number))
    if done is not None and done[1]:
        return False
    truncate_metrics(job.run, number, done[0] if done else 0)
    return True


def fit(job: Job, number: int, module: StageModule, check: Check) -> None:
    """Does the epochs of a stage that are left; its files are then in the stage's folder."""
    folder, stage = job.folder(number), job.recipe.stages[number]
    done = checkpoint_state(folder)
    epochs_done = done[0] if done else 0
    total = (stage.epochs - epochs_done) * module.photos_per_epoch
    with job.progress.step(f"{job.recipe.name} {stage.kind}", total, "photos") as advance:
        keeper = Keeper(job.run, number, folder, check, job.progress.say, advance, job.watch)
        trainer = build_trainer(stage, [keeper])
        module.train()
        try:
            with warnings.catch_warnings():
                # how many workers there are is decided; what Lightning does inside is not the user's affair
                warnings.filterwarnings("ignore", message=".*does not have many workers.*")
                warnings.filterwarnings("ignore", message=".*LeafSpec.*")
                warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")  # frozen norms
                trainer.fit(module, ckpt_path=folder / "last.ckpt" if epochs_done else None, weights_only=True)
        except (SystemExit, Exception) as stopped:  # what Lightning, or a file that was being written, makes of Ctrl-C
            if _interrupted(stopped):
                raise KeyboardInterrupt from None
            raise
    job.embedder.to("cpu")


def _interrupted(stopped: BaseException) -> bool:
    """Whether somebody pressed Ctrl-C, and everything since came of that."""
    cause: BaseException | None = stopped
    while cause is not None and not isinstance(cause, KeyboardInterrupt):
        cause = cause.__context__
    return cause is not None


def build_trainer(stage: Stage, callbacks: list[L.Callback]) -> L.Trainer:
    """Lightning's loop as a stage asks for it; nothing is logged or saved but by the callbacks."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    return L.Trainer(
        accelerator="auto",
        devices=1,
        max_epochs=stage.epochs,
        accumulate_grad_batches=1 if isinstance(stage, LearnPrompts) else stage.accumulate,
        gradient_clip_val=stage.clip_gradients,
        precision=cast(Any, LIGHTNING[precision_of(stage)]),
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        reload_dataloaders_every_n_epochs=1,
        use_distributed_sampler=False,
    )
