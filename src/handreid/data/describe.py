"""Summary of a manifest as plain values: counts per view, identity and metadata, and of the splits it allows."""

import statistics
from collections import Counter
from typing import Any

import numpy as np
import polars as pl

from handreid.data.manifest import LabelKind, Manifest
from handreid.data.predicted_views import predicted
from handreid.data.protocols import HANDS11K_LAST_TRAIN_ID, view_rows
from handreid.data.splits import Protocol, make_split, natural_protocol
from handreid.errors import DataError

_MOST_VALUES = 20  # a metadata column with more distinct values is described by its range


def describe(manifest: Manifest, *, seed: int = 0, draws: int = 10) -> dict[str, Any]:
    """Counts and hashes, ready for JSON. A protocol that does not fit the data has an `error` instead of counts."""
    table = manifest.table
    return {
        "dataset": manifest.dataset,
        "root": str(manifest.root),
        "hash": manifest.hash,
        "photos": len(manifest),
        "unlabelled": table["subject"].null_count(),
        "subjects": table["subject"].drop_nulls().n_unique(),
        "views": {view: _group(table, np.array(manifest.views) == view) for view in _names(manifest)},
        "predicted": predicted(manifest),
        "photos_per_identity": {kind: _per_identity(manifest.labels(kind)) for kind in manifest.label_kinds},
        "splits": _counts(table["split"]),
        "metadata": {name: _values(table[name]) for name in (*_core(table), *manifest.metadata)},
        "protocols": {protocol: _protocol(manifest, protocol, seed, draws) for protocol in _protocols(manifest)},
        "notes": list(manifest.notes),
    }


def _names(manifest: Manifest) -> list[str]:
    return sorted({view for view in manifest.views if view})


def _group(table: pl.DataFrame, rows: Any) -> dict[str, int]:
    part = table.filter(pl.Series(rows))
    return {"photos": part.height, "subjects": part["subject"].drop_nulls().n_unique()}


def _per_identity(labels: list[str | None]) -> dict[str, int | float]:
    count = list(Counter(label for label in labels if label is not None).values())
    if not count:
        return dict.fromkeys(("identities", "fewest", "median", "most", "with_one_photo"), 0)
    return {
        "identities": len(count),
        "fewest": min(count),
        "median": statistics.median(count),
        "most": max(count),
        "with_one_photo": count.count(1),
    }


def _core(table: pl.DataFrame) -> list[str]:
    return [name for name in ("camera", "session") if table[name].null_count() < table.height]


def _values(column: pl.Series) -> dict[str, Any]:
    if column.n_unique() <= _MOST_VALUES:
        return {"counts": _counts(column)}
    summary: dict[str, Any] = {"distinct": column.n_unique(), "missing": column.null_count()}
    if column.dtype.is_numeric():
        summary |= {"lowest": column.min(), "highest": column.max()}
    return summary


def _counts(column: pl.Series) -> dict[str, int]:
    """Rows per value, most frequent first; equal counts by name."""
    counts = Counter("missing" if value is None else str(value) for value in column)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _protocols(manifest: Manifest) -> list[Protocol]:
    return list(dict.fromkeys([natural_protocol(manifest), "disjoint"]))


def _protocol(manifest: Manifest, protocol: Protocol, seed: int, draws: int) -> dict[str, Any]:
    """Counts of the pooled split under `pooled`; for 11k Hands also of every view, as in the papers. A split that no
    recipe can be trained on, because its validation could not choose a model, is counted too, with a note.
    """
    names = _names(manifest)
    views = [None, *(view for view in HANDS11K_LAST_TRAIN_ID if view in names)] if protocol == "hands11k" else [None]
    label = manifest.label_kinds[-1]
    return {view or "pooled": _split_counts(manifest, protocol, view, label, seed, draws) for view in views}


def _split_counts(
    manifest: Manifest, protocol: Protocol, view: str | None, label: LabelKind, seed: int, draws: int
) -> dict[str, Any]:
    try:
        split = make_split(manifest, protocol=protocol, view=view, label=label, seed=seed, draws=draws, trains=False)
    except DataError as error:
        return {"error": str(error)}
    in_view = view_rows(manifest, view)
    train = [row for row in (*split.train, *split.validation_rows) if in_view[row]]
    draw = split.test[0]
    queried = {split.identities[row] for row in draw.query}
    distractor = (manifest.table["split"] == "distractor").fill_null(value=False)
    tested = [row for row in (*draw.query, *draw.gallery) if in_view[row] and not distractor[int(row)]]
    return {
        "label": label,
        "train_identities": len({split.identities[row] for row in train}),
        "train_photos": len(train),
        "test_identities": len({split.identities[row] for row in tested}),
        "test_photos": len(set(tested)),
        "test_identities_with_queries": len(queried),
        "draws": len(split.test),
        "queries": len(draw.query),
        "gallery": len(draw.gallery),
        "split_hash": split.hash,
        "draws_hash": split.draws_hash,
        "notes": list(split.notes),
    }
