"""From a mapped network to the scheduler's stages: cycle time, initiation intervals and what sets them.

Crossbars, ADCs and the digital pipeline behind them are synchronous: their cycle is one crossbar read, or one
crossbar's conversions where the ADCs need longer. What moves through ports, buses and links takes the time its bits
take, however long a cycle is. So all times here are in **picoseconds**, and each follows from the description by sums,
products with what is not negative, maxima and rounding up: a slower part makes no time shorter. A matrix operation
takes one input vector a replica every ``interval``, the most of

* ``compute``: input cycles (and a second pass for signed inputs with several bits a cycle),
* ``edram``: input and output codes through the ports of the buffers of the tiles it is on,
* ``bus``: input codes from a buffer to the IMAs,
* ``router``: output codes through a tile's port into the network on chip,
* ``link``: what moves between chips: results to a reader on another chip, and the inputs and results of an operation
  that lies on several,
* ``recurrence``: where a step of an LSTM or GRU reads the result of the step before, one whole turn: the longest of the
  above, the pipeline behind it, and the gates in the digital units. The gates' elementary functions take one digital
  clock each in one of the units that have this role, their sums and products are as fast as the tile's buffer port,
  like those of branches. The product with the input has crossbars of its own and runs ahead.

The IMAs of a tile share its ports evenly: a layer on ``n`` of the ``m`` IMAs that are in use there gets ``n / m`` of
each. Pooling and sums of branches run in the tiles of the layer that feeds them and share its part of the buffer port
with it, each in proportion to the bits it moves for an image. Every such division of time can be kept, so no bandwidth
is counted twice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bitline.chip.adc_laws import rate_at
from bitline.chip.mapping import LayerMapping, Placement, chip_of, read_cycles
from bitline.chip.pipeline import Stage, Wait, waits_for
from bitline.chip_description import Per, Role
from bitline.errors import ConfigError, RangeError, ShapeError
from bitline.hardware import Hardware, Readout
from bitline.layers import Gates, Operation, OperationKind

__all__ = ["Clock", "Homes", "MatrixTiming", "adc_read_ns", "build_stages", "clock_of", "homes_of", "matrix_timing"]

_PS = 1e3
_MOST_PS = 1 << 60


def picoseconds(nanoseconds: float) -> int:
    """A time in whole picoseconds, rounded up; what is whole but for the last digits of a float stays.

    Raises
    ------
    RangeError
        More than are counted.
    """
    value = nanoseconds * _PS * (1 - 1e-12)
    if not value < _MOST_PS:
        raise RangeError(f"a time of {nanoseconds:.3g} ns is more than is counted: a clock or a bandwidth is too small")
    return math.ceil(value)


@dataclass(frozen=True, kw_only=True)
class Clock:
    """The chip's cycle, and what it moves."""

    cycle_ps: int
    set_by: str
    """``array_read`` or ``adc``."""
    digital_ns: float
    """Period of the digital clock; 0 without one."""
    edram_gbps: float
    """1e9 bits a second through a tile's buffer port; infinite, as the others, where the description has none."""
    bus_gbps: float
    router_gbps: float
    link_gbps: float
    """Of the chip's links together, in one direction."""

    @property
    def cycle_ns(self) -> float:
        """The cycle in ns."""
        return self.cycle_ps / _PS

    def cycles(self, picoseconds: int) -> int | float:
        """A time in cycles, a whole number where it is one, else to a thousandth."""
        whole, rest = divmod(picoseconds, self.cycle_ps)
        return whole if rest == 0 else round(picoseconds / self.cycle_ps, 3)


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
    conversions = picoseconds(adc_read_ns(hw, bits))
    read = picoseconds(timing.array_read_ns.value)
    links, each = timing.links, timing.link_gbyte_per_s
    return Clock(
        cycle_ps=max(read, conversions),
        set_by="adc" if conversions > read else "array_read",
        digital_ns=0.0 if timing.digital_clock_ghz is None else 1 / timing.digital_clock_ghz.value,
        edram_gbps=timing.bandwidth(timing.edram_port_bits),
        bus_gbps=timing.bandwidth(timing.bus_bits),
        router_gbps=timing.bandwidth(timing.router_bits),
        link_gbps=math.inf if links is None or each is None else links.value * each.value * 8,
    )


@dataclass(frozen=True, kw_only=True)
class MatrixTiming:
    """How often a replica of one layer takes an input vector, by cause; times in ps."""

    compute_cycles: int
    """Cycles in which its crossbars are read for one input vector."""
    compute: int
    edram: int
    bus: int
    router: int
    link: int = 0
    recurrence: int = 0
    """From a step's start to the next one's; 0 where steps do not wait for each other."""

    @property
    def interval(self) -> int:
        """Time between two input vectors of one replica."""
        return max(self.compute, self.edram, self.bus, self.router, self.link, self.recurrence)

    @property
    def set_by(self) -> str:
        """What sets the interval; ``compute`` where several do."""
        limits = {name: getattr(self, name) for name in ("compute", "edram", "bus", "router", "link", "recurrence")}
        return max(limits, key=lambda name: limits[name])


@dataclass(frozen=True, kw_only=True)
class Homes:
    """Where the replicas of one layer lie."""

    replicas: int
    tiles: tuple[tuple[int, int, int], ...]
    """So many tiles, each with so many IMAs that are the layer's and so many that are any layer's: its first tile,
    those between, its last."""

    @property
    def imas(self) -> int:
        """IMAs of all its replicas."""
        return sum(count * mine for count, mine, _ in self.tiles)

    @property
    def ports(self) -> float:
        """Ports that the layer has to itself, parts of shared ones added up."""
        return sum(count * mine / used for count, mine, used in self.tiles)


def homes_of(placement: Placement, hw: Hardware) -> list[Homes]:
    """Where every layer of a placement lies."""
    per_tile = chip_of(hw).hierarchy.imas_per_tile.value
    total = sum(placement.imas)
    homes, first = [], 0
    for replicas, count in zip(placement.replicas, placement.imas, strict=True):
        last = first + count
        low, high = first // per_tile, -(-last // per_tile) - 1
        ends = [low] if low == high else [low, high]
        tiles = [
            (
                1,
                min(last, (tile + 1) * per_tile) - max(first, tile * per_tile),
                min(total, (tile + 1) * per_tile) - tile * per_tile,
            )
            for tile in ends
        ]
        if high - low > 1:
            tiles.insert(1, (high - low - 1, per_tile, per_tile))
        homes.append(Homes(replicas=replicas, tiles=tuple(tiles)))
        first = last
    return homes


def _port_bits(mapping: LayerMapping, homes: Homes, hw: Hardware) -> tuple[float, float]:
    """Bits read and written through the busiest tile's ports while every replica takes one vector, for a whole port.

    A tile holds a share of the replicas, or of the one replica that spans it. It reads the inputs of the rows that it
    holds, for each replica that it has a part of, and writes its share of the results.
    """
    per_ima = chip_of(hw).hierarchy.crossbars_per_ima.value
    read = written = 0.0
    for _, mine, used in homes.tiles:
        held = homes.replicas * mine / homes.imas  # replicas in this tile
        rows = min(mapping.rows_read, min(mapping.crossbars, mine * per_ima) * hw.rows)
        stretch = used / mine  # of a whole port the layer has mine / used
        read = max(read, max(1.0, held) * rows * hw.input_bits * mapping.input_passes * stretch)
        written = max(written, held * mapping.live_columns * hw.input_bits * stretch)
    return read, written


def matrix_timing(
    mapping: LayerMapping, hw: Hardware, clock: Clock, homes: Homes, gates: Gates | None = None, busy: float = 1.0
) -> MatrixTiming:
    """Initiation interval of one replica of a layer, without the links between chips.

    Parameters
    ----------
    mapping : LayerMapping
    hw : Hardware
    clock : Clock
    homes : Homes
        Where the replicas lie, and beside how many others.
    gates : Gates, optional
        Of a recurrent layer: what follows the product before the next step can start.
    busy : float
        Bits that all who share the layer's part of the buffer port move for an image, in those of the layer; 1 or more.
    """
    read, written = _port_bits(mapping, homes, hw)
    cycles = read_cycles(mapping, hw)
    timing = MatrixTiming(
        compute_cycles=cycles,
        compute=cycles * clock.cycle_ps,
        edram=picoseconds((read + written) * busy / clock.edram_gbps),
        bus=picoseconds(read / clock.bus_gbps),
        router=picoseconds(written / clock.router_gbps),
    )
    if gates is None:
        return timing
    overhead = chip_of(hw).timing.pipeline_overhead_cycles.value * clock.cycle_ps
    return replace(timing, recurrence=timing.interval + overhead + _gates_ps(gates, homes, hw, clock))


def _gates_ps(gates: Gates, homes: Homes, hw: Hardware, clock: Clock) -> int:
    """Time of one step's gates on the layer's tiles."""
    chip = chip_of(hw)
    moved = picoseconds(gates.moved * hw.input_bits / (clock.edram_gbps * homes.ports))
    name = chip.having(Role.ACTIVATION)
    if name is None:
        raise ConfigError(
            f"hardware {hw.name}: chip.components: the gates of a recurrent layer need units for elementary functions, "
            "and none is described; name one sigmoid or activation, or give it role: activation"
        )
    # of a tile's units its part, of those that every IMA has its own
    share = homes.imas if chip.level_of(name) is Per.IMA else homes.ports
    functions = picoseconds(gates.functions / (chip.units(name, hw.rows, hw.columns) * share) * clock.digital_ns)
    return _behind(max(moved, functions), hw, clock)


def _behind(moving: int, hw: Hardware, clock: Clock) -> int:
    """Time from the start of a digital result to its being readable: its cycles, in the first of which bits move."""
    return max(0, moving - clock.cycle_ps) + chip_of(hw).timing.digital_cycles.value * clock.cycle_ps


def _moves_bits(operation: Operation) -> bool:
    """Whether an operation moves bits through the buffers of the layer that feeds it: pooling, sums of branches."""
    return operation.kind in (OperationKind.MAX_POOL, OperationKind.AVERAGE_POOL) or (
        operation.kind is OperationKind.ELEMENTWISE and len(operation.inputs) > 1
    )


def build_stages(
    operations: Sequence[Operation],
    mappings: Sequence[LayerMapping],
    placement: Placement,
    hw: Hardware,
    clock: Clock,
) -> tuple[list[Stage], dict[str, MatrixTiming]]:
    """Return one stage an operation, and the timing of every matrix operation.

    Pooling and sums of branches run in the tiles of the layer that feeds them. Single-input element-wise operations and
    concatenations cost nothing: the activation is a step of the matrix pipeline, and concatenation is addressing. So
    does everything of kind ``other``.

    Raises
    ------
    ShapeError
        An operation reads one that does not come before it.
    RangeError
        A time beyond what is counted.
    """
    chip = chip_of(hw)
    overhead = chip.timing.pipeline_overhead_cycles.value * clock.cycle_ps
    index = {operation.name: i for i, operation in enumerate(operations)}
    layer_of: list[int | None] = []  # whose tiles an operation runs in
    number = {mapping.name: i for i, mapping in enumerate(mappings)}
    waits: list[tuple[Wait, ...]] = []
    for i, operation in enumerate(operations):
        for name in operation.inputs:
            if index.get(name, i) >= i:
                raise ShapeError(f"operation {operation.name}: its input {name} does not come before it")
        sources = [index[name] for name in operation.inputs]
        if operation.kind is OperationKind.MATRIX:
            layer_of.append(number[operation.name])
        else:
            layer_of.append(layer_of[sources[0]] if sources else None)
        grids = [_grid(operations[s]) for s in sources]
        waits.append(
            tuple(
                waits_for(s, operation.window, size, _grid(operation)) for s, size in zip(sources, grids, strict=True)
            )
        )

    homes = homes_of(placement, hw)
    moved = [0.0] * len(operations)  # bits of an output position of pooling or a sum
    shared = [0.0] * len(mappings)  # the same for an image, by the layer whose port they take
    for i, operation in enumerate(operations):
        owner = layer_of[i]
        if _moves_bits(operation):
            inputs = [operations[index[name]] for name in operation.inputs]
            moved[i] = _digital(operation, inputs, waits[i], hw.input_bits)
            if owner is not None:
                shared[owner] += moved[i] * operation.positions
    own = [0.0] * len(mappings)
    for mapping in mappings:
        i, positions = number[mapping.name], operations[index[mapping.name]].positions
        bits = mapping.rows_read * mapping.input_passes + mapping.live_columns
        own[i] = max(1.0, float(bits * hw.input_bits * positions))
    links = _link_bits(operations, index, layer_of, placement, mappings, hw)
    timings = {}
    for i, mapping in enumerate(mappings):
        operation = operations[index[mapping.name]]
        busy = 1 + shared[i] / own[i]
        timing = matrix_timing(mapping, hw, clock, homes[i], operation.gates, busy)
        lanes = min(homes[i].replicas, operation.positions)
        timings[mapping.name] = replace(
            timing, link=picoseconds(links[i] / operation.positions * lanes / clock.link_gbps) if links[i] else 0
        )

    stages = []
    for i, operation in enumerate(operations):
        grid, owner = _grid(operation), layer_of[i]
        interval, lanes, depth = 0, 1, 0
        if operation.kind is OperationKind.MATRIX:
            assert owner is not None
            interval = timings[operation.name].interval
            lanes = min(placement.replicas[owner], operation.positions)
            depth = interval if operation.gates else interval + overhead
        elif operation.kind is OperationKind.INPUT:
            interval = picoseconds(operation.output_shape[0] * hw.input_bits / clock.link_gbps)
            depth = max(interval, clock.cycle_ps)
        elif _moves_bits(operation):
            ports, part = 1.0, 1.0
            if owner is not None:
                # of the layer's part of the port, what this operation moves for an image in all that is moved
                ports = homes[owner].ports
                part = moved[i] * operation.positions / (own[owner] + shared[owner])
            interval = picoseconds(moved[i] / (clock.edram_gbps * ports * part))
            depth = _behind(interval, hw, clock)
        stages.append(
            Stage(
                name=operation.name,
                height=grid[0],
                width=grid[1],
                interval=interval,
                lanes=lanes,
                depth=depth,
                waits=waits[i],
            )
        )
    return stages, timings


def _link_bits(
    operations: Sequence[Operation],
    index: Mapping[str, int],
    layer_of: Sequence[int | None],
    placement: Placement,
    mappings: Sequence[LayerMapping],
    hw: Hardware,
) -> list[float]:
    """Bits that each layer's results and parts send through a chip's links for one image.

    A result that is read on another chip is sent there once, and from there on to the reader's further chips, each of
    whose links carries it once. A layer on several chips sends its results to the last of them, where they are put
    together; what each chip holds of its inputs came by such links too. A link carries both directions at once.
    """
    per_chip = chip_of(hw).hierarchy.tiles_per_chip.value
    chips = [
        (first // per_chip, last // per_chip)
        for first, last in zip(placement.first_tile, placement.last_tile, strict=True)
    ]
    bits = [0.0] * len(mappings)
    for operation in operations:
        if operation.kind is not OperationKind.MATRIX:
            continue
        reader = layer_of[index[operation.name]]
        assert reader is not None
        first, last = chips[reader]
        results = float(math.prod(operation.output_shape)) * hw.input_bits
        inputs = 0.0
        for name in operation.inputs:
            source = operations[index[name]]
            size = float(math.prod(source.output_shape)) * hw.input_bits
            inputs += size
            producer = layer_of[index[name]]
            if producer is not None and (chips[producer][1], chips[producer][1]) != (first, last):
                bits[producer] = max(bits[producer], size)
        if first != last:
            bits[reader] = max(bits[reader], inputs, results)
    return bits


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
