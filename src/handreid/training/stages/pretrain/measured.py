"""The numbers that the term `measurements` predicts, from columns of the manifest."""

from collections.abc import Sequence

import numpy as np
import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from handreid import messages
from handreid.data.tables import column_called
from handreid.errors import RecipeError


def measured_numbers(photos: pl.DataFrame, columns: Sequence[str]) -> Float[Tensor, "photos numbers"]:
    """The numbers of each photo, each scaled to mean 0 and variance 1 over the photos; those that are the same on all
    photos are left out. Raises RecipeError for a column that is missing, empty or no numbers.
    """
    parts = [_numbers(photos, name) for name in columns]
    values = np.concatenate(parts, axis=1)
    deviations = values.std(axis=0)
    varying = deviations > 1e-9 * np.abs(values).max(axis=0, initial=0)
    if not varying.any():
        raise RecipeError(f"measurements: {', '.join(columns)} is the same for all {len(photos):,} training photos")
    scaled = (values[:, varying] - values[:, varying].mean(axis=0)) / deviations[varying]
    return torch.from_numpy(scaled.astype(np.float32))


def _numbers(photos: pl.DataFrame, name: str) -> Float[np.ndarray, "photos numbers"]:
    column = column_called(name, photos.columns)
    if column is None:
        raise RecipeError(
            f"measurements reads the column {messages.shown(name)}, but the manifest has {', '.join(photos.columns)}; "
            "rendered hands have `anatomy`"
        )
    words = photos[column].cast(pl.String).fill_null("").str.split(" ")
    values = words.list.eval(pl.element().cast(pl.Float64, strict=False))
    counts = values.list.len()
    whole = values.list.eval(pl.element().is_finite().fill_null(False)).list.all() & (counts == counts[0])
    if not whole.all():
        row = int((~whole).arg_max() or 0)
        raise RecipeError(
            f"measurements needs {counts[0]} finite number(s) in {messages.shown(name)} for every training photo, but "
            f"{photos['path'][row]} has {messages.shown(str(photos[column][row]), 60)}"
        )
    return np.array(values.to_list(), dtype=np.float64)
