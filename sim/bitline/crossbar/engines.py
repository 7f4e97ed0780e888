"""Engines: ways of computing the same integers (DESIGN section 4). ``matmul`` is the door."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from typing import Any

import numpy as np
from numba import get_num_threads
from numpy.typing import NDArray

from bitline.crossbar import kernels
from bitline.crossbar.adc import AdcBits, max_digit
from bitline.crossbar.cell_lists import BitslicedCells
from bitline.crossbar.certificate import certify, lossless_columns
from bitline.crossbar.encoding import check_inputs, check_weights, encode
from bitline.crossbar.exact import ExactMatrix, exact_product
from bitline.crossbar.excess_cells import ExcessCells, LayerExcess
from bitline.errors import ConfigError, ShapeError
from bitline.hardware import Encoding, Hardware, Readout
from bitline.layers import Window

__all__ = ["Crossbars", "Engine", "Product", "Transfer", "check_engine", "exact_product", "matmul"]

LEAST_BITSLICED = 128
"""Input vectors from which on 512 at once, some of them idle, are faster than one after the other."""

_MOST_LISTED = 1 << 23
"""Weights of a matrix whose cells are listed: 9 bytes a dense 8-bit weight, over four times the packed planes."""

_NANOSECONDS_PER_ADDITION, _NANOSECONDS_PER_SUM, _NANOSECONDS_PER_ROW = 0.55 / 512, 13 / 512, 0.25
"""Of the bit-sliced kernel, for one digit of a vector: a one of a cell added, all else a column that is not empty
costs, and a row packed; fitted to ResNet-20's layers and to (1024, 1152) x (1152, 256), dense and at CP rates to 64."""
_NANOSECONDS_PER_CONVERSION = 0.5
_NANOSECONDS_PER_MAC, _NANOSECONDS_PER_OUTPUT, _NANOSECONDS_PER_SHARE = 0.005, 1.0, 6.0
"""Of an exact product: in bytes, all else an output costs, and adding the conversions of what is not proven to it."""
_SPLIT_DOUBT = 1.15
"""How much more a split may cost than this says, found where most of a dense matrix is refuted."""

_BLOCK_BYTES = 1 << 20
_HISTOGRAM_BLOCKS = 16
_COUNT_BYTES = 64 << 20


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


@dataclass(frozen=True, kw_only=True, eq=False)
class Product:
    """What simulated crossbars return for a batch of input vectors."""

    y: NDArray[np.int64]
    """[shape=(M, N)] shifted and added codes; ``x @ w`` whenever nothing saturates."""
    conversions: int
    """ADC conversions the hardware performs, whatever shortcut computed them."""
    saturations: int
    """Conversions whose column sum exceeded the code range."""
    max_column_sum: int | None
    """Largest column sum seen (of ``|s|`` with analog readout); None from the ``certified`` engine."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Transfer:
    """What an ADC reads each clipped column sum as, and how often it did; see :mod:`bitline.crossbar.sar`."""

    values: NDArray[np.int64]
    """[shape=(input cycles, slices + 1, 2^bits)] entry ``s``, or ``s + 2^(bits - 1)`` with analog readout; ``bits`` the
    layer's largest resolution; the last row is the unit column's."""
    counts: NDArray[np.int64]
    """Of the same shape: conversions by clipped column sum, added to in place."""


def _bit_patterns(x: NDArray[Any], hw: Hardware) -> NDArray[Any]:
    """Codes as bit patterns of ``input_bits`` digits; digits beyond are never read."""
    narrow = hw.input_bits <= 8
    if x.dtype == (np.int8 if narrow else np.int16):
        return x.view(np.uint8 if narrow else np.uint16)
    return x.astype(np.uint8 if narrow else np.uint16, copy=False)


class _Matrix:
    """One weight matrix in the cells of its crossbars, packed once."""

    def __init__(self, w: NDArray[np.int32], hw: Hardware, adc: AdcBits, signed: bool) -> None:
        rows, outputs = w.shape
        self.hw, self.adc, self.w = hw, adc, w
        self.signed = signed
        tiles = -(-rows // hw.rows)
        # analog codes lie in -2^(N-1) .. 2^(N-1) - 1, digital ones in 0 .. 2^N - 1
        bits = np.array(adc.per_slice, np.int64) - (1 if hw.readout is Readout.ANALOG else 0)
        limits = (np.int64(1) << bits) - 1
        self.limits = np.tile(np.repeat(limits, outputs), hw.signs)
        self.conversions_per_digit: int = tiles * (
            hw.slices * outputs * (1 if hw.readout is Readout.ANALOG else hw.signs) + (adc.unit is not None)
        )

    @cached_property
    def _packed(self) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
        """Bit planes of the cells, and which columns are stored complemented; packed when first needed."""
        hw, (rows, outputs) = self.hw, self.w.shape
        cells = encode(self.w, hw)
        tiles = cells.flips.shape[0]
        columns = hw.signs * hw.slices * outputs
        words = -(-min(hw.rows, max(rows, 1)) // 64)
        if hw.rows <= 128 and hw.rows > 64:
            words = 2  # a matrix of few rows still fits the two-word kernel
        planes = np.zeros((tiles, hw.cell_bits, words, columns), np.uint64)
        kernels.pack_cells(np.ascontiguousarray(cells.levels.reshape(rows, columns)), hw.rows, planes)
        return planes, np.ascontiguousarray(cells.flips.reshape(tiles, columns).astype(np.uint8))

    @property
    def can_bitslice(self) -> bool:
        """Whether the kernel for 512 vectors at once knows the design, and its lists of cells fit in memory."""
        return 0 < self.w.size <= _MOST_LISTED and BitslicedCells.supports(self.hw, self.w.shape[0])

    @cached_property
    def bitsliced(self) -> BitslicedCells:
        """The cells for 512 vectors at once, listed when first needed."""
        return BitslicedCells(encode(self.w, self.hw).levels, self.hw, self.adc.per_slice, self.signed)

    @cached_property
    def nanoseconds(self) -> float:
        """Rough cost of converting one input vector; only ratios matter."""
        hw = self.hw
        if not self.can_bitslice:
            return self.conversions(1, self.signed) * _NANOSECONDS_PER_CONVERSION
        ones = int(np.bitwise_count(np.abs(self.w)).sum(dtype=np.int64))
        columns = 0
        for first in range(0, self.w.shape[0], hw.rows):
            columns += int(np.count_nonzero(encode(self.w[first : first + hw.rows], hw).levels.any(axis=0)))
        rows = int(np.count_nonzero(self.w.any(axis=1)))
        return hw.input_cycles * (
            ones * _NANOSECONDS_PER_ADDITION + columns * _NANOSECONDS_PER_SUM + rows * _NANOSECONDS_PER_ROW
        )

    @cached_property
    def product(self) -> ExactMatrix:
        """Operands of the exact product of all weights, made when first needed."""
        return ExactMatrix(self.w, self.hw.input_range(self.signed))

    def convert(
        self,
        x: NDArray[Any],
        signed: bool,
        histogram: NDArray[np.int64] | None,
        transfer: Transfer | None = None,
    ) -> Product:
        """Every conversion, bit-serially: one pass, or two for signed inputs through DACs of several bits."""
        if self.can_bitslice and histogram is None and transfer is None and x.shape[0] >= LEAST_BITSLICED:
            vectors = x.shape[0]
            columns = np.ascontiguousarray(_bit_patterns(x.T, self.hw)).reshape(1, x.shape[1], 1, vectors)
            sums = np.empty((self.w.shape[1], vectors), np.int64)
            saturations, largest = self.bitsliced.convert(columns, 0, Window(), slice(0, 1), vectors, sums)
            return Product(
                y=np.ascontiguousarray(sums.T),
                conversions=self.conversions(vectors, signed),
                saturations=saturations,
                max_column_sum=largest,
            )
        hw = self.hw
        y = np.zeros((x.shape[0], self.w.shape[1]), np.int64)
        dtype = np.uint8 if hw.input_bits <= 8 else np.uint16
        if signed and hw.dac_bits > 1:
            passes = [(np.maximum(x, 0), 1), (np.maximum(-x.astype(np.int64), 0), -1)]
        else:
            passes = [(x.astype(np.int64) & ((1 << hw.input_bits) - 1), 1)] if signed else [(x, 1)]
        saturations, largest = 0, 0
        for codes, sign in passes:
            over, top = self._convert_pass(
                np.ascontiguousarray(codes, dtype=dtype), sign, signed and hw.dac_bits == 1, y, histogram, transfer
            )
            saturations += over
            largest = max(largest, top)
        return Product(
            y=y, conversions=self.conversions(x.shape[0], signed), saturations=saturations, max_column_sum=largest
        )

    def conversions(self, vectors: int, signed: bool) -> int:
        """Conversions the hardware performs for this many input vectors."""
        return self.hw.input_passes(signed) * vectors * self.hw.input_cycles * self.conversions_per_digit

    def _convert_pass(
        self,
        x: NDArray[Any],
        sign: int,
        last_digit_negative: bool,
        y: NDArray[np.int64],
        histogram: Any,
        transfer: Transfer | None,
    ) -> tuple[int, int]:
        hw = self.hw
        vectors = x.shape[0]
        values = np.zeros((0, 0, 0), np.int64) if transfer is None else transfer.values
        if histogram is not None or transfer is not None:
            most = min(_HISTOGRAM_BLOCKS, max(1, _COUNT_BYTES // max(1, values.nbytes)))
            block_rows = -(-max(vectors, 1) // most)
        else:  # small enough for every thread to have several blocks and for a block's accumulators to stay in cache
            block_rows = max(1, min(32, _BLOCK_BYTES // (8 * self.limits.size + 1), vectors // (4 * get_num_threads())))
        blocks = -(-vectors // block_rows)
        saturations, largest = np.zeros(blocks, np.int64), np.zeros(blocks, np.int64)
        bins = 0 if histogram is None else histogram.shape[-1]
        histograms = np.zeros((blocks, hw.slices + 1, bins), np.int64)
        code_counts = np.zeros((blocks, *values.shape), np.int64)
        kernels.convert_columns(
            x,
            *self._packed,
            self.limits,
            0 if self.adc.unit is None else (1 << self.adc.unit) - 1,
            hw.rows,
            hw.input_cycles,
            hw.dac_bits,
            hw.slices,
            hw.cell_bits,
            hw.signs,
            last_digit_negative,
            hw.readout is Readout.ANALOG,
            0 if hw.encoding is Encoding.DIFFERENTIAL else 1 << (hw.weight_bits - 1),
            hw.max_level,
            sign,
            block_rows,
            y,
            saturations,
            largest,
            histograms,
            values,
            code_counts,
        )
        if transfer is not None:
            transfer.counts[...] += code_counts.sum(axis=0)
        if histogram is not None:
            total = histograms.sum(axis=0)
            histogram += total.sum(axis=0) if histogram.ndim == 1 else total[: histogram.shape[0]]
        return int(saturations.sum()), int(largest.max(initial=0))


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
        self._matrices = [_Matrix(matrix, hw, adc, signed_inputs) for matrix in codes]
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
            whole = (_bit_patterns(x, self.hw)[:, :, None, None], Window(), slice(0, 1), 1)
            if self._excess_pays(*whole):
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
        return _SPLIT_DOUBT * sum(self._split_nanoseconds) >= sum(matrix.nanoseconds for matrix in self._matrices)

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
        return vectors >= LEAST_BITSLICED and all(matrix.can_bitslice for matrix in self._matrices)

    def convolve(self, x: NDArray[Any], window: Window, lines: slice, width: int, *, refuted: bool = False) -> Product:
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
        refuted : bool
            Only what the refuted columns add to the result; ``proven`` is the rest. Both sums together are the product.

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
        y = (np.zeros if refuted else np.empty)((groups * columns, vectors), np.int64)
        saturations, largest = 0, 0
        for g, matrix in enumerate(self._matrices):
            part = y[g * columns : (g + 1) * columns]
            if not refuted:
                over, top = matrix.bitsliced.convert(x, g * channels, window, lines, width, part)
                saturations, largest = saturations + over, max(largest, top)
            for _, outputs, rest in self._splits[g].refuted if refuted else ():
                share = np.empty((len(outputs), vectors), np.int64)
                over, _ = rest.bitsliced.convert(x, g * channels, window, lines, width, share)
                part[outputs] = share
                saturations += over
        return Product(
            y=y.T,
            conversions=self.conversions(vectors),
            saturations=saturations,
            max_column_sum=None if refuted else largest,
        )

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
        y: NDArray[np.int64] | NDArray[np.int32],
    ) -> int:
        """Subtract what saturation takes from the exact product of all weights and the receptive fields of some lines.

        Parameters
        ----------
        x, window, lines, width
            As for :meth:`convolve`, of a design for which :meth:`excess_pays`; fastest where the channels of ``x`` lie
            innermost in memory.
        y : ndarray [shape=(vectors, outputs of all groups), C-contiguous]
            Changed in place, from the product to what the crossbars give. In int32 twice the largest
            ``max|x| * sum |w|`` of an output must fit.

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
        groups, _, columns = self.codes.shape
        shape = (vectors, groups * columns)
        if y.shape != shape or y.dtype not in (np.int64, np.int32) or not y.flags.c_contiguous:
            raise ShapeError(
                f"Argument 'y' must be contiguous int64 or int32 of shape {shape}, not {y.dtype} {y.shape}"
            )
        return self._excess.subtract(x, window, lines, width, y)

    def _excess_pays(self, x: NDArray[Any], window: Window, lines: slice, width: int) -> bool:
        """Whether nothing costs less than the excess of such inputs, by what a sample of them takes, and a product."""
        if not ExcessCells.supports(self.hw):
            return False
        if x.shape[0] * (lines.stop - lines.start) * width < LEAST_BITSLICED:
            return True  # the kernel for few vectors costs no less a conversion, and performs them all
        others = min(sum(self._split_nanoseconds), sum(matrix.nanoseconds for matrix in self._matrices))
        dense = len(self.codes) * self._dense_nanoseconds
        return self._excess.costs_less(others - dense, x, window, lines, width)

    def _check_images(self, x: NDArray[Any], window: Window, lines: slice, width: int) -> tuple[NDArray[Any], int]:
        """Bit patterns of images, and how many receptive fields the output lines have."""
        groups, rows, _ = self.codes.shape
        channels = rows // (window.kernel[0] * window.kernel[1])
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
        return _bit_patterns(x, self.hw), vectors

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
    def _splits(self) -> list[_Split]:
        """Of each group, which part of its weights is proven and which is not."""
        return [_split(codes, self.hw, self.adc, self.signed_inputs) for codes in self.codes]

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


class _Split:
    """Weights of one matrix as a sum of proven ones and refuted ones.

    A lossless column's codes are its sums, so what it adds to the result is its share of the product ``x @ w`` (DESIGN
    section 2's central property). With the differential encoding a column holds one digit of the weights of one sign:
    the digits in lossless columns make one weight matrix, ``proven``, and the others make another whose cells are those
    of the refuted columns and zeros, which never saturate. Analog readout converts pairs of columns, so there a weight
    goes with its pairs. With an offset encoding no weight is all zero cells: the weights of an output in a row tile are
    proven if all its columns there are, and each tile is a matrix of its own.

    Attributes
    ----------
    proven : ndarray [shape=(K, N), int32]
    refuted : list of (slice, ndarray of int, _Matrix)
        Rows, outputs, and their cells.
    """

    def __init__(
        self,
        proven: NDArray[np.int32],
        refuted: list[tuple[slice, NDArray[np.intp], _Matrix]],
        code_range: tuple[int, int],
    ) -> None:
        self.proven, self.refuted, self._code_range = proven, refuted, code_range

    @cached_property
    def product(self) -> ExactMatrix:
        """Operands of the proven part, made when first needed."""
        return ExactMatrix(self.proven, self._code_range)


def _split(codes: NDArray[np.int32], hw: Hardware, adc: AdcBits, signed: bool) -> _Split:
    rest = np.zeros_like(codes)
    refuted: list[tuple[slice, NDArray[np.intp], _Matrix]] = []
    tiles = [slice(first, first + hw.rows) for first in range(0, codes.shape[0], hw.rows)]
    if hw.encoding is Encoding.DIFFERENTIAL and hw.readout is Readout.DIGITAL:
        limits = (np.int64(1) << np.array(adc.per_slice, np.int64)) - 1
        places = (1 << (hw.cell_bits * np.arange(hw.slices)))[:, None]
        signs = np.array([1, -1])[:, None, None]
        for rows in tiles:
            levels = encode(codes[rows], hw).levels
            over = levels.sum(axis=0, dtype=np.int64) * max_digit(hw, signed) > limits[:, None]
            if over.any():
                rest[rows] = (levels * (over * places * signs)).sum(axis=(1, 2))
    else:
        for rows, lossless in zip(tiles, lossless_columns(codes, hw, adc, signed), strict=True):
            rest[rows] = np.where(lossless, 0, codes[rows])
            outputs = np.flatnonzero(~lossless)
            if hw.encoding is not Encoding.DIFFERENTIAL and outputs.size:
                refuted.append((rows, outputs, _Matrix(codes[rows][:, outputs], hw, adc, signed)))
    outputs = np.flatnonzero(rest.any(axis=0))
    if hw.encoding is Encoding.DIFFERENTIAL and outputs.size:
        refuted.append((slice(0, len(codes)), outputs, _Matrix(rest[:, outputs], hw, adc, signed)))
    return _Split(codes - rest, refuted, hw.input_range(signed))


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
