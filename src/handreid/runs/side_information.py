"""Side information: from the columns of a manifest to the conditions that the embedder takes beside the pixels.

* Values are compared as text, so that a column of numbers in one manifest equals a column of text in another.
* Training needs the columns. At test, a manifest without them is treated like unseen values (the mean), with a note.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl
from jaxtyping import Int

from handreid.data.tables import column_called, format_list
from handreid.errors import RecipeError
from handreid.models.embedder import Embedder
from handreid.models.extraction import Conditions
from handreid.models.side_information import UNKNOWN, Values, combinations_of
from handreid.recipe import Recipe
from handreid.runs.dataset import RunDataset

Combinations = tuple[tuple[str, ...], ...]


def seen_combinations(recipe: Recipe, material: RunDataset) -> Combinations | None:
    """Combinations of side information in the training photos; None if the recipe uses none.

    Raises RecipeError if the manifest lacks a column, or if each combination occurs with one subject only.
    """
    if recipe.model.side_information is None:
        return None
    columns = recipe.model.side_information.columns
    photos = material.manifest.table[material.split.train]
    by_column = {name: _values(photos, name) for name in columns}
    absent = [name for name, values in by_column.items() if values is None]
    if absent:
        filled = [name for name in photos.columns if photos[name].null_count() < len(photos)]
        raise RecipeError(
            f"model.side_information: the manifest has no {' and no '.join(absent)} of the training photos; "
            f"its columns with values are {', '.join(filled)}"
        )
    values = [values for values in by_column.values() if values is not None]
    combinations = combinations_of(values)
    if not combinations:
        raise RecipeError(f"model.side_information: no training photo has a value of each of {', '.join(columns)}")
    _check_not_identifying(columns, values, photos["subject"].to_list())
    return combinations


def side_information_of(embedder: Embedder, photos: pl.DataFrame) -> tuple[Conditions | None, list[str]]:
    """The conditions of these photos, None if the embedder takes none, and notes on unknown values."""
    side = embedder.backbone.side_information
    if side is None:
        return None, []
    by_column = {name: _values(photos, name) for name in side.columns}
    conditions = side.look_up([values or [None] * len(photos) for values in by_column.values()])
    return conditions, _notes({name for name, values in by_column.items() if values is None}, conditions)


def _notes(absent: set[str], conditions: Int[np.ndarray, " photos"]) -> list[str]:
    unknown = int((conditions == UNKNOWN).sum())
    if not unknown:
        return []
    why = f"the manifest gives no {' and no '.join(sorted(absent))}" if absent else "their values did not train"
    return [f"side information: {unknown:,} of {len(conditions):,} photos get the mean, as {why}"]


def _values(photos: pl.DataFrame, name: str) -> Values | None:
    """The values of a column as text, None for empty text; None if there is no column, or no value in it."""
    column = column_called(name, photos.columns)
    if column is None:
        return None
    values = photos[column].cast(pl.String).replace("", None)
    return values.to_list() if values.null_count() < len(values) else None


def _check_not_identifying(columns: Sequence[str], values: Sequence[Values], subjects: Sequence[str]) -> None:
    people: dict[tuple[str | None, ...], set[str]] = {}
    for photo, subject in zip(zip(*values, strict=True), subjects, strict=True):
        if None not in photo:
            people.setdefault(photo, set()).add(subject)
    if all(len(group) == 1 for group in people.values()):
        examples = format_list(("/".join(map(str, photo)) for photo in sorted(people, key=str)), 3)
        raise RecipeError(
            f"model.side_information: each value of {' and '.join(columns)} ({examples}) occurs with one person "
            "only, so it would reveal who is on a photo: use columns about how it was taken, such as camera"
        )
