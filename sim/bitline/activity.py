"""From the word lines that a run drove to what its inputs make the priced crossbars do.

A run's crossbars hold the whole matrix; those that are priced leave out what ``compaction`` found. A row that is
driven so often is driven as often in every crossbar that holds a part of it, so one count a row serves both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bitline.chip import LayerActivity, WeightFacts
from bitline.chip.mapping import map_layer
from bitline.crossbar.encoding import encode
from bitline.hardware import Hardware
from bitline.layers import MatrixLayer
from bitline.network.crossbar_modules import LayerCounters

__all__ = ["layer_activity", "network_activity", "row_use"]


def network_activity(
    layers: Sequence[MatrixLayer],
    counters: Sequence[LayerCounters],
    facts: Mapping[str, WeightFacts],
    hw: Hardware,
    images: int,
) -> dict[str, LayerActivity]:
    """What a bit-serial run of some images did in the crossbars that are priced, by layer.

    Parameters
    ----------
    layers : sequence of MatrixLayer
    counters : sequence of LayerCounters
        Of the same layers; one that no image reached did nothing.
    facts : mapping of name to WeightFacts
        What the mapping leaves out.
    hw : Hardware
    images : int
    """
    return {
        layer.name: layer_activity(
            layer,
            facts[layer.name],
            hw,
            np.zeros(layer.groups * layer.rows, np.int64) if counted.driven is None else counted.driven,
            images,
        )
        for layer, counted in zip(layers, counters, strict=True)
    }


def layer_activity(
    layer: MatrixLayer, facts: WeightFacts, hw: Hardware, driven: NDArray[np.int64], images: int
) -> LayerActivity:
    """What driving rows this often did in the crossbars of one copy of a layer.

    Parameters
    ----------
    layer : MatrixLayer
    facts : WeightFacts
        Without blocks or row tiles of other widths.
    hw : Hardware
    driven : ndarray [shape=(groups * rows,), int64]
        Input vectors and digits that drove each row.
    images : int
        Images that this is of.
    """
    lines, cells = row_use(layer, facts, hw)
    return LayerActivity(
        images=images,
        lines_driven=int(driven @ lines.reshape(-1)),
        cells_on=int(driven @ cells.reshape(-1)),
    )


def row_use(layer: MatrixLayer, facts: WeightFacts, hw: Hardware) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Crossbars built that hold a part of each row, and the row's cells in them whose level is not zero.

    Cells of unit columns are not counted, as they are not priced.

    Returns
    -------
    ndarray, ndarray [shape=(groups, rows), int64]
        Zeros for the rows that are left out.
    """
    lines = np.zeros((layer.groups, layer.rows), np.int64)
    cells = np.zeros_like(lines)
    shared = map_layer(layer, hw, facts).groups_per_crossbar > 1
    for g, codes in enumerate(layer.codes):
        if not codes.any():
            continue
        rows, columns = np.arange(layer.rows), np.arange(layer.columns)
        if not shared and facts.removed_rows[g]:
            rows = np.flatnonzero(codes.any(axis=1))
        if not shared and facts.removed_columns[g]:
            columns = np.flatnonzero(codes.any(axis=0))
        for first in range(0, len(rows), hw.rows):
            tile = rows[first : first + hw.rows]
            held = codes[np.ix_(tile, columns)]
            on = np.moveaxis(encode(held, hw).levels != 0, 3, 1).reshape(len(tile), -1)  # output by output
            weights = np.repeat(held.any(axis=0), hw.slices * hw.signs)  # physical columns of outputs with a weight
            starts = np.arange(0, on.shape[1], hw.columns)
            built = np.logical_or.reduceat(weights, starts)
            lines[g, tile] = np.count_nonzero(built)
            cells[g, tile] = np.add.reduceat(on, starts, axis=1, dtype=np.int64) @ built
    return lines, cells
