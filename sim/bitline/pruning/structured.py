"""Projections that remove whole rows or columns of a weight matrix, or of blocks of it, and the unstructured reference.

Pure functions of NumPy arrays, exact as those of :mod:`bitline.pruning.projections`. Squares are summed in float64; of
equal sums the lower row or column stays.

References
----------
Yuan et al., "TinyADC", DATE 2021, section III (filter and filter-shape pruning in crossbar multiples).
Niu et al., "GRIM", IEEE TPAMI 2021 (block-based column-row pruning).
"""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from bitline.errors import RangeError
from bitline.pruning.projections import FloatArray, check_matrix, largest

__all__ = [
    "MOST_CHOICES",
    "kept_multiple",
    "largest_columns",
    "largest_rows",
    "project_bcr",
    "project_filter",
    "project_filter_shape",
    "project_unstructured",
]

MOST_CHOICES = 1 << 16
"""Most ways of choosing a block's rows (or columns) that are tried."""

_AT_ONCE = 1 << 22


def kept_multiple(size: int, rate: float, multiple: int) -> int:
    """How many of ``size`` rows or columns stay: the fewest whole multiples that are at least ``size / rate``.

    Only whole multiples free crossbars; rounding up never prunes more than was asked. A size that is itself no
    multiple may stay whole.

    Raises
    ------
    RangeError
        A rate below 1, or a multiple below 1.
    """
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not (math.isfinite(rate) and rate >= 1):
        raise RangeError(f"rate: must be finite and at least 1, found {rate!r}")
    if isinstance(multiple, bool) or not isinstance(multiple, int) or multiple < 1:
        raise RangeError(f"multiple: must be an integer of at least 1, found {multiple!r}")
    return min(size, multiple * math.ceil(size / rate / multiple))


def largest_rows(matrix: FloatArray, count: int) -> NDArray[np.intp]:
    """The ``count`` rows with the largest sums of squares, in ascending order."""
    return _largest_sums(np.square(matrix, dtype=np.float64).sum(axis=1), count)


def largest_columns(matrix: FloatArray, count: int) -> NDArray[np.intp]:
    """The ``count`` columns with the largest sums of squares, in ascending order."""
    return _largest_sums(np.square(matrix, dtype=np.float64).sum(axis=0), count)


def project_filter(matrix: FloatArray, rate: float, multiple: int = 1) -> FloatArray:
    """The nearest matrix with at most :func:`kept_multiple` columns (filters) that are not zero.

    Parameters
    ----------
    matrix : ndarray [shape=(K, N), floating]
    rate : float
        Columns over columns kept, before rounding to the multiple.
    multiple : int
        Outputs a crossbar holds: its columns / (slices x signs).

    Raises
    ------
    RangeError, ShapeError
        A rate or multiple below 1; weights that are not finite, or no matrix.
    """
    check_matrix(matrix)
    kept = largest_columns(matrix, kept_multiple(matrix.shape[1], rate, multiple))
    projected = np.zeros_like(matrix)
    projected[:, kept] = matrix[:, kept]
    return projected


def project_filter_shape(matrix: FloatArray, rate: float, rows: int = 128) -> FloatArray:
    """The nearest matrix with at most :func:`kept_multiple` rows (filter shapes) that are not zero.

    Parameters
    ----------
    matrix : ndarray [shape=(K, N), floating]
    rate : float
        Rows over rows kept, before rounding to the multiple.
    rows : int
        Rows of a crossbar, the multiple.

    Raises
    ------
    RangeError, ShapeError
        A rate or multiple below 1; weights that are not finite, or no matrix.
    """
    check_matrix(matrix)
    kept = largest_rows(matrix, kept_multiple(matrix.shape[0], rate, rows))
    projected = np.zeros_like(matrix)
    projected[kept] = matrix[kept]
    return projected


def project_unstructured(matrix: FloatArray, rate: float) -> FloatArray:
    """The nearest matrix with at most ``max(1, floor(K N / rate))`` non-zeros, wherever they are.

    It saves no hardware: it is the reference for what a structure costs. Of equal magnitudes those of the first columns
    stay, in a column the first rows.

    Raises
    ------
    RangeError, ShapeError
        A rate below 1 or above the weights there are; weights that are not finite, or no matrix.
    """
    check_matrix(matrix)
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 1 <= rate <= max(1, matrix.size):
        raise RangeError(f"rate: must be within 1..{matrix.size} (the layer's weights), found {rate!r}")
    if not matrix.size:
        return matrix.copy()
    columns = np.ascontiguousarray(matrix.T)
    keep = largest(np.abs(columns).reshape(1, -1), max(1, math.floor(matrix.size / rate)))
    return (columns * keep.reshape(columns.shape) + columns.dtype.type(0)).T


def project_bcr(matrix: FloatArray, block: tuple[int, int], kept: tuple[int, int]) -> FloatArray:
    """The nearest matrix whose every block has at most so many rows, and so many columns, that are not zero.

    Blocks are cut from the first row and column on; shorter ones at the edges keep the same numbers. Which rows go
    depends on which columns go, so every choice of the side with fewer choices is tried.

    Parameters
    ----------
    matrix : ndarray [shape=(K, N), floating]
    block : (int, int)
        Rows and columns of a block.
    kept : (int, int)
        Rows and columns that stay in each.

    Raises
    ------
    RangeError
        Numbers below 1, more kept than there are, or blocks with more than :data:`MOST_CHOICES` choices;
        weights that are not finite.
    ShapeError
        Not a matrix of floating-point numbers.
    """
    check_matrix(matrix)
    for side, size, stay in zip(("rows", "columns"), block, kept, strict=True):
        if not 1 <= stay <= size:
            raise RangeError(f"block {side}: kept must be within 1..{size}, found {stay}")
    choices = min(math.comb(size, stay) for size, stay in zip(block, kept, strict=True))
    if choices > MOST_CHOICES:
        raise RangeError(
            f"block: {choices} choices of rows or columns, expected at most {MOST_CHOICES}; use smaller blocks"
        )
    projected = np.zeros_like(matrix)
    for top in range(0, matrix.shape[0], block[0]):
        for left in range(0, matrix.shape[1], block[1]):
            part = matrix[top : top + block[0], left : left + block[1]]
            rows, columns = _best_block(np.square(part, dtype=np.float64), kept)
            picked = np.ix_(top + rows, left + columns)
            projected[picked] = matrix[picked]
    return projected


def _best_block(squares: NDArray[np.float64], kept: tuple[int, int]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns whose crossings have the largest sum."""
    counts = [min(stay, size) for stay, size in zip(kept, squares.shape, strict=True)]
    choices = [math.comb(size, count) for size, count in zip(squares.shape, counts, strict=True)]
    if choices[0] > choices[1]:
        columns, rows = _best_block(squares.T, (kept[1], kept[0]))
        return rows, columns
    subsets = np.array(list(combinations(range(squares.shape[0]), counts[0])), np.intp)
    best, best_sum = 0, -1.0
    at_once = max(1, _AT_ONCE // max(1, squares.shape[1] * counts[0]))
    for start in range(0, len(subsets), at_once):
        sums = squares[subsets[start : start + at_once]].sum(axis=1)
        totals = np.partition(sums, sums.shape[1] - counts[1], axis=1)[:, sums.shape[1] - counts[1] :].sum(axis=1)
        at = int(totals.argmax())
        if totals[at] > best_sum:
            best, best_sum = start + at, float(totals[at])
    rows = subsets[best]
    return rows, _largest_sums(squares[rows].sum(axis=0), counts[1])


def _largest_sums(sums: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    order = np.argsort(-sums, kind="stable")
    return np.sort(order[:count])
