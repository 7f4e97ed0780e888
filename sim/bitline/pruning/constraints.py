"""Constraint sets: what a pruned layer's weights must look like, each with its projection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from bitline.pruning.layers import PrunableLayer, weight_from_matrices, weight_matrices
from bitline.pruning.projections import count_cp_violations, nonzeros_per_column, project_cp

__all__ = ["ColumnProportional", "ConstraintSet", "project_layers", "violations"]


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


@dataclass(frozen=True)
class ColumnProportional:
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

    def project(self, weight: Tensor, groups: int = 1) -> Tensor:
        """See :class:`ConstraintSet`."""
        matrices = weight_matrices(weight, groups)
        projected = np.stack([project_cp(matrix, self.rate, self.rows) for matrix in matrices])
        return weight_from_matrices(projected, weight)

    def violation(self, weight: Tensor, groups: int = 1) -> int:
        """See :class:`ConstraintSet`."""
        return sum(count_cp_violations(matrix, self.rate, self.rows) for matrix in weight_matrices(weight, groups))


def project_layers(layers: Sequence[PrunableLayer], constraint: ConstraintSet) -> None:
    """Replace the weights of every layer by their projection, in place."""
    with torch.no_grad():
        for layer in layers:
            layer.module.weight.copy_(constraint.project(layer.module.weight, layer.groups))


def violations(layers: Sequence[PrunableLayer], constraint: ConstraintSet) -> int:
    """Sum of the layers' violations."""
    return sum(constraint.violation(layer.module.weight, layer.groups) for layer in layers)
