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

import numpy as np
from numba import njit, prange

from bitline.crossbar.kernels import popcount
from bitline.crossbar.lanes import address, pack64
from bitline.crossbar.octets import (
    OCTET,
    add,
    both,
    broadcast,
    count_ones_each,
    either,
    larger,
    load,
    load_word,
    positive,
    shift_left,
    shift_right,
    store,
    subtract,
    zeros,
)
from bitline.parallel import parallel_kernel

__all__ = ["pack_pixels", "subtract_excess"]

_COLUMN_BLOCK = 512
_MOST_VECTORS = 64
"""Columns and vectors converted together: cells, packed rows and sums stay in cache."""


@parallel_kernel
def pack_pixels(codes, channels, channel, digits, planes):
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
        store(counts_at + k * OCTET, zeros())
    for k in range(parts.shape[0]):
        target, source = counts_at + parts[k, 0] * counts.shape[1] * OCTET, planes_at + parts[k, 1]
        mask = broadcast(masks[k])
        for _ in range(counts.shape[1]):
            store(target, add(load(target), count_ones_each(both(load(source), mask))))
            target += OCTET
            source += pixel_bytes


@njit(cache=True)
def _gather(pixel_at, moves, masks, packed_at, words):
    """Collect what one row tile meets at a receptive field: planes of ``words`` words at ``packed_at``."""
    for word in range(words):
        store(packed_at + word * OCTET, zeros())
    for k in range(moves.shape[0]):
        bits = both(shift_right(load(pixel_at + moves[k, 0]), moves[k, 1]), broadcast(masks[k]))
        target = packed_at + moves[k, 3]
        store(target, either(load(target), shift_left(bits, moves[k, 2])))


@njit(cache=True)
def _sums_over(x_at, words, cells_at, cell_planes, plane_bytes, limits_at, groups, over_at):
    """How far column sums are above their limits (negative: below), of groups of eight columns; whether any is.

    The words of the digit lie at ``x_at``, OCTET bytes apart; at ``cells_at`` cell planes (cell_planes, words), a plane
    ``plane_bytes`` after the other; at ``limits_at`` and ``over_at`` int64 of each column.
    """
    top = zeros()
    if cell_planes == 2 and words == 2:
        x0, x1 = load_word(x_at), load_word(x_at + OCTET)
        for group in range(groups):
            cell = cells_at + group * OCTET
            low = add(count_ones_each(both(x0, load(cell))), count_ones_each(both(x1, load(cell + plane_bytes))))
            cell += 2 * plane_bytes
            high = add(count_ones_each(both(x0, load(cell))), count_ones_each(both(x1, load(cell + plane_bytes))))
            over = subtract(add(low, add(high, high)), load(limits_at + group * OCTET))
            store(over_at + group * OCTET, over)
            top = larger(top, over)
        return positive(top) != 0
    for group in range(groups):
        store(over_at + group * OCTET, subtract(zeros(), load(limits_at + group * OCTET)))
    for q in range(cell_planes):
        for word in range(words):
            x = load_word(x_at + word * OCTET)
            for group in range(groups):
                ones = count_ones_each(both(x, load(cells_at + group * OCTET)))
                store(over_at + group * OCTET, add(load(over_at + group * OCTET), shift_left(ones, q)))
            cells_at += plane_bytes
    for group in range(groups):
        top = larger(top, load(over_at + group * OCTET))
    return positive(top) != 0


@njit(cache=True)
def _add_excess(over_at, groups, digit, negative, totals_at):
    """Add what is above the limits, shifted, to the totals; returns how many are, and in which groups, as bits."""
    saturated, touched = np.int64(0), np.int64(0)
    for group in range(groups):  # no branch on what is found: it would be guessed wrong too often
        over = load(over_at + group * OCTET)
        found = positive(over)
        saturated += popcount(np.uint64(found))
        touched |= np.int64(found != 0) << group
        over = shift_left(larger(over, zeros()), digit)
        target = totals_at + group * OCTET
        if negative:
            store(target, subtract(load(target), over))
        else:
            store(target, add(load(target), over))
    return saturated, touched


@njit(cache=True)
def _subtract_block(
    planes,
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
    first_output,
    y,
):
    """Subtract the excess of one block's conversions from ``y``; returns how many were performed and saturated.

    Arguments are those of ``subtract_excess``; pixels (vectors,) int64 the first pixel of each receptive field; counts
    (sets, pixels, 8), packed (_MOST_VECTORS, words, 8) uint64; driven (8,), rows (_MOST_VECTORS,), columns
    (_MOST_VECTORS, 8), excess and totals (_COLUMN_BLOCK,) int64, the last all zero, are the caller's, who keeps them
    alive: Numba would free an array of which only the address is used.
    """
    octets = planes.shape[2]
    word_bytes = octets * OCTET
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
        tile_sets = sets[starts[tile, 0] : starts[tile + 1, 0], 0] * OCTET
        tile_sets += sets[starts[tile, 0] : starts[tile + 1, 0], 1] * (counts.shape[1] * OCTET)
        tile_moves = moves[starts[tile, 2] : starts[tile + 1, 2], 1:].copy()
        tile_moves[:, 0] *= word_bytes
        tile_moves[:, 0] += moves[starts[tile, 2] : starts[tile + 1, 2], 0] * pixel_bytes
        tile_moves[:, 3] *= OCTET
        tile_move_masks = move_masks[starts[tile, 2] : starts[tile + 1, 2]]
        too_few = broadcast(np.uint64(least[tile] - 1))
        for octet in range(octets):
            octet_at = planes_at + octet * OCTET
            _count_pixels(octet_at + first_pixel * pixel_bytes, pixel_bytes, tile_parts, tile_part_masks, counts)
            m = 0
            while m < pixels.shape[0]:
                found = 0
                most = np.int64(0)
                while m < pixels.shape[0] and found < _MOST_VECTORS:
                    at = counts_at + (pixels[m] - first_pixel) * OCTET
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
                            packed_at + found * tile_words * OCTET,
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
                                packed_at + k * tile_words * OCTET + digit * 8,
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
                                    y[rows[k], first_output + outputs[column]] -= places[column] * totals[c]
                                    totals[c] = 0
                            dirty = np.int64(np.uint64(dirty) >> np.uint64(1))
                            group += 1
    return performed, saturations


@parallel_kernel
def subtract_excess(
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
    first_output,
    y,
    performed,
    saturations,
):
    """Subtract the excess of every receptive field's conversions from its row of ``y``.

    planes (pixels, words, octets, 8) uint64 of images of ``size`` pixels, as ``pack_pixels`` has them, padded with
    zeros; height, width: output positions of an image; reach: pixels between a receptive field's first and last.
    Of tile t, rows ``starts[t]`` to ``starts[t + 1]`` (T + 1, 5) int64 of: sets (., 2) int64 pixels on and set of
    channels; parts (., 2) int64 set and word, part_masks (.,) uint64; moves (., 5) int64 pixels on, word, shift right,
    shift left, word of the tile, move_masks (.,) uint64; cells (.,) uint64 planes (cell_planes * words[t], columns),
    columns a multiple of 8; limits, outputs, places (.,) int64 code range, output and signed weight of the lowest digit
    of each column. wanted (T, rows + 1) int64 columns to convert by driven rows, least (T,) int64 driven rows from
    which on there are any. only_count: no conversion is done. y (vectors, all outputs) int64, of which the matrix has
    those from ``first_output`` on; performed, saturations (blocks of ``block_rows`` vectors,) int64 conversions to do,
    and saturated ones.
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
            first_output,
            y[begin:end],
        )
