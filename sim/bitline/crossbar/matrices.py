"""One weight matrix in its crossbars: cells, every conversion, rough costs, and what of it is proven."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numba import get_num_threads
from numpy.typing import NDArray

from bitline.crossbar import kernels
from bitline.crossbar.adc import AdcBits, max_digit
from bitline.crossbar.cell_lists import BitslicedCells
from bitline.crossbar.certificate import lossless_columns
from bitline.crossbar.encoding import CellLevels, encode
from bitline.crossbar.exact import ExactMatrix
from bitline.hardware import Encoding, Hardware, Readout
from bitline.layers import Window

__all__ = ["LEAST_BITSLICED", "Matrix", "Product", "Split", "Transfer", "bit_patterns", "split_matrix"]

LEAST_BITSLICED = 128
"""Input vectors from which on 512 at once, some of them idle, are faster than one after the other."""

_MOST_LISTED = 1 << 23
"""Weights of a matrix whose cells are listed: 9 bytes a dense 8-bit weight, over four times the packed planes."""

_NANOSECONDS_PER_ADDITION, _NANOSECONDS_PER_SUM, _NANOSECONDS_PER_ROW = 0.55 / 512, 13 / 512, 0.028
"""Of the bit-sliced kernel, for one digit of a vector: a one of a cell added, all else a column that is not empty
costs, and a row packed; fitted to (1024, 1152) x (1152, 256), dense and at CP rate 16, rows to ResNet-20's layers."""
_NANOSECONDS_PER_CONVERSION = 0.5
_BLOCK_BYTES = 1 << 20
_HISTOGRAM_BLOCKS = 16
_COUNT_BYTES = 64 << 20


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


def bit_patterns(x: NDArray[Any], hw: Hardware) -> NDArray[Any]:
    """Codes as bit patterns of ``input_bits`` digits; digits beyond are never read."""
    narrow = hw.input_bits <= 8
    if x.dtype == (np.int8 if narrow else np.int16):
        return x.view(np.uint8 if narrow else np.uint16)
    return x.astype(np.uint8 if narrow else np.uint16, copy=False)


class Matrix:
    """One weight matrix in the cells of its crossbars, packed once."""

    def __init__(
        self, w: NDArray[np.int32], hw: Hardware, adc: AdcBits, signed: bool, cells: CellLevels | None = None
    ) -> None:
        rows, outputs = w.shape
        self._given = cells
        self.hw, self.adc, self.w = hw, adc, w
        self.signed = signed
        tiles = -(-rows // hw.read_rows)
        # analog codes lie in -2^(N-1) .. 2^(N-1) - 1, digital ones in 0 .. 2^N - 1
        bits = np.array(adc.per_slice, np.int64) - (1 if hw.readout is Readout.ANALOG else 0)
        limits = (np.int64(1) << bits) - 1
        self.limits = np.tile(np.repeat(limits, outputs), hw.signs)
        self.conversions_per_digit: int = tiles * (
            hw.slices * outputs * (1 if hw.readout is Readout.ANALOG else hw.signs) + (adc.unit is not None)
        )

    @property
    def cells(self) -> CellLevels:
        """What the cells hold: what was given, else what the weights' encoding says."""
        return self._given if self._given is not None else encode(self.w, self.hw)

    @cached_property
    def _packed(self) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
        """Bit planes of the cells, and which columns are stored complemented; packed when first needed."""
        hw, (rows, outputs) = self.hw, self.w.shape
        cells = self.cells
        tiles = cells.flips.shape[0]
        columns = hw.signs * hw.slices * outputs
        words = -(-min(hw.read_rows, max(rows, 1)) // 64)
        if hw.read_rows <= 128 and hw.read_rows > 64:
            words = 2  # a matrix of few rows still fits the two-word kernel
        planes = np.zeros((tiles, hw.cell_bits, words, columns), np.uint64)
        kernels.pack_cells(np.ascontiguousarray(cells.levels.reshape(rows, columns)), hw.read_rows, planes)
        return planes, np.ascontiguousarray(cells.flips.reshape(tiles, columns).astype(np.uint8))

    @property
    def can_bitslice(self) -> bool:
        """Whether the kernel for 512 vectors at once knows the design, and its lists of cells fit in memory."""
        return 0 < self.w.size <= _MOST_LISTED and BitslicedCells.supports(self.hw, self.w.shape[0])

    @cached_property
    def bitsliced(self) -> BitslicedCells:
        """The cells for 512 vectors at once, listed when first needed."""
        return BitslicedCells(self.cells.levels, self.hw, self.adc.per_slice, self.signed)

    @cached_property
    def nanoseconds(self) -> float:
        """Rough cost of converting one input vector; only ratios matter."""
        hw = self.hw
        if not self.can_bitslice:
            return self.conversions(1, self.signed) * _NANOSECONDS_PER_CONVERSION
        ones = columns = 0
        for first in range(0, self.w.shape[0], hw.read_rows):
            tile = slice(first, first + hw.read_rows)
            levels = encode(self.w[tile], hw).levels if self._given is None else self._given.levels[tile]
            ones += int(np.bitwise_count(levels).sum(dtype=np.int64))
            columns += int(np.count_nonzero(levels.any(axis=0)))
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
            columns = np.ascontiguousarray(bit_patterns(x.T, self.hw)).reshape(1, x.shape[1], 1, vectors)
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
            hw.read_rows,
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


class Split:
    """Weights of one matrix as a sum of proven ones and refuted ones.

    The codes of a lossless column are its sums, so what the column adds to the result is its share of the product
    ``x @ w``. With the differential encoding a column holds one digit of the weights of one sign. ``proven`` holds the
    part of each weight that sits in lossless columns. The remainder is a second matrix: its non-zero cells are exactly
    those of the refuted columns, and its zero cells cannot saturate.

    Analog readout converts pairs of columns, so there a weight goes with its pairs. With an offset encoding no weight
    is all zero cells: the weights of an output in a row tile are proven if all its columns there are, and each tile is
    a matrix of its own.

    Attributes
    ----------
    proven : ndarray [shape=(K, N), int32]
    refuted : list of (slice, ndarray of int, Matrix)
        Rows, outputs, and their cells.
    """

    def __init__(
        self,
        proven: NDArray[np.int32],
        refuted: list[tuple[slice, NDArray[np.intp], Matrix]],
        code_range: tuple[int, int],
    ) -> None:
        self.proven, self.refuted, self._code_range = proven, refuted, code_range

    @cached_property
    def product(self) -> ExactMatrix:
        """Operands of the proven part, made when first needed."""
        return ExactMatrix(self.proven, self._code_range)


def split_matrix(codes: NDArray[np.int32], hw: Hardware, adc: AdcBits, signed: bool) -> Split:
    rest = np.zeros_like(codes)
    refuted: list[tuple[slice, NDArray[np.intp], Matrix]] = []
    tiles = [slice(first, first + hw.read_rows) for first in range(0, codes.shape[0], hw.read_rows)]
    if hw.encoding is Encoding.DIFFERENTIAL and hw.readout is Readout.DIGITAL:
        limits = (np.int64(1) << np.array(adc.per_slice, np.int64)) - 1
        places = (1 << (hw.cell_bits * np.arange(hw.slices)))[:, None]
        signs = np.array([1, -1])[:, None, None]
        kept: list[tuple[slice, NDArray[np.uint8]]] = []
        for rows in tiles:
            levels = encode(codes[rows], hw).levels
            over = levels.sum(axis=0, dtype=np.int64) * max_digit(hw, signed) > limits[:, None]
            if over.any():
                rest[rows] = (levels * (over * places * signs)).sum(axis=(1, 2))
                kept.append((rows, levels * over))
        outputs = np.flatnonzero(rest.any(axis=0))
        if outputs.size:
            # the cells as they are: signed digits of the remainder by itself would be others
            levels = np.zeros((len(codes), hw.signs, hw.slices, len(outputs)), np.uint8)
            for rows, mine in kept:
                levels[rows] = mine[..., outputs]
            cells = CellLevels(levels=levels, flips=np.zeros((len(tiles), *levels.shape[1:]), np.bool_))
            refuted.append((slice(0, len(codes)), outputs, Matrix(rest[:, outputs], hw, adc, signed, cells)))
    else:
        for rows, lossless in zip(tiles, lossless_columns(codes, hw, adc, signed), strict=True):
            rest[rows] = np.where(lossless, 0, codes[rows])
            outputs = np.flatnonzero(~lossless)
            if hw.encoding is not Encoding.DIFFERENTIAL and outputs.size:
                refuted.append((rows, outputs, Matrix(codes[rows][:, outputs], hw, adc, signed)))
        outputs = np.flatnonzero(rest.any(axis=0))
        if hw.encoding is Encoding.DIFFERENTIAL and outputs.size:
            refuted.append((slice(0, len(codes)), outputs, Matrix(rest[:, outputs], hw, adc, signed)))
    return Split(codes - rest, refuted, hw.input_range(signed))
