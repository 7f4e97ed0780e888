"""Euclidean projections of weight matrices onto what crossbars like: the nearest matrix that keeps a constraint.

Pure functions of NumPy arrays. A matrix has one row per word line (in the order channel, kernel row, kernel column) and
one column per output, as everywhere in Bitline. Each projection is exact: no other matrix of the set is closer.

References
----------
Yuan et al., "TinyADC: Peripheral Circuit-aware Weight Pruning Framework for Mixed-signal DNN Accelerators", DATE 2021,
section III.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from bitline.errors import RangeError, ShapeError

__all__ = ["FloatArray", "check_matrix", "count_cp_violations", "largest", "nonzeros_per_column", "project_cp"]

FloatArray = NDArray[np.floating]


def nonzeros_per_column(rate: float, rows: int = 128) -> int:
    """Non-zeros that a CP rate leaves in a column of a row tile, ``l = max(1, floor(rows / rate))``.

    Raises
    ------
    RangeError
        Less than one row, or a rate that is not within ``1 .. rows``.
    """
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < 1:
        raise RangeError(f"rows: must be an integer of at least 1, found {rows!r}")
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 1 <= rate <= rows:
        raise RangeError(f"rate: must be within 1..{rows} (the rows of a crossbar), found {rate!r}")
    return max(1, math.floor(rows / rate))


def project_cp(matrix: FloatArray, rate: float, rows: int = 128) -> FloatArray:
    """The nearest matrix with at most ``l`` non-zeros in every column of every row tile.

    The ``l`` largest magnitudes stay; of equal ones the lowest rows. A last, shorter tile keeps the same ``l``.

    Parameters
    ----------
    matrix : ndarray [shape=(K, N), floating]
        A weight matrix; not changed. Fastest where ``matrix.T`` is contiguous, as a torch weight's matrix is.
    rate : float
        CP rate; ``l`` is :func:`nonzeros_per_column`.
    rows : int, default 128
        Rows of a crossbar, the height of a row tile.

    Returns
    -------
    ndarray [shape=(K, N), same dtype]

    Raises
    ------
    RangeError
        A rate below 1 or above ``rows``, or weights that are not finite.
    ShapeError
        Not a matrix of floating-point numbers.

    References
    ----------
    Yuan et al., TinyADC, 2021, section III-B.
    """
    limit = nonzeros_per_column(rate, rows)
    columns = _columns(matrix)
    projected = np.empty_like(columns)
    whole = columns.shape[1] // rows * rows
    for start, stop, height in ((0, whole, rows), (whole, columns.shape[1], columns.shape[1] - whole)):
        if start == stop:
            continue
        part = columns[:, start:stop]
        if limit >= height:
            projected[:, start:stop] = part
            continue
        keep = largest(np.abs(part).reshape(-1, height), limit)
        # A product with the mask is several times faster than np.where; the weights are finite.
        np.multiply(part, keep.reshape(part.shape), out=projected[:, start:stop])
    projected += columns.dtype.type(0)  # negative zeros, -1 x False, become positive
    return projected.T


def count_cp_violations(matrix: FloatArray, rate: float, rows: int = 128) -> int:
    """Non-zeros beyond the ``l`` allowed, summed over the columns of all row tiles; 0 where the matrix keeps the rate.

    Raises
    ------
    RangeError, ShapeError
        As :func:`project_cp`.
    """
    limit = nonzeros_per_column(rate, rows)
    columns = _columns(matrix)
    if not columns.size:
        return 0
    counts = np.add.reduceat(columns != 0, np.arange(0, columns.shape[1], rows), axis=1, dtype=np.int64)
    return int(np.maximum(counts - limit, 0).sum())


def check_matrix(matrix: FloatArray) -> None:
    """Raise a ShapeError unless this is a matrix of floating-point numbers, a RangeError unless all are finite."""
    if matrix.ndim != 2 or not np.issubdtype(matrix.dtype, np.floating):
        raise ShapeError(
            f"matrix: expected floating-point numbers of shape (K, N), found {matrix.dtype} of shape {matrix.shape}"
        )
    # The largest and the smallest are finite only if all are; this needs no array of booleans.
    if matrix.size and not np.isfinite([matrix.max(), matrix.min()]).all():
        raise RangeError("matrix: weights must be finite, found NaN or infinity")


def _columns(matrix: FloatArray) -> FloatArray:
    """The matrix's columns, each contiguous [shape=(N, K)], checked."""
    check_matrix(matrix)
    return np.ascontiguousarray(matrix.T)


def largest(magnitudes: FloatArray, count: int) -> NDArray[np.bool_]:
    """Mask of the ``count`` largest entries of every line [shape=(lines, entries)]; of equal ones the first.

    Lines with fewer than ``count`` non-zeros also mark zeros, as many as there are: they stay what they are.
    """
    lines, entries = magnitudes.shape
    threshold = np.partition(magnitudes, entries - count, axis=1)[:, entries - count]
    keep: NDArray[np.bool_] = magnitudes >= threshold[:, None]
    # At least `count` reach the threshold in every line; only where more do, equals must be told apart.
    if np.count_nonzero(keep) > lines * count:
        tied = np.flatnonzero((np.count_nonzero(keep, axis=1) > count) & (threshold > 0))
        above = magnitudes[tied] > threshold[tied, None]
        equal = magnitudes[tied] == threshold[tied, None]
        room = count - np.count_nonzero(above, axis=1)
        keep[tied] = above | (equal & (np.cumsum(equal, axis=1) <= room[:, None]))
    return keep
