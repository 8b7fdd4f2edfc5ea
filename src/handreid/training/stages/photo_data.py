"""What stages that train on photos share: groups of a balanced sampler, validation by identification, workers."""

import os
from collections.abc import Sequence

import numpy as np
import polars as pl
import torch
from jaxtyping import Int

from handreid.data.tables import column_called
from handreid.errors import RecipeError
from handreid.metrics.query_scores import score
from handreid.models.embedder import Embedder
from handreid.models.extraction import embed_photos
from handreid.recipe import FineTune, Pretrain
from handreid.recipe.samplers import BalancedSampler
from handreid.runs.dataset import RunDataset
from handreid.training.context import Job
from handreid.training.epoch_callback import Validate


def groups_of(material: RunDataset, stage: FineTune | Pretrain) -> np.ndarray | None:
    """The groups of a balanced sampler; a mirrored photo is in its original's group. None for other samplers."""
    if not isinstance(stage.sampler, BalancedSampler):
        return None
    numbers = group_numbers(material.manifest.table[material.split.train], stage.sampler.by)
    return np.tile(numbers, 2) if stage.chirality == "mirror_as_new_identity" else numbers


def group_numbers(photos: pl.DataFrame, by: Sequence[str]) -> Int[np.ndarray, " photos"]:
    """A number for every photo, equal for photos equal in all columns. Raises RecipeError for missing values."""
    column_of = {name: column_called(name, photos.columns) for name in by}
    unknown = [name for name, column in column_of.items() if column is None or photos[column].null_count()]
    if unknown:
        raise RecipeError(
            f"sampler balanced by {', '.join(unknown)}: the manifest does not have this for every training photo; "
            f"its columns are {', '.join(photos.columns)}"
        )
    columns = [column for column in column_of.values() if column is not None]
    numbers = np.empty(len(photos), np.int64)
    for number, rows in enumerate(
        photos.with_row_index("row").group_by(columns, maintain_order=True).agg("row")["row"]
    ):
        numbers[rows.to_numpy()] = number
    return numbers


def identification(job: Job) -> Validate:
    """Measures an embedder on the validation draws."""
    draws = job.material.split.validation
    rows = np.unique(np.concatenate([part for draw in draws for part in (draw.gallery, draw.query)]))
    photos, conditions = job.decoded(rows), job.conditions(rows)

    def validate(embedder: Embedder) -> dict[str, float]:
        size = job.recipe.evaluate.batch_size
        embeddings = embed_photos(embedder, photos, conditions=conditions, batch_size=size)
        split = job.material.split
        return score(embeddings, rows, draws, split.identities, cameras=split.cameras).means()

    return validate


def loader_workers() -> int:
    """When the tower runs on the CPU, worker processes cost more than they gain."""
    return min(8, (os.cpu_count() or 1) - 1) if torch.cuda.is_available() else 0
