"""One stage of a run: its photos, its Lightning trainer, the weights it ends with."""

import copy
import logging
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import lightning as L
import numpy as np
import polars as pl
import torch
from jaxtyping import Int
from torch import Tensor

from handreid.data.loading import decode_all
from handreid.data.sampling import TrainingPhotos
from handreid.data.tables import column_called
from handreid.errors import RecipeError
from handreid.evaluation.extraction import Conditions, Photos, embed_photos
from handreid.evaluation.protocol import score
from handreid.models.embedder import Embedder
from handreid.models.lora import add_lora, merge_lora
from handreid.progress import Progress
from handreid.recipe import FineTune, Recipe
from handreid.recipe.samplers import BalancedSampler
from handreid.training.build import build_augment, build_batches, build_mix, build_objectives, enlargement
from handreid.training.conditions import conditions_of
from handreid.training.counting import check_learns, note_parameters
from handreid.training.keeping import Keeper, Validate, checkpoint_state
from handreid.training.material import Material
from handreid.training.runs import Run, truncate_metrics, write_json
from handreid.training.stages.fine_tune import FineTuneModule
from handreid.training.wise_ft import walk


@dataclass(frozen=True)
class Job:
    """A run that is going on, with the embedder that its stages train one after another."""

    run: Run
    recipe: Recipe
    embedder: Embedder
    material: Material
    progress: Progress

    def decoded(self, rows: np.ndarray, *, enlarge: float = 1.0) -> Photos:
        paths = self.material.manifest.paths()
        return decode_all(
            [paths[row] for row in rows],
            self.embedder.preprocessing,
            enlarge=enlarge,
            cache=self.recipe.data.cache,
            progress=self.progress,
        )

    def conditions(self, rows: np.ndarray) -> Conditions | None:
        return conditions_of(self.embedder, self.material.manifest.table[rows])[0]


def check_stages(recipe: Recipe, embedder: Embedder, material: Material) -> None:
    """Raises what building any of the stages would: before there is a folder, and not after hours of the first."""
    labels = _labels(material)
    for stage in recipe.stages:
        check_learns(stage, embedder, build_objectives(stage, embedder.head, int(labels.max()) + 1, recipe.seed))
        build_augment(stage, embedder.preprocessing)
        build_batches(stage, labels, _groups(material, stage), seed=recipe.seed)(0, 0, 1, None)
        embedder.backbone.freeze(stage.freeze_blocks)
        embedder.backbone.thaw()
        if stage.lora:
            add_lora(copy.deepcopy(embedder.backbone.visual), **stage.lora.model_dump())


def train_stage(job: Job, number: int) -> None:
    """Trains what is left of a stage; the embedder ends with the stage's weights, all its layers free again."""
    stage = job.recipe.stages[number]
    folder = job.run.stage(number, stage.kind)
    folder.mkdir(parents=True, exist_ok=True)
    start = {name: value.clone() for name, value in job.embedder.backbone.state_dict().items()}
    done = checkpoint_state(folder)
    if done is None or not done[1]:
        truncate_metrics(job.run, number, done[0] if done else 0)
        _fit(job, number, stage, epochs_done=done[0] if done else 0)
    _take_result(folder, stage, job.embedder)
    if stage.wise_ft:
        _interpolate(job, folder, stage.wise_ft.alphas, start)


def _fit(job: Job, number: int, stage: FineTune, *, epochs_done: int) -> None:
    folder = job.run.stage(number, stage.kind)
    photos = _training_photos(job, stage)
    module = FineTuneModule(
        job.embedder,
        build_objectives(stage, job.embedder.head, photos.identities, job.recipe.seed),
        stage,
        photos,
        build_batches(stage, photos.labels.numpy(), _groups(job.material, stage), seed=job.recipe.seed * 1000 + number),
        seed=job.recipe.seed * 1000 + number,
        mix=build_mix(stage),
        # beside a tower on the CPU, a process that augments takes more from it than it brings
        workers=min(8, (os.cpu_count() or 1) - 1) if torch.cuda.is_available() else 0,
    )
    note_parameters(folder, module.embedder, module.objectives, job.progress.say)
    total = (stage.epochs - epochs_done) * module.photos_per_epoch
    validate = _validation(job)
    with job.progress.step(f"{job.recipe.name} {stage.kind}", total, "photos") as advance:
        keeper = Keeper(job.run, number, folder, validate, job.progress.say, advance)
        trainer = build_trainer(stage, [keeper], folder)
        module.train()
        try:
            with warnings.catch_warnings():
                # how many workers is decided above; what Lightning does inside is not the user's affair
                warnings.filterwarnings("ignore", message=".*does not have many workers.*")
                warnings.filterwarnings("ignore", message=".*LeafSpec.*")
                warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")  # frozen norms
                trainer.fit(module, ckpt_path=folder / "last.ckpt" if epochs_done else None, weights_only=True)
        except SystemExit as stopped:  # what Lightning makes of Ctrl-C
            if isinstance(stopped.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from None
            raise
    job.embedder.to("cpu")


def build_trainer(stage: FineTune, callbacks: list[L.Callback], folder: Path) -> L.Trainer:
    """Lightning's loop as a stage asks for it; nothing is logged or saved but by the callbacks."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    precision = {"auto": _auto_precision(), "fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}[
        stage.precision
    ]
    return L.Trainer(
        accelerator="auto",
        devices=1,
        max_epochs=stage.epochs,
        accumulate_grad_batches=stage.accumulate,
        gradient_clip_val=stage.clip_gradients,
        precision=cast(Any, precision),
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        reload_dataloaders_every_n_epochs=1,
        use_distributed_sampler=False,
        default_root_dir=folder,
    )


def _auto_precision() -> str:
    return "bf16-mixed" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "32-true"


def _training_photos(job: Job, stage: FineTune) -> TrainingPhotos:
    rows = job.material.split.train
    photos = job.decoded(rows, enlarge=enlargement(stage))
    augment = build_augment(stage, job.embedder.preprocessing)
    mirror = stage.chirality == "mirror_as_new_identity"
    here, labels, conditions = np.arange(len(rows)), _labels(job.material), job.conditions(rows)
    return TrainingPhotos(photos, here, labels, augment, mirror=mirror, conditions=conditions)


def _labels(material: Material) -> Int[np.ndarray, " train"]:
    """A number for the identity of every training photo, in the order of their names."""
    identities = [material.split.identities[row] for row in material.split.train]
    labels: Int[np.ndarray, " train"] = np.unique(identities, return_inverse=True)[1]
    return labels


def _groups(material: Material, stage: FineTune) -> np.ndarray | None:
    """What a balanced sampler balances; a mirrored photo is of its original's group."""
    if not isinstance(stage.sampler, BalancedSampler):
        return None
    numbers = group_numbers(material.manifest.table[material.split.train], stage.sampler.by)
    return np.tile(numbers, 2) if stage.chirality == "mirror_as_new_identity" else numbers


def group_numbers(photos: pl.DataFrame, by: Sequence[str]) -> Int[np.ndarray, " photos"]:
    """A number for every photo, the same for those that agree in all columns. Raises RecipeError for absent values."""
    found = {name: column_called(name, photos.columns) for name in by}
    unknown = [name for name, column in found.items() if column is None or photos[column].null_count()]
    if unknown:
        raise RecipeError(
            f"sampler balanced by {', '.join(unknown)}: the manifest does not give this for every training photo; "
            f"its columns are {', '.join(photos.columns)}"
        )
    columns = [column for column in found.values() if column is not None]
    numbers = np.empty(len(photos), np.int64)
    for number, rows in enumerate(
        photos.with_row_index("row").group_by(columns, maintain_order=True).agg("row")["row"]
    ):
        numbers[rows.to_numpy()] = number
    return numbers


def _validation(job: Job) -> Validate:
    draws = job.material.split.validation
    rows = np.unique(np.concatenate([part for draw in draws for part in (draw.gallery, draw.query)]))
    photos, conditions = job.decoded(rows), job.conditions(rows)

    def validate(embedder: Embedder) -> dict[str, float]:
        size = job.recipe.evaluate.batch_size
        embeddings = embed_photos(embedder, photos, conditions=conditions, batch_size=size)
        return score(embeddings, rows, draws, job.material.split.identities).means()

    return validate


def _take_result(folder: Path, stage: FineTune, embedder: Embedder) -> None:
    """The stage's weights, as plain ones: what it froze, changed or averaged on the way is over."""
    best = folder / "best.safetensors"
    chosen = best if stage.keep == "best" and best.exists() else folder / "last.safetensors"
    merge_lora(embedder.backbone.visual)
    embedder.load_state_dict(Embedder.load(chosen).state_dict())
    embedder.eval().backbone.thaw()


def _interpolate(job: Job, folder: Path, alphas: tuple[float, ...], start: dict[str, Tensor]) -> None:
    """The stage's weights become the best, by validation, on the way from those it began with."""
    result = folder / "wise_ft.safetensors"
    if result.exists():  # done before a later stage was stopped
        job.embedder.load_state_dict(Embedder.load(result).state_dict())
        return
    rows, size = job.material.split.train, job.recipe.evaluate.batch_size
    photos, conditions = job.decoded(rows), job.conditions(rows)
    curve = walk(job.embedder, start, alphas, photos, _validation(job), conditions=conditions, batch_size=size)
    for line in curve.lines():
        job.progress.say(line)
    write_json(folder / "wise_ft.json", curve.content())
    job.embedder.save(result)
