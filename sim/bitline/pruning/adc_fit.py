"""Weights whose columns fit an ADC: not the number of non-zeros is bounded, but what their cells can sum to.

Of every column of a row tile the largest magnitudes stay, as many as keep the levels of each weight slice, summed by
sign, within a limit; and at most so many non-zeros, where a number is given. The largest weight of a column always
stays, so the column's scale, and with it every code, is that of the unpruned weights: removing weights never makes
another column worse. Batch norm that is folded later scales whole columns and changes no code but for ties in rounding
(which is why what is claimed is proven again from the finished network).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitline.errors import RangeError
from bitline.pruning.constraints import _OfMatrices
from bitline.pruning.projections import FloatArray, check_matrix

__all__ = ["AdcFit", "fitting_mask"]


def fitting_mask(
    weights: FloatArray,
    codes: NDArray[np.integer],
    rows: int,
    limit: int,
    *,
    cell_bits: int,
    slices: int,
    most: int | None = None,
) -> NDArray[np.bool_]:
    """Which weights may stay so that no column's levels sum to more than a limit.

    Parameters
    ----------
    weights : ndarray [shape=(K, N), floating]
        Their magnitudes decide which stay; of equal ones the first rows.
    codes : ndarray [shape=(K, N), integer]
        The weights' signed codes.
    rows : int
        Rows of a crossbar.
    limit : int
        Largest sum of one sign's levels in one slice of a column of a row tile.
    cell_bits, slices : int
        How magnitudes of codes are cut into levels.
    most : int, optional
        Most weights that may stay in a column of a row tile.

    Returns
    -------
    ndarray [shape=(K, N), bool]
        True for the ``k`` largest weights of every column of every tile, ``k`` as large as the limit allows.
    """
    keep = np.zeros(codes.shape, np.bool_)
    for start in range(0, codes.shape[0], rows):
        part = codes[start : start + rows].astype(np.int64)
        order = np.argsort(-np.abs(weights[start : start + rows]), axis=0, kind="stable")
        fits = np.ones(part.shape, np.bool_)
        if most is not None:
            fits[most:] = False
        for sign in (1, -1):
            digits = np.take_along_axis(np.maximum(sign * part, 0), order, axis=0)
            for number in range(slices):
                levels = (digits >> (cell_bits * number)) & ((1 << cell_bits) - 1)
                # Sums only grow down the order, so what fits is a prefix.
                fits &= np.cumsum(levels, axis=0) <= limit
        np.put_along_axis(keep[start : start + rows], order, fits, axis=0)
    return keep


@dataclass(frozen=True)
class AdcFit(_OfMatrices):
    """Every column of every row tile fits an ADC at the weights' own codes, with at most so many non-zeros.

    Projecting keeps the largest magnitudes; among sets of that kind it is the nearest.

    Raises
    ------
    RangeError
        A limit that not even one weight of any code fits.
    """

    limit: int
    """Largest sum of levels a column may have."""
    nonzeros: int
    """Most non-zeros of a column of a row tile, ``l``."""
    rows: int = 128
    """Rows of a crossbar."""
    weight_bits: int = 8
    cell_bits: int = 2

    def __post_init__(self) -> None:
        if self.limit < (1 << self.cell_bits) - 1:
            raise RangeError(
                f"ADC limit: must be at least {(1 << self.cell_bits) - 1}, the level of one full cell, "
                f"found {self.limit}"
            )
        if not 1 <= self.nonzeros <= self.rows:
            raise RangeError(f"nonzeros: must be within 1..{self.rows}, found {self.nonzeros}")

    def _project(self, matrix: FloatArray, group: int) -> FloatArray:
        check_matrix(matrix)
        high = (1 << (self.weight_bits - 1)) - 1
        # The same arithmetic as the quantiser's, which this package does not know.
        real = matrix.astype(np.float64)
        unit = np.abs(real).max(axis=0, initial=0.0) / high
        codes = np.rint(real / np.where(unit > 0, unit, 1.0)).astype(np.int32)
        slices = -(-(self.weight_bits - 1) // self.cell_bits)
        keep = fitting_mask(
            real, codes, self.rows, self.limit, cell_bits=self.cell_bits, slices=slices, most=self.nonzeros
        )
        return np.where(keep, matrix, matrix.dtype.type(0))
