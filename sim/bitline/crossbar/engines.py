"""Engines: ways of computing the same integers (docs/contract.md). ``matmul`` is the door."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitline.crossbar import kernels, matrices
from bitline.crossbar.adc import AdcBits
from bitline.crossbar.certificate import certify
from bitline.crossbar.encoding import check_inputs, check_weights
from bitline.crossbar.exact import exact_product
from bitline.crossbar.excess_cells import ExcessCells, LayerExcess
from bitline.crossbar.matrices import Matrix, Product, Split, Transfer, bit_patterns, split_matrix
from bitline.errors import ConfigError, ShapeError
from bitline.hardware import Hardware
from bitline.layers import Window

__all__ = ["Crossbars", "Engine", "Product", "Transfer", "check_engine", "exact_product", "matmul"]

_NANOSECONDS_PER_MAC, _NANOSECONDS_PER_OUTPUT = 0.0047, 1.0
"""Of an exact product: in bytes, and all else an output costs."""
_NANOSECONDS_PER_TRANSPOSED = 1.5
"""A code of an input vector that the bit-sliced kernel cannot read from an image."""
_DOUBT = 1.4
"""How much more than this says a split or an excess may cost, found where most of the columns are refuted."""


class Engine(StrEnum):
    """How the integers are computed."""

    BITSERIAL = "bitserial"
    """Every conversion performed and counted."""
    CERTIFIED = "certified"
    """An exact product, less what the conversions that may saturate are over the code range; same integers."""


def check_engine(engine: Engine | str) -> Engine:
    """The engine of a name.

    Raises
    ------
    ConfigError
        No such engine.
    """
    try:
        return Engine(engine)
    except ValueError:
        names = ", ".join(member.value for member in Engine)
        raise ConfigError(f"Argument 'engine' must be one of {names}, not {engine!r}") from None


class Crossbars:
    """A layer's weights held in simulated crossbars, packed once and multiplied many times.

    Parameters
    ----------
    w : ndarray [shape=(K, N) or (G, K, N), integer]
        Signed weight codes; G groups are separate matrices.
    hw : Hardware
    signed_inputs : bool
        Whether activation codes are two's complement.
    adc : AdcBits, optional
        Resolution of the columns; by default the hardware's number or policy, resolved on this layer alone.

    Raises
    ------
    ShapeError, RangeError
        ``w`` is not a matrix (or stack of matrices) of integers in the hardware's range.
    """

    def __init__(self, w: Any, hw: Hardware, *, signed_inputs: bool = False, adc: AdcBits | None = None) -> None:
        stack = np.asarray(w)
        if stack.ndim == 2:
            stack = stack[None]
        if stack.ndim != 3 or stack.shape[0] == 0:
            raise ShapeError(f"Argument 'w' must have shape (K, N) or (G, K, N), not {np.shape(w)}")
        groups, rows, columns = stack.shape
        codes = check_weights(stack.reshape(groups * rows, columns), hw).reshape(groups, rows, columns)
        if adc is None:
            adc = certify(np.concatenate(list(codes), axis=1), hw, signed_inputs=signed_inputs).adc
        self.hw, self.adc, self.signed_inputs, self.codes = hw, adc, signed_inputs, codes
        self._matrices = [Matrix(matrix, hw, adc, signed_inputs) for matrix in codes]
        self._excess = LayerExcess(codes, hw, adc, signed_inputs)

    def multiply(
        self,
        x: Any,
        *,
        engine: Engine | str = Engine.BITSERIAL,
        histogram: NDArray[np.int64] | None = None,
        transfer: Transfer | None = None,
    ) -> Product:
        """Multiply activation codes by the weights.

        Parameters
        ----------
        x : ndarray [shape=(M, G * K), integer]
            Activation codes; unsigned in ``0 .. 2^a - 1`` or two's complement values.
        engine : Engine
        histogram : ndarray [shape=(bins,) or (slices, bins) or (slices + 1, bins), int64], optional
            Column sums are counted into it in place (``bitserial`` only); the last bin collects everything larger. With
            ``slices + 1`` rows the last one counts the unit column.
        transfer : Transfer, optional
            What each conversion reads instead of its clipped column sum (``bitserial`` only); counted in place.

        Returns
        -------
        Product

        Raises
        ------
        ShapeError, RangeError, ConfigError
        """
        engine = check_engine(engine)
        groups, rows, columns = self.codes.shape
        x = check_inputs(x, groups * rows, self.hw, self.signed_inputs)
        if histogram is not None:
            self._check_histogram(histogram, engine)
        if transfer is not None:
            self._check_transfer(transfer, engine)
        if engine is Engine.CERTIFIED and not self.lossless:
            whole = (bit_patterns(x, self.hw)[:, :, None, None], Window(), slice(0, 1), 1)
            if self._excess_pays(*whole, vectors=True):
                inputs = [x[:, g * rows : (g + 1) * rows] for g in range(groups)]
                products = [matrix.product.multiply(mine) for matrix, mine in zip(self._matrices, inputs, strict=True)]
                y = products[0] if groups == 1 else np.concatenate(products, axis=1)
                return Product(
                    y=y,
                    saturations=self._excess.subtract(*whole, y),
                    conversions=self.conversions(x.shape[0]),
                    max_column_sum=None,
                )
        if groups == 1:
            return self._multiply_group(0, x, engine, histogram, transfer)
        y = np.empty((x.shape[0], groups * columns), np.int64)
        parts = []
        for g in range(groups):
            part = self._multiply_group(g, x[:, g * rows : (g + 1) * rows], engine, histogram, transfer)
            y[:, g * columns : (g + 1) * columns] = part.y
            parts.append(part)
        return Product(
            y=y,
            conversions=sum(part.conversions for part in parts),
            saturations=sum(part.saturations for part in parts),
            max_column_sum=None
            if engine is Engine.CERTIFIED
            else max((part.max_column_sum or 0 for part in parts), default=0),
        )

    @cached_property
    def lossless(self) -> bool:
        """Whether no input saturates any column: every conversion is transparent."""
        return not any(split.refuted for split in self._splits)

    @cached_property
    def proven(self) -> NDArray[np.int32]:
        """Weights [shape=(G, K, N)] in lossless columns; their share of the product is exact."""
        return np.stack([split.proven for split in self._splits])

    @cached_property
    def bitserial_is_cheaper(self) -> bool:
        """Whether so much is refuted that converting all costs less than converting that and a product for the rest."""
        if self.lossless:
            return False
        return _DOUBT * sum(self._split_nanoseconds) >= sum(matrix.nanoseconds for matrix in self._matrices)

    @cached_property
    def _split_nanoseconds(self) -> list[float]:
        """Rough cost, for one input vector, of each group's refuted columns and a product for the rest."""
        return [
            sum(part.nanoseconds for _, _, part in split.refuted) + self._dense_nanoseconds for split in self._splits
        ]

    @property
    def _dense_nanoseconds(self) -> float:
        """That of a group's product."""
        _, rows, columns = self.codes.shape
        return _NANOSECONDS_PER_MAC * rows * columns + _NANOSECONDS_PER_OUTPUT * columns

    def conversions(self, vectors: int) -> int:
        """Conversions the hardware performs for this many input vectors, whatever computes them."""
        return sum(matrix.conversions(vectors, self.signed_inputs) for matrix in self._matrices)

    def convolves(self, vectors: int) -> bool:
        """Whether :meth:`convolve` is there for this design and this many input vectors."""
        return vectors >= matrices.LEAST_BITSLICED and all(matrix.can_bitslice for matrix in self._matrices)

    def convolve(self, x: NDArray[Any], window: Window, lines: slice, width: int) -> Product:
        """Multiply the receptive fields of some output lines, bit-serially, without forming a matrix of them.

        Parameters
        ----------
        x : ndarray [shape=(n, channels of all groups, H, W), integer]
            Activation codes, padding included.
        window : Window
            Its padding is not applied again.
        lines : slice
            Output lines wanted.
        width : int
            Width of the output.

        Returns
        -------
        Product
            What :meth:`multiply` gives for the matrix of receptive fields, positions in row-major order.

        Raises
        ------
        ShapeError, RangeError
        """
        patterns, vectors = self._check_images(x, window, lines, width)
        x = np.ascontiguousarray(patterns)
        groups, rows, columns = self.codes.shape
        channels = rows // (window.kernel[0] * window.kernel[1])
        y = np.empty((groups * columns, vectors), np.int64)
        saturations, largest = 0, 0
        for g, matrix in enumerate(self._matrices):
            part = y[g * columns : (g + 1) * columns]
            over, top = matrix.bitsliced.convert(x, g * channels, window, lines, width, part)
            saturations, largest = saturations + over, max(largest, top)
        return Product(y=y.T, conversions=self.conversions(vectors), saturations=saturations, max_column_sum=largest)

    def add_refuted(self, x: NDArray[Any], window: Window, lines: slice, width: int, y: NDArray[np.int64]) -> int:
        """Add what the refuted columns give, bit-serially, to the exact product of ``proven`` and the receptive fields.

        Parameters
        ----------
        x, window, lines, width
            As for :meth:`convolve`.
        y : ndarray [shape=(vectors, outputs of all groups), int64, C-contiguous]
            Changed in place, from that product to what the crossbars give.

        Returns
        -------
        int
            Saturated conversions.

        Raises
        ------
        ShapeError, RangeError
        """
        patterns, vectors = self._check_images(x, window, lines, width)
        _, rows, columns = self.codes.shape
        self._check_products(y, vectors)
        x = np.ascontiguousarray(patterns)
        channels = rows // (window.kernel[0] * window.kernel[1])
        saturations = 0
        for g, split in enumerate(self._splits):
            for _, outputs, rest in split.refuted:
                share = np.empty((len(outputs), vectors), np.int64)
                over, _ = rest.bitsliced.convert(x, g * channels, window, lines, width, share)
                kernels.add_columns(share, g * columns + outputs, y)
                saturations += over
        return saturations

    def excess_pays(self, x: NDArray[Any], window: Window, lines: slice, width: int) -> bool:
        """Whether the certified engine does best with an exact product of all weights and :meth:`subtract_excess`.

        Else it does with what :attr:`bitserial_is_cheaper` says. A sample of the inputs is looked at.

        Parameters
        ----------
        x, window, lines, width
            As for :meth:`convolve`.

        Raises
        ------
        ShapeError, RangeError
        """
        return self._excess_pays(self._check_images(x, window, lines, width)[0], window, lines, width)

    def subtract_excess(
        self,
        x: NDArray[Any],
        window: Window,
        lines: slice,
        width: int,
        y: NDArray[np.int64],
    ) -> int:
        """Subtract what saturation takes from the exact product of all weights and the receptive fields of some lines.

        Parameters
        ----------
        x, window, lines, width
            As for :meth:`convolve`, of a design for which :meth:`excess_pays`; fastest where the channels of ``x`` lie
            innermost in memory.
        y : ndarray [shape=(vectors, outputs of all groups), int64, C-contiguous]
            Changed in place, from the product to what the crossbars give.

        Returns
        -------
        int
            Saturated conversions.

        Raises
        ------
        ShapeError, RangeError
        ConfigError
            A design whose result is not linear in its codes.
        """
        if not ExcessCells.supports(self.hw):
            raise ConfigError("The excess needs encoding 'differential', readout 'digital' and dac_bits 1")
        x, vectors = self._check_images(x, window, lines, width)
        self._check_products(y, vectors)
        return self._excess.subtract(x, window, lines, width, y)

    def _excess_pays(self, x: NDArray[Any], window: Window, lines: slice, width: int, *, vectors: bool = False) -> bool:
        """Whether nothing costs less than the excess of such inputs, by what a sample of them takes, and a product."""
        if not ExcessCells.supports(self.hw):
            return False
        if x.shape[0] * (lines.stop - lines.start) * width < matrices.LEAST_BITSLICED:
            return True  # the kernel for few vectors costs no less a conversion, and performs them all
        others = min(_DOUBT * sum(self._split_nanoseconds), sum(matrix.nanoseconds for matrix in self._matrices))
        if vectors:
            others += _NANOSECONDS_PER_TRANSPOSED * len(self.codes) * self.codes.shape[1]
        dense = len(self.codes) * self._dense_nanoseconds
        return self._excess.costs_less(others / _DOUBT - dense, x, window, lines, width)

    def _check_products(self, y: NDArray[np.int64], vectors: int) -> None:
        groups, _, columns = self.codes.shape
        shape = (vectors, groups * columns)
        if y.shape != shape or y.dtype != np.int64 or not y.flags.c_contiguous:
            raise ShapeError(f"Argument 'y' must be contiguous int64 of shape {shape}, not {y.dtype} {y.shape}")

    def _check_images(self, x: NDArray[Any], window: Window, lines: slice, width: int) -> tuple[NDArray[Any], int]:
        """Bit patterns of images, and how many receptive fields the output lines have."""
        groups, rows, _ = self.codes.shape
        channels, left_over = divmod(rows, window.kernel[0] * window.kernel[1])
        if left_over:
            raise ShapeError(f"Argument 'window' must have a kernel that divides {rows} rows, not {window.kernel}")
        reach = (
            (lines.stop - 1) * window.stride[0] + (window.kernel[0] - 1) * window.dilation[0],
            (width - 1) * window.stride[1] + (window.kernel[1] - 1) * window.dilation[1],
        )
        if x.ndim != 4 or x.shape[1] != groups * channels or lines.start < 0 or lines.start >= lines.stop or width < 1:
            raise ShapeError(f"Argument 'x' must have shape (n, {groups * channels}, H, W), not {x.shape}")
        if reach[0] >= x.shape[2] or reach[1] >= x.shape[3]:
            raise ShapeError(f"Argument 'x' ends at {x.shape[2:]}, but the window reaches {reach}")
        check_inputs(x.ravel(order="K")[:, None], 1, self.hw, self.signed_inputs)
        vectors = x.shape[0] * (lines.stop - lines.start) * width
        return bit_patterns(x, self.hw), vectors

    def _check_histogram(self, histogram: NDArray[np.int64], engine: Engine) -> None:
        if engine is not Engine.BITSERIAL:
            raise ConfigError("Argument 'histogram' needs the bitserial engine: the certified one forms no column sums")
        rows = histogram.shape[0] if histogram.ndim == 2 else self.hw.slices
        if histogram.ndim not in (1, 2) or histogram.shape[-1] < 1 or not self.hw.slices <= rows <= self.hw.slices + 1:
            raise ShapeError(
                f"Argument 'histogram' must have shape (bins,) or ({self.hw.slices} or {self.hw.slices + 1}, bins), "
                f"not {histogram.shape}"
            )

    def _check_transfer(self, transfer: Transfer, engine: Engine) -> None:
        if engine is not Engine.BITSERIAL:
            raise ConfigError("Argument 'transfer' needs the bitserial engine: the certified one forms no column sums")
        shape = (self.hw.input_cycles, self.hw.slices + 1, 1 << self.adc.bits)
        for name, array in (("values", transfer.values), ("counts", transfer.counts)):
            if array.shape != shape or array.dtype != np.int64:
                raise ShapeError(
                    f"Argument 'transfer.{name}' must be int64 of shape {shape}, not {array.dtype} {array.shape}"
                )

    def _multiply_group(
        self, g: int, x: NDArray[Any], engine: Engine, histogram: Any, transfer: Transfer | None
    ) -> Product:
        matrix = self._matrices[g]
        if engine is Engine.BITSERIAL:
            return matrix.convert(x, self.signed_inputs, histogram, transfer)
        return self._certified(g, x)

    @cached_property
    def _splits(self) -> list[Split]:
        """Of each group, which part of its weights is proven and which is not."""
        return [split_matrix(codes, self.hw, self.adc, self.signed_inputs) for codes in self.codes]

    def _certified(self, g: int, x: NDArray[Any]) -> Product:
        """Exact product of the proven part of the weights, conversions of the rest: where the excess does not pay."""
        matrix, split = self._matrices[g], self._splits[g]
        if self.bitserial_is_cheaper:
            return replace(matrix.convert(x, self.signed_inputs, None), max_column_sum=None)
        y = split.product.multiply(x)
        saturations = 0
        for rows, outputs, part in split.refuted:
            share = part.convert(x[:, rows], self.signed_inputs, None)
            y[:, outputs] += share.y
            saturations += share.saturations
        return Product(
            y=y,
            conversions=matrix.conversions(x.shape[0], self.signed_inputs),
            saturations=saturations,
            max_column_sum=None,
        )


def matmul(
    x: Any, w: Any, hw: Hardware, signed_inputs: bool = False, engine: Engine | str = Engine.BITSERIAL
) -> Product:
    """Multiply activations by weights held in simulated crossbars, to the last bit.

    Parameters
    ----------
    x : ndarray [shape=(M, K), integer]
        Activation codes: ``0 .. 2^a - 1``, or two's complement values with ``signed_inputs``.
    w : ndarray [shape=(K, N), integer]
        Signed weight codes in the encoding's range.
    hw : Hardware
        A policy in ``adc_bits`` resolves on this matrix.
    signed_inputs : bool
        Whether inputs are signed.
    engine : {"bitserial", "certified"}
        How the integers are computed; both give the same.

    Returns
    -------
    Product
        ``.y`` (M, N) int64, ``.conversions``, ``.saturations``, ``.max_column_sum``.

    Raises
    ------
    ShapeError
        ``x`` or ``w`` is not a matrix, or they disagree on K.
    RangeError
        Not integers, or outside the bit widths.
    ConfigError
        Unknown engine.

    Examples
    --------
    >>> import numpy as np, bitline
    >>> hw = bitline.load_hardware("tinyadc")
    >>> bitline.matmul(np.array([[1, 2]]), np.array([[3], [-4]]), hw).y
    array([[-5]])
    """
    if np.ndim(w) != 2:
        raise ShapeError(f"Argument 'w' must be a matrix of shape (K, N), not of shape {np.shape(w)}")
    return Crossbars(w, hw, signed_inputs=signed_inputs).multiply(x, engine=engine)
