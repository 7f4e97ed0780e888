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
    """Crossbars left out because all their weights are zero."""
    crossbars: int
    """Crossbars that are built (at least one)."""
    cells: int
    """Cells that hold a weight's digit, in the crossbars that are built and dropped together."""
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


def _zero_crossbars(codes: NDArray[np.int32], hw: Hardware) -> int:
    """Count crossbars without a non-zero weight in one group's compacted matrix (rows, columns)."""
    rows, columns = codes.shape
    per_output = hw.slices * hw.signs
    starts = np.arange(0, rows, hw.rows)
    live = np.logical_or.reduceat(codes != 0, starts, axis=0)  # (row tiles, columns)
    zero = 0
    for index in range(-(-columns * per_output // hw.columns)):
        outputs = outputs_per_crossbar(index, columns, per_output, hw.columns)
        zero += int(np.count_nonzero(~live[:, outputs].any(axis=1)))
    return zero


def weight_facts(layer: MatrixLayer, hw: Hardware, *, keep_rows: bool = False) -> WeightFacts:
    """Find the zero rows, zero columns and zero crossbars of a layer's weights.

    Rows and columns that are zero throughout are taken out before tiling, as structured pruning in crossbar multiples
    intends; with ``keep_rows`` the rows stay where they are. Physical columns lie output by output, an output's slices
    and signs next to each other.
    """
    removed_rows, removed_columns, zero = [], [], 0
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
        zero_crossbars=zero,
        passes=hw.input_passes(layer.signed_inputs),
    )


def _groups_per_crossbar(rows: int, columns: int, groups: int, hw: Hardware) -> int:
    # Cells outside a group's block stay at level 0, which is a zero weight in the differential encoding only; the
    # offset encodings would need a unit column a group, so there every group has crossbars of its own.
    if groups == 1 or hw.encoding is not Encoding.DIFFERENTIAL:
        return 1
    return max(1, min(groups, hw.rows // rows, hw.columns // columns))


def map_layer(operation: Operation, hw: Hardware, facts: WeightFacts | None = None) -> LayerMapping:
    """Cut one matrix operation into crossbars.

    Parameters
    ----------
    operation : Operation
        A matrix operation; ``rows`` and ``columns`` are of one group.
    hw : Hardware
        Crossbar size and encoding.
    facts : WeightFacts, optional
        Zero rows, columns and crossbars to leave out.

    Raises
    ------
    ShapeError
        The operation has no rows, columns or groups.
    """
    rows, columns, groups = operation.rows, operation.columns, operation.groups
    if min(rows, columns, groups) < 1:
        raise ShapeError(
            f"operation {operation.name}: rows, columns and groups must be at least 1, got {rows}, {columns}, {groups}"
        )
    per_output = hw.slices * hw.signs
    removed_rows = facts.removed_rows if facts else (0,) * groups
    removed_columns = facts.removed_columns if facts else (0,) * groups
    if facts and facts.blocks:
        return _from_blocks(operation, facts, facts.blocks, _turns(rows, 1, hw))
    if len(removed_rows) != groups:
        raise ShapeError(f"operation {operation.name}: {groups} groups, but weights with {len(removed_rows)}")
    shared = 1
    if facts is not None and facts.tile_columns is not None:
        widths = [width for tiles in facts.tile_columns for width in tiles]
        row_tiles, column_groups = len(widths), -(-max(widths) // hw.columns)
        crossbars = sum(-(-width // hw.columns) for width in widths)
        heights = [min(hw.rows, rows - start) for start in range(0, rows, hw.rows)] * groups
        cells = sum(height * width for height, width in zip(heights, widths, strict=True))
    elif not any(removed_rows) and not any(removed_columns):
        shared = _groups_per_crossbar(rows, columns * per_output, groups, hw)
        row_tiles = -(-groups // shared) * -(-rows // hw.rows)
        column_groups = -(-columns * per_output // hw.columns)
        crossbars = row_tiles * column_groups
        cells = groups * rows * columns * per_output
    else:
        row_tiles = crossbars = cells = column_groups = 0
        for gone_rows, gone_columns in zip(removed_rows, removed_columns, strict=True):
            tiles, physical = -(-(rows - gone_rows) // hw.rows), (columns - gone_columns) * per_output
            row_tiles += tiles
            column_groups = max(column_groups, -(-physical // hw.columns))
            crossbars += tiles * -(-physical // hw.columns)
            cells += (rows - gone_rows) * physical
    # several groups in one crossbar: it is zero only if all of them are, which is not counted
    dropped = facts.zero_crossbars if facts and shared == 1 else 0
    return LayerMapping(
        name=operation.name,
        rows=rows,
        columns=columns,
        groups=groups,
        row_tiles=row_tiles,
        column_groups=column_groups,
        groups_per_crossbar=shared,
        removed_rows=sum(removed_rows),
        removed_columns=sum(removed_columns),
        dropped_crossbars=min(dropped, crossbars),
        # a layer that is zero throughout keeps one crossbar, so that its place in the pipeline exists
        crossbars=max(1, crossbars - dropped),
        cells=cells,
        input_passes=facts.passes if facts else 1,
        turns=facts.turns
        if facts and facts.turns > 1
        else _turns(max(rows - gone for gone in removed_rows), shared, hw),
    )


def _turns(rows: int, shared: int, hw: Hardware) -> int:
    """Reads an input digit takes where a crossbar's rows are switched on in turns, in the fullest crossbar.

    Groups that share a crossbar have no column in common, so rows of several may be on together; those of one group
    are read as the proof reads them.
    """
    if hw.read_rows >= shared * rows:
        return 1
    return -(-shared // max(1, hw.read_rows // rows)) * -(-min(hw.rows, rows) // hw.read_rows)


def _from_blocks(operation: Operation, facts: WeightFacts, blocks: BlockLayout, turns: int) -> LayerMapping:
    return LayerMapping(
        name=operation.name,
        rows=operation.rows,
        columns=operation.columns,
        groups=operation.groups,
        row_tiles=blocks.row_tiles,
        column_groups=blocks.column_groups,
        groups_per_crossbar=1,
        removed_rows=sum(facts.removed_rows),
        removed_columns=sum(facts.removed_columns),
        dropped_crossbars=0,
        crossbars=max(1, blocks.crossbars),
        cells=blocks.cells,
        input_passes=facts.passes,
        squeezed=blocks.squeezed,
        index_bits=blocks.index_bits,
        separate_rows=blocks.rows_read,
        turns=turns,  # squeezed crossbars may take fewer
    )


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
