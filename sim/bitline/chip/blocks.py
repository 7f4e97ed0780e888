"""Zero rows and columns squeezed out of blocks of one crossbar's size, as block-wise pruning (BCR) leaves them.

A row that is zero in *every* column leaves the matrix anyway (``mapping.weight_facts``). Here a row or column is zero
in one block only, the part of the matrix that one crossbar holds: ``R`` rows by the outputs whose columns fit.

* :func:`squeeze_columns`: in every row tile the outputs that are zero there go and the others move together, so the
  tile takes fewer crossbars side by side. Rows stay where they are, no column's sum changes. A tile's converted codes
  then belong to outputs that a table names: ``ceil(log2(outputs))`` bits for every output left in a tile.
* :func:`squeeze_rows`: in every column group (the outputs of one crossbar) the rows that are zero there go and the
  others move up, so the group takes fewer crossbars on top of each other. Every group reads other inputs: a table names
  the input of every row left, ``ceil(log2(rows))`` bits each. Weights of two row tiles may meet in one column, so this
  needs a proof of its own (:mod:`bitline.compaction`).

Not both at once: the columns of a crossbar read the same rows. Blocks smaller than a crossbar free little: a row goes
only where all blocks beside each other in the crossbar leave it out, a column where all blocks above each other do. Of
8 x 8 blocks that is two (16 outputs of 8-bit weights) and sixteen: of blocks with half their rows a quarter of the rows
goes, of the columns none. The rest only lessens the cells that are on. The tables are counted, not priced.

References
----------
Niu et al., "GRIM", IEEE TPAMI 2021: block-based column-row pruning. How its blocks meet crossbars is our reading.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bitline.chip.mapping import BlockLayout, outputs_per_crossbar
from bitline.hardware import Hardware
from bitline.layers import MatrixLayer

__all__ = ["closed_up_groups", "squeeze_columns", "squeeze_rows"]


def _index_bits(entries: int, targets: int) -> int:
    return entries * max(1, (targets - 1).bit_length())


def squeeze_columns(layer: MatrixLayer, hw: Hardware) -> BlockLayout:
    """In every row tile only the outputs that are not zero there."""
    per_output = hw.slices * hw.signs
    crossbars = row_tiles = widest = cells = entries = read = 0
    for codes in layer.codes:
        for start in range(0, codes.shape[0], hw.rows):
            tile = codes[start : start + hw.rows]
            outputs = int(np.count_nonzero(tile.any(axis=0)))
            side_by_side = -(-outputs * per_output // hw.columns)
            crossbars += side_by_side
            row_tiles += outputs > 0
            widest = max(widest, side_by_side)
            cells += tile.shape[0] * outputs * per_output
            read += outputs * per_output * -(-tile.shape[0] // hw.read_rows)
            entries += outputs
    return BlockLayout(
        squeezed="columns",
        crossbars=crossbars,
        row_tiles=row_tiles,
        column_groups=widest,
        cells=cells,
        columns_read=read,
        rows_read=None,
        index_bits=_index_bits(entries, layer.columns * layer.groups),
    )


def closed_up_groups(codes: NDArray[np.int32], hw: Hardware) -> Iterator[NDArray[np.int32]]:
    """Every column group of one matrix (rows, columns) without the rows that are zero in it."""
    per_output = hw.slices * hw.signs
    for index in range(-(-codes.shape[1] * per_output // hw.columns)):
        group = codes[:, outputs_per_crossbar(index, codes.shape[1], per_output, hw.columns)]
        yield group[group.any(axis=1)]


def squeeze_rows(layer: MatrixLayer, hw: Hardware) -> BlockLayout:
    """In every column group only the rows that are not zero there; outputs stay where the blocks were cut."""
    per_output = hw.slices * hw.signs
    crossbars = row_tiles = widest = cells = entries = read = 0
    for codes in layer.codes:
        physical = codes.shape[1] * per_output
        tallest = groups = 0
        for index, group in enumerate(closed_up_groups(codes, hw)):
            rows = group.shape[0]
            tiles = -(-rows // hw.rows)
            crossbars += tiles
            cells += rows * min(hw.columns, physical - index * hw.columns)
            read += -(-rows // hw.read_rows) * min(hw.columns, physical - index * hw.columns)
            entries += rows
            tallest, groups = max(tallest, tiles), groups + (tiles > 0)
        row_tiles += tallest
        widest = max(widest, groups)
    return BlockLayout(
        squeezed="rows",
        crossbars=crossbars,
        row_tiles=row_tiles,
        column_groups=widest,
        cells=cells,
        columns_read=read,
        rows_read=entries,
        index_bits=_index_bits(entries, layer.rows * layer.groups),
    )
