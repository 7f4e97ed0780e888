"""Weights as lists of the cells that are not zero, for the kernels that convert 512 vectors at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import get_num_threads
from numpy.typing import NDArray

from bitline.crossbar.bitsliced import COUNT_PLANES, SUM_PLANES, convert_bitsliced
from bitline.crossbar.lanes import PLANE, VECTORS
from bitline.hardware import Encoding, Hardware, Readout
from bitline.layers import Window

__all__ = ["BitslicedCells", "list_members"]


def list_members(levels: NDArray[np.uint8], rows: int, planes: int) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
    """List the rows whose cell has a bit set, for every row tile, column and plane, the highest plane first.

    Parameters
    ----------
    levels : ndarray [shape=(K, C), uint8]
        Cell levels.
    rows, planes : int
        Rows of a tile and bits of a cell.

    Returns
    -------
    members : ndarray [uint16]
        Rows within their tile, as distances in words between planes (row r is ``16 r``). Lists of up to four are
        filled up to four, longer ones to a multiple of eight, with row ``rows``, whose inputs are zero.
    starts : ndarray [shape=(T, C * planes + 1), int64]
        Where each list begins, in this order, and the last of a tile ends.
    """
    row_count, columns = levels.shape
    tiles = -(-row_count // rows)
    starts = np.zeros((tiles, columns * planes + 1), np.int64)
    parts, total = [], 0
    highest_first = np.arange(planes - 1, -1, -1, dtype=np.uint8)
    for tile in range(tiles):
        part = levels[tile * rows : (tile + 1) * rows].T
        bits = (part[:, None, :] >> highest_first[:, None]) & 1
        which, row = np.nonzero(bits.reshape(columns * planes, -1))
        counts = np.bincount(which, minlength=columns * planes)
        padded = np.where(counts > 4, (counts + 7) // 8 * 8, np.where(counts > 0, 4, 0))
        ends = np.cumsum(padded)
        starts[tile, 1:] = ends
        members = np.full(int(ends[-1]) if columns else 0, rows * (PLANE // 8), np.uint16)
        rank = np.arange(which.size) - (np.cumsum(counts) - counts)[which]
        members[(ends - padded)[which] + rank] = row * (PLANE // 8)
        starts[tile] += total
        total += members.size
        parts.append(members)
    return np.concatenate(parts or [np.zeros(0, np.uint16)]), starts


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
        self.row_count, self.slices = row_count, slices
        # a row past the tile's last is always zero: a matrix of few rows needs no planes for the rest of the tile
        self.rows = min(hw.read_rows, row_count)
        self.used = levels.any(axis=(1, 2, 3))
        # the order in which the kernel walks: an output, its signs, their slices
        walked = np.ascontiguousarray(levels.transpose(0, 3, 1, 2)).reshape(row_count, -1)
        self.members, self.starts = list_members(walked, self.rows, hw.cell_bits)
        tiles = self.starts.shape[0]
        sums = np.zeros((tiles, signs, slices, outputs), np.int64)
        for tile in range(tiles):
            sums[tile] = levels[tile * self.rows : (tile + 1) * self.rows].sum(axis=0, dtype=np.int64)
        self.s_max = sums.max(axis=-1, initial=0)
        self.sum_planes = _bit_lengths(self.s_max)
        limits = (np.int64(1) << np.array(adc_bits, np.int64)) - 1
        self.clips = self.s_max > limits
        self.beyond = np.where(np.arange(SUM_PLANES) < np.array(adc_bits).reshape(-1, 1), 0, np.int64(-1))
        codes = np.minimum(sums, limits[:, None]) << (hw.cell_bits * np.arange(slices))[:, None]
        self.part_bits = _bit_lengths(codes.cumsum(axis=2).max(axis=-1, initial=0))
        largest = int(codes.sum(axis=(0, 2)).max(initial=0)) * ((1 << hw.input_bits) - 1)
        self.total_bits = largest.bit_length() + 1

    @staticmethod
    def supports(hw: Hardware, rows: int) -> bool:
        """Whether these kernels know the design: counts and sums fit their planes, no unit column, no analog pairs."""
        return (
            hw.dac_bits == 1
            and hw.encoding is Encoding.DIFFERENTIAL
            and hw.readout is Readout.DIGITAL
            and min(hw.read_rows, rows) < 1 << COUNT_PLANES
            and min(hw.read_rows, rows) * hw.max_level < 1 << SUM_PLANES
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
        workers = min(get_num_threads(), -(-y.shape[1] // VECTORS))
        saturations, largest = np.zeros(workers, np.int64), np.zeros(workers, np.int64)
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
            self.hw.cell_bits,
            self.s_max,
            self.sum_planes,
            self.part_bits,
            self.beyond,
            self.clips,
            self.hw.input_bits,
            self.slices,
            self.hw.cell_bits,
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
