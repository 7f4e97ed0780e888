"""Weights as lists of the cells that are not zero, for the kernels that convert 512 vectors at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitline.crossbar.bitsliced import COUNT_PLANES, convert_bitsliced
from bitline.crossbar.lanes import PLANE, VECTORS
from bitline.hardware import Encoding, Hardware, Readout
from bitline.layers import Window

__all__ = ["BitslicedCells", "list_members"]


def list_members(levels: NDArray[np.uint8], rows: int, planes: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """List the rows whose cell has a bit set, for every row tile, plane and column.

    Parameters
    ----------
    levels : ndarray [shape=(K, C), uint8]
        Cell levels.
    rows, planes : int
        Rows of a tile and bits of a cell.

    Returns
    -------
    members : ndarray [int32]
        Rows within their tile, as distances in bytes between planes of 512 bits (row r is ``64 r``). Lists of one or
        two are filled up to three, longer ones to a multiple of four, with row ``rows``, whose inputs are zero.
    starts : ndarray [shape=(T, planes, C + 1), int64]
        Where each column's list begins and ends.
    """
    row_count, columns = levels.shape
    tiles = -(-row_count // rows)
    starts = np.zeros((tiles, planes, columns + 1), np.int64)
    parts, total = [], 0
    for tile in range(tiles):
        part = levels[tile * rows : (tile + 1) * rows].T
        for q in range(planes):
            column, row = np.nonzero((part >> q) & 1)
            counts = np.bincount(column, minlength=columns)
            padded = np.where(counts > 3, (counts + 3) // 4 * 4, np.where(counts > 0, 3, 0))
            ends = np.cumsum(padded)
            starts[tile, q, 1:] = ends
            members = np.full(int(ends[-1]) if columns else 0, rows, np.int32)
            rank = np.arange(column.size) - (np.cumsum(counts) - counts)[column]
            members[(ends - padded)[column] + rank] = row
            starts[tile, q] += total
            total += members.size
            parts.append(members)
    return PLANE * np.concatenate(parts or [np.zeros(0, np.int32)]), starts


class BitslicedCells:
    """Weights of a differential, digital design with 1-bit inputs, as lists of cells.

    Parameters
    ----------
    levels : ndarray [shape=(K, P, S, N), uint8]
        Cell levels (:func:`bitline.crossbar.encoding.encode`).
    hw : Hardware
    adc_bits : sequence of int
        Resolution of each slice's columns.
    signed_inputs : bool
        Whether the last digit counts negatively.
    """

    def __init__(self, levels: NDArray[np.uint8], hw: Hardware, adc_bits: Sequence[int], signed_inputs: bool) -> None:
        row_count, signs, slices, outputs = levels.shape
        self.hw, self.signed_inputs = hw, signed_inputs
        self.row_count, self.signs, self.slices, self.outputs = row_count, signs, slices, outputs
        # a row past the tile's last is always zero: a matrix of few rows needs no planes for the rest of the tile
        self.rows = min(hw.rows, row_count)
        flat = levels.reshape(row_count, -1)
        self.used = flat.any(axis=1)
        self.members, self.starts = list_members(flat, self.rows, hw.cell_bits)
        tiles = self.starts.shape[0]
        s_max = np.zeros((tiles, flat.shape[1]), np.int64)
        for tile in range(tiles):
            s_max[tile] = flat[tile * self.rows : (tile + 1) * self.rows].sum(axis=0, dtype=np.int64)
        self.s_max, self.sum_bits = s_max, _bit_lengths(s_max)
        self.adc_bits = np.tile(np.repeat(np.array(adc_bits, np.int64), outputs), signs)
        codes = np.minimum(s_max, (np.int64(1) << self.adc_bits) - 1).reshape(tiles, signs, slices, outputs)
        parts = (codes << (hw.cell_bits * np.arange(slices)).reshape(-1, 1)).sum(axis=2)
        self.part_bits = _bit_lengths(parts)
        self.total_bits = max(1, int(parts.sum(axis=(0, 1)).max(initial=0) * ((1 << hw.input_bits) - 1)).bit_length())

    @staticmethod
    def supports(hw: Hardware, rows: int) -> bool:
        """Whether these kernels know the design: counts fit their planes, no unit column, no analog pairs."""
        return (
            hw.dac_bits == 1
            and hw.encoding is Encoding.DIFFERENTIAL
            and hw.readout is Readout.DIGITAL
            and min(hw.rows, rows) < 1 << COUNT_PLANES
        )

    def convert(
        self,
        x: NDArray[Any],
        channel: int,
        window: Window,
        lines: slice,
        width: int,
        y: NDArray[np.int64],
    ) -> tuple[int, int]:
        """Convert the receptive fields of some output lines into ``y``; returns saturations and the largest sum.

        Parameters
        ----------
        x : ndarray [shape=(n, C, H, W), uint8 or uint16]
            Padded codes as bit patterns; the matrix reads the channels from ``channel`` on.
        window : Window
            Its padding is not applied again.
        lines : slice
            Output lines wanted.
        width : int
            Output width.
        y : ndarray [shape=(N, n * lines * width), int64]
            Overwritten.
        """
        blocks = -(-y.shape[1] // VECTORS)
        saturations, largest = np.zeros(blocks, np.int64), np.zeros(blocks, np.int64)
        convert_bitsliced(
            x,
            channel,
            window.kernel,
            window.stride,
            window.dilation,
            lines.start,
            lines.stop - lines.start,
            width,
            self.row_count,
            self.rows,
            self.used,
            self.members,
            self.starts,
            self.s_max,
            self.sum_bits,
            self.part_bits,
            self.adc_bits,
            self.hw.input_bits,
            self.slices,
            self.hw.cell_bits,
            self.signs,
            self.signed_inputs,
            self.total_bits,
            y,
            saturations,
            largest,
        )
        return int(saturations.sum()), int(largest.max(initial=0))


def _bit_lengths(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bits that hold each of some numbers below 2^53, exactly."""
    return np.frexp(values.astype(np.float64))[1].astype(np.int64)
