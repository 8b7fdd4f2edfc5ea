"""Text about identities from a manifest: fills the places of prompt templates, and makes phrases of attributes.

Only what holds for all photos of an identity is used: `{aspect}` is left out for a subject with photos of both.
"""

import re
from collections.abc import Iterable, Sequence

import numpy as np
import polars as pl
from jaxtyping import Int

from handreid.data.captions import first_wordings
from handreid.data.tables import column_called
from handreid.errors import RecipeError

SURFACES = {"dorsal": "back", "palmar": "palm"}
_LEARNED = "context"  # the place of the learned context


def fill_templates(
    templates: Sequence[str], photos: pl.DataFrame, labels: Int[np.ndarray, " photos"]
) -> tuple[list[list[str]], list[str]]:
    """For each template the sentence of each identity (label 0 and on), and notes on what was left out.

    Raises RecipeError for a place that no column of the manifest fills.
    """
    places = dict.fromkeys(name for template in templates for name in re.findall(r"\{(\w+)\}", template))
    by_place = {name: _values(name, photos, labels) for name in places if name != _LEARNED}
    count = int(labels.max()) + 1
    notes = [_left_out(name, values) for name, values in by_place.items() if None in values]
    by_identity = [{name: values[identity] for name, values in by_place.items()} for identity in range(count)]
    filled = [[_tidy(_filled(template, values)) for values in by_identity] for template in templates]
    return filled, notes


def attribute_phrases(columns: Sequence[str], photos: pl.DataFrame, labels: Int[np.ndarray, " photos"]) -> list[str]:
    """For each identity a phrase from these columns, such as `fair skin, male, 27 years old`.

    Empty for an identity without values. Raises RecipeError when the manifest has none of the columns.
    """
    column_of = {name: column for name in columns if (column := column_called(name, photos.columns))}
    if not column_of:
        raise RecipeError(
            f"init by attributes {', '.join(columns)}: the manifest has none of these columns; it has "
            f"{', '.join(photos.columns)}"
        )
    attributes = {name: _agreed(first_wordings(photos[column]).to_list(), labels) for name, column in column_of.items()}
    count = int(labels.max()) + 1
    return [
        ", ".join(_phrase(name, values[label]) for name, values in attributes.items() if values[label] is not None)
        for label in range(count)
    ]


def _values(name: str, photos: pl.DataFrame, labels: Int[np.ndarray, " photos"]) -> list[str | None]:
    if name == "surface":
        return [SURFACES.get(str(value)) for value in _agreed(photos["aspect"].to_list(), labels)]
    column = column_called(name, photos.columns)
    if column is None:
        raise RecipeError(
            f"template place {{{name}}}: the manifest has no such column; use surface or one of its columns, "
            f"{', '.join(photos.columns)}"
        )
    return [
        None if value is None else _plain(value) for value in _agreed(first_wordings(photos[column]).to_list(), labels)
    ]


def _agreed(values: Sequence[object], labels: Int[np.ndarray, " photos"]) -> list[object]:
    """For each label the value that all its photos share; None where they differ or one has none."""
    values_of: dict[int, set[object]] = {label: set() for label in range(int(labels.max()) + 1)}
    for value, label in zip(values, labels.tolist(), strict=True):
        values_of[label].add(value)
    return [next(iter(group)) if len(group) == 1 else None for group in values_of.values()]


def _filled(template: str, values: dict[str, str | None]) -> str:
    return re.sub(r"\{(\w+)\}", lambda place: place[0] if place[1] == _LEARNED else values[place[1]] or "", template)


def _tidy(sentence: str) -> str:
    return re.sub(r"\s+([.,])", r"\1", " ".join(sentence.split()))


def _left_out(name: str, values: Iterable[str | None]) -> str:
    values = list(values)
    return (
        f"{{{name}}} is left out of the prompts of {values.count(None)} of {len(values)} identities, whose photos "
        "differ in it or lack it"
    )


def _phrase(name: str, value: object) -> str:
    noun = name.split("_")[0]
    if noun == "age":
        return f"{_plain(value)} years old"
    if noun == "gender":
        return _plain(value)
    if isinstance(value, bool):
        return noun if value else f"no {noun}"
    return f"{_plain(value)} {noun}"


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).replace("_", " ")


VIEWS = (("dorsal", "right"), ("dorsal", "left"), ("palmar", "right"), ("palmar", "left"))
