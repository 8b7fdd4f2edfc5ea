"""Exact k nearest neighbours without a matrix of all pairs.

* The distance is the squared Euclidean one between unit features, 0 to 4. Features are rounded to multiples of 2**-25,
  and each gets two more entries so that a plain matrix product is their negative distance in whole numbers under 2**53:
  no block, BLAS or order of the photos can change a bit, a photo is at distance 0 from itself, and ties are exact.
* The k nearest are all photos no farther than the k-th: photos tied with it are all included, whatever their order.
* Equal photos are one point with a number of copies. A collapsed model, for which all photos are equal, is cheap.
* Distances are computed tile by tile, each pair of blocks once for both directions; of a tile only the entries that
  may be among the nearest are stored.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array

from handreid.metrics.arrays import exact_unit_vectors

_UNIT = 2.0**25
_TILE = 1024  # 8 MiB of distances, which stay in a processor's cache
_PAIRS = 2**12  # pairs of photos whose features are gathered at a time


@dataclass(frozen=True, eq=False)
class Points:
    """Distinct photos, in an order that depends on their features only; photo i is the point `inverse[i]`.

    The product of a row of `left` and one of `right` is their negative squared distance times 2**50.
    """

    left: Float[np.ndarray, "point dim_plus_2"]
    right: Float[np.ndarray, "point dim_plus_2"]
    inverse: Int[np.ndarray, " photo"]
    copies: Int[np.ndarray, " point"]

    def paired_distances(
        self, rows: Int[np.ndarray, " pair"], columns: Int[np.ndarray, " pair"]
    ) -> Float[np.ndarray, " pair"]:
        parts = [slice(start, start + _PAIRS) for start in range(0, len(rows), _PAIRS)]
        products = [np.einsum("ij,ij->i", self.left[rows[part]], self.right[columns[part]]) for part in parts]
        return as_distance(np.concatenate([np.empty(0), *products]))


@dataclass(frozen=True, eq=False)
class Nearest:
    """Entries of a sparse matrix, row by row: point `columns[i]` is near point `rows[i]`."""

    rows: Int[np.ndarray, " entry"]
    columns: Int[np.ndarray, " entry"]
    nearer: Int[np.ndarray, " entry"]  # how many photos are nearer to the row's point than the column's is
    farthest: Float[np.ndarray, " point"]  # distance of the farthest photo from each point

    def first(self, k: int) -> csr_array:
        """1 where the column is among the k photos nearest to the row, the row itself included."""
        near = self.nearer < k
        points = len(self.farthest)
        ones = np.ones(np.count_nonzero(near), np.int64)
        return csr_array((ones, (self.rows[near], self.columns[near])), shape=(points, points))


def points_of(query: Float[np.ndarray, "query dim"], gallery: Float[np.ndarray, "gallery dim"]) -> Points:
    """Queries first, then the gallery. Raises `DataError` for a feature that is zero or not finite."""
    units = np.concatenate([exact_unit_vectors(query, "query", _UNIT), exact_unit_vectors(gallery, "gallery", _UNIT)])
    units += 0.0  # -0.0 has other bytes than 0.0
    as_bytes = units.view(np.dtype((np.void, units.shape[1] * units.itemsize)))[:, 0]
    _, distinct, inverse, copies = np.unique(as_bytes, return_index=True, return_inverse=True, return_counts=True)
    return Points(*factors(units[distinct]), inverse, copies)


def factors(
    units: Float[np.ndarray, "photo dim"],
) -> tuple[Float[np.ndarray, "photo dim_plus_2"], Float[np.ndarray, "photo dim_plus_2"]]:
    """-|x - y|^2 = [2x, -|x|^2, -1] . [y, 1, |y|^2]."""
    squares = np.square(units).sum(axis=1, keepdims=True)
    ones = np.ones_like(squares)
    return np.concatenate([2 * units, -squares, -ones], axis=1), np.concatenate([units, ones, squares], axis=1)


def as_distance(products: np.ndarray) -> np.ndarray:
    """Products of `left` and `right` as squared distances, 0 to 4."""
    distance: np.ndarray = products * -(_UNIT**-2) + 0.0  # + 0.0: equal photos get 0.0, not -0.0
    return distance


def nearest(points: Points, k: int, *, block: int = _TILE) -> Nearest:
    """At least the k photos nearest to each point. `block` bounds the memory and does not change the result."""
    count = len(points.left)
    best = np.full((count, min(k, count)), -np.inf)  # products (negative distances); the smallest is in column 0
    least = np.zeros(count)
    memory = np.empty(min(block, count) ** 2)
    entries = []
    for row_start in range(0, count, block):
        for column_start in range(row_start, count, block):
            row_block, column_block = (
                slice(row_start, min(row_start + block, count)),
                slice(column_start, min(column_start + block, count)),
            )
            shape = (row_block.stop - row_start, column_block.stop - column_start)
            tile = memory[: shape[0] * shape[1]].reshape(shape)
            np.matmul(points.left[row_block], points.right[column_block].T, out=tile)
            for side, rows, columns in ((tile, row_block, column_block), (tile.T, column_block, row_block))[
                : 1 + (row_start != column_start)
            ]:
                entries.append(_shortlist(side, rows, columns, best))
                np.minimum(least[rows], side.min(axis=1), out=least[rows])
    row, column, products = (np.concatenate(parts) for parts in zip(*entries, strict=True))
    near = products >= best[row, 0]
    return _ordered(row[near], column[near], products[near], points.copies, as_distance(least))


def _shortlist(
    tile: Float[np.ndarray, "row column"], rows: slice, columns: slice, best: Float[np.ndarray, "point k"]
) -> tuple[Int[np.ndarray, " entry"], Int[np.ndarray, " entry"], Float[np.ndarray, " entry"]]:
    """The entries of a tile not below the k best of their row so far; `best` is updated in place with them."""
    k = best.shape[1]
    lowest = best[rows, 0]
    near = _at_least(tile, lowest)
    many = np.flatnonzero(np.count_nonzero(near, axis=1) > k)
    if len(many):
        crowded = np.ascontiguousarray(tile[many])
        near[many] = crowded >= np.partition(crowded, -k, axis=1)[:, -k, None]
    row, column = _where(near)
    products = tile[row, column]
    best[rows] = np.partition(np.concatenate([best[rows], _side_by_side(row, products, len(lowest))], axis=1), -k)[
        :, -k:
    ]
    return row + rows.start, column + columns.start, products


def _side_by_side(
    row: Int[np.ndarray, " entry"], values: Float[np.ndarray, " entry"], rows: int
) -> Float[np.ndarray, "row most"]:
    """The values of each row, padded with -inf to the length of the longest."""
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
    mask = np.empty(tile.shape[::-1], bool)
    for line, into in zip(tile.T, mask, strict=True):  # one comparison of the whole is ten times slower in this order
        np.greater_equal(line, lowest, out=into)
    return mask.T


def _where(mask: np.ndarray) -> tuple[Int[np.ndarray, " entry"], Int[np.ndarray, " entry"]]:
    """Rows and columns of the true entries; searched in memory order, which is ten times faster."""
    if mask.flags.c_contiguous:
        row, column = np.divmod(np.flatnonzero(mask), mask.shape[1])
        return row, column
    column, row = _where(mask.T)
    return row, column


def _ordered(
    rows: Int[np.ndarray, " entry"],
    columns: Int[np.ndarray, " entry"],
    products: Float[np.ndarray, " entry"],
    copies: Int[np.ndarray, " point"],
    farthest: Float[np.ndarray, " point"],
) -> Nearest:
    """Sorts entries by row and distance, and counts for each the photos that are nearer to its row."""
    order = np.lexsort((-products, rows))
    rows, columns, products = rows[order], columns[order], products[order]
    before = np.cumsum(copies[columns]) - copies[columns]
    new_row = np.diff(rows, prepend=-1) != 0
    new_distance = new_row | (np.diff(products, prepend=0.0) != 0)
    return Nearest(rows, columns, _spread(before, new_distance) - _spread(before, new_row), farthest)


def _spread(values: Int[np.ndarray, " entry"], is_first: Bool[np.ndarray, " entry"]) -> Int[np.ndarray, " entry"]:
    """For every entry the value at the first entry of its group."""
    starts = np.flatnonzero(is_first)
    return np.repeat(values[starts], np.diff(starts, append=len(values)))
