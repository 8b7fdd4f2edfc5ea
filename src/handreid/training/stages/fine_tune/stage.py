"""A stage in which the encoder learns: its photos, its objectives, the weights it ends with."""

import copy
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch
from jaxtyping import Int
from torch import Tensor

from handreid.build import build_augment, build_batches, build_mix, build_objectives, enlargement
from handreid.data.sampling import TrainingPhotos
from handreid.data.tables import column_called
from handreid.errors import RecipeError
from handreid.files import write_json
from handreid.metrics.query_scores import score
from handreid.models.embedder import Embedder
from handreid.models.extraction import embed_photos
from handreid.models.lora import add_lora, merge_lora
from handreid.recipe import FineTune, Recipe
from handreid.recipe.samplers import BalancedSampler
from handreid.runs.dataset import Material
from handreid.runs.stage_weights import belongs, checked, noting
from handreid.training.checks import before_stage
from handreid.training.context import Job, labels_of
from handreid.training.epoch_callback import Check, Validate
from handreid.training.parameter_counts import check_learns, count_all, count_parameters, note_parameters
from handreid.training.stages.fine_tune.module import FineTuneModule
from handreid.training.stages.fine_tune.wise_ft import walk
from handreid.training.trainer import fit, unfinished


def check_fine_tune(recipe: Recipe, number: int, embedder: Embedder, material: Material) -> None:
    """Raises what building the stage would."""
    stage, labels = _stage(recipe, number), labels_of(material)
    identities = int(labels.max()) + 1
    texts = torch.zeros(identities, embedder.backbone.widths["joint"])  # stand-ins: they are learned before
    check_learns(stage, embedder, build_objectives(stage, embedder.head, identities, recipe.seed, texts))
    build_augment(stage, embedder.preprocessing)
    build_batches(stage, labels, _groups(material, stage), seed=recipe.seed)(0, 0, 1, None)
    embedder.backbone.freeze(stage.freeze_blocks)
    embedder.backbone.thaw()
    if stage.lora:
        add_lora(copy.deepcopy(embedder.backbone.visual), **stage.lora.model_dump())


def fine_tune(job: Job, number: int, texts: Tensor | None) -> None:
    """Trains what is left of a stage; the embedder ends with the stage's weights, all its layers free again.

    `texts` are those of the identities, in the order of their labels, for objectives that read them.
    """
    stage = _stage(job.recipe, number)
    start = {name: value.clone() for name, value in job.embedder.backbone.state_dict().items()}
    if unfinished(job, number):
        patience = stage.early_stopping.patience if stage.early_stopping else None
        check = Check(_validation(job), stage.validate_every, patience=patience)
        module = fine_tune_module(job, number, texts)
        learning = count_parameters(module.embedder, module.objectives)
        every = count_all(module.embedder, module.objectives)
        note_parameters(job.folder(number), learning, every, job.progress.say)
        before_stage(job, number, module)
        fit(job, number, module, check)
    if stage.wise_ft and not _interpolated(job.folder(number)).exists():
        take_fine_tuned(job.folder(number), stage, job.embedder)
        _interpolate(job, job.folder(number), stage.wise_ft.alphas, start)


def _stage(recipe: Recipe, number: int) -> FineTune:
    stage = recipe.stages[number]
    assert isinstance(stage, FineTune)  # noqa: S101 - for the type checker
    return stage


def fine_tune_module(job: Job, number: int, texts: Tensor | None) -> FineTuneModule:
    """The stage as it begins; it changes the embedder (what is frozen, low-rank changes)."""
    stage = _stage(job.recipe, number)
    photos = _training_photos(job, stage)
    return FineTuneModule(
        job.embedder,
        build_objectives(stage, job.embedder.head, photos.identities, job.recipe.seed, texts),
        stage,
        photos,
        build_batches(stage, photos.labels.numpy(), _groups(job.material, stage), seed=job.seed(number)),
        seed=job.seed(number),
        mix=build_mix(stage),
        # beside a tower on the CPU, a process that augments takes more from it than it brings
        workers=min(8, (os.cpu_count() or 1) - 1) if torch.cuda.is_available() else 0,
    )


def _training_photos(job: Job, stage: FineTune) -> TrainingPhotos:
    rows = job.material.split.train
    photos = job.decoded(rows, enlarge=enlargement(stage))
    augment = build_augment(stage, job.embedder.preprocessing)
    mirror = stage.chirality == "mirror_as_new_identity"
    here, labels, conditions = np.arange(len(rows)), labels_of(job.material), job.conditions(rows)
    return TrainingPhotos(photos, here, labels, augment, mirror=mirror, conditions=conditions)


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
            f"sampler balanced by {', '.join(unknown)}: the manifest does not have this for every training photo; "
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
        split = job.material.split
        return score(embeddings, rows, draws, split.identities, cameras=split.cameras).means()

    return validate


def take_fine_tuned(folder: Path, stage: FineTune, embedder: Embedder) -> None:
    """The stage's weights, as plain ones: what it froze, changed or averaged on the way is over."""
    best = folder / "best.safetensors"
    chosen = best if stage.keep == "best" and belongs(best) else folder / "last.safetensors"
    if stage.wise_ft and belongs(_interpolated(folder)):
        chosen = _interpolated(folder)
    merge_lora(embedder.backbone.visual)
    embedder.load_state_dict(Embedder.load(checked(chosen)).state_dict())
    embedder.eval().backbone.thaw()


def _interpolated(folder: Path) -> Path:
    return folder / "wise_ft.safetensors"


def _interpolate(job: Job, folder: Path, alphas: tuple[float, ...], start: dict[str, Tensor]) -> None:
    """The stage's weights become the best, by validation, on the way from those it began with."""
    rows, size = job.material.split.train, job.recipe.evaluate.batch_size
    photos, conditions = job.decoded(rows), job.conditions(rows)
    curve = walk(job.embedder, start, alphas, photos, _validation(job), conditions=conditions, batch_size=size)
    for line in curve.lines():
        job.progress.say(line)
    write_json(folder / "wise_ft.json", curve.content())
    job.embedder.save(_interpolated(folder), before=noting(_interpolated(folder)))
