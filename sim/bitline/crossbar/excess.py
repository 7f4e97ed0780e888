"""What saturation takes from an exact product: the only conversions the ``certified`` engine has to perform.

With the differential encoding, digital readout and 1-bit inputs the result is linear in the ADC's codes, and a code is
the column sum less what is over the code range (the *excess*)::

    y = x @ w - sum over conversions of  sign * 2^(input digit + cell_bits * slice) * max(s - (2^N - 1), 0)

with the last digit of signed inputs negative. So ``x @ w`` is computed densely, over all weights, and the excess is
subtracted. A conversion has none unless its column is refuted and enough of its rows are driven: the least number of
driven rows ``a`` whose largest levels sum to more than the limit is known of every column, so a tile's refuted columns
are sorted by it, and a digit that drives ``a`` rows has to convert the first ``wanted[a]`` of them. That bound is tight
for a count of rows: some input of that many ones reaches it.

Receptive fields are read from bit planes of the images, packed once a pixel and not once a receptive field. In a row
tile they are bits in the order kernel position, channel, so a position's bits are moved a run at a time (a *move*).

One thread owns a block of output rows, so no result depends on the thread count. The readable twin is in
``tests/reference.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numba import get_num_threads, njit, prange
from numpy.typing import NDArray

from bitline.crossbar.adc import AdcBits
from bitline.crossbar.encoding import encode
from bitline.crossbar.kernels import pack_cells, popcount
from bitline.crossbar.lanes import (
    PLANE,
    add,
    address,
    both,
    broadcast,
    count_ones_each,
    either,
    larger,
    load,
    load_word,
    pack64,
    positive,
    shift_left,
    shift_right,
    store,
    subtract,
    zeros,
)
from bitline.hardware import Encoding, Hardware, Readout
from bitline.layers import Window

__all__ = ["SAMPLE", "ExcessCells", "Fields"]

_COLUMN_BLOCK = 512
_MOST_VECTORS = 64
"""Columns and vectors converted together: cells, packed rows and sums stay in cache."""

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


@njit(parallel=True, cache=True)
def _pack_pixels(codes, channels, channel, digits, planes):
    """Pack channels of pixels into bit planes (pixels, words, octets, 8) uint64; bit c of word w is channel 64 w + c.

    codes (pixels * channels + 63 at least,) unsigned, of which the matrix has those from ``channel`` on; bits past its
    last channel are of something else, and no move has them. Planes past ``digits`` are left as they are.
    """
    pixels, words, _, _ = planes.shape
    for pixel in prange(pixels):
        for word in range(words):
            first = pixel * channels + channel + 64 * word
            for digit in range(digits):
                planes[pixel, word, digit >> 3, digit & 7] = pack64(codes, first, digit)


@njit(cache=True)
def _count_pixels(planes_at, pixel_bytes, parts, masks, counts):
    """Count the ones of pixels in sets of channels, by digit: counts (sets, pixels, 8) uint64.

    planes_at: address of the first pixel's planes of eight digits, the next one's ``pixel_bytes`` on; parts (P, 2)
    int64 set, and bytes on to the planes of a word; masks (P,) uint64 the set's channels there.
    """
    counts_at = address(counts)
    for k in range(counts.shape[0] * counts.shape[1]):
        store(counts_at + k * PLANE, zeros())
    for k in range(parts.shape[0]):
        target, source = counts_at + parts[k, 0] * counts.shape[1] * PLANE, planes_at + parts[k, 1]
        mask = broadcast(masks[k])
        for _ in range(counts.shape[1]):
            store(target, add(load(target), count_ones_each(both(load(source), mask))))
            target += PLANE
            source += pixel_bytes


@njit(cache=True)
def _gather(pixel_at, moves, masks, packed_at, words):
    """Collect what one row tile meets at a receptive field: planes of ``words`` words at ``packed_at``."""
    for word in range(words):
        store(packed_at + word * PLANE, zeros())
    for k in range(moves.shape[0]):
        bits = both(shift_right(load(pixel_at + moves[k, 0]), moves[k, 1]), broadcast(masks[k]))
        target = packed_at + moves[k, 3]
        store(target, either(load(target), shift_left(bits, moves[k, 2])))


@njit(cache=True)
def _sums_over(x_at, words, cells_at, cell_planes, plane_bytes, limits_at, groups, over_at):
    """How far column sums are above their limits (negative: below), of groups of eight columns; whether any is.

    The words of the digit lie at ``x_at``, PLANE bytes apart; at ``cells_at`` cell planes (cell_planes, words), a plane
    ``plane_bytes`` after the other; at ``limits_at`` and ``over_at`` int64 of each column.
    """
    top = zeros()
    if cell_planes == 2 and words == 2:
        x0, x1 = load_word(x_at), load_word(x_at + PLANE)
        for group in range(groups):
            cell = cells_at + group * PLANE
            low = add(count_ones_each(both(x0, load(cell))), count_ones_each(both(x1, load(cell + plane_bytes))))
            cell += 2 * plane_bytes
            high = add(count_ones_each(both(x0, load(cell))), count_ones_each(both(x1, load(cell + plane_bytes))))
            over = subtract(add(low, add(high, high)), load(limits_at + group * PLANE))
            store(over_at + group * PLANE, over)
            top = larger(top, over)
        return positive(top) != 0
    for group in range(groups):
        store(over_at + group * PLANE, subtract(zeros(), load(limits_at + group * PLANE)))
    for q in range(cell_planes):
        for word in range(words):
            x = load_word(x_at + word * PLANE)
            for group in range(groups):
                ones = count_ones_each(both(x, load(cells_at + group * PLANE)))
                store(over_at + group * PLANE, add(load(over_at + group * PLANE), shift_left(ones, q)))
            cells_at += plane_bytes
    for group in range(groups):
        top = larger(top, load(over_at + group * PLANE))
    return positive(top) != 0


@njit(cache=True)
def _add_excess(over_at, groups, digit, negative, totals_at):
    """Add what is above the limits, shifted, to the totals; returns how many are, and in which groups, as bits."""
    saturated, touched = np.int64(0), np.int64(0)
    for group in range(groups):  # no branch on what is found: it would be guessed wrong too often
        over = load(over_at + group * PLANE)
        found = positive(over)
        saturated += popcount(np.uint64(found))
        touched |= np.int64(found != 0) << group
        over = shift_left(larger(over, zeros()), digit)
        target = totals_at + group * PLANE
        if negative:
            store(target, subtract(load(target), over))
        else:
            store(target, add(load(target), over))
    return saturated, touched


@njit(cache=True)
def _subtract_block(
    planes,
    reach,
    sets,
    parts,
    part_masks,
    moves,
    move_masks,
    starts,
    wanted,
    least,
    cells,
    limits,
    outputs,
    places,
    words,
    cell_planes,
    digits,
    last_digit_negative,
    only_count,
    pixels,
    counts,
    driven,
    packed,
    rows,
    columns,
    excess,
    totals,
    y,
):
    """Subtract the excess of one block's conversions from ``y``; returns how many were performed and saturated.

    Arguments are those of ``_subtract_excess``; pixels (vectors,) int64 the first pixel of each receptive field; counts
    (sets, pixels, 8), packed (_MOST_VECTORS, words, 8) uint64; driven (8,), rows (_MOST_VECTORS,), columns
    (_MOST_VECTORS, 8), excess and totals (_COLUMN_BLOCK,) int64, the last all zero, are the caller's, who keeps them
    alive: Numba would free an array of which only the address is used.
    """
    octets = planes.shape[2]
    word_bytes = octets * PLANE
    pixel_bytes = planes.shape[1] * word_bytes
    planes_at, cells_at, limits_at = address(planes), address(cells), address(limits)
    counts_at, driven_at, packed_at = address(counts), address(driven), address(packed)
    over_at, totals_at = address(excess), address(totals)
    first_pixel = pixels[0]
    performed, saturations = np.int64(0), np.int64(0)
    for tile in range(words.shape[0]):
        first_column = starts[tile, 4]
        tile_columns = starts[tile + 1, 4] - first_column
        if tile_columns == 0:
            continue
        tile_words = words[tile]
        # from words and pixels to bytes
        tile_parts = parts[starts[tile, 1] : starts[tile + 1, 1]].copy()
        tile_part_masks = part_masks[starts[tile, 1] : starts[tile + 1, 1]]
        tile_parts[:, 1] *= word_bytes
        tile_sets = sets[starts[tile, 0] : starts[tile + 1, 0], 0] * PLANE
        tile_sets += sets[starts[tile, 0] : starts[tile + 1, 0], 1] * (counts.shape[1] * PLANE)
        tile_moves = moves[starts[tile, 2] : starts[tile + 1, 2], 1:].copy()
        tile_moves[:, 0] *= word_bytes
        tile_moves[:, 0] += moves[starts[tile, 2] : starts[tile + 1, 2], 0] * pixel_bytes
        tile_moves[:, 3] *= PLANE
        tile_move_masks = move_masks[starts[tile, 2] : starts[tile + 1, 2]]
        too_few = broadcast(np.uint64(least[tile] - 1))
        for octet in range(octets):
            octet_at = planes_at + octet * PLANE
            _count_pixels(octet_at + first_pixel * pixel_bytes, pixel_bytes, tile_parts, tile_part_masks, counts)
            m = 0
            while m < pixels.shape[0]:
                found = 0
                most = np.int64(0)
                while m < pixels.shape[0] and found < _MOST_VECTORS:
                    at = counts_at + (pixels[m] - first_pixel) * PLANE
                    ones = zeros()
                    for k in range(tile_sets.shape[0]):
                        ones = add(ones, load(at + tile_sets[k]))
                    if positive(subtract(ones, too_few)) != 0:
                        store(driven_at, ones)
                        for digit in range(8):
                            columns[found, digit] = wanted[tile, driven[digit]]
                            performed += columns[found, digit]
                            most = max(most, columns[found, digit])
                        if only_count:
                            m, most = m + 1, np.int64(0)
                            continue
                        rows[found] = m
                        _gather(
                            octet_at + pixels[m] * pixel_bytes,
                            tile_moves,
                            tile_move_masks,
                            packed_at + found * tile_words * PLANE,
                            tile_words,
                        )
                        found += 1
                    m += 1
                for first in range(0, most, _COLUMN_BLOCK):
                    for k in range(found):
                        dirty = np.int64(0)
                        for digit in range(8):
                            count = min(columns[k, digit] - first, _COLUMN_BLOCK)
                            if count <= 0:
                                continue
                            groups = (count + 7) >> 3
                            if _sums_over(
                                packed_at + k * tile_words * PLANE + digit * 8,
                                tile_words,
                                cells_at + (starts[tile, 3] + first) * 8,
                                cell_planes,
                                tile_columns * 8,
                                limits_at + (first_column + first) * 8,
                                groups,
                                over_at,
                            ):
                                place = octet * 8 + digit
                                negative = last_digit_negative and place == digits - 1
                                over, in_groups = _add_excess(over_at, groups, place, negative, totals_at)
                                saturations += over
                                dirty |= in_groups
                        group = 0
                        while dirty != 0:
                            if dirty & 1:
                                for c in range(8 * group, 8 * group + 8):
                                    column = first_column + first + c
                                    y[rows[k], outputs[column]] -= places[column] * totals[c]
                                    totals[c] = 0
                            dirty = np.int64(np.uint64(dirty) >> np.uint64(1))
                            group += 1
    return performed, saturations


@njit(parallel=True, cache=True)
def _subtract_excess(
    planes,
    size,
    stride,
    height,
    width,
    reach,
    sets,
    parts,
    part_masks,
    moves,
    move_masks,
    starts,
    wanted,
    least,
    cells,
    limits,
    outputs,
    places,
    words,
    cell_planes,
    digits,
    last_digit_negative,
    only_count,
    block_rows,
    y,
    performed,
    saturations,
):
    """Subtract the excess of every receptive field's conversions from its row of ``y``.

    planes (pixels, words, octets, 8) uint64 of images of ``size`` pixels, as ``_pack_pixels`` has them, padded with
    zeros; height, width: output positions of an image; reach: pixels between a receptive field's first and last.
    Of tile t, rows ``starts[t]`` to ``starts[t + 1]`` (T + 1, 5) int64 of: sets (., 2) int64 pixels on and set of
    channels; parts (., 2) int64 set and word, part_masks (.,) uint64; moves (., 5) int64 pixels on, word, shift right,
    shift left, word of the tile, move_masks (.,) uint64; cells (.,) uint64 planes (cell_planes * words[t], columns),
    columns a multiple of 8; limits, outputs, places (.,) int64 code range, output and signed weight of the lowest digit
    of each column. wanted (T, rows + 1) int64 columns to convert by driven rows, least (T,) int64 driven rows from
    which on there are any. only_count: no conversion is done. y (vectors, N) int64; performed, saturations (blocks of
    ``block_rows`` vectors,) int64 conversions to do, and saturated ones.
    """
    for block in prange(saturations.shape[0]):
        begin = block * block_rows
        end = min(y.shape[0], begin + block_rows)
        pixels = np.empty(end - begin, np.int64)
        for m in range(end - begin):
            line = (begin + m) // width
            pixel = ((line // height) * size[0] + (line % height) * stride[0]) * size[1]
            pixels[m] = pixel + ((begin + m) % width) * stride[1]
        performed[block], saturations[block] = _subtract_block(
            planes,
            reach,
            sets,
            parts,
            part_masks,
            moves,
            move_masks,
            starts,
            wanted,
            least,
            cells,
            limits,
            outputs,
            places,
            words,
            cell_planes,
            digits,
            last_digit_negative,
            only_count,
            pixels,
            np.empty((sets[:, 1].max() + 1, pixels[-1] + reach + 1 - pixels[0], 8), np.uint64),
            np.empty(8, np.int64),
            np.empty((_MOST_VECTORS, words.max(), 8), np.uint64),
            np.empty(_MOST_VECTORS, np.int64),
            np.empty((_MOST_VECTORS, 8), np.int64),
            np.empty(_COLUMN_BLOCK, np.int64),
            np.zeros(_COLUMN_BLOCK, np.int64),
            y[begin:end],
        )


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
        starts = range(0, row_count, hw.rows)
        self._words = np.array([max(2, -(-min(hw.rows, row_count - first) // 64)) for first in starts], np.int64)
        self._wanted = np.zeros((len(starts), min(hw.rows, row_count) + 1), np.int64)
        layouts, cells, kept = [], [], []
        for tile, first in enumerate(starts):
            rows = np.arange(first, min(first + hw.rows, row_count))
            order = rows[np.argsort(rows % area, kind="stable")]
            layouts.append(_layout(order, area))
            levels = encode(codes[order], hw).levels.reshape(len(rows), -1)
            refuted = np.flatnonzero(levels.sum(axis=0, dtype=np.int64) > limits)
            least = _least_driven(levels[:, refuted], limits[refuted])
            refuted = refuted[np.argsort(least, kind="stable")]
            self._wanted[tile] = np.searchsorted(np.sort(least), np.arange(self._wanted.shape[1]), side="right")
            padding = -len(refuted) % 8
            planes = np.zeros((1, hw.cell_bits, self._words[tile], len(refuted) + padding), np.uint64)
            pack_cells(np.ascontiguousarray(levels[:, refuted]), hw.rows, planes)
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

    def subtract(self, fields: Fields, channel: int, y: NDArray[np.int64], only_count: bool = False) -> tuple[int, int]:
        """Subtract the excess of conversions from ``y``; returns how many were performed and how many saturated.

        Parameters
        ----------
        fields : Fields
        channel : int
            The matrix reads the channels from this one on.
        y : ndarray [shape=(vectors, N), int64]
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
            _pack_pixels(part.codes, fields.channels, channel, self.hw.input_bits, planes)
            mine = y[first * positions : first * positions + part.vectors]
            block_rows = max(1, min(_BLOCK_VECTORS, -(-len(mine) // (4 * get_num_threads()))))
            conversions, saturated = np.zeros((2, -(-len(mine) // block_rows)), np.int64)
            _subtract_excess(
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
                mine,
                conversions,
                saturated,
            )
            performed, saturations = performed + int(conversions.sum()), saturations + int(saturated.sum())
        return performed, saturations

    def nanoseconds(self, sample: Fields, channel: int, most: float) -> float:
        """Rough cost of a vector like those of a sample, by the conversions they take; above ``most``, a lower bound."""
        y = np.zeros((sample.vectors, self.outputs), np.int64)
        performed, _ = self.subtract(sample, channel, y, only_count=True)
        tiles = int(np.count_nonzero(self._least)) * -(-self.hw.input_bits // 8)
        cost = tiles * _NANOSECONDS_PER_TILE + performed / sample.vectors * _NANOSECONDS_PER_CONVERSION
        if cost < most:
            _, saturations = self.subtract(sample, channel, y)
            cost += saturations / sample.vectors * _NANOSECONDS_PER_SATURATION
        return cost


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
