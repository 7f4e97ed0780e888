"""Block-based column-row (BCR) pruning: in every block whole rows and whole columns of the weight matrix go.

Which rows go depends on which columns go, so every choice of the rows (or of the columns, where those have fewer
choices) is tried, and with each the best columns are taken: exact, and quick because 32 blocks are tried at once.

References
----------
Niu et al., "GRIM", IEEE TPAMI 2021.
"""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
from numba import prange
from numpy.typing import NDArray

from bitline.errors import RangeError
from bitline.parallel import parallel_kernel
from bitline.pruning.projections import FloatArray, check_matrix

__all__ = ["MOST_CHOICES", "project_bcr"]

MOST_CHOICES = 1 << 16
"""Most ways of choosing a block's rows (or columns) that are tried."""

_LANES = 32  # blocks at once: four vectors of eight float64, and a block of 8 x 8 still fits the first cache
_GROUPS = 8  # of so many blocks each, one after the other in one thread


def project_bcr(matrix: FloatArray, block: tuple[int, int], kept: tuple[int, int]) -> FloatArray:
    """The nearest matrix whose every block has at most so many rows, and so many columns, that are not zero.

    Blocks are cut from the first row and column on; shorter ones at the edges keep the same numbers. Squares are summed
    in float64: over a choice of rows from the first to the last, then over the columns from the largest sum to the
    smallest. Of equal totals the choice that comes first in lexicographic order stays, of equal columns the lower.

    Parameters
    ----------
    matrix : ndarray [shape=(K, N), floating]
        Fastest where ``matrix.T`` is contiguous, as a torch weight's matrix is.
    block : (int, int)
        Rows and columns of a block.
    kept : (int, int)
        Rows and columns that stay in each.

    Raises
    ------
    RangeError
        Numbers below 1, more kept than there are, or blocks with more than :data:`MOST_CHOICES` choices;
        weights that are not finite.
    ShapeError
        Not a matrix of floating-point numbers.
    """
    check_matrix(matrix)
    for side, size, stay in zip(("rows", "columns"), block, kept, strict=True):
        if not 1 <= stay <= size:
            raise RangeError(f"block {side}: kept must be within 1..{size}, found {stay}")
    choices = min(math.comb(size, stay) for size, stay in zip(block, kept, strict=True))
    if choices > MOST_CHOICES:
        raise RangeError(
            f"block: {choices} choices of rows or columns, expected at most {MOST_CHOICES}; use smaller blocks"
        )
    working = matrix.dtype if matrix.dtype in (np.float32, np.float64) else np.dtype(np.float64)
    columns = np.ascontiguousarray(matrix.T, dtype=working)
    projected = np.zeros_like(columns)
    steps = (1, matrix.shape[0])  # from a row, from a column, to the next one in memory
    for top, down, height in _cuts(matrix.shape[0], block[0]):
        for left, across, width in _cuts(matrix.shape[1], block[1]):
            sides = [(height, min(kept[0], height), down, steps[0]), (width, min(kept[1], width), across, steps[1])]
            # The side with fewer choices is enumerated.
            sides.sort(key=lambda side: math.comb(side[0], side[1]))
            (size, count, blocks, step), (other, keep, other_blocks, other_step) = sides
            _project_blocks(
                columns.reshape(-1),
                top * steps[0] + left * steps[1],
                (blocks, size, step),
                (other_blocks, other, other_step),
                _subsets(size, count),
                keep,
                projected.reshape(-1),
            )
    return projected.T.astype(matrix.dtype, copy=False)


def _cuts(length: int, size: int) -> list[tuple[int, int, int]]:
    """(start, number, size) of the whole blocks along a side, and of the shorter one at its end."""
    whole = length // size
    cuts = [(0, whole, size), (whole * size, 1, length - whole * size)]
    return [cut for cut in cuts if cut[1] and cut[2]]


def _subsets(size: int, count: int) -> NDArray[np.int64]:
    """All choices of ``count`` out of ``size``, in lexicographic order [shape=(choices, count)]."""
    return np.array(list(combinations(range(size), count)), np.int64)


@parallel_kernel
def _project_blocks(values, start, rows, columns, subsets, keep, projected):  # type: ignore[no-untyped-def]
    """Copy what stays of every block; one thread owns a run of blocks.

    ``values``, ``projected`` (flat, float32 or float64): the matrix, and zeros to fill. ``start``: of the first block.
    ``rows``, ``columns``: blocks along the side, entries of a block, distance of two entries in memory.
    ``subsets`` (choices, entries kept) int64: the rows to try, ascending. ``keep``: columns that stay.
    """
    height, width, row_step, column_step = rows[1], columns[1], rows[2], columns[2]
    depth, blocks = subsets.shape[1], rows[0] * columns[0]
    along = column_step < row_step  # neighbours in memory are neighbours in time
    inner = columns[0] if along else rows[0]
    groups = (blocks + _LANES - 1) // _LANES
    for part in prange((groups + _GROUPS - 1) // _GROUPS):
        squares = np.empty((height, width, _LANES))
        sums = np.empty((depth, width, _LANES))  # over the first rows of a choice: the next one often shares them
        largest = np.empty((keep, _LANES))
        total = np.empty(_LANES)
        best = np.empty(_LANES, np.int64)
        best_total = np.empty(_LANES)
        origin = np.empty(_LANES, np.int64)
        for group in range(part * _GROUPS, min(groups, (part + 1) * _GROUPS)):
            for lane in range(_LANES):
                block = min(group * _LANES + lane, blocks - 1)  # lanes to spare repeat the last block
                across, down = (block % inner, block // inner) if along else (block // inner, block % inner)
                at = start + down * height * row_step + across * width * column_step
                origin[lane] = at
                best[lane], best_total[lane] = 0, -1.0
                for row in range(height):
                    for column in range(width):
                        value = np.float64(values[at + row * row_step + column * column_step])
                        squares[row, column, lane] = value * value
            for choice in range(subsets.shape[0]):
                shared = 0
                if choice:
                    while subsets[choice, shared] == subsets[choice - 1, shared]:
                        shared += 1
                for level in range(shared, depth):
                    row = subsets[choice, level]
                    for column in range(width):
                        if level:
                            for lane in range(_LANES):
                                sums[level, column, lane] = sums[level - 1, column, lane] + squares[row, column, lane]
                        else:
                            for lane in range(_LANES):
                                sums[level, column, lane] = squares[row, column, lane]
                # Every column's sum sinks to its place among the largest so far.
                largest[:] = 0.0
                for column in range(width):
                    for lane in range(_LANES):
                        total[lane] = sums[depth - 1, column, lane]
                    for place in range(keep):
                        for lane in range(_LANES):
                            here, sinking = largest[place, lane], total[lane]
                            largest[place, lane] = here if here > sinking else sinking
                            total[lane] = sinking if here > sinking else here
                for lane in range(_LANES):
                    total[lane] = largest[0, lane]
                for place in range(1, keep):
                    for lane in range(_LANES):
                        total[lane] += largest[place, lane]
                for lane in range(_LANES):
                    better = total[lane] > best_total[lane]
                    best[lane] = choice if better else best[lane]
                    best_total[lane] = total[lane] if better else best_total[lane]
            for lane in range(min(_LANES, blocks - group * _LANES)):
                chosen, at = subsets[best[lane]], origin[lane]
                for column in range(width):
                    sums[0, column, lane] = 0.0
                    for row in chosen:
                        sums[0, column, lane] += squares[row, column, lane]
                for column in range(width):
                    mine, before = sums[0, column, lane], 0
                    for other in range(width):
                        theirs = sums[0, other, lane]
                        before += theirs > mine or (theirs == mine and other < column)
                    if before < keep:
                        for row in chosen:
                            where = at + row * row_step + column * column_step
                            projected[where] = values[where]
