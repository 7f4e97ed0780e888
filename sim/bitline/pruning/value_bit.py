"""Value- and bit-level pruning: weights on the grid of their codes, each column's cells within what its ADC reads.

The set is what the certificate asks for: with one scale a column, ``max|w| / (2^(b-1) - 1)``, the levels of every
physical column (row tile, slice, sign) sum to at most ``2^N - 1`` (less where a digit or the readout takes more).
Zeroing a weight (the value level) and lowering or clearing some of its cells (the bit level) are choices of one
projection (:mod:`bitline.pruning.bitlevel`), which clears values where that costs least.

Weights that are codes times a scale come back as the same codes only if the largest code of their column is
``2^(b-1) - 1``, for that is what the quantiser makes of the largest weight. So each column's largest weight is given
that code, and its cells count like any other's. The scale itself is free: after the codes are chosen it is fitted to
the weights by least squares, and the codes are chosen once more. At a given scale the codes' cost is within the stated
bound of the least; that no other scale is better is not claimed. Batch norm folded in later scales whole columns and
changes no code of weights on the grid.

References
----------
Our reading of hierarchical non-structured (value- and bit-level) pruning by ADMM: docs/pruning.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bitline.errors import RangeError
from bitline.pruning.bitlevel import project_levels
from bitline.pruning.layers import weight_from_matrices, weight_matrices
from bitline.pruning.projections import FloatArray, check_matrix

__all__ = ["Grid", "ValueBit"]

_SMALLEST = 1e-30
"""Columns with smaller weights become zeros: float32 does not hold a grid there."""
_ON_GRID = 4 * float(np.finfo(np.float32).eps)
"""Of the largest code: as far off its own code a weight may be through rounding to float32."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Grid:
    """Where the weights of a layer lie, from which the next projection of much the same weights may start."""

    scale: NDArray[np.float64]
    """[shape=(G, N)] Real weight per unit of code."""
    prices: NDArray[np.float64]
    """[shape=(G, N, T, 2, S)] See :func:`~bitline.pruning.bitlevel.project_levels`; changed in place by its use."""


@dataclass(frozen=True)
class ValueBit:
    """Codes times one scale a column, every physical column's levels within a limit.

    Raises
    ------
    RangeError
        A limit that does not hold one full cell, or impossible bits.
    """

    limit: int
    """Largest sum of levels a column may have."""
    rows: int = 128
    """Rows of a crossbar."""
    weight_bits: int = 8
    cell_bits: int = 2

    def __post_init__(self) -> None:
        if self.weight_bits < 2 or self.cell_bits < 1 or self.rows < 1:
            raise RangeError(
                f"weight_bits, cell_bits and rows: must be at least 2, 1 and 1, found {self.weight_bits}, "
                f"{self.cell_bits} and {self.rows}"
            )
        if self.limit < (1 << self.cell_bits) - 1:
            raise RangeError(
                f"ADC limit: must be at least {(1 << self.cell_bits) - 1}, the level of one full cell, "
                f"found {self.limit}"
            )

    @property
    def high(self) -> int:
        """Largest magnitude of a code."""
        return (1 << (self.weight_bits - 1)) - 1

    @property
    def slices(self) -> int:
        """Cells of a magnitude."""
        return -(-(self.weight_bits - 1) // self.cell_bits)

    def project(self, weight: Tensor, groups: int = 1) -> Tensor:
        """See :class:`~bitline.pruning.constraints.ConstraintSet`; as near as the module's page says."""
        return self.fit(weight, groups)[0]

    def fit(self, weight: Tensor, groups: int = 1, grid: Grid | None = None) -> tuple[Tensor, Grid]:
        """Project, and keep what the next projection may start from.

        Parameters
        ----------
        weight : Tensor [shape=(outputs, channels / groups, kernel...)]
        groups : int
        grid : Grid, optional
            Of an earlier projection of much the same weights; some twenty times faster, and a little less near.
        """
        matrices = weight_matrices(weight, groups)
        found, scales, prices = [], [], []
        for group, matrix in enumerate(matrices):
            check_matrix(matrix)
            start = None if grid is None else (grid.scale[group], grid.prices[group])
            values, scale, priced = self._fit(matrix, start)
            found.append(values)
            scales.append(scale)
            prices.append(priced)
        return weight_from_matrices(np.stack(found), weight), Grid(scale=np.stack(scales), prices=np.stack(prices))

    def violation(self, weight: Tensor, groups: int = 1) -> int:
        """Levels beyond the limit, summed over all columns; 0 where the weights' codes fit."""
        matrices = weight_matrices(weight, groups)
        return sum(int(self._excess(self._codes(matrix.astype(np.float64))).sum()) for matrix in matrices)

    def _codes(self, real: NDArray[np.float64]) -> NDArray[np.int64]:
        # The same arithmetic as the quantiser's, which this package does not know.
        unit = np.abs(real).max(axis=0, initial=0.0) / self.high
        return np.rint(real / np.where(unit > 0, unit, 1.0)).astype(np.int64)

    def _excess(self, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Levels beyond the limit, of each column [shape=(N,)]."""
        tiles = np.arange(0, len(codes), self.rows)
        beyond = np.zeros(codes.shape[1], np.int64)
        for sign in (1, -1):
            magnitudes = np.maximum(sign * codes, 0)
            for number in range(self.slices):
                levels = (magnitudes >> (self.cell_bits * number)) & ((1 << self.cell_bits) - 1)
                beyond += np.maximum(np.add.reduceat(levels, tiles, axis=0) - self.limit, 0).sum(axis=0)
        return beyond

    def _fit(
        self, matrix: FloatArray, start: tuple[NDArray[np.float64], NDArray[np.float64]] | None
    ) -> tuple[FloatArray, NDArray[np.float64], NDArray[np.float64]]:
        real = matrix.astype(np.float64)
        top = np.abs(real).max(axis=0, initial=0.0)
        dead = top < _SMALLEST
        real[:, dead] = 0.0
        pinned = np.where(dead, -1, np.abs(real).argmax(axis=0))
        whole = np.where(dead, 1.0, top / self.high)
        scale, prices = (whole, None) if start is None else start
        for _ in range(2 if start is None else 1):
            projected = project_levels(
                real / scale,
                self.rows,
                self.limit,
                cell_bits=self.cell_bits,
                slices=self.slices,
                high=self.high,
                pinned=pinned,
                prices=prices if start is not None else None,
            )
            codes, prices = projected.codes.astype(np.float64), projected.prices
            scale = np.where(dead, scale, (real * codes).sum(axis=0) / np.maximum(np.square(codes).sum(axis=0), 1.0))
        assert prices is not None
        values = (codes * scale).astype(matrix.dtype)
        if start is None:  # what is in the set already stays as it is, to the last bit
            own = self._codes(real)
            inside = (self._excess(own) == 0) & (np.abs(real / whole - own) < _ON_GRID * self.high).all(axis=0) & ~dead
            values[:, inside] = matrix[:, inside]
            scale = np.where(inside, whole, scale)
        return values, scale, prices
