"""What a manifest says of identities, in words: what fills the places of a template, and phrases of attributes.

An identity is only said what is true of all its photos: `{aspect}` of a person whose photos are of both is left out.
"""

import re
from collections.abc import Iterable, Sequence

import numpy as np
import polars as pl
from jaxtyping import Int

from handreid.data.tables import column_called
from handreid.errors import RecipeError

SURFACES = {"dorsal": "back", "palmar": "palm"}
_KEPT = "context"  # filled by what is learned


def fill_templates(
    templates: Sequence[str], photos: pl.DataFrame, labels: Int[np.ndarray, " photos"]
) -> tuple[list[list[str]], list[str]]:
    """For each template the sentence of each identity (label 0 and on), and notes on what was left out.

    Raises RecipeError for a place that no column of the manifest fills.
    """
    places = dict.fromkeys(name for template in templates for name in re.findall(r"\{(\w+)\}", template))
    known = {name: _said(name, photos, labels) for name in places if name != _KEPT}
    count = int(labels.max()) + 1
    notes = [_left_out(name, values) for name, values in known.items() if None in values]
    filled = [
        [_tidy(_filled(template, {name: values[one] for name, values in known.items()})) for one in range(count)]
        for template in templates
    ]
    return filled, notes


def attribute_phrases(columns: Sequence[str], photos: pl.DataFrame, labels: Int[np.ndarray, " photos"]) -> list[str]:
    """For each identity what these columns say of it, such as `fair skin, male, 27 years old`.

    Empty for an identity of which they say nothing. Raises RecipeError when the manifest has none of the columns.
    """
    found = {name: column for name in columns if (column := column_called(name, photos.columns))}
    if not found:
        raise RecipeError(
            f"init by attributes {', '.join(columns)}: the manifest has none of these columns; it has "
            f"{', '.join(photos.columns)}"
        )
    said = {name: _agreed(photos[column].to_list(), labels) for name, column in found.items()}
    count = int(labels.max()) + 1
    return [
        ", ".join(_phrase(name, of[one]) for name, of in said.items() if of[one] is not None) for one in range(count)
    ]


def _said(name: str, photos: pl.DataFrame, labels: Int[np.ndarray, " photos"]) -> list[str | None]:
    if name == "surface":
        return [SURFACES.get(str(value)) for value in _agreed(photos["aspect"].to_list(), labels)]
    column = column_called(name, photos.columns)
    if column is None:
        raise RecipeError(
            f"template place {{{name}}}: the manifest has no such column; use surface or one of its columns, "
            f"{', '.join(photos.columns)}"
        )
    return [None if value is None else _plain(value) for value in _agreed(photos[column].to_list(), labels)]


def _agreed(values: Sequence[object], labels: Int[np.ndarray, " photos"]) -> list[object]:
    """For each label the value of all its photos; None where they differ or one has none."""
    of: dict[int, set[object]] = {label: set() for label in range(int(labels.max()) + 1)}
    for value, label in zip(values, labels.tolist(), strict=True):
        of[label].add(value)
    return [next(iter(found)) if len(found) == 1 else None for found in of.values()]


def _filled(template: str, values: dict[str, str | None]) -> str:
    return re.sub(r"\{(\w+)\}", lambda at: at[0] if at[1] == _KEPT else values[at[1]] or "", template)


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
