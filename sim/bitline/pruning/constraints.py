"""Constraint sets: what a pruned layer's weights must look like, each with its exact projection."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from bitline.errors import RangeError, ShapeError
from bitline.pruning.blocks import project_bcr
from bitline.pruning.layers import PrunableLayer, weight_from_matrices, weight_matrices
from bitline.pruning.projections import FloatArray, count_cp_violations, nonzeros_per_column, project_cp
from bitline.pruning.structured import (
    kept_multiple,
    largest_columns,
    largest_rows,
    project_filter,
    project_filter_shape,
    project_unstructured,
)

__all__ = [
    "BlockColumnRow",
    "ColumnProportional",
    "ConstraintSet",
    "Filter",
    "FilterShape",
    "PackedColumnProportional",
    "Unstructured",
    "combined",
    "one_each",
    "project_layers",
    "relative_distance",
    "violations",
]


class ConstraintSet(Protocol):
    """A set of weights with an exact Euclidean projection."""

    def project(self, weight: Tensor, groups: int = 1) -> Tensor:
        """The nearest weights of the set, a new tensor.

        Parameters
        ----------
        weight : Tensor [shape=(outputs, channels / groups, kernel...)]
            Of a convolution or linear layer.
        groups : int
            Groups of the convolution; each is a weight matrix of its own.
        """

    def violation(self, weight: Tensor, groups: int = 1) -> int:
        """Non-zeros that would have to go for the weights to be in the set; 0 where they are."""


class _OfMatrices(ABC):
    """A constraint on each weight matrix of a layer by itself."""

    @abstractmethod
    def _project(self, matrix: FloatArray, group: int) -> FloatArray:
        """Project one group's matrix [shape=(K, N)]."""

    def _excess(self, matrix: FloatArray, group: int) -> int:
        """Non-zeros of one group's matrix that would have to go."""
        return int(np.count_nonzero(matrix)) - int(np.count_nonzero(self._project(matrix, group)))

    def project(self, weight: Tensor, groups: int = 1) -> Tensor:
        """See :class:`ConstraintSet`."""
        matrices = weight_matrices(weight, groups)
        projected = [self._project(matrix, group) for group, matrix in enumerate(matrices)]
        # Stacking copies; a single group, as in most layers, needs none.
        return weight_from_matrices(projected[0][None] if len(projected) == 1 else np.stack(projected), weight)

    def violation(self, weight: Tensor, groups: int = 1) -> int:
        """See :class:`ConstraintSet`."""
        return sum(self._excess(matrix, group) for group, matrix in enumerate(weight_matrices(weight, groups)))


@dataclass(frozen=True)
class ColumnProportional(_OfMatrices):
    """At most ``l = max(1, floor(rows / rate))`` non-zeros in every column of every row tile (CP pruning).

    Raises
    ------
    RangeError
        A rate below 1 or above ``rows``.
    """

    rate: float
    """CP rate, ``rows / l``."""
    rows: int = 128
    """Rows of a crossbar."""

    def __post_init__(self) -> None:
        nonzeros_per_column(self.rate, self.rows)

    @property
    def nonzeros(self) -> int:
        """Non-zeros a column of a row tile may have, ``l``."""
        return nonzeros_per_column(self.rate, self.rows)

    def _project(self, matrix: FloatArray, group: int) -> FloatArray:
        return project_cp(matrix, self.rate, self.rows)

    def _excess(self, matrix: FloatArray, group: int) -> int:
        return count_cp_violations(matrix, self.rate, self.rows)


@dataclass(frozen=True)
class Filter(_OfMatrices):
    """Whole columns (filters) removed, so many that those kept are a crossbar multiple; per group.

    Raises
    ------
    RangeError
        A rate or multiple below 1.
    """

    rate: float
    """Columns over columns kept, before rounding up to the multiple."""
    multiple: int = 16
    """Outputs a crossbar holds: its columns / (slices x signs), 128 / (4 x 2) for 8-bit weights in 2-bit cells."""

    def __post_init__(self) -> None:
        kept_multiple(1, self.rate, self.multiple)

    def _project(self, matrix: FloatArray, group: int) -> FloatArray:
        return project_filter(matrix, self.rate, self.multiple)


@dataclass(frozen=True)
class FilterShape(_OfMatrices):
    """Whole rows (filter shapes) removed, so many that those kept are a multiple of a crossbar's rows; per group.

    Raises
    ------
    RangeError
        A rate or multiple below 1.
    """

    rate: float
    """Rows over rows kept, before rounding up to the multiple."""
    rows: int = 128
    """Rows of a crossbar."""

    def __post_init__(self) -> None:
        kept_multiple(1, self.rate, self.rows)

    def _project(self, matrix: FloatArray, group: int) -> FloatArray:
        return project_filter_shape(matrix, self.rate, self.rows)


@dataclass(frozen=True)
class Unstructured(_OfMatrices):
    """The largest weights stay wherever they are: the reference that saves no hardware; per group."""

    rate: float
    """Weights over non-zeros."""

    def __post_init__(self) -> None:
        kept_multiple(1, self.rate, 1)

    def _project(self, matrix: FloatArray, group: int) -> FloatArray:
        # Not more than all but one weight can go, however small the layer.
        return project_unstructured(matrix, min(self.rate, max(1, matrix.size)))


@dataclass(frozen=True)
class BlockColumnRow(_OfMatrices):
    """Inside each block whole rows and whole columns are removed (GRIM's BCR pruning).

    Raises
    ------
    RangeError
        Numbers below 1, more kept than there are, or blocks with too many choices.
    """

    block: tuple[int, int]
    """Rows and columns of a block."""
    kept: tuple[int, int]
    """Rows and columns that stay in each block."""

    def __post_init__(self) -> None:
        project_bcr(np.zeros((0, 0)), self.block, self.kept)

    def _project(self, matrix: FloatArray, group: int) -> FloatArray:
        return project_bcr(matrix, self.block, self.kept)


@dataclass(frozen=True, eq=False)
class PackedColumnProportional(_OfMatrices):
    """CP on the rows that filter-shape pruning left, packed into row tiles, and whole columns removed besides.

    The rows are fixed: with them the projection is exact, for CP acts on each column by itself, so the columns to keep
    are those with the largest sums of squares after CP. Made by :func:`combined`.

    Raises
    ------
    RangeError
        A CP rate below 1 or above ``rows``, or a filter rate or multiple below 1.
    """

    kept_rows: tuple[np.ndarray, ...] = field(repr=False)
    """Of each group, the matrix rows that stay, ascending; all others are zero."""
    rate: float
    """CP rate of the packed matrix."""
    filter_rate: float = 1
    """Columns over columns kept, before rounding up to the multiple."""
    rows: int = 128
    """Rows of a row tile."""
    multiple: int = 16
    """Outputs a crossbar holds."""

    def __post_init__(self) -> None:
        nonzeros_per_column(self.rate, self.rows)
        kept_multiple(1, self.filter_rate, self.multiple)

    def _project(self, matrix: FloatArray, group: int) -> FloatArray:
        if group >= len(self.kept_rows):
            raise ShapeError(f"kept_rows: made for {len(self.kept_rows)} groups, the weights have more")
        rows = self.kept_rows[group]
        if rows.size and not 0 <= rows[0] <= rows[-1] < matrix.shape[0]:
            raise ShapeError(f"kept_rows: expected within 0..{matrix.shape[0] - 1}, found {rows[0]}..{rows[-1]}")
        packed = project_cp(matrix[rows], self.rate, self.rows)
        columns = largest_columns(packed, kept_multiple(matrix.shape[1], self.filter_rate, self.multiple))
        projected = np.zeros_like(matrix)
        projected[np.ix_(rows, columns)] = packed[:, columns]
        return projected


def combined(
    weight: Tensor,
    groups: int = 1,
    *,
    shape_rate: float,
    cp_rate: float,
    filter_rate: float = 1,
    rows: int = 128,
    read_rows: int | None = None,
    multiple: int = 16,
) -> PackedColumnProportional:
    """Structured and CP pruning of one layer: filter shapes first, then CP on the re-packed matrix, and filters.

    The rows are chosen here, once, from the weights given: packing depends on them, and so does what CP keeps.

    Parameters
    ----------
    weight : Tensor [shape=(outputs, channels / groups, kernel...)]
        The weights whose largest rows stay, usually the dense network's.
    groups : int
    shape_rate, cp_rate, filter_rate : float
        Of :class:`FilterShape`, :class:`ColumnProportional` and :class:`Filter`.
    rows, multiple : int
        Rows of a crossbar, and outputs it holds.
    read_rows : int, optional
        Rows switched on at once, of which CP keeps a share; by default all of a crossbar.

    Raises
    ------
    RangeError
        An impossible rate, or weights that are not finite.

    References
    ----------
    Yuan et al., TinyADC, 2021, section III.
    """
    if not bool(torch.isfinite(weight).all()):
        raise RangeError("weight: must be finite, found NaN or infinity")
    matrices = weight_matrices(weight, groups)
    kept = tuple(largest_rows(matrix, kept_multiple(matrix.shape[0], shape_rate, rows)) for matrix in matrices)
    return PackedColumnProportional(
        kept_rows=kept, rate=cp_rate, filter_rate=filter_rate, rows=read_rows or rows, multiple=multiple
    )


def one_each(
    constraint: ConstraintSet | Sequence[ConstraintSet], layers: Sequence[PrunableLayer]
) -> tuple[ConstraintSet, ...]:
    """One constraint set for each layer, where a single one may be given for all.

    Raises
    ------
    ShapeError
        Not as many as there are layers.
    """
    if not isinstance(constraint, Sequence):
        return (constraint,) * len(layers)
    if len(constraint) != len(layers):
        raise ShapeError(f"constraints: expected one for each of {len(layers)} layers, found {len(constraint)}")
    return tuple(constraint)


def project_layers(layers: Sequence[PrunableLayer], constraint: ConstraintSet | Sequence[ConstraintSet]) -> None:
    """Replace the weights of every layer by their projection, in place."""
    with torch.no_grad():
        for layer, wanted in zip(layers, one_each(constraint, layers), strict=True):
            layer.module.weight.copy_(wanted.project(layer.module.weight, layer.groups))


def violations(layers: Sequence[PrunableLayer], constraint: ConstraintSet | Sequence[ConstraintSet]) -> int:
    """Sum of the layers' violations."""
    return sum(
        wanted.violation(layer.module.weight, layer.groups)
        for layer, wanted in zip(layers, one_each(constraint, layers), strict=True)
    )


def relative_distance(layers: Sequence[PrunableLayer], constraint: ConstraintSet | Sequence[ConstraintSet]) -> float:
    """``||W - Z|| / ||W||`` over all layers, Z the projection of W; 0 where all are in their sets."""
    gap = norm = 0.0
    with torch.no_grad():
        for layer, wanted in zip(layers, one_each(constraint, layers), strict=True):
            weight = layer.module.weight
            gap += float((weight - wanted.project(weight, layer.groups)).square().sum())
            norm += float(weight.square().sum())
    return math.sqrt(gap / norm) if norm else 0.0
