"""Projections that remove whole rows or columns of a weight matrix, and the unstructured reference.

Pure functions of NumPy arrays, exact as those of :mod:`bitline.pruning.projections`. Squares are summed in float64; of
equal sums the lower row or column stays.

References
----------
Yuan et al., "TinyADC", DATE 2021, section III (filter and filter-shape pruning in crossbar multiples).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from bitline.errors import RangeError
from bitline.pruning.projections import FloatArray, check_matrix, largest

__all__ = [
    "kept_multiple",
    "largest_columns",
    "largest_rows",
    "project_filter",
    "project_filter_shape",
    "project_unstructured",
]


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


def _largest_sums(sums: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    order = np.argsort(-sums, kind="stable")
    return np.sort(order[:count])
