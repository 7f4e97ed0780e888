"""Numba kernels: pack bits, form column sums by population count, convert, shift and add. Integers only.

Vocabulary of the arrays (all widths explicit, all arrays the caller's):

``x`` (M, K) unsigned
    Activation codes as bit patterns; K rows of the weight matrix, cut in T row tiles of ``rows``.
``cells`` (T, Q, W, C) uint64
    Bit planes of the cell levels: plane q of 64 rows (word w) of row tile t, one lane per physical column, so that
    the columns are contiguous and one vector instruction serves 8 of them.
C = P * S * N physical columns
    Sign outermost, then weight slice, then output: column ``(p * S + j) * N + n``.

One thread owns a block of output rows, so no result depends on the thread count. The readable twin of these kernels is
``tests/reference.py``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import config, njit, prange, types
from numba.extending import intrinsic

from bitline.parallel import parallel_kernel

__all__ = ["add_columns", "convert_columns", "pack_cells", "popcount"]

_COLUMN_BLOCK = 512
"""Physical columns handled together: their planes (2 x 2 x 512 words, 16 KiB) stay in the first-level cache."""

if config.DISABLE_JIT:  # type: ignore[attr-defined]

    def popcount(word: Any) -> int:
        """Number of ones in a 64-bit word (plain stand-in for the LLVM intrinsic)."""
        return int(word).bit_count()

else:

    @intrinsic
    def popcount(typingctx: Any, word: Any) -> Any:
        """Number of ones in a 64-bit word, as int64: LLVM's ctpop, a vector instruction where the machine has one."""

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            return builder.ctpop(args[0])

        return types.int64(types.uint64), codegen


@njit(cache=True)
def pack_cells(levels, rows, planes):
    """Pack cell levels (K, C) uint8 into bit planes (T, Q, W, C) uint64; bit r of word w is row 64 w + r."""
    row_count, column_count = levels.shape
    for k in range(row_count):
        tile = k // rows
        row = k - tile * rows
        bit = np.uint64(row & 63)
        for q in range(planes.shape[1]):
            target = planes[tile, q, row >> 6]
            for c in range(column_count):
                target[c] |= np.uint64((levels[k, c] >> q) & 1) << bit


@parallel_kernel
def add_columns(columns, outputs, y):
    """Add columns (n, M) int64 to the columns of y (M, N) int64 that ``outputs`` (n,) names."""
    for block in prange(-(-y.shape[0] // 256)):
        for m in range(256 * block, min(y.shape[0], 256 * (block + 1))):
            for k in range(outputs.shape[0]):
                y[m, outputs[k]] += columns[k, m]


@njit(cache=True)
def _pack_inputs(codes, first, last, planes):
    """Pack rows first..last-1 of one activation vector into bit planes (bits, W) uint64."""
    for bit in range(planes.shape[0]):
        shift = np.uint64(bit)
        for word in range(planes.shape[1]):
            low = first + 64 * word
            high = min(low + 64, last)
            packed = np.uint64(0)
            for k in range(low, high):
                packed |= ((np.uint64(codes[k]) >> shift) & np.uint64(1)) << np.uint64(k - low)
            planes[bit, word] = packed


@njit(cache=True)
def _sums(digit, cells, first, sums):
    """Column sums of one input digit, its planes (V, W), with a run of columns of the cells (Q, W, C) of one tile."""
    cell_planes, words, _ = cells.shape
    sums[:] = 0
    for v in range(digit.shape[0]):
        for q in range(cell_planes):
            for word in range(words):
                x = digit[v, word]
                if x != np.uint64(0):
                    plane = cells[q, word][first : first + sums.shape[0]]
                    for c in range(sums.shape[0]):
                        sums[c] += popcount(x & plane[c]) << (v + q)


@njit(cache=True)
def _convert_2x2(x0, x1, cells, first, limits, shift, negative, accumulator):
    """Sum, convert, shift and add in one pass: 1-bit inputs, 2-bit cells, two words (65 to 128 rows), no unit column.

    The same integers as ``_sums`` and ``_convert`` in turn, without storing the sums; returns saturations and the
    largest sum.
    """
    last = first + accumulator.shape[0]
    low0, low1 = cells[0, 0][first:last], cells[0, 1][first:last]
    high0, high1 = cells[1, 0][first:last], cells[1, 1][first:last]
    saturations = np.int64(0)
    largest = np.int64(0)
    for c in range(accumulator.shape[0]):
        low = popcount(x0 & low0[c]) + popcount(x1 & low1[c])
        high = popcount(x0 & high0[c]) + popcount(x1 & high1[c])
        column_sum = low + (high << 1)
        limit = limits[c]
        saturations += np.int64(column_sum > limit)
        largest = max(largest, column_sum)
        value = min(column_sum, limit) << shift
        if negative:
            value = -value
        accumulator[c] += value
    return saturations, largest


@njit(cache=True)
def _convert(sums, limits, flips, unit_base, shift, negative, accumulator):
    """Convert single-ended columns and add their shifted codes; a flipped column's code stands for base - code."""
    saturations = np.int64(0)
    largest = np.int64(0)
    for c in range(accumulator.shape[0]):
        column_sum = sums[c]
        limit = limits[c]
        saturations += np.int64(column_sum > limit)
        largest = max(largest, column_sum)
        code = min(column_sum, limit)
        if flips[c]:
            code = unit_base - code
        value = code << shift
        if negative:
            value = -value
        accumulator[c] += value
    return saturations, largest


@njit(cache=True)
def _convert_pairs(positive, negative_sums, limits, shift, negative, accumulator):
    """Convert the difference of every differential pair once (analog readout); the code lies in -limit-1 .. limit."""
    saturations = np.int64(0)
    largest = np.int64(0)
    for c in range(positive.shape[0]):
        difference = positive[c] - negative_sums[c]
        limit = limits[c]
        saturations += np.int64(difference > limit) + np.int64(difference < -limit - 1)
        largest = max(largest, abs(difference))
        value = max(min(difference, limit), -limit - 1) << shift
        if negative:
            value = -value
        accumulator[c] += value
    return saturations, largest


@njit(cache=True)
def _convert_by_table(sums, outputs, analog, limits, flips, unit_base, shift, negative, values, accumulator, counts):
    """Read every clipped column sum as its slice's table of one input cycle says, count it, and add it shifted.

    values, counts (slices + 1, entries) int64: entry s for a sum s, or entry s + entries / 2 for a pair's difference s
    (analog readout). Clipping, saturations and flips are those of ``_convert`` and ``_convert_pairs``.
    """
    entries = values.shape[1]
    slices = values.shape[0] - 1
    converted = sums.shape[0] // 2 if analog else sums.shape[0]
    origin = entries // 2 if analog else 0
    saturations = np.int64(0)
    largest = np.int64(0)
    for base in range(0, converted, max(outputs, 1)):
        j = (base // outputs) % slices
        for c in range(base, base + outputs):
            column_sum = sums[c]
            limit = limits[c]
            lowest = np.int64(0)
            if analog:
                column_sum -= sums[converted + c]
                lowest = -limit - 1
            saturations += np.int64(column_sum > limit) + np.int64(column_sum < lowest)
            largest = max(largest, abs(column_sum))
            entry = max(min(column_sum, limit), lowest) + origin
            counts[j, entry] += 1
            code = values[j, entry]
            if flips[c]:
                code = unit_base - code
            value = code << shift
            if negative:
                value = -value
            accumulator[c] += value
    return saturations, largest


@njit(cache=True)
def _count(sums, outputs, slices, analog, histogram):
    """Count the column sums of all columns (absolute differences of pairs, with analog readout) by slice and value."""
    top = histogram.shape[1] - 1
    pairs = slices * outputs
    for base in range(0, pairs if analog else sums.shape[0], max(outputs, 1)):
        counts = histogram[(base // outputs) % slices]
        for n in range(outputs):
            value = abs(sums[base + n] - sums[base + n + pairs]) if analog else sums[base + n]
            counts[min(value, top)] += 1


@parallel_kernel
def convert_columns(
    x,
    cells,
    flips,
    limits,
    unit_limit,
    rows,
    digits,
    dac_bits,
    slices,
    cell_bits,
    signs,
    last_digit_negative,
    analog,
    unit_weight,
    max_level,
    pass_sign,
    block_rows,
    y,
    saturations,
    largest,
    histograms,
    values,
    code_counts,
):
    """Convert every column of every row tile once per input cycle and add the shifted codes to ``y``.

    x (M, K) uint8 or uint16; cells (T, Q, W, C) uint64; flips (T, C) uint8; limits (C,) int64 largest code of each
    column; unit_limit, unit_weight: those of the unit column (weight 0: no unit column); y (M, N) int64;
    saturations, largest (B,) int64 and histograms (B, slices + 1, bins) int64 of each block of ``block_rows`` rows
    (no bins: no histogram; the last bin collects everything larger; the last row is the unit column's);
    values (digits, slices + 1, entries) int64 what each clipped sum is read as (no entries: as itself) and
    code_counts (B, digits, slices + 1, entries) int64 how often each was read, as ``_convert_by_table`` has them.
    """
    vectors, row_count = x.shape
    tiles, cell_planes, words, columns = cells.shape
    outputs = y.shape[1]
    pairs = columns // 2
    bins = histograms.shape[2]
    searched = values.shape[2] > 0
    whole = bins > 0 or searched  # counted by slice: all columns at once, and every conversion formed
    fused = dac_bits == 1 and cell_planes == 2 and words == 2 and unit_weight == 0 and not analog and not whole
    for block in prange(saturations.shape[0]):
        begin = block * block_rows
        end = min(vectors, begin + block_rows)
        planes = np.zeros((end - begin, digits * dac_bits, words), np.uint64)
        accumulators = np.zeros((end - begin, columns), np.int64)
        units = np.zeros((end - begin, digits), np.int64)
        offsets = np.zeros(end - begin, np.int64)
        sums = np.zeros(columns, np.int64)
        for tile in range(tiles):
            first_row = tile * rows
            last_row = min(row_count, first_row + rows)
            for m in range(end - begin):
                _pack_inputs(x[begin + m], first_row, last_row, planes[m])
                if unit_weight != 0:
                    for i in range(digits):
                        unit_sum = np.int64(0)
                        for v in range(dac_bits):
                            for word in range(words):
                                unit_sum += popcount(planes[m, i * dac_bits + v, word]) << v
                        saturations[block] += np.int64(unit_sum > unit_limit)
                        largest[block] = max(largest[block], unit_sum)
                        if bins > 0:
                            histograms[block, slices, min(unit_sum, bins - 1)] += 1
                        units[m, i] = min(unit_sum, unit_limit)
                        if searched:
                            code_counts[block, i, slices, units[m, i]] += 1
                            units[m, i] = values[i, slices, units[m, i]]
                        value = (units[m, i] * unit_weight) << (dac_bits * i)
                        if last_digit_negative and i == digits - 1:
                            value = -value
                        offsets[m] += value
            # the columns of an analog pair lie half of all apart, and a histogram is cut by slice
            column_block = max(columns, 1) if analog or whole else _COLUMN_BLOCK
            for first in range(0, columns, column_block):
                last = min(columns, first + column_block)
                tile_cells = cells[tile]
                for m in range(end - begin):
                    accumulator = accumulators[m, first:last]
                    for i in range(digits):
                        digit = planes[m, i * dac_bits : (i + 1) * dac_bits]
                        if not whole:
                            driven = np.uint64(0)
                            for v in range(dac_bits):
                                for word in range(words):
                                    driven |= digit[v, word]
                            if driven == np.uint64(0):
                                continue  # no row driven: every sum and so every code is 0 (the unit column's too)
                        negative = last_digit_negative and i == digits - 1
                        shift = dac_bits * i
                        if fused:
                            over, top = _convert_2x2(
                                digit[0, 0],
                                digit[0, 1],
                                tile_cells,
                                first,
                                limits[first:last],
                                shift,
                                negative,
                                accumulator,
                            )
                        else:
                            block_sums = sums[: last - first]
                            _sums(digit, tile_cells, first, block_sums)
                            if searched:
                                over, top = _convert_by_table(
                                    block_sums,
                                    outputs,
                                    analog,
                                    limits,
                                    flips[tile],
                                    max_level * units[m, i],
                                    shift,
                                    negative,
                                    values[i],
                                    accumulator,
                                    code_counts[block, i],
                                )
                            elif analog:
                                over, top = _convert_pairs(
                                    block_sums[:pairs], block_sums[pairs:], limits, shift, negative, accumulator
                                )
                            else:
                                over, top = _convert(
                                    block_sums,
                                    limits[first:last],
                                    flips[tile, first:last],
                                    max_level * units[m, i],
                                    shift,
                                    negative,
                                    accumulator,
                                )
                            if bins > 0:
                                _count(sums, outputs, slices, analog, histograms[block])
                        saturations[block] += over
                        largest[block] = max(largest[block], top)
        converted_signs = 1 if analog else signs
        for m in range(end - begin):
            for p in range(converted_signs):
                for j in range(slices):
                    base = (p * slices + j) * outputs
                    for n in range(outputs):
                        value = accumulators[m, base + n] << (cell_bits * j)
                        if p == 1:
                            value = -value
                        y[begin + m, n] += pass_sign * value
            if unit_weight != 0:
                for n in range(outputs):
                    y[begin + m, n] -= pass_sign * offsets[m]
