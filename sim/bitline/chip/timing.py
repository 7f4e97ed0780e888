"""From a mapped network to the scheduler's stages: cycle time, initiation intervals and what sets them.

The chip is synchronous. Its cycle is one crossbar read, or one crossbar's conversions where the ADCs need longer. A
matrix operation takes one input vector a replica every ``interval`` cycles, the most of

* ``compute``: input cycles (and a second pass for signed inputs with several bits a cycle),
* ``edram``: input and output codes through the ports of the buffers of the tiles it is on,
* ``bus``: input codes from a buffer to the IMAs,
* ``router``: output codes through a tile's port into the network on chip,
* ``link``: output codes through the links, where a reader is on another chip,
* ``recurrence``: where a step of an LSTM or GRU reads the result of the step before, one whole turn: the longest of the
  above, the pipeline behind it, and the gates in the digital units. The gates' elementary functions take one digital
  clock each in one of the tile's sigmoid units, their sums and products are as fast as the tile's buffer port, like
  those of branches. The product with the input has crossbars of its own and runs ahead.

A tile's port is taken to be shared by as many replicas as the tile can hold, so bandwidth is never optimistic.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bitline.chip.adc_laws import rate_at
from bitline.chip.mapping import LayerMapping, Placement, chip_of
from bitline.chip.pipeline import Stage, Wait, waits_for
from bitline.errors import ShapeError
from bitline.hardware import Hardware, Readout
from bitline.layers import Gates, Operation, OperationKind

__all__ = ["Clock", "MatrixTiming", "adc_read_ns", "build_stages", "clock_of", "matrix_timing"]


@dataclass(frozen=True, kw_only=True)
class Clock:
    """The chip's cycle and what it moves in one cycle."""

    cycle_ns: float
    set_by: str
    """``array_read`` or ``adc``."""
    edram_bits: float
    """Bits a tile's buffer port moves in a cycle."""
    bus_bits: float
    router_bits: float
    link_bits: float
    """Bits the chip's links move in a cycle, together."""


def adc_read_ns(hw: Hardware, bits: float) -> float:
    """Time in ns that the ADCs of one crossbar need for all its columns, at this resolution.

    The unit column of an offset encoding is not charged: ISAAC's rate of 1.28 GS/s is for its 128 columns.
    """
    chip = chip_of(hw)
    adcs = chip.units("adc", hw.rows, hw.columns) / chip.hierarchy.crossbars_per_ima.value
    columns = hw.columns / 2 if hw.readout is Readout.ANALOG else hw.columns
    return columns / (adcs * rate_at(chip.adc, bits))


def clock_of(hw: Hardware, bits: float) -> Clock:
    """Return the chip's clock when its slowest ADC has this resolution."""
    timing = chip_of(hw).timing
    conversions = adc_read_ns(hw, bits)
    cycle = max(timing.array_read_ns.value, conversions)
    links, each = timing.links, timing.link_gbyte_per_s
    return Clock(
        cycle_ns=cycle,
        set_by="adc" if conversions > timing.array_read_ns.value else "array_read",
        edram_bits=timing.bandwidth(timing.edram_port_bits) * cycle,
        bus_bits=timing.bandwidth(timing.bus_bits) * cycle,
        router_bits=timing.bandwidth(timing.router_bits) * cycle,
        link_bits=math.inf if links is None or each is None else links.value * each.value * 8 * cycle,
    )


@dataclass(frozen=True, kw_only=True)
class MatrixTiming:
    """How often a replica of one layer takes an input vector, in cycles, by cause."""

    compute: int
    edram: int
    bus: int
    router: int
    link: int = 0
    recurrence: int = 0
    """Cycles from a step's start to the next one's; 0 where steps do not wait for each other."""

    @property
    def interval(self) -> int:
        """Cycles between two input vectors of one replica."""
        return max(self.compute, self.edram, self.bus, self.router, self.link, self.recurrence)

    @property
    def set_by(self) -> str:
        """What sets the interval; ``compute`` where several do."""
        limits = {name: getattr(self, name) for name in ("compute", "edram", "bus", "router", "link", "recurrence")}
        return max(limits, key=lambda name: limits[name])


def matrix_timing(mapping: LayerMapping, hw: Hardware, clock: Clock, gates: Gates | None = None) -> MatrixTiming:
    """Initiation interval of one replica of a layer, without the links between chips.

    Parameters
    ----------
    mapping : LayerMapping
    hw : Hardware
    clock : Clock
    gates : Gates, optional
        Of a recurrent layer: what follows the product before the next step can start.
    """
    hierarchy = chip_of(hw).hierarchy
    in_tile = hierarchy.crossbars_per_ima.value * hierarchy.imas_per_tile.value
    spread = -(-mapping.crossbars // in_tile)  # tiles of one replica
    sharing = max(1, in_tile // mapping.crossbars)  # replicas in one tile
    rows_in_tile = min(mapping.rows_read, in_tile * hw.rows)
    read = sharing * rows_in_tile * hw.input_bits * mapping.input_passes
    written = sharing * mapping.live_columns * hw.input_bits / spread
    timing = MatrixTiming(
        compute=hw.input_cycles * mapping.input_passes * mapping.turns,
        edram=math.ceil((read + written) / clock.edram_bits),
        bus=math.ceil(read / clock.bus_bits),
        router=math.ceil(written / clock.router_bits),
    )
    if gates is None:
        return timing
    overhead = chip_of(hw).timing.pipeline_overhead_cycles.value
    return replace(timing, recurrence=timing.interval + overhead + _gate_cycles(gates, spread, hw, clock))


def _gate_cycles(gates: Gates, tiles: int, hw: Hardware, clock: Clock) -> int:
    """Cycles of one step's gates on this many tiles."""
    chip = chip_of(hw)
    moved = math.ceil(gates.moved * hw.input_bits / (clock.edram_bits * tiles))
    units = chip.units("sigmoid", hw.rows, hw.columns) * tiles if "sigmoid" in chip.components else math.inf
    rate = math.inf if chip.timing.digital_clock_ghz is None else chip.timing.digital_clock_ghz.value
    functions = math.ceil(gates.functions / (units * rate * clock.cycle_ns))
    return max(moved, functions) - 1 + chip.timing.digital_cycles.value


def _grid(operation: Operation) -> tuple[int, int]:
    return operation.output_shape[1], operation.output_shape[2]


def _digital(operation: Operation, inputs: Sequence[Operation], waits: Sequence[Wait], bits: int) -> float:
    """Bits that pooling or element-wise arithmetic moves through the buffers for one output position."""
    moved = float(operation.output_shape[0])
    for source, wait in zip(inputs, waits, strict=True):
        channels, height, width = source.output_shape
        if wait.window is None:
            moved += channels * height * width / operation.positions
        else:
            moved += channels * wait.window.kernel[0] * wait.window.kernel[1]
    return moved * bits


def build_stages(
    operations: Sequence[Operation],
    timings: Mapping[str, MatrixTiming],
    placement: Placement,
    layer_index: Mapping[str, int],
    hw: Hardware,
    clock: Clock,
) -> tuple[list[Stage], dict[str, MatrixTiming]]:
    """Return one stage an operation, and the matrix timings with the links between chips counted in.

    Pooling and sums of branches run in the tiles of the layer that feeds them, as fast as those tiles' buffer ports
    allow. Single-input element-wise operations and concatenations cost nothing: the activation is a step of the
    matrix pipeline, and concatenation is addressing. So does everything of kind ``other``.

    Raises
    ------
    ShapeError
        An operation reads one that does not come before it.
    """
    chip = chip_of(hw)
    overhead, digital_cycles = chip.timing.pipeline_overhead_cycles.value, chip.timing.digital_cycles.value
    per_chip = chip.hierarchy.tiles_per_chip.value
    index = {operation.name: i for i, operation in enumerate(operations)}
    tiles = [1] * len(operations)
    home: list[int | None] = [None] * len(operations)  # chip that the result is on
    final = dict(timings)

    for i, operation in enumerate(operations):
        for name in operation.inputs:
            if index.get(name, i) >= i:
                raise ShapeError(f"operation {operation.name}: its input {name} does not come before it")
        sources = [index[name] for name in operation.inputs]
        if operation.kind is OperationKind.MATRIX:
            layer = layer_index[operation.name]
            tiles[i] = placement.last_tile[layer] - placement.first_tile[layer] + 1
            home[i] = placement.last_tile[layer] // per_chip
            for source in sources:
                if home[source] not in (None, placement.first_tile[layer] // per_chip):
                    _charge_link(operations, index, source, placement, layer_index, final, hw, clock)
        elif sources:
            tiles[i], home[i] = tiles[sources[0]], home[sources[0]]

    stages = []
    for i, operation in enumerate(operations):
        grid = _grid(operation)
        sources = [index[name] for name in operation.inputs]
        waits = tuple(waits_for(s, operation.window, _grid(operations[s]), grid) for s in sources)
        interval, lanes, depth = 0, 1, 0
        if operation.kind is OperationKind.MATRIX:
            layer = layer_index[operation.name]
            interval, lanes = final[operation.name].interval, min(placement.replicas[layer], operation.positions)
            depth = interval if operation.gates else interval + overhead
        elif operation.kind is OperationKind.INPUT:
            interval, lanes = _rate(operation.output_shape[0] * hw.input_bits, clock.link_bits, operation.positions)
            depth = 1
        elif operation.kind in (OperationKind.MAX_POOL, OperationKind.AVERAGE_POOL) or (
            operation.kind is OperationKind.ELEMENTWISE and len(sources) > 1
        ):
            moved = _digital(operation, [operations[s] for s in sources], waits, hw.input_bits)
            interval, lanes = _rate(moved, clock.edram_bits * tiles[i], operation.positions)
            depth = interval - 1 + digital_cycles
        stages.append(
            Stage(
                name=operation.name,
                height=grid[0],
                width=grid[1],
                interval=interval,
                lanes=lanes,
                depth=depth,
                waits=waits,
            )
        )
    return stages, final


def _rate(bits: float, bits_per_cycle: float, positions: int) -> tuple[int, int]:
    """Interval and lanes of a stage that moves ``bits`` a position through this bandwidth."""
    if math.isinf(bits_per_cycle):
        return 1, positions
    at_once = int(bits_per_cycle // bits)
    return (1, min(at_once, positions)) if at_once else (math.ceil(bits / bits_per_cycle), 1)


def _charge_link(
    operations: Sequence[Operation],
    index: Mapping[str, int],
    source: int,
    placement: Placement,
    layer_index: Mapping[str, int],
    timings: dict[str, MatrixTiming],
    hw: Hardware,
    clock: Clock,
) -> None:
    """Slow the layer behind a result down to what its chip's links take, where the result is read on another chip."""
    result = operations[source]
    operation = result
    while operation.kind is not OperationKind.MATRIX:  # pooling and sums run where the layer that feeds them is
        if not operation.inputs:
            return
        operation = operations[index[operation.inputs[0]]]
    channels, height, width = result.output_shape
    a_position = channels * height * width / operation.positions
    bits = placement.replicas[layer_index[operation.name]] * a_position * hw.input_bits
    old = timings[operation.name]
    timings[operation.name] = replace(old, link=max(old.link, math.ceil(bits / clock.link_bits)))
