"""Refuted columns packed for the kernels of :mod:`bitline.crossbar.excess`, and the inputs they meet."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numba import get_num_threads
from numpy.typing import NDArray

from bitline.crossbar.adc import AdcBits
from bitline.crossbar.encoding import encode
from bitline.crossbar.excess import pack_pixels, subtract_excess
from bitline.crossbar.kernels import pack_cells
from bitline.hardware import Encoding, Hardware, Readout
from bitline.layers import Window

__all__ = ["SAMPLE", "ExcessCells", "Fields", "LayerExcess"]

SAMPLE = 64
"""Receptive fields converted to foretell how many conversions all of them will take."""

_NANOSECONDS_PER_TILE, _NANOSECONDS_PER_CONVERSION, _NANOSECONDS_PER_SATURATION = 30.0, 0.5, 0.6
"""Of an input vector: eight digits of a row tile packed and counted, and what is then performed and found over."""

_BLOCK_VECTORS = 512
"""Vectors of a thread's block, whose pixels are counted together."""

_PLANE_BYTES = 16 << 20
"""Bit planes of images held at once."""

_SLACK = 64
"""Codes past the last pixel's, so that a word of channels can be read from any."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Fields:
    """Receptive fields of some images, in row-major order of their output positions.

    Attributes
    ----------
    codes : ndarray [shape=(n * H * W * channels + 63 at least,), uint8 or uint16]
        Padded codes as bit patterns, channels innermost.
    images, channels : int
    size : (int, int)
        H and W.
    window : Window
        Its padding is in the codes.
    height, width : int
        Output positions of an image.
    """

    codes: NDArray[Any]
    images: int
    channels: int
    size: tuple[int, int]
    window: Window
    height: int
    width: int

    @classmethod
    def of_images(cls, x: NDArray[Any], window: Window, lines: slice, width: int) -> Fields:
        """Those of some output lines of padded bit patterns (n, C, H, W), fastest where channels lie innermost."""
        first = lines.start * window.stride[0]
        last = (lines.stop - 1) * window.stride[0] + (window.kernel[0] - 1) * window.dilation[0] + 1
        x = x[:, :, first:last]
        images, channels, *size = x.shape
        codes = np.zeros(x.size + _SLACK, x.dtype)
        codes[: x.size].reshape(images, *size, channels)[...] = x.transpose(0, 2, 3, 1)
        return cls(
            codes=codes,
            images=images,
            channels=channels,
            size=(size[0], size[1]),
            window=window,
            height=lines.stop - lines.start,
            width=width,
        )

    @classmethod
    def sample(cls, x: NDArray[Any], window: Window, lines: slice, width: int) -> Fields:
        """Some ``SAMPLE`` of them: whole lines from the middle of images evenly spaced."""
        height = min(lines.stop - lines.start, -(-SAMPLE // width))
        first = (lines.start + lines.stop - height) // 2
        step = max(1, x.shape[0] * height * width // max(SAMPLE, height * width))
        return cls.of_images(x[step // 2 :: step], window, slice(first, first + height), width)

    @property
    def vectors(self) -> int:
        """Receptive fields."""
        return self.images * self.height * self.width

    def part(self, first: int, last: int) -> Fields:
        """The receptive fields of images ``first`` to ``last - 1``."""
        pixels = self.size[0] * self.size[1] * self.channels
        codes = self.codes[first * pixels : last * pixels + _SLACK]
        return replace(self, codes=codes, images=last - first)


class ExcessCells:
    """The refuted columns of a weight matrix, of a differential, digital design with 1-bit inputs.

    Parameters
    ----------
    codes : ndarray [shape=(K, N), int32]
        Weight codes, rows in the order channel, kernel position.
    hw : Hardware
    adc : AdcBits
    signed_inputs : bool
        Whether the last digit counts negatively.
    area : int
        Kernel positions.
    """

    def __init__(self, codes: NDArray[np.int32], hw: Hardware, adc: AdcBits, signed_inputs: bool, area: int) -> None:
        row_count, outputs = codes.shape
        self.hw, self.signed_inputs, self.area = hw, signed_inputs, area
        self.channels, self.outputs = row_count // area, outputs
        limits = np.tile(np.repeat((np.int64(1) << np.array(adc.per_slice, np.int64)) - 1, outputs), 2)
        places = np.int64(1) << (hw.cell_bits * np.arange(hw.slices))
        places = np.concatenate([np.repeat(places, outputs), np.repeat(-places, outputs)])
        starts = range(0, row_count, hw.read_rows)
        self._words = np.array([max(2, -(-min(hw.read_rows, row_count - first) // 64)) for first in starts], np.int64)
        self._wanted = np.zeros((len(starts), min(hw.read_rows, row_count) + 1), np.int64)
        layouts, cells, kept = [], [], []
        for tile, first in enumerate(starts):
            rows = np.arange(first, min(first + hw.read_rows, row_count))
            order = rows[np.argsort(rows % area, kind="stable")]
            layouts.append(_layout(order, area))
            levels = encode(codes[rows], hw).levels[order - first].reshape(len(rows), -1)
            refuted = np.flatnonzero(levels.sum(axis=0, dtype=np.int64) > limits)
            least = _least_driven(levels[:, refuted], limits[refuted])
            refuted = refuted[np.argsort(least, kind="stable")]
            self._wanted[tile] = np.searchsorted(np.sort(least), np.arange(self._wanted.shape[1]), side="right")
            padding = -len(refuted) % 8
            planes = np.zeros((1, hw.cell_bits, self._words[tile], len(refuted) + padding), np.uint64)
            pack_cells(np.ascontiguousarray(levels[:, refuted]), hw.read_rows, planes)
            cells.append(planes.ravel())
            kept.append(np.append(refuted, np.full(padding, -1)))
        self._sets, self._parts, self._part_masks, self._moves, self._move_masks = (
            np.concatenate(part) for part in zip(*layouts, strict=True)
        )
        self._cells = np.concatenate(cells)
        sizes = [
            (len(layout[0]), len(layout[1]), len(layout[3]), len(planes), len(columns))
            for layout, planes, columns in zip(layouts, cells, kept, strict=True)
        ]
        self._starts = np.cumsum([(0,) * 5, *sizes], axis=0, dtype=np.int64)
        columns = np.concatenate(kept)
        self.columns = int(np.count_nonzero(columns >= 0))
        self._limits = np.where(columns >= 0, limits[columns], np.iinfo(np.int64).max)
        self._places, self._outputs = places[columns], columns % outputs
        self._least = np.argmax(self._wanted > 0, axis=1)

    @staticmethod
    def supports(hw: Hardware) -> bool:
        """Whether the design is linear in its codes and its inputs drive a row or do not."""
        return hw.dac_bits == 1 and hw.encoding is Encoding.DIFFERENTIAL and hw.readout is Readout.DIGITAL

    def subtract(self, fields: Fields, group: int, y: NDArray[np.int64], only_count: bool = False) -> tuple[int, int]:
        """Subtract the excess of conversions from ``y``; returns how many were performed and how many saturated.

        Parameters
        ----------
        fields : Fields
        group : int
            Which channels of the fields and which outputs of ``y`` are the matrix's.
        y : ndarray [shape=(vectors, groups * N), int64]
            Changed in place.
        only_count : bool
            Count what would be performed; do none of it.
        """
        performed = saturations = 0
        words = -(-self.channels // 64)
        octets = -(-self.hw.input_bits // 8)
        size, window = fields.size, fields.window
        taps = np.arange(self.area)
        steps = (taps // window.kernel[1]) * window.dilation[0] * size[1] + taps % window.kernel[1] * window.dilation[1]
        sets, moves = self._sets.copy(), self._moves.copy()
        sets[:, 0], moves[:, 0] = steps[sets[:, 0]], steps[moves[:, 0]]
        positions = fields.height * fields.width
        most = max(1, _PLANE_BYTES // (64 * words * octets * size[0] * size[1]))
        for first in range(0, fields.images, most):
            part = fields.part(first, min(fields.images, first + most))
            planes = np.zeros((part.images * size[0] * size[1], words, octets, 8), np.uint64)
            pack_pixels(part.codes, fields.channels, group * self.channels, self.hw.input_bits, planes)
            mine = y[first * positions : first * positions + part.vectors]
            block_rows = max(1, min(_BLOCK_VECTORS, -(-len(mine) // (4 * get_num_threads()))))
            conversions, saturated = np.zeros((2, -(-len(mine) // block_rows)), np.int64)
            subtract_excess(
                planes,
                size,
                window.stride,
                fields.height,
                fields.width,
                int(steps.max()),
                sets,
                self._parts,
                self._part_masks,
                moves,
                self._move_masks,
                self._starts,
                self._wanted,
                self._least,
                self._cells,
                self._limits,
                self._outputs,
                self._places,
                self._words,
                self.hw.cell_bits,
                self.hw.input_bits,
                self.signed_inputs,
                only_count,
                block_rows,
                group * self.outputs,
                mine,
                conversions,
                saturated,
            )
            performed, saturations = performed + int(conversions.sum()), saturations + int(saturated.sum())
        return performed, saturations

    def nanoseconds(self, sample: Fields, group: int, most: float) -> float:
        """Cost of a vector like those of a sample, by the conversions they take; a lower bound above ``most``."""
        y = np.zeros((sample.vectors, (group + 1) * self.outputs), np.int64)
        performed, _ = self.subtract(sample, group, y, only_count=True)
        tiles = int(np.count_nonzero(self._least)) * -(-self.hw.input_bits // 8)
        cost = tiles * _NANOSECONDS_PER_TILE + performed / sample.vectors * _NANOSECONDS_PER_CONVERSION
        if cost < most:
            _, saturations = self.subtract(sample, group, y)
            cost += saturations / sample.vectors * _NANOSECONDS_PER_SATURATION
        return cost


class LayerExcess:
    """What saturation takes from a layer's exact products, group by group.

    Parameters
    ----------
    codes : ndarray [shape=(G, K, N), int32]
    hw : Hardware
    adc : AdcBits
    signed_inputs : bool
    """

    def __init__(self, codes: NDArray[np.int32], hw: Hardware, adc: AdcBits, signed_inputs: bool) -> None:
        self.codes, self.hw, self.adc, self.signed_inputs = codes, hw, adc, signed_inputs
        self._cells: dict[int, list[ExcessCells]] = {}

    def cells(self, window: Window) -> list[ExcessCells]:
        """Each group's refuted columns, packed when first needed for a kernel of so many positions."""
        area = window.kernel[0] * window.kernel[1]
        if area not in self._cells:
            self._cells[area] = [ExcessCells(w, self.hw, self.adc, self.signed_inputs, area) for w in self.codes]
        return self._cells[area]

    def costs_less(self, nanoseconds: float, x: NDArray[Any], window: Window, lines: slice, width: int) -> bool:
        """Whether a vector costs less than so much, by the conversions that a sample of such inputs takes."""
        sample = Fields.sample(x, window, lines, width)
        for g, part in enumerate(self.cells(window)):
            nanoseconds -= part.nanoseconds(sample, g, nanoseconds)
        return nanoseconds > 0

    def subtract(
        self,
        x: NDArray[Any],
        window: Window,
        lines: slice,
        width: int,
        y: NDArray[np.int64],
    ) -> int:
        """Subtract from the exact product ``y`` (vectors, G * N) what is over the code range; counts saturations.

        Parameters
        ----------
        x : ndarray [shape=(n, C, H, W), uint8 or uint16]
            Padded bit patterns of all groups; window, lines and width as for ``Crossbars.convolve``.
        """
        fields = Fields.of_images(x, window, lines, width)
        return sum(part.subtract(fields, g, y)[1] for g, part in enumerate(self.cells(window)))


def _layout(order: NDArray[np.int64], area: int) -> tuple[NDArray[Any], ...]:
    """How to count and collect a tile's rows, in the order kernel position, channel, from planes of pixels.

    Returns
    -------
    sets : ndarray [shape=(positions, 2), int64]
        Kernel positions with rows in the tile, and which set of channels each has.
    parts, part_masks : ndarray [shape=(P, 2), int64], ndarray [shape=(P,), uint64]
        Set, word of a pixel, and bits there. There are few sets: a tile cuts its first and its last channel only.
    moves, move_masks : ndarray [shape=(G, 5), int64], ndarray [shape=(G,), uint64]
        Kernel position, word of a pixel, shift right, shift left, word of the tile; bits that move, shifted right.
    """
    channels, taps = order // area, order % area
    bits = np.arange(len(order))
    known: dict[tuple[int, ...], int] = {}
    sets = [(tap, known.setdefault(tuple(channels[taps == tap]), len(known))) for tap in np.unique(taps)]
    parts, part_masks = [], []
    for members, number in known.items():
        for word in np.unique(np.array(members) // 64):
            parts.append((number, word))
            part_masks.append(sum(1 << (channel % 64) for channel in members if channel // 64 == word))
    # a run goes on while position, word of the pixel and word of the tile stay the same; its channels are consecutive
    key = (taps * (channels.max() // 64 + 1) + channels // 64) * (len(order) // 64 + 1) + bits // 64
    begins = np.flatnonzero(np.diff(key, prepend=-1))
    lengths = np.diff(begins, append=len(order))
    moves = np.stack([taps, channels // 64, channels % 64, bits % 64, bits // 64], axis=1)[begins]
    masks = np.uint64(0xFFFFFFFFFFFFFFFF) >> (64 - lengths).astype(np.uint64)
    return np.array(sets, np.int64), np.array(parts, np.int64), np.array(part_masks, np.uint64), moves, masks


def _least_driven(levels: NDArray[np.uint8], limits: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of refuted columns (rows, columns), the least number of rows whose largest levels sum to more than the limit."""
    sums = np.cumsum(np.sort(levels, axis=0)[::-1], axis=0, dtype=np.int64)
    return np.asarray(1 + np.count_nonzero(sums <= limits, axis=0))
