"""Which photos are nearest to which, exactly, without a matrix of all pairs.

* The distance is the squared Euclidean one between unit features, 0 to 4. Features are rounded to multiples of 2**-25,
  and each gets two more entries that make a plain matrix product their negative distance in whole numbers under 2**53:
  no block, BLAS or order of the photos can change a bit, a photo is at 0 from itself, and ties are ties.
* The k nearest are all photos no farther than the k-th: a tie at the edge is in, never cut by the order of a folder.
* Equal photos are one photo with a number of copies. A collapsed model, for which all photos are alike, costs nothing.
* Distances are made tile by tile, each pair of blocks once for both its sides; of a tile only those stay that may be
  among the nearest.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array

from handreid.metrics.arrays import exact_unit_vectors

_UNIT = 2.0**25
_TILE = 1024  # 8 MiB of distances, which stay in a processor's cache
_PAIRS = 2**12  # pairs of photos whose features are laid side by side at a time


@dataclass(frozen=True, eq=False)
class Points:
    """Distinct photos, in an order that only their features decide; `of[i]` is the one that photo i is.

    The product of a row of `left` and one of `right` is their negative squared distance times 2**50.
    """

    left: Float[np.ndarray, "point dim_plus_2"]
    right: Float[np.ndarray, "point dim_plus_2"]
    of: Int[np.ndarray, " photo"]
    copies: Int[np.ndarray, " point"]

    def paired_distances(
        self, rows: Int[np.ndarray, " pair"], columns: Int[np.ndarray, " pair"]
    ) -> Float[np.ndarray, " pair"]:
        parts = [slice(start, start + _PAIRS) for start in range(0, len(rows), _PAIRS)]
        found = [np.einsum("ij,ij->i", self.left[rows[part]], self.right[columns[part]]) for part in parts]
        return as_distance(np.concatenate([np.empty(0), *found]))


@dataclass(frozen=True, eq=False)
class Nearest:
    """Rows of points, one after the other: `columns` are the points near to each of `rows`."""

    rows: Int[np.ndarray, " entry"]
    columns: Int[np.ndarray, " entry"]
    nearer: Int[np.ndarray, " entry"]  # how many photos are nearer to the row than the column is
    farthest: Float[np.ndarray, " point"]  # distance of the farthest photo from each point

    def first(self, k: int) -> csr_array:
        """1 where the column is among the k photos nearest to the row, itself being one."""
        chosen = self.nearer < k
        points = len(self.farthest)
        ones = np.ones(np.count_nonzero(chosen), np.int64)
        return csr_array((ones, (self.rows[chosen], self.columns[chosen])), shape=(points, points))


def points_of(query: Float[np.ndarray, "query dim"], gallery: Float[np.ndarray, "gallery dim"]) -> Points:
    """Queries first, then the gallery. Raises `DataError` for a feature that is zero or not finite."""
    units = np.concatenate([exact_unit_vectors(query, "query", _UNIT), exact_unit_vectors(gallery, "gallery", _UNIT)])
    units += 0.0  # -0.0 has other bytes than 0.0
    as_bytes = units.view(np.dtype((np.void, units.shape[1] * units.itemsize)))[:, 0]
    _, chosen, of, copies = np.unique(as_bytes, return_index=True, return_inverse=True, return_counts=True)
    return Points(*factors(units[chosen]), of, copies)


def factors(
    units: Float[np.ndarray, "photo dim"],
) -> tuple[Float[np.ndarray, "photo dim_plus_2"], Float[np.ndarray, "photo dim_plus_2"]]:
    """-|x - y|^2 = [2x, -|x|^2, -1] . [y, 1, |y|^2]."""
    squares = np.square(units).sum(axis=1, keepdims=True)
    ones = np.ones_like(squares)
    return np.concatenate([2 * units, -squares, -ones], axis=1), np.concatenate([units, ones, squares], axis=1)


def as_distance(products: np.ndarray) -> np.ndarray:
    """Products of `left` and `right` as squared distances, 0 to 4."""
    distance: np.ndarray = products * -(_UNIT**-2) + 0.0  # of equal photos 0.0, and not -0.0
    return distance


def nearest(points: Points, k: int, *, block: int = _TILE) -> Nearest:
    """At least the k photos nearest to each point. `block` bounds the memory and changes nothing else."""
    count = len(points.left)
    best = np.full((count, min(k, count)), -np.inf)  # products, which are negative distances; the least comes first
    least = np.zeros(count)
    memory = np.empty(min(block, count) ** 2)
    found = []
    for first in range(0, count, block):
        for second in range(first, count, block):
            ours, theirs = slice(first, min(first + block, count)), slice(second, min(second + block, count))
            shape = (ours.stop - first, theirs.stop - second)
            tile = memory[: shape[0] * shape[1]].reshape(shape)
            np.matmul(points.left[ours], points.right[theirs].T, out=tile)
            for side, rows, columns in ((tile, ours, theirs), (tile.T, theirs, ours))[: 1 + (first != second)]:
                found.append(_shortlist(side, rows, columns, best))
                np.minimum(least[rows], side.min(axis=1), out=least[rows])
    row, column, products = (np.concatenate(parts) for parts in zip(*found, strict=True))
    kept = products >= best[row, 0]
    return _ordered(row[kept], column[kept], products[kept], points.copies, as_distance(least))


def _shortlist(
    tile: Float[np.ndarray, "row column"], rows: slice, columns: slice, best: Float[np.ndarray, "point k"]
) -> tuple[Int[np.ndarray, " entry"], Int[np.ndarray, " entry"], Float[np.ndarray, " entry"]]:
    """What of a tile is not below the k best that its row had; these become the best of the old and the new."""
    k = best.shape[1]
    lowest = best[rows, 0]
    chosen = _at_least(tile, lowest)
    many = np.flatnonzero(np.count_nonzero(chosen, axis=1) > k)
    if len(many):
        crowded = np.ascontiguousarray(tile[many])
        chosen[many] = crowded >= np.partition(crowded, -k, axis=1)[:, -k, None]
    row, column = _where(chosen)
    products = tile[row, column]
    best[rows] = np.partition(np.concatenate([best[rows], _side_by_side(row, products, len(lowest))], axis=1), -k)[
        :, -k:
    ]
    return row + rows.start, column + columns.start, products


def _side_by_side(
    row: Int[np.ndarray, " entry"], values: Float[np.ndarray, " entry"], rows: int
) -> Float[np.ndarray, "row most"]:
    """The values of each row, and -inf where it has fewer than the others."""
    counts = np.bincount(row, minlength=rows)
    order = np.argsort(row, kind="stable")
    place = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    wide = np.full((rows, counts.max()), -np.inf)
    wide[row[order], place] = values[order]
    return wide


def _at_least(tile: Float[np.ndarray, "row column"], lowest: Float[np.ndarray, " row"]) -> np.ndarray:
    """`tile >= lowest[:, None]`, in the memory order of the tile."""
    if tile.flags.c_contiguous:
        return tile >= lowest[:, None]
    chosen = np.empty(tile.shape[::-1], bool)
    for line, into in zip(tile.T, chosen, strict=True):  # at once, NumPy takes ten times as long for this order
        np.greater_equal(line, lowest, out=into)
    return chosen.T


def _where(chosen: np.ndarray) -> tuple[Int[np.ndarray, " entry"], Int[np.ndarray, " entry"]]:
    """Rows and columns of what is true; looked up in the order of the memory, which is ten times as fast."""
    if chosen.flags.c_contiguous:
        row, column = np.divmod(np.flatnonzero(chosen), chosen.shape[1])
        return row, column
    column, row = _where(chosen.T)
    return row, column


def _ordered(
    rows: Int[np.ndarray, " entry"],
    columns: Int[np.ndarray, " entry"],
    products: Float[np.ndarray, " entry"],
    copies: Int[np.ndarray, " point"],
    farthest: Float[np.ndarray, " point"],
) -> Nearest:
    """Counts, for each entry, the photos that are nearer to its row."""
    order = np.lexsort((-products, rows))
    rows, columns, products = rows[order], columns[order], products[order]
    before = np.cumsum(copies[columns]) - copies[columns]
    new_row = np.diff(rows, prepend=-1) != 0
    new_distance = new_row | (np.diff(products, prepend=0.0) != 0)
    return Nearest(rows, columns, _spread(before, new_distance) - _spread(before, new_row), farthest)


def _spread(values: Int[np.ndarray, " entry"], first: Bool[np.ndarray, " entry"]) -> Int[np.ndarray, " entry"]:
    """For every entry the value at the first of its group."""
    starts = np.flatnonzero(first)
    return np.repeat(values[starts], np.diff(starts, append=len(values)))
