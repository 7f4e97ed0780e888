"""Numba kernels that convert 512 input vectors at once, their column sums held bit-sliced.

A column sum is a count of ones, so 512 of them (one a vector) are kept as bit planes of 512 bits, one bit of a plane a
vector, and a cell that is not zero costs one full adder (a few vector instructions) for all 512. A zero cell, a zero
column and a zero slice cost nothing, which is what pruning gives. The ADC is cheap too: a sum is over ``2^N - 1`` where
any plane from N upwards has a one, so the clipped code is ``plane | OR of the high planes`` and the saturations are the
ones of that OR.

Vocabulary of the arrays (all widths explicit, all arrays the caller's):

``planes`` (..., 8) uint64
    Bit-sliced numbers: row b holds bit b of 512 numbers.
``cells``
    For every row tile, cell plane and column the rows whose bit is one, concatenated: ``members[starts[t, q, c] :
    starts[t, q, c + 1]]``, padded with a row that is always zero (``list_members`` says how).
C = P * S * N physical columns
    As in ``kernels``: sign outermost, then weight slice, then output.

One thread owns a block of 512 vectors, so no result depends on the thread count.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from bitline.crossbar.lanes import (
    PLANE,
    VECTORS,
    address,
    any_set,
    both,
    count_ones,
    either,
    full_add,
    half_add,
    inverted,
    load,
    load_member,
    pack64,
    store,
    unpack64,
    zeros,
)

__all__ = ["COUNT_PLANES", "convert_bitsliced"]

COUNT_PLANES = 8
"""Planes of a count: a column has at most 255 members in a row tile."""


@njit(cache=True)
def _count(inputs, members, first, last, counts):
    """Count the ones of each lane among the listed rows of the inputs; returns how many planes were written."""
    if last - first == 3:
        a, b, c = (
            load_member(inputs, members, first),
            load_member(inputs, members, first + 1),
            load_member(inputs, members, first + 2),
        )
        c0, c1 = full_add(a, b, c)
        store(counts, c0)
        store(counts + PLANE, c1)
        return 2
    zero = zeros()
    c0, c1, c2, c3, c4, c5, c6, c7 = zero, zero, zero, zero, zero, zero, zero, zero
    k = first
    while k + 8 <= last:
        c0, a = full_add(c0, load_member(inputs, members, k), load_member(inputs, members, k + 1))
        c0, b = full_add(c0, load_member(inputs, members, k + 2), load_member(inputs, members, k + 3))
        c1, d = full_add(c1, a, b)
        c0, a = full_add(c0, load_member(inputs, members, k + 4), load_member(inputs, members, k + 5))
        c0, b = full_add(c0, load_member(inputs, members, k + 6), load_member(inputs, members, k + 7))
        c1, e = full_add(c1, a, b)
        c2, carry = full_add(c2, d, e)
        c3, carry = half_add(c3, carry)
        c4, carry = half_add(c4, carry)
        c5, carry = half_add(c5, carry)
        if last - first >= 64:
            c6, carry = half_add(c6, carry)
            c7, carry = half_add(c7, carry)
        k += 8
    if k < last:
        c0, a = full_add(c0, load_member(inputs, members, k), load_member(inputs, members, k + 1))
        c0, b = full_add(c0, load_member(inputs, members, k + 2), load_member(inputs, members, k + 3))
        c1, carry = full_add(c1, a, b)
        c2, carry = half_add(c2, carry)
        c3, carry = half_add(c3, carry)
        c4, carry = half_add(c4, carry)
        c5, carry = half_add(c5, carry)
        c6, carry = half_add(c6, carry)
        c7, carry = half_add(c7, carry)
    store(counts, c0)
    store(counts + PLANE, c1)
    store(counts + 2 * PLANE, c2)
    if last - first < 8:
        return 3
    store(counts + 3 * PLANE, c3)
    store(counts + 4 * PLANE, c4)
    store(counts + 5 * PLANE, c5)
    if last - first < 64:
        return 6
    store(counts + 6 * PLANE, c6)
    store(counts + 7 * PLANE, c7)
    return 8


@njit(cache=True)
def _clear(planes, bits):
    """Set planes to zero."""
    for b in range(bits):
        store(planes + b * PLANE, zeros())


@njit(cache=True)
def _add(source, source_bits, target, target_bits):
    """Add bit-sliced numbers of ``source_bits`` to others of ``target_bits``, which hold the result, in place."""
    carry = zeros()
    bits = min(source_bits, target_bits)  # planes of the source beyond the result's width are zero
    for b in range(bits):
        total, carry = full_add(load(target + b * PLANE), load(source + b * PLANE), carry)
        store(target + b * PLANE, total)
    for b in range(bits, target_bits):
        total, carry = half_add(load(target + b * PLANE), carry)
        store(target + b * PLANE, total)


@njit(cache=True)
def _subtract(plus, minus, bits, difference):
    """Two's complement difference, of one plane more, of two bit-sliced numbers of ``bits`` planes."""
    carry = inverted(zeros())
    for b in range(bits):
        total, carry = full_add(load(plus + b * PLANE), inverted(load(minus + b * PLANE)), carry)
        store(difference + b * PLANE, total)
    store(difference + bits * PLANE, inverted(carry))


@njit(cache=True)
def _clip(sums, bits, adc_bits):
    """Clip numbers of ``bits`` planes to ``2^adc_bits - 1`` in place; returns how many were beyond."""
    over = zeros()
    for b in range(adc_bits, bits):
        over = either(over, load(sums + b * PLANE))
    if not any_set(over):
        return 0
    for b in range(adc_bits):
        store(sums + b * PLANE, either(load(sums + b * PLANE), over))
    return count_ones(over)


@njit(cache=True)
def _largest(sums, bits, known):
    """The largest of numbers of ``bits`` planes and of ``known``, itself below ``2^bits``."""
    greater = zeros()
    for b in range(bits):
        if (known >> b) & 1:
            greater = both(greater, load(sums + b * PLANE))
        else:
            greater = either(greater, load(sums + b * PLANE))
    if not any_set(greater):
        return known
    top = np.int64(0)
    for b in range(bits - 1, -1, -1):
        left = both(greater, load(sums + b * PLANE))
        if any_set(left):
            greater = left
            top |= np.int64(1) << b
    return top


@njit(cache=True)
def _gather(x, channel, row_offset, column_offset, stride, height, width, first, last, codes):
    """Codes that one row of the weight matrix meets at output positions ``first`` to ``last - 1``."""
    done = first
    while done < last:
        column = done % width
        line = done // width
        run = min(width - column, last - done)
        source = x[line // height, channel, (line % height) * stride[0] + row_offset]
        begin = column * stride[1] + column_offset
        if stride[1] == 1:
            for i in range(run):
                codes[done - first + i] = source[begin + i]
        else:
            for i in range(run):
                codes[done - first + i] = source[begin + i * stride[1]]
        done += run


@njit(cache=True)
def _pack_tile(
    x, channel, kernel, stride, dilation, row, height, width, first, last, used, first_row, last_row, inputs, codes
):
    """Bit planes (digits, rows + 1, 8) of what rows first_row .. last_row - 1 of the matrix meet in a block."""
    area = kernel[0] * kernel[1]
    for k in range(first_row, last_row):
        if not used[k]:
            continue  # no cell of this row holds anything
        i, j = (k % area) // kernel[1], k % kernel[1]
        row_offset, column_offset = row * stride[0] + i * dilation[0], j * dilation[1]
        _gather(x, channel + k // area, row_offset, column_offset, stride, height, width, first, last, codes)
        for digit in range(inputs.shape[0]):
            for word in range(8):
                inputs[digit, k - first_row, word] = pack64(codes, 64 * word, digit)


@njit(cache=True)
def _convert_block(
    x,
    channel,
    kernel,
    stride,
    dilation,
    row,
    height,
    width,
    first,
    last,
    row_count,
    rows,
    used,
    members,
    starts,
    s_max,
    sum_bits,
    part_bits,
    adc_bits,
    digits,
    slices,
    cell_bits,
    signs,
    last_digit_negative,
    total_bits,
    inputs,
    scratch,
    totals,
    y,
):
    """Convert one block of at most 512 vectors; returns saturations and the largest sum.

    inputs (digits, rows + 1, 8), scratch and totals (2 * N * total_bits, 8) uint64, all zero, are the caller's, who
    keeps them alive: Numba would free an array of which only the address is used.
    """
    outputs = y.shape[0]
    inputs_at, totals_at, members_at = address(inputs), address(totals), address(members)
    counts_at = address(scratch)
    sums_at = counts_at + COUNT_PLANES * PLANE
    part_at = sums_at + (COUNT_PLANES + cell_bits) * PLANE
    codes = np.zeros(VECTORS, x.dtype)
    cell_planes = starts.shape[1]
    saturations = np.int64(0)
    largest = np.int64(0)
    for tile in range(starts.shape[0]):
        first_row = tile * rows
        last_row = min(row_count, first_row + rows)
        _pack_tile(
            x,
            channel,
            kernel,
            stride,
            dilation,
            row,
            height,
            width,
            first,
            last,
            used,
            first_row,
            last_row,
            inputs,
            codes,
        )
        for n in range(outputs):
            for i in range(digits):
                digit = inputs_at + i * (rows + 1) * PLANE
                for p in range(signs):
                    planes = part_bits[tile, p, n]
                    if planes == 0:
                        continue  # no cell of these columns holds anything: sums and codes are 0
                    _clear(part_at, planes)
                    for j in range(slices):
                        column = (p * slices + j) * outputs + n
                        bits = sum_bits[tile, column]
                        if bits == 0:
                            continue
                        written = 0
                        for q in range(cell_planes):
                            begin, end = starts[tile, q, column], starts[tile, q, column + 1]
                            if q == 0:
                                if begin < end:
                                    written = _count(digit, members_at, begin, end, sums_at)
                                _clear(sums_at + written * PLANE, bits - written)
                            elif begin < end:
                                written = _count(digit, members_at, begin, end, counts_at)
                                _add(counts_at, written, sums_at + q * PLANE, bits - q)
                        if s_max[tile, column] > largest:
                            largest = _largest(sums_at, bits, largest)
                        if bits > adc_bits[column]:
                            saturations += _clip(sums_at, bits, adc_bits[column])
                            bits = adc_bits[column]
                        shift = cell_bits * j
                        _add(sums_at, bits, part_at + shift * PLANE, planes - shift)
                    # what is to be subtracted is kept apart until the end
                    subtracted = np.int64((p == 1) != (last_digit_negative and i == digits - 1))
                    target = (2 * n + subtracted) * total_bits + i
                    _add(part_at, planes, totals_at + target * PLANE, total_bits - i)
    values = np.zeros(VECTORS, np.int64)
    for n in range(outputs):
        plus = totals_at + 2 * n * total_bits * PLANE
        _subtract(plus, plus + total_bits * PLANE, total_bits, counts_at)
        values[:] = 0
        for low in range(0, total_bits + 1, 31):
            high = min(low + 31, total_bits + 1)
            for word in range(8):
                unpack64(scratch, word, low, high, high == total_bits + 1, values)
        y[n, first:last] = values[: last - first]
    return saturations, largest


@njit(parallel=True, cache=True)
def convert_bitsliced(
    x,
    channel,
    kernel,
    stride,
    dilation,
    row,
    height,
    width,
    row_count,
    rows,
    used,
    members,
    starts,
    s_max,
    sum_bits,
    part_bits,
    adc_bits,
    digits,
    slices,
    cell_bits,
    signs,
    last_digit_negative,
    total_bits,
    y,
    saturations,
    largest,
):
    """Convert every column of every row tile once per 1-bit input cycle, shift, add and subtract into ``y``.

    x (n, channels, h, w) uint8 or uint16 padded codes, of which the matrix reads the channels from ``channel`` on;
    kernel, stride, dilation: pairs of the window; row, height, width: first output row and size of the output;
    used (K,) bool whether any cell of a row holds something; s_max, sum_bits (T, C) int64 largest sum of each column
    and its bit length; part_bits (T, P, N) int64 bits of the shifted sum of an output's codes of one sign; adc_bits
    (C,) int64; y (N, n * height * width) int64; saturations, largest (blocks of 512 vectors,) int64.
    """
    for block in prange(saturations.shape[0]):
        inputs = np.zeros((digits, rows + 1, 8), np.uint64)
        scratch = np.zeros((2 * COUNT_PLANES + cell_bits + part_bits.max() + total_bits + 1, 8), np.uint64)
        totals = np.zeros((2 * y.shape[0] * total_bits, 8), np.uint64)
        saturations[block], largest[block] = _convert_block(
            x,
            channel,
            kernel,
            stride,
            dilation,
            row,
            height,
            width,
            block * VECTORS,
            min(y.shape[1], (block + 1) * VECTORS),
            row_count,
            rows,
            used,
            members,
            starts,
            s_max,
            sum_bits,
            part_bits,
            adc_bits,
            digits,
            slices,
            cell_bits,
            signs,
            last_digit_negative,
            total_bits,
            inputs,
            scratch,
            totals,
            y,
        )
