"""Numba kernels that convert 512 input vectors and two digits at once, their column sums held bit-sliced.

A column sum is a count of ones, so those of 512 vectors for each of two input digits are kept as bit planes of twice
512 bits, one bit of a plane a vector and digit, and a cell that is not zero costs one full adder (a few vector
instructions) for all of them. A zero cell, a zero slice and a digit that no input of the block has cost nothing. The
ADC is cheap too: a sum is over ``2^N - 1`` where any plane from N upwards has a one, so the clipped code is ``plane |
OR of the high planes`` and the saturations are the ones of that OR.

Vocabulary:

planes, number
    Bit-sliced numbers: plane b holds bit b of 1024 numbers, those of the even digit in its left half, of the odd one in
    its right half (``lanes``). A *number* is a tuple of planes and stays in registers.
member
    A row whose cell has a one: ``list_members`` lists them by row tile, output, sign, slice and bit of the cell.
part
    The shifted sum of the codes of one sign of an output, over the slices.
total
    An output's result so far, of 512 vectors, in two's complement: parts subtracted, digits and tiles added.

One worker owns a block of 512 vectors, so no result depends on the thread count.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from bitline.crossbar.lanes import (
    DIGITS,
    HALF,
    PLANE,
    VECTORS,
    above,
    add_number,
    address,
    any_set,
    both,
    clipped,
    copy,
    copy_every,
    count_ones,
    different,
    full_add,
    half_add,
    increased,
    inverted,
    load,
    load_left,
    load_member,
    load_word,
    ones_beyond,
    pack64,
    right_half,
    right_to_left,
    store,
    store_left,
    store_word,
    unpack64,
    zeros,
)
from bitline.parallel import parallel_kernel

__all__ = ["COUNT_PLANES", "SUM_PLANES", "convert_bitsliced"]

COUNT_PLANES = 8
"""Planes of a count: a column has at most 255 members in a row tile."""

SUM_PLANES = 12
"""Planes of a column sum: cells have at most 4 bits."""


@njit(cache=True, forceinline=True)
def _add_four(number, inputs, members, k):
    """Add four members of a list to a number."""
    c0, a = full_add(number[0], load_member(inputs, members, k), load_member(inputs, members, k + 1))
    c0, b = full_add(c0, load_member(inputs, members, k + 2), load_member(inputs, members, k + 3))
    c1, carry = full_add(number[1], a, b)
    return (c0, c1) + increased(number[2:], carry)  # noqa: RUF005


@njit(cache=True, forceinline=True)
def _count_eight(c0, c1, c2, inputs, members, k):
    """Add eight members of a list to three planes; returns these and the carry."""
    c0, a = full_add(c0, load_member(inputs, members, k), load_member(inputs, members, k + 1))
    c0, b = full_add(c0, load_member(inputs, members, k + 2), load_member(inputs, members, k + 3))
    c1, d = full_add(c1, a, b)
    c0, a = full_add(c0, load_member(inputs, members, k + 4), load_member(inputs, members, k + 5))
    c0, b = full_add(c0, load_member(inputs, members, k + 6), load_member(inputs, members, k + 7))
    c1, e = full_add(c1, a, b)
    c2, carry = full_add(c2, d, e)
    return c0, c1, c2, carry


@njit(cache=True, forceinline=True)
def _add_eight(number, inputs, members, k):
    """Add eight members of a list to a number."""
    c0, c1, c2, carry = _count_eight(number[0], number[1], number[2], inputs, members, k)
    return (c0, c1, c2) + increased(number[3:], carry)  # noqa: RUF005


@njit(cache=True, forceinline=True)
def _add_sixteen(number, inputs, members, k):
    """Add sixteen members of a list to a number."""
    c0, c1, c2, a = _count_eight(number[0], number[1], number[2], inputs, members, k)
    c0, c1, c2, b = _count_eight(c0, c1, c2, inputs, members, k + 8)
    c3, carry = full_add(number[3], a, b)
    return (c0, c1, c2, c3) + increased(number[4:], carry)  # noqa: RUF005


@njit(cache=True)
def _clear(planes, bits):
    """Set planes to zero."""
    for b in range(bits):
        store(planes + b * PLANE, zeros())


@njit(cache=True)
def _keep_largest(number, scratch, known):
    """Note the largest of a number's lanes, of which one is above all before: itself, and each bit's inverse."""
    bits = len(number)
    _clear(scratch, bits)
    add_number(scratch, number)
    left = inverted(zeros())
    top = np.int64(0)
    for b in range(bits - 1, -1, -1):
        ones = both(left, load(scratch + b * PLANE))
        is_set = any_set(ones)
        if is_set:
            left = ones
            top |= np.int64(1) << b
        store_word(known, b + 1, 0 if is_set else -1)
    store_word(known, 0, top)


@njit(cache=True, forceinline=True)
def _convert_column(number, inputs, members, starts, lists, most, known, clips, beyond, scratch, part, held, end):
    """Convert one column of one row tile and add its code to a part; returns its saturations.

    number: a zero of as many planes as column sums need; starts: where each of its ``lists`` starts, and the last ends;
    most: what its sums are at most; known: the largest sum so far, and its bits' inverses; beyond: which planes are
    beyond the ADC; part: planes that hold something up to ``held``, and will up to ``end``.
    """
    k = load_word(starts, 0)
    for q in range(1, lists + 1):
        number = (zeros(),) + number[:-1]  # noqa: RUF005
        last = load_word(starts, q)
        while k + 16 <= last:
            number = _add_sixteen(number, inputs, members, k)
            k += 16
        if k + 8 <= last:
            number = _add_eight(number, inputs, members, k)
            k += 8
        if k < last:
            number = _add_four(number, inputs, members, k)
            k += 4
    if most > load_word(known, 0) and any_set(above(number, known + 8)):
        _keep_largest(number, scratch, known)
    saturations = np.int64(0)
    if clips:
        over = ones_beyond(number, beyond)
        if any_set(over):
            saturations = count_ones(over)
            number = clipped(number, over, beyond)
    for b in range(held, end):
        store(part + b * PLANE, zeros())
    carry = add_number(part, number)
    for b in range(len(number), end):
        total, carry = half_add(load(part + b * PLANE), carry)
        store(part + b * PLANE, total)
    return saturations


@njit(cache=True, forceinline=True)
def _add_difference(plus, minus, bits, negative, total, total_bits):
    """Add the difference of two parts of ``bits`` planes to the total of both digits.

    The right half, of the higher digit, counts twice, ``negative`` if it is a sign.
    """
    flip = right_to_left(right_half()) if negative else zeros()
    borrow, double_carry, carry = inverted(zeros()), flip, zeros()
    before = zeros()
    for b in range(total_bits):
        if b < bits:
            difference, borrow = full_add(load(plus + b * PLANE), inverted(load(minus + b * PLANE)), borrow)
        else:
            difference = inverted(borrow)  # the sign
        doubled = different(right_to_left(before), flip)
        both_digits, double_carry = full_add(difference, doubled, double_carry)
        result, carry = full_add(load_left(total + b * HALF), both_digits, carry)
        store_left(total + b * HALF, result)
        before = difference


@njit(cache=True)
def _list_runs(shape, stride, row, height, width, first, last, runs):
    """Cut output positions first .. last - 1 into runs of one line each; returns how many.

    runs (VECTORS, 3) int64: where each begins in the block, how long it is, and where in the codes its first window is.
    """
    count, done = 0, first
    while done < last:
        line, column = done // width, done % width
        image, line = line // height, line % height
        runs[count, 0] = done - first
        runs[count, 1] = min(width - column, last - done)
        runs[count, 2] = (image * shape[1] * shape[2] + (row + line) * stride[0]) * shape[3] + column * stride[1]
        done += runs[count, 1]
        count += 1
    return count


@njit(cache=True)
def _gather(x, runs, offset, step, codes):
    """Codes that one row of the weight matrix meets in a block; its place in a window is ``offset`` codes further."""
    size = codes.itemsize
    codes_at, x_at = address(codes), address(x) + offset * size
    for run in range(runs.shape[0]):
        begin, length, place = runs[run, 0], runs[run, 1], runs[run, 2]
        if step == 1:
            copy(codes_at + begin * size, x_at + place * size, length * size)
        elif step == 2:  # said as a constant, which the compiler makes shuffles of
            copy_every(2, x_at + place * size, length, codes, begin)
        else:
            copy_every(step, x_at + place * size, length, codes, begin)


@njit(cache=True)
def _pack_tile(x, channel, kernel, stride, dilation, runs, used, first_row, last_row, digits, inputs, codes):
    """Bit planes (digit pairs, rows + 1, 2, 8) of what rows first_row .. last_row - 1 of the matrix meet in a block.

    Returns which digits have a one somewhere, as bits.
    """
    area = kernel[0] * kernel[1]
    seen = np.int64(0)
    for k in range(first_row, last_row):
        if not used[k]:
            continue  # no cell of this row holds anything
        i, j = (k % area) // kernel[1], k % kernel[1]
        line = (channel + k // area) * x.shape[2] + i * dilation[0]
        _gather(x, runs, line * x.shape[3] + j * dilation[1], stride[1], codes)
        for digit in range(digits):
            ones = np.uint64(0)
            for word in range(8):
                packed = pack64(codes, 64 * word, digit)
                inputs[digit // DIGITS, k - first_row, digit % DIGITS, word] = packed
                ones |= packed
            if ones != 0:
                seen |= np.int64(1) << digit
    return seen


@njit(cache=True, forceinline=True)
def _convert_by_width(planes, pair, members, here, lists, most, known, clip, over, scratch, at, held, end):
    """``_convert_column`` with as many planes as its sums need, so that they stay in registers."""
    z = zeros()
    if planes <= 4:
        zero4 = (z, z, z, z)
        return _convert_column(zero4, pair, members, here, lists, most, known, clip, over, scratch, at, held, end)
    if planes <= 6:
        zero6 = (z, z, z, z, z, z)
        return _convert_column(zero6, pair, members, here, lists, most, known, clip, over, scratch, at, held, end)
    if planes <= 8:
        zero8 = (z, z, z, z, z, z, z, z)
        return _convert_column(zero8, pair, members, here, lists, most, known, clip, over, scratch, at, held, end)
    zero12 = (z, z, z, z, z, z, z, z, z, z, z, z)
    return _convert_column(zero12, pair, members, here, lists, most, known, clip, over, scratch, at, held, end)


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
    lists,
    s_max,
    sum_planes,
    part_bits,
    beyond,
    clips,
    digits,
    slices,
    cell_bits,
    last_digit_negative,
    total_bits,
    inputs,
    scratch,
    known,
    totals,
    runs,
    codes,
    values,
    y,
):
    """Convert one block of at most 512 vectors; returns saturations.

    inputs (digit pairs, rows + 1, 2, 8) and totals (N * total_bits, 8) uint64 and the rest are the caller's, who keeps
    them alive: Numba would free an array of which only the address is used.
    """
    outputs = y.shape[0]
    inputs_at, totals_at, members_at, known_at = address(inputs), address(totals), address(members), address(known)
    scratch_at, starts_at, beyond_at = address(scratch), address(starts), address(beyond)
    parts_at = scratch_at + SUM_PLANES * PLANE
    room = (scratch.shape[0] - SUM_PLANES) // 2 * PLANE
    saturations = np.int64(0)
    totals[:] = 0
    codes[last - first :] = 0  # idle lanes count nothing
    count = _list_runs(x.shape, stride, row, height, width, first, last, runs)
    for tile in range(starts.shape[0]):
        first_row = tile * rows
        last_row = min(row_count, first_row + rows)
        seen = _pack_tile(
            x, channel, kernel, stride, dilation, runs[:count], used, first_row, last_row, digits, inputs, codes
        )
        for group in range(inputs.shape[0]):
            if (seen >> (DIGITS * group)) & ((1 << DIGITS) - 1) == 0:
                continue  # every column sum of these digits, and so every code, is 0
            pair = inputs_at + group * (rows + 1) * PLANE
            negative = last_digit_negative and group == inputs.shape[0] - 1
            for n in range(outputs):
                here = starts_at + 8 * (tile * starts.shape[1] + n * 2 * slices * lists)
                plus_held, minus_held = np.int64(0), np.int64(0)
                for p in range(2):
                    held = np.int64(0)
                    for j in range(slices):
                        planes = sum_planes[tile, p, j]
                        if planes > 0:
                            shift = j * cell_bits
                            end = max(held, shift + planes, part_bits[tile, p, j])
                            saturations += _convert_by_width(
                                planes,
                                pair,
                                members_at,
                                here,
                                lists,
                                s_max[tile, p, j],
                                known_at,
                                clips[tile, p, j],
                                beyond_at + 8 * SUM_PLANES * j,
                                scratch_at,
                                parts_at + p * room + shift * PLANE,
                                held - shift,
                                end - shift,
                            )
                            held = end
                        here += 8 * lists
                    if p == 0:
                        plus_held = held
                    else:
                        minus_held = held
                bits = max(plus_held, minus_held)
                _clear(parts_at + plus_held * PLANE, bits - plus_held)
                _clear(parts_at + room + minus_held * PLANE, bits - minus_held)
                target = totals_at + (n * total_bits + DIGITS * group) * HALF
                left = total_bits - DIGITS * group
                if negative and digits % DIGITS == 1:
                    _add_difference(parts_at + room, parts_at, bits, False, target, left)
                else:
                    _add_difference(parts_at, parts_at + room, bits, negative, target, left)
    for n in range(outputs):
        number_at = totals_at + n * total_bits * HALF
        for word in range(8):
            done = first + 64 * word
            if done + 64 <= last:
                unpack64(number_at + 8 * word, total_bits, address(y) + (n * y.shape[1] + done) * 8)
            elif done < last:
                unpack64(number_at + 8 * word, total_bits, address(values))
                y[n, done:last] = values[: last - done]
    return saturations


@njit(cache=True)
def _aligned(words):
    """Zeros of 64 bits that begin where a vector register's loads cross no line of the cache."""
    room = np.zeros(words + HALF // 8, np.uint64)
    first = -address(room) % HALF // 8
    return room[first : first + words]


@parallel_kernel
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
    lists,
    s_max,
    sum_planes,
    part_bits,
    beyond,
    clips,
    digits,
    slices,
    cell_bits,
    last_digit_negative,
    total_bits,
    y,
    saturations,
    largest,
):
    """Convert every column of every row tile once per 1-bit input cycle, shift, add and subtract into ``y``.

    x (n, channels, h, w) uint8 or uint16 padded codes, of which the matrix reads the channels from ``channel`` on;
    kernel, stride, dilation: pairs of the window; row, height, width: first output row and size of the output;
    used (K,) bool whether any cell of a row holds something; s_max, sum_planes (T, P, S) int64 largest sum of the
    columns of a slice and the planes it takes, part_bits (T, P, S) int64 bits of the shifted sum of the codes of a
    slice and those before it; beyond (S, SUM_PLANES) int64 -1 for the planes beyond the ADC, clips (T, P, S) bool
    whether sums reach them; y (N, n * height * width) int64; saturations, largest (workers,) int64.
    """
    workers = saturations.shape[0]
    for worker in prange(workers):
        pairs = (digits + DIGITS - 1) // DIGITS
        inputs = _aligned(pairs * (rows + 1) * DIGITS * 8).reshape(pairs, rows + 1, DIGITS, 8)
        room = max(part_bits.max(), cell_bits * (slices - 1) + SUM_PLANES)
        scratch = _aligned((SUM_PLANES + 2 * room) * DIGITS * 8).reshape(-1, DIGITS, 8)
        totals = _aligned(y.shape[0] * total_bits * 8)
        known = np.full(SUM_PLANES + 1, -1, np.int64)
        known[0] = 0
        runs = np.zeros((VECTORS, 3), np.int64)
        codes = _aligned(VECTORS * x.itemsize // 8).view(x.dtype)
        values = np.zeros(64, np.int64)
        for block in range(worker, (y.shape[1] + VECTORS - 1) // VECTORS, workers):
            saturations[worker] += _convert_block(
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
                lists,
                s_max,
                sum_planes,
                part_bits,
                beyond,
                clips,
                digits,
                slices,
                cell_bits,
                last_digit_negative,
                total_bits,
                inputs,
                scratch,
                known,
                totals,
                runs,
                codes,
                values,
                y,
            )
        largest[worker] = known[0]
