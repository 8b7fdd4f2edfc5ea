"""Captions of photos: a cell of the manifest's column `caption` holds one or several wordings of it.

Wordings are separated by ` | `. Whoever takes one caption of a photo takes the first; training draws one per epoch.
"""

from collections.abc import Iterable, Sequence

import polars as pl

from handreid.data.draws import hash_key
from handreid.data.manifest import Manifest

SEPARATOR = " | "


def wordings(manifest: Manifest, rows: Sequence[int] | None = None) -> list[tuple[str, ...]]:
    """The wordings of each row's caption, or of those of `rows`; an empty tuple for a row without a caption."""
    cells = manifest.table["caption"]
    return [split_wordings(cell) for cell in (cells if rows is None else cells.gather(list(rows)))]


def draw(choices: Sequence[str], seed: int, epoch: int, row: int | str) -> str:
    """The wording of a photo in an epoch (from 0 on), the same on every machine.

    In every `len(choices)` epochs each wording is drawn once, in a new order. `row` tells the photo from the others:
    its path, with which the draw does not depend on the order of the table, or its number. Raises ValueError without
    wordings.
    """
    if not choices:
        raise ValueError("a photo without a caption has no wording to draw")
    turn, place = divmod(epoch, len(choices))
    order = sorted(range(len(choices)), key=lambda number: hash_key(seed, "wording", turn, f"{row}/{number}"))
    return choices[order[place]]


def first_wordings(column: pl.Series) -> pl.Series:
    """The column `caption` with the first wording of each cell, for whoever takes one; any other column as it is."""
    if column.name != "caption":
        return column
    return pl.Series("caption", [next(iter(split_wordings(cell)), None) for cell in column], dtype=pl.String)


def split_wordings(cell: str | None) -> tuple[str, ...]:
    """The wordings in a cell of the column `caption`."""
    return tuple(part for text in (cell or "").split(SEPARATOR) if (part := text.strip()))


def join_wordings(texts: Iterable[str]) -> str:
    """The cell of these wordings; a bar within one becomes a slash."""
    return SEPARATOR.join(text.replace("|", "/") for text in texts)
