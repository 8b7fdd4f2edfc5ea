"""Input of the prototype graph: number of training identities, and their attributes from the manifest.

* Only training photos are used. The graph gets nothing about test photos, whatever the manifest has.
* Numbers become words: ages are young (under 30), adult (under 60) or older; nail polish is painted or bare.
"""

from collections.abc import Callable

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor

from handreid.data.captions import first_wordings
from handreid.data.tables import column_called
from handreid.errors import RecipeError
from handreid.models.embedder import Embedder
from handreid.models.promptsg_head import SemanticHead
from handreid.models.pseudo_words import sentence_feature
from handreid.recipe import Recipe
from handreid.recipe.model import PromptSgGraph
from handreid.runs.dataset import RunDataset

MOST = 12  # distinct values of a column; with more it is not used as an attribute
AGES = ((30, "young"), (60, "adult"))
Attribute = tuple[str, str]  # column and phrase


def attach_prototypes(embedder: Embedder, recipe: Recipe, material: RunDataset) -> list[str]:
    """Sets identities and attributes of a head with prototypes; does nothing for any other head. Returns the phrases
    of the attributes.

    Raises RecipeError when the recipe uses attributes and the manifest has none.
    """
    settings, head = recipe.model.head, embedder.head
    if not isinstance(settings, PromptSgGraph) or not isinstance(head, SemanticHead) or head.graph is None:
        return []
    identities = [material.split.identities[row] for row in material.split.train]
    labels = np.unique(identities, return_inverse=True)[1]
    photos = material.manifest.table[material.split.train]
    if any(stage.chirality == "mirror_as_new_identity" for _, stage in recipe.fine_tunes):
        photos, labels = mirrored(photos, labels)
    head.set_identities(int(labels.max()) + 1)
    if settings.edges == "attributes" and head.words is not None:
        attributes, shares = attributes_of(photos, labels, settings.phrases)
        phrases = [phrase for _, phrase in attributes]
        head.graph.describe(attributes, sentence_feature(head.words.text.tower, phrases), shares)
        return phrases
    return []


def attributes_of(
    photos: pl.DataFrame, labels: Int[np.ndarray, " photos"], phrases: dict[str, str]
) -> tuple[list[Attribute], Float[Tensor, "identities attributes"]]:
    """Attributes of the columns in the manifest, by column, and the share of each identity's photos with each.

    Shares are of the photos with a value in the column. Raises RecipeError when there is no such column.
    """
    attributes: list[Attribute] = []
    shares = []
    counts = np.bincount(labels)
    for name, phrase in phrases.items():
        column = column_called(name, photos.columns)
        words = None if column is None else attribute_values(first_wordings(photos[column]), name)
        if words is None or words.null_count() == len(words):
            continue
        with_value = np.bincount(labels[words.is_not_null().to_numpy()], minlength=len(counts))
        for value in words.drop_nulls().unique().sort():
            having = np.bincount(labels[(words == value).fill_null(value=False).to_numpy()], minlength=len(counts))
            attributes.append((name, phrase.format(value=value)))
            shares.append(having / np.maximum(with_value, 1))
    if not attributes:
        raise RecipeError(
            f"model.head.edges is attributes, but the manifest has no values of {', '.join(phrases)}; its columns are "
            f"{', '.join(photos.columns)}: name them in model.head.phrases, or use edges: identity"
        )
    return attributes, torch.from_numpy(np.stack(shares, axis=1)).float()


def attribute_values(values: pl.Series, name: str) -> pl.Series | None:
    """The values as words for a phrase; None for a column without values, or with more than `MOST` distinct ones."""
    if name == "age" and values.dtype.is_numeric():
        return _as_words(values, _age)
    if name == "nail_polish" and (values.dtype.is_numeric() or values.dtype == pl.Boolean):
        return _as_words(values, lambda flag: "painted" if flag else "bare")
    words = values.cast(pl.String).str.strip_chars()
    return words if 1 <= words.drop_nulls().n_unique() <= MOST else None


def mirrored(photos: pl.DataFrame, labels: Int[np.ndarray, " photos"]) -> tuple[pl.DataFrame, Int[np.ndarray, " both"]]:
    """Photos, then their mirror images as further identities, with left and right exchanged."""
    turned = photos.with_columns(pl.col("side").replace({"left": "right", "right": "left"}))
    return pl.concat([photos, turned]), np.concatenate([labels, labels + labels.max() + 1])


def _as_words(values: pl.Series, word: Callable[[float], str]) -> pl.Series:
    return pl.Series([None if value is None else word(float(value)) for value in values], dtype=pl.String)


def _age(years: float) -> str:
    return next((word for limit, word in AGES if years < limit), "older")
