"""A network's matrix layers and data-flow graph as plain data: shapes, codes, scales. No torch here.

``network`` writes these records, ``crossbar`` computes with the codes, ``chip`` prices the shapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Coverage", "Gates", "LayerKind", "MatrixLayer", "Operation", "OperationKind", "Window"]


class LayerKind(StrEnum):
    """What a matrix layer was in the network."""

    CONV1D = "conv1d"
    CONV2D = "conv2d"
    LINEAR = "linear"
    RECURRENT = "recurrent"
    """The product of an LSTM or GRU with its own output of the step before; that with its input is linear."""

    @property
    def multiplies_vectors(self) -> bool:
        """Whether the input is vectors (..., features) and not images or sequences with a window."""
        return self in (LayerKind.LINEAR, LayerKind.RECURRENT)


class OperationKind(StrEnum):
    """What a node of the data-flow graph does, as far as a chip is concerned."""

    INPUT = "input"
    MATRIX = "matrix"
    MAX_POOL = "max_pool"
    AVERAGE_POOL = "average_pool"
    ELEMENTWISE = "elementwise"
    CONCAT = "concat"
    OTHER = "other"


@dataclass(frozen=True, kw_only=True)
class Window:
    """The sliding window of a convolution or pooling; pairs are (height, width), a conv1d has height 1."""

    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Zeros added left, right, top, bottom (torch's order)."""
    dilation: tuple[int, int] = (1, 1)

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the output for an input of this height and width."""
        left, right, top, bottom = self.padding
        sizes = []
        for size, kernel, stride, dilation in zip(
            (height + top + bottom, width + left + right), self.kernel, self.stride, self.dilation, strict=True
        ):
            sizes.append((size - dilation * (kernel - 1) - 1) // stride + 1)
        return sizes[0], sizes[1]


@dataclass(frozen=True, kw_only=True)
class Gates:
    """What digital units compute after the two products of one step of an LSTM or GRU."""

    functions: int
    """Sigmoids and hyperbolic tangents."""
    arithmetic: int
    """Sums, differences and products."""
    moved: int
    """Values read from and written to the buffers: products, states, outputs."""


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One node of a network's data-flow graph, with the shapes of one image.

    Shapes are (channels, height, width); a vector of n features is (n, 1, 1).
    """

    name: str
    kind: OperationKind
    inputs: tuple[str, ...]
    """Names of the operations whose outputs this one reads, in order."""
    output_shape: tuple[int, int, int]
    window: Window = Window()
    groups: int = 1
    rows: int = 0
    """Rows of one group's weight matrix (matrix operations only)."""
    columns: int = 0
    """Columns, that is outputs, of one group's weight matrix (matrix operations only)."""
    gates: Gates | None = None
    """Of a recurrent matrix operation, whose position ``t`` reads what its position ``t - 1`` gave."""
    signed_inputs: bool = False
    """Whether a matrix operation's crossbars take two's complement codes: any of the layer's calls reads negatives."""

    @property
    def positions(self) -> int:
        """Input vectors a matrix operation multiplies for one image (output height x width)."""
        return self.output_shape[1] * self.output_shape[2]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of a matrix operation for one image."""
        return self.groups * self.rows * self.columns * self.positions


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How much of a network is on crossbars; counts are of one image and None where they are not known."""

    input_shape: tuple[int, ...] | None
    """Of one image, without the batch; None where not known."""
    on_crossbars: int | None
    """Multiply-accumulates of the matrix layers."""
    total: int | None
    """Those of the whole network: of weights with activations, and of activations with each other."""
    unfolded_norms: int
    """Batch norms that no matrix layer took in: their gains are not in the certified weights."""
    elsewhere: tuple[tuple[str, str, int | None], ...]
    """What holds or multiplies weights, or multiplies activations, and is not on crossbars: name, kind, MACs."""

    def to_json(self) -> dict[str, Any]:
        """The section ``coverage`` of certificates and reports."""
        return {
            "macs_on_crossbars": self.on_crossbars,
            "macs_total": self.total,
            "unfolded_norms": self.unfolded_norms,
            "not_on_crossbars": [{"name": name, "kind": kind, "macs": macs} for name, kind, macs in self.elsewhere],
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class MatrixLayer:
    """A layer that crossbars hold: its integer weight matrices and the scales that give them meaning.

    Rows are in the order channel, kernel row, kernel column; one column per output; groups are separate matrices.
    """

    name: str
    kind: LayerKind
    codes: NDArray[np.int32]
    """[shape=(groups, rows, columns)] signed weight codes."""
    weight_scale: NDArray[np.float64]
    """[shape=(groups, columns)] real weight per unit of code."""
    bias: NDArray[np.float64] | None
    """[shape=(groups, columns)] added after the product, or None."""
    window: Window = Window()
    signed_inputs: bool = False
    """Two's complement activation codes (True) or unsigned ones, as after a ReLU (False)."""
    output_positions: int | None = None
    """Input vectors for one image, where the input size is known."""

    @property
    def groups(self) -> int:
        """Separate matrices of a grouped convolution."""
        return int(self.codes.shape[0])

    @property
    def rows(self) -> int:
        """Rows of one group's matrix."""
        return int(self.codes.shape[1])

    @property
    def columns(self) -> int:
        """Columns (outputs) of one group's matrix."""
        return int(self.codes.shape[2])

    @property
    def macs(self) -> int | None:
        """Multiply-accumulates for one image, where the input size is known."""
        return None if self.output_positions is None else int(self.codes.size) * self.output_positions
