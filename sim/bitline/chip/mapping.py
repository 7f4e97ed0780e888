"""Where a network's layers go: row tiles x column groups -> crossbars -> IMAs -> tiles -> chips.

An IMA serves one layer; layers follow each other through the IMAs, tiles and chips in the order of the network. An
offset encoding's unit column is a 129th column of each crossbar and takes none of its capacity.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitline.chip_description import ChipDescription
from bitline.errors import ConfigError, ShapeError
from bitline.hardware import Encoding, Hardware
from bitline.layers import MatrixLayer, Operation, OperationKind

__all__ = [
    "BlockLayout",
    "LayerMapping",
    "Placement",
    "WeightFacts",
    "chip_of",
    "layer_name",
    "map_layer",
    "map_layers",
    "outputs_per_crossbar",
    "place",
    "weight_facts",
]


def chip_of(hw: Hardware) -> ChipDescription:
    """Return the physical half of a description.

    Raises
    ------
    ConfigError
        The description has none.
    """
    if hw.chip is None:
        raise ConfigError(f"hardware {hw.name}: chip: missing, the price and the timing need the physical description")
    return hw.chip


@dataclass(frozen=True, kw_only=True)
class BlockLayout:
    """What is left of a layer after squeezing crossbar-sized blocks (:mod:`bitline.chip.blocks`); of all groups."""

    squeezed: str
    """``rows`` or ``columns``."""
    crossbars: int
    row_tiles: int
    """Most row tiles of a column group, summed over the groups of the layer."""
    column_groups: int
    """Most crossbars side by side on the same rows."""
    cells: int
    """Cells that hold a weight's digit."""
    columns_read: int
    """Physical columns of all crossbars together, each as often as its crossbar is read for an input digit."""
    rows_read: int | None
    """Rows of all column groups together, each with inputs of its own; None where column groups share theirs."""
    index_bits: int
    """Bits of the tables that say which input drives a row, or which output a column's code is added to."""


@dataclass(frozen=True, kw_only=True)
class WeightFacts:
    """What the weight codes of one layer let the mapping leave out."""

    removed_rows: tuple[int, ...]
    """Rows of each group's matrix that are zero in every column (pruned filter shapes)."""
    removed_columns: tuple[int, ...]
    """Columns of each group's matrix that are zero in every row (pruned filters)."""
    zero_crossbars: int
    """Crossbars, after those rows and columns are gone, that would hold zero weights only."""
    zero_columns: int
    """Physical columns of these crossbars, each as often as its crossbar would be read for an input digit."""
    zero_cells: int
    """Cells of these crossbars that would hold a weight's digit."""
    zero_groups: int
    """Groups whose whole matrix is zero."""
    passes: int
    """Passes over the input digits: 2 for signed inputs with several bits a cycle, else 1."""
    blocks: BlockLayout | None = None
    """Another layout of the same weights, to be used instead: zero rows or columns squeezed out block by block."""
    turns: int = 1
    """Turns in which a crossbar's rows are driven where the mapping, not the hardware, says so: a polarised mapping's
    fragments."""
    tile_columns: tuple[tuple[int, ...], ...] | None = None
    """Physical columns of each group's row tiles, where they are not the encoding's; rows and columns all stay then."""


@dataclass(frozen=True, kw_only=True)
class LayerMapping:
    """One layer on crossbars; every count is for one replica."""

    name: str
    rows: int
    columns: int
    groups: int
    row_tiles: int
    """Row tiles of all groups together."""
    column_groups: int
    """Column groups of a row tile."""
    groups_per_crossbar: int
    """Groups that share a crossbar block-diagonally (differential encoding only)."""
    removed_rows: int
    """All-zero rows left out, over all groups."""
    removed_columns: int
    """All-zero columns left out, over all groups."""
    dropped_crossbars: int
    """Crossbars left out: those of the layer with no weight zero, less those that are built."""
    crossbars: int
    """Crossbars that are built (at least one, though it may hold nothing)."""
    cells: int
    """Cells that hold a weight's digit, in the crossbars that are built."""
    columns_read: int
    """Physical columns read for one input digit, each once a read of its crossbar, over all that are built; the unit
    columns of offset encodings are not among them."""
    input_passes: int
    squeezed: str | None = None
    """``rows`` or ``columns`` where those that are zero in a crossbar-sized block are squeezed out of it."""
    index_bits: int = 0
    """Bits of the index tables that this needs."""
    separate_rows: int | None = None
    """Inputs fetched for one input vector where column groups do not share theirs."""
    turns: int = 1
    """Turns in which a crossbar's rows are driven."""

    @property
    def live_rows(self) -> int:
        """Rows driven for one input vector, over all groups."""
        return self.rows * self.groups - self.removed_rows

    @property
    def rows_read(self) -> int:
        """Inputs fetched for one input vector, each once for all column groups that share it."""
        return self.live_rows if self.separate_rows is None else self.separate_rows

    @property
    def live_columns(self) -> int:
        """Outputs computed for one input vector, over all groups."""
        return self.columns * self.groups - self.removed_columns


def outputs_per_crossbar(index: int, columns: int, per_output: int, capacity: int) -> slice:
    """Outputs that have at least one physical column in column group ``index``."""
    return slice(index * capacity // per_output, min(columns, -(-(index + 1) * capacity // per_output)))


def _zero_crossbars(codes: NDArray[np.int32], hw: Hardware) -> NDArray[np.int64]:
    """Crossbars without a non-zero weight in one group's compacted matrix (rows, columns), their columns and cells."""
    rows, columns = codes.shape
    per_output = hw.slices * hw.signs
    starts = np.arange(0, rows, hw.rows)
    heights = np.minimum(hw.rows, rows - starts)
    live = np.logical_or.reduceat(codes != 0, starts, axis=0)  # (row tiles, columns)
    zero = np.zeros(3, np.int64)
    for index in range(-(-columns * per_output // hw.columns)):
        outputs = outputs_per_crossbar(index, columns, per_output, hw.columns)
        empty = ~live[:, outputs].any(axis=1)
        width = min(hw.columns, columns * per_output - index * hw.columns)
        reads = -(-heights[empty] // hw.read_rows)
        zero += [np.count_nonzero(empty), width * int(reads.sum()), width * int(heights[empty].sum())]
    return zero


def weight_facts(layer: MatrixLayer, hw: Hardware, *, keep_rows: bool = False) -> WeightFacts:
    """Find the zero rows, zero columns and zero crossbars of a layer's weights.

    Rows and columns that are zero throughout are taken out before tiling, as structured pruning in crossbar multiples
    intends; with ``keep_rows`` the rows stay where they are. Physical columns lie output by output, an output's slices
    and signs next to each other.
    """
    removed_rows, removed_columns, zero = [], [], np.zeros(3, np.int64)
    for codes in layer.codes:
        nonzero = codes != 0
        live_rows, live_columns = nonzero.any(axis=1) | keep_rows, nonzero.any(axis=0)
        removed_rows.append(int(codes.shape[0] - np.count_nonzero(live_rows)))
        removed_columns.append(int(codes.shape[1] - np.count_nonzero(live_columns)))
        compact = codes[live_rows][:, live_columns]
        if compact.size:
            zero += _zero_crossbars(compact, hw)
    return WeightFacts(
        removed_rows=tuple(removed_rows),
        removed_columns=tuple(removed_columns),
        zero_crossbars=int(zero[0]),
        zero_columns=int(zero[1]),
        zero_cells=int(zero[2]),
        zero_groups=int(np.count_nonzero(~layer.codes.any(axis=(1, 2)))),
        passes=hw.input_passes(layer.signed_inputs),
    )


def _groups_per_crossbar(rows: int, columns: int, groups: int, hw: Hardware) -> int:
    # Cells outside a group's block stay at level 0, which is a zero weight in the differential encoding only; the
    # offset encodings would need a unit column a group, so there every group has crossbars of its own.
    if groups == 1 or hw.encoding is not Encoding.DIFFERENTIAL:
        return 1
    return max(1, min(groups, hw.rows // rows, hw.columns // columns))


def map_layer(layer: Operation | MatrixLayer, hw: Hardware, facts: WeightFacts | None = None) -> LayerMapping:
    """Cut one matrix operation into crossbars; nothing else counts them.

    Groups are laid out in the fewer crossbars of two ways: each by itself, without its zero rows and columns; or whole
    ones side by side in the same crossbars, where the encoding allows that, without the groups that are zero.

    Parameters
    ----------
    layer : Operation or MatrixLayer
        A matrix operation or its weights; ``rows`` and ``columns`` are of one group.
    hw : Hardware
        Crossbar size and encoding.
    facts : WeightFacts, optional
        Zero rows, columns and crossbars to leave out.

    Raises
    ------
    ShapeError
        The operation has no rows, columns or groups.
    """
    rows, columns, groups = layer.rows, layer.columns, layer.groups
    if min(rows, columns, groups) < 1:
        raise ShapeError(
            f"operation {layer.name}: rows, columns and groups must be at least 1, got {rows}, {columns}, {groups}"
        )
    if facts and len(facts.removed_rows) != groups:
        raise ShapeError(f"operation {layer.name}: {groups} groups, but weights with {len(facts.removed_rows)}")
    physical = columns * hw.slices * hw.signs
    dense = _whole_groups(rows, physical, groups, hw)
    if facts is None:
        layout, removed = dense, (0, 0)
    elif facts.blocks:
        layout, removed = (
            _squeezed_blocks(facts.blocks, _turns(rows, 1, hw)),
            (sum(facts.removed_rows), sum(facts.removed_columns)),
        )
    elif facts.tile_columns is not None:
        layout, removed = _tile_columns(rows, facts.tile_columns, facts.turns, hw), (0, 0)
        dense = layout  # of its own kind
    else:
        layout = _single_groups(rows, columns, facts, hw)
        removed = (sum(facts.removed_rows), sum(facts.removed_columns))
        live = groups - facts.zero_groups
        shared = _whole_groups(rows, physical, live, hw)
        if shared.groups_per_crossbar > 1 and 0 < shared.crossbars <= layout.crossbars:
            layout, removed = shared, (rows * facts.zero_groups, columns * facts.zero_groups)
    # a layer that is zero throughout keeps one crossbar, so that its place in the pipeline exists
    built = max(1, layout.crossbars)
    blocks = facts.blocks if facts else None
    return LayerMapping(
        name=layer.name,
        rows=rows,
        columns=columns,
        groups=groups,
        row_tiles=layout.row_tiles,
        column_groups=layout.column_groups,
        groups_per_crossbar=layout.groups_per_crossbar,
        removed_rows=removed[0],
        removed_columns=removed[1],
        dropped_crossbars=max(0, dense.crossbars - built),
        crossbars=built,
        cells=layout.cells,
        columns_read=layout.columns_read,
        input_passes=facts.passes if facts else hw.input_passes(layer.signed_inputs),
        squeezed=blocks.squeezed if blocks else None,
        index_bits=blocks.index_bits if blocks else 0,
        separate_rows=blocks.rows_read if blocks else None,
        turns=layout.turns,
    )


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """Crossbars of one layer, all groups together, and what they hold; see :class:`LayerMapping`."""

    row_tiles: int
    column_groups: int
    crossbars: int
    cells: int
    columns_read: int
    turns: int = 1
    """Reads an input digit takes, in the fullest crossbar."""
    groups_per_crossbar: int = 1


def _turns(rows: int, shared: int, hw: Hardware) -> int:
    """Reads an input digit takes where a crossbar's rows are switched on in turns, in the fullest crossbar.

    Groups that share a crossbar have no column in common, so rows of several may be on together; those of one group
    are read as the proof reads them.
    """
    if hw.read_rows >= shared * rows:
        return 1
    return -(-shared // max(1, hw.read_rows // rows)) * -(-min(hw.rows, rows) // hw.read_rows)


def _whole_groups(rows: int, physical: int, groups: int, hw: Hardware) -> _Layout:
    """Groups with all their rows and columns, several in a crossbar where they fit."""
    if groups == 0:
        return _Layout(row_tiles=0, column_groups=0, crossbars=0, cells=0, columns_read=0)
    shared = _groups_per_crossbar(rows, physical, groups, hw)
    column_groups = -(-physical // hw.columns)
    row_tiles = -(-groups // shared) * -(-rows // hw.rows)
    return _Layout(
        row_tiles=row_tiles,
        column_groups=column_groups,
        crossbars=row_tiles * column_groups,
        cells=groups * rows * physical,
        columns_read=groups * -(-rows // hw.read_rows) * physical,
        turns=_turns(rows, shared, hw),
        groups_per_crossbar=shared,
    )


def _single_groups(rows: int, columns: int, facts: WeightFacts, hw: Hardware) -> _Layout:
    """Every group by itself, without its zero rows, columns and crossbars."""
    row_tiles = crossbars = cells = column_groups = read = 0
    for gone_rows, gone_columns in zip(facts.removed_rows, facts.removed_columns, strict=True):
        tiles, physical = -(-(rows - gone_rows) // hw.rows), (columns - gone_columns) * hw.slices * hw.signs
        row_tiles += tiles if physical else 0
        column_groups = max(column_groups, -(-physical // hw.columns))
        crossbars += tiles * -(-physical // hw.columns)
        cells += (rows - gone_rows) * physical
        read += -(-(rows - gone_rows) // hw.read_rows) * physical
    return _Layout(
        row_tiles=row_tiles,
        column_groups=column_groups,
        crossbars=crossbars - facts.zero_crossbars,
        cells=cells - facts.zero_cells,
        columns_read=read - facts.zero_columns,
        turns=_turns(max(rows - gone for gone in facts.removed_rows), 1, hw),
    )


def _tile_columns(rows: int, widths_by_group: tuple[tuple[int, ...], ...], turns: int, hw: Hardware) -> _Layout:
    """Row tiles of given widths, driven in so many turns."""
    widths = [width for tiles in widths_by_group for width in tiles]
    heights = [min(hw.rows, rows - start) for start in range(0, rows, hw.rows)] * len(widths_by_group)
    return _Layout(
        row_tiles=len(widths),
        column_groups=-(-max(widths) // hw.columns),
        crossbars=sum(-(-width // hw.columns) for width in widths),
        cells=sum(height * width for height, width in zip(heights, widths, strict=True)),
        columns_read=sum(widths) * turns,
        turns=turns,
    )


def _squeezed_blocks(blocks: BlockLayout, turns: int) -> _Layout:
    return _Layout(
        row_tiles=blocks.row_tiles,
        column_groups=blocks.column_groups,
        crossbars=blocks.crossbars,
        cells=blocks.cells,
        columns_read=blocks.columns_read,
        turns=turns,  # squeezed crossbars may take fewer
    )


def read_cycles(mapping: LayerMapping, hw: Hardware) -> int:
    """Cycles in which a layer's crossbars are read for one input vector."""
    return hw.input_cycles * mapping.input_passes * mapping.turns


def layer_name(operation: str) -> str:
    """Name of the layer behind a matrix operation: a layer that is called again appears as ``name#2``, ``name#3``."""
    return operation.partition("#")[0]


def map_layers(
    operations: Sequence[Operation], hw: Hardware, facts: Mapping[str, WeightFacts] | None = None
) -> list[LayerMapping]:
    """Cut every matrix operation of a network into crossbars, in order.

    A layer that a network calls several times is laid out once a call: the pipeline is unrolled.

    Raises
    ------
    ShapeError
        No matrix operation, one without rows or columns, two operations of one name, or weights that belong to none.
    """
    facts = facts or {}
    names = [op.name for op in operations]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ShapeError(f"operation {twice}: two operations of the network have this name")
    layers = {layer_name(name) for name in names}
    unknown = [name for name in facts if name not in layers]
    if unknown:
        raise ShapeError(f"weights are given for {unknown[0]}, which is no operation of the network")
    mapped = [map_layer(op, hw, facts.get(layer_name(op.name))) for op in operations if op.kind is OperationKind.MATRIX]
    if not mapped:
        raise ShapeError("the network has no matrix operation, so there is nothing to map")
    return mapped


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Replicas of every layer laid out on IMAs, tiles and chips."""

    replicas: tuple[int, ...]
    crossbars: tuple[int, ...]
    """Crossbars of all replicas of each layer."""
    imas: tuple[int, ...]
    first_tile: tuple[int, ...]
    last_tile: tuple[int, ...]
    tiles: int
    chips: int
    crossbar_utilisation: float
    """Crossbars that hold weights, of all crossbars on the tiles used."""


def place(mappings: Sequence[LayerMapping], replicas: Sequence[int], hw: Hardware) -> Placement:
    """Lay the replicas of every layer out, layer after layer."""
    chip = chip_of(hw)
    per_ima, per_tile = chip.hierarchy.crossbars_per_ima.value, chip.hierarchy.imas_per_tile.value
    crossbars = [m.crossbars * r for m, r in zip(mappings, replicas, strict=True)]
    imas = [-(-count // per_ima) for count in crossbars]
    first, last, used = [], [], 0
    for count in imas:
        first.append(used // per_tile)
        used += count
        last.append((used - 1) // per_tile)
    tiles = -(-used // per_tile)
    return Placement(
        replicas=tuple(replicas),
        crossbars=tuple(crossbars),
        imas=tuple(imas),
        first_tile=tuple(first),
        last_tile=tuple(last),
        tiles=tiles,
        chips=math.ceil(tiles / chip.hierarchy.tiles_per_chip.value),
        crossbar_utilisation=sum(crossbars) / (tiles * per_tile * per_ima),
    )
