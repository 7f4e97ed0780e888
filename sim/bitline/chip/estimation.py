"""The price of a network on a chip: map, replicate, schedule, price. ``estimate`` is the one entry point."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bitline.chip.cost import (
    AdcBits,
    LayerActivity,
    PriceTable,
    check_adc_bits,
    design_bits,
    event_energy,
    law_of,
    layer_energy,
    price_table,
)
from bitline.chip.mapping import (
    LayerMapping,
    Placement,
    WeightFacts,
    chip_of,
    layer_name,
    map_layers,
    place,
    weight_facts,
)
from bitline.chip.pipeline import Schedule, Stage, image_period, schedule
from bitline.chip.replication import Replication, candidates
from bitline.chip.report import BufferUse, ChipReport, LayerReport, Totals
from bitline.chip.timing import Clock, MatrixTiming, build_stages, clock_of
from bitline.chip_description import AdcLaw
from bitline.errors import ConfigError, RangeError, ShapeError
from bitline.hardware import Hardware
from bitline.layers import MatrixLayer, Operation, OperationKind

__all__ = ["estimate"]

_BYTE = 8

_BUFFERED_IMAGES = 4
"""Images that buffers are sized for: with the first alone they are too small, for no later image's rows wait in them.
On the networks of the tests nothing changes after the third."""

_SETTLED_IMAGES = 8
"""Images scheduled one by one before every further one is taken to need one period."""


def _facts(
    weights: Iterable[MatrixLayer] | Mapping[str, WeightFacts] | None, operations: Sequence[Operation], hw: Hardware
) -> Mapping[str, WeightFacts] | None:
    if weights is None or isinstance(weights, Mapping):
        return weights
    shapes = {layer_name(op.name): (op.groups, op.rows, op.columns) for op in operations}
    facts = {}
    for layer in weights:
        if shapes.get(layer.name, layer.codes.shape) != layer.codes.shape:
            raise ShapeError(
                f"weights of {layer.name}: (groups, rows, columns) must be {shapes[layer.name]}, "
                f"got {layer.codes.shape}"
            )
        facts[layer.name] = weight_facts(layer, hw)
    return facts


def _bits_by_layer(
    mappings: Sequence[LayerMapping],
    hw: Hardware,
    adc_bits: int | Sequence[int | Sequence[int]] | Mapping[str, int | Sequence[int]] | None,
) -> tuple[list[AdcBits], str]:
    if adc_bits is None or isinstance(adc_bits, int | np.integer):
        bits, origin = design_bits(hw, None if adc_bits is None else int(adc_bits))
        return [bits] * len(mappings), origin
    if isinstance(adc_bits, Mapping):
        missing = [m.name for m in mappings if layer_name(m.name) not in adc_bits]
        if missing:
            raise ShapeError(f"adc_bits: no resolution for {missing[0]}")
        adc_bits = [adc_bits[layer_name(m.name)] for m in mappings]
    if len(adc_bits) != len(mappings):
        raise ShapeError(f"adc_bits: {len(mappings)} matrix layers, but {len(adc_bits)} resolutions")
    return [
        check_adc_bits(bits, f"adc_bits of {mapping.name}") for bits, mapping in zip(adc_bits, mappings, strict=True)
    ], "given by layer"


def _highest(bits: Sequence[AdcBits]) -> int:
    return max(b if isinstance(b, int) else max(b) for b in bits)


@dataclass(frozen=True)
class _Design:
    """Tiles with the ADCs their layers need; the price that does not depend on time."""

    tables: tuple[PriceTable, ...]
    placement: Placement
    tiles: int
    chips: int

    def unused_imas(self) -> int:
        return self.tiles * self.tables[0].imas_per_tile - sum(self.placement.imas)

    def breakdown(self) -> tuple[dict[str, float], dict[str, float]]:
        """Power in W and area in mm2 by component."""
        power: dict[str, float] = {}
        area: dict[str, float] = {}
        last = self.tables[-1]
        counts = [*zip(self.tables, self.placement.imas, strict=True), (last, self.unused_imas())]
        merged: dict[int, tuple[PriceTable, int]] = {}
        for table, imas in counts:
            merged[id(table)] = (table, merged.get(id(table), (table, 0))[1] + imas)
        for table, imas in merged.values():
            for component in table.level("ima"):
                power[component.name] = power.get(component.name, 0.0) + imas * component.power_mw / 1e3
                area[component.name] = area.get(component.name, 0.0) + imas * component.area_mm2
        for level, count in (("tile", self.tiles), ("chip", self.chips)):
            for component in last.level(level):
                power[component.name] = count * component.power_mw / 1e3
                area[component.name] = count * component.area_mm2
        return power, area


def _design(
    mappings: Sequence[LayerMapping],
    replicas: Sequence[int],
    bits: Sequence[AdcBits],
    hw: Hardware,
    law: AdcLaw,
    buffer_tiles: int = 0,
) -> _Design:
    placement = place(mappings, replicas, hw)
    by_bits: dict[AdcBits, PriceTable] = {b: price_table(hw, b, law) for b in dict.fromkeys(bits)}
    tiles = max(placement.tiles, buffer_tiles)
    chips = -(-tiles // chip_of(hw).hierarchy.tiles_per_chip.value)
    return _Design(tuple(by_bits[b] for b in bits), placement, tiles, chips)


def _fastest_of(
    allocations: Iterable[tuple[int, ...]],
    operations: Sequence[Operation],
    mappings: Sequence[LayerMapping],
    hw: Hardware,
    clock: Clock,
) -> tuple[tuple[int, ...], list[Stage], dict[str, MatrixTiming]]:
    """Of several numbers of copies, the most first, the one with the shortest time between images.

    Which are tried depends on the mapping alone, so a slower part cannot lead to another, faster choice.
    """
    best: tuple[int, tuple[int, ...], list[Stage], dict[str, MatrixTiming]] | None = None
    for replicas in allocations:
        stages, timings = build_stages(operations, mappings, place(mappings, replicas, hw), hw, clock)
        period = image_period(stages)
        if best is None or period < best[0]:
            best = (period, replicas, stages, timings)
        computed = max(
            -(-stage.positions * timings[stage.name].compute // stage.lanes)
            for stage in stages
            if stage.name in timings
        )
        if period <= computed:
            break  # the crossbars themselves set the pace: fewer copies are slower
    assert best is not None
    return best[1:]


def _buffers(run: Schedule, operations: Sequence[Operation], hw: Hardware) -> list[BufferUse]:
    """Buffer that every reader keeps of each of its inputs."""
    uses = []
    for index, (stage, operation) in enumerate(zip(run.stages, operations, strict=True)):
        if stage.interval == 0 and len(stage.waits) == 1:
            continue  # an activation works on the results as they come
        for wait in stage.waits:
            channels, _, width = operations[wait.stage].output_shape
            rows = run.buffered_rows(index, wait)
            size = -(-rows * width * channels * hw.input_bits // _BYTE)
            uses.append(BufferUse(reader=operation.name, source=operations[wait.stage].name, rows=rows, bytes=size))
    return uses


def estimate(
    operations: Sequence[Operation],
    hw: Hardware,
    *,
    adc_bits: int | Sequence[int | Sequence[int]] | Mapping[str, int | Sequence[int]] | None = None,
    weights: Iterable[MatrixLayer] | Mapping[str, WeightFacts] | None = None,
    images: int = 1,
    replication: Replication | str | Mapping[str, int] = Replication.BALANCED,
    tiles: int | None = None,
    law: AdcLaw | str | None = None,
    activity: Mapping[str, LayerActivity] | None = None,
    baseline: Hardware | None = None,
) -> ChipReport:
    """Map a network onto the chip, schedule it and price it.

    Parameters
    ----------
    operations : sequence of Operation
        The data-flow graph of one image, inputs before their readers.
    hw : Hardware
        With its physical half.
    adc_bits : int, or sequence or mapping of int or of sequences of int, optional
        Resolution of all ADCs, or one entry for each matrix operation in order or by layer name, each a number or one
        number a weight slice. By default the description's number; where it has a policy, the printed resolution
        stands in.
    weights : iterable of MatrixLayer, or mapping of name to WeightFacts, optional
        Lets the mapping leave out all-zero rows, columns and crossbars; names must be the operations'.
    images : int
        Images that ``performance.cycles`` is for: the first 8 are scheduled, further ones take one interval each.
    replication : Replication, str or mapping
        ``smallest``, ``balanced``, ``fastest``, or replicas by layer name.
    tiles : int, optional
        Tile budget of the replicas; by default as many whole chips as one copy of every layer needs. Buffers may add
        tiles to it: ``performance.buffer_tiles``.
    law : AdcLaw or str, optional
        How ADC power and area follow from the resolution; by default the description's.
    activity : mapping of name to LayerActivity, optional
        What a bit-serial run did in the crossbars that are priced; the energy of ADCs, DACs and cells is then counted
        by event too.
    baseline : Hardware, optional
        Design to normalise to, with dense weights, the same replicas and the ADC's printed resolution; by default
        ``hw`` itself.

    Returns
    -------
    ChipReport

    Raises
    ------
    ConfigError
        No physical half, an unknown law or replication, or a network that does not fit.
    RangeError
        A resolution, a budget or an image count out of range.
    ShapeError
        A graph that is not in order, has no matrix operation, or does not fit the weights or resolutions given.
    """
    if images < 1:
        raise RangeError(f"images must be at least 1, got {images}")
    chosen_law = law_of(hw, law)
    mappings = map_layers(operations, hw, _facts(weights, operations, hw))
    bits, origin = _bits_by_layer(mappings, hw, adc_bits)
    matrix = [op for op in operations if op.kind is OperationKind.MATRIX]
    clock = clock_of(hw, _highest(bits))
    replicas, stages, final = _fastest_of(
        candidates(mappings, matrix, hw, replication, tiles), operations, mappings, hw, clock
    )
    design = _design(mappings, replicas, bits, hw, chosen_law)
    run = schedule(stages)
    buffers = _buffers(schedule(stages, images=_BUFFERED_IMAGES), operations, hw)
    chip = chip_of(hw)
    buffer_tiles = 0
    if chip.timing.edram_kbytes is not None:
        buffer_tiles = -int(-sum(b.bytes for b in buffers) // (chip.timing.edram_kbytes.value * 1024))
    if buffer_tiles > design.tiles:
        design = _design(mappings, replicas, bits, hw, chosen_law, buffer_tiles)
        most = chip.most_chips
        if most is not None and design.chips > most:
            raise ConfigError(
                f"hardware {hw.name}: {chip.chips_limited_by}: its feature maps need the "
                f"buffers of {buffer_tiles} tiles, {design.chips} chips, the most is {most}"
            )

    reference_hw = baseline or hw
    reference = _design(
        map_layers(operations, reference_hw),
        replicas,
        [chip_of(reference_hw).adc.bits] * len(mappings),
        reference_hw,
        law_of(reference_hw, law),
        buffer_tiles,
    )
    return _report(
        run,
        operations,
        mappings,
        final,
        design,
        reference,
        reference_hw,
        bits,
        origin,
        chosen_law,
        clock,
        hw,
        images,
        buffers,
        buffer_tiles,
        activity or {},
    )


def _report(
    run: Schedule,
    operations: Sequence[Operation],
    mappings: Sequence[LayerMapping],
    timings: Mapping[str, MatrixTiming],
    design: _Design,
    reference: _Design,
    reference_hw: Hardware,
    bits: Sequence[AdcBits],
    origin: str,
    law: AdcLaw,
    clock: Clock,
    hw: Hardware,
    images: int,
    buffers: Sequence[BufferUse],
    buffer_tiles: int,
    activity: Mapping[str, LayerActivity],
) -> ChipReport:
    power, area = design.breakdown()
    reference_power, reference_area = reference.breakdown()
    index_of = {op.name: i for i, op in enumerate(operations)}
    period = run.period
    bottleneck = max(range(len(run.stages)), key=lambda i: run.stages[i].busy)
    placement, per_chip = design.placement, chip_of(hw).hierarchy.tiles_per_chip.value
    held: dict[str, int] = {}
    for use in buffers:
        held[use.reader] = held.get(use.reader, 0) + use.bytes

    vectors: Counter[str] = Counter()  # of all calls of a layer
    for mapping in mappings:
        vectors[layer_name(mapping.name)] += operations[index_of[mapping.name]].positions
    energy: dict[str, float] = {}
    by_event: dict[str, float] = {}
    layers = []
    for i, mapping in enumerate(mappings):
        at = index_of[mapping.name]
        stage, operation, timing, table = run.stages[at], operations[at], timings[mapping.name], design.tables[i]
        cycles = operation.positions * timing.compute_cycles
        copy = placement.imas[i] / placement.replicas[i]
        parts = layer_energy(table, mapping, hw, imas=copy, cycles=cycles, cycle_ns=clock.cycle_ns)
        done = activity.get(layer_name(mapping.name))
        events, lines, cells = parts, None, None
        if done is not None:
            # what a layer did is for all its calls together
            share = operation.positions / vectors[layer_name(mapping.name)] / done.images
            lines, cells = share * done.lines_driven, share * done.cells_on
            events = parts | event_energy(
                table, mapping, hw, lines=lines, cells=cells, cycles=cycles, cycle_ns=clock.cycle_ns
            )
            lines /= cycles * mapping.crossbars * hw.read_rows
            cells /= cycles * mapping.crossbars * hw.read_rows * hw.columns
        for total, found in ((energy, parts), (by_event, events)):
            for name, value in found.items():
                total[name] = total.get(name, 0.0) + value * 1e-6
        slowest = run.slowest_input(at)
        starts = run.starts[at]
        ima_power, ima_area = table.ima
        cell_capacity = mapping.crossbars * hw.rows * hw.columns
        layers.append(
            LayerReport(
                name=mapping.name,
                rows=mapping.rows,
                columns=mapping.columns,
                groups=mapping.groups,
                row_tiles=mapping.row_tiles,
                column_groups=mapping.column_groups,
                crossbars_per_replica=mapping.crossbars,
                dropped_crossbars=mapping.dropped_crossbars,
                removed_rows=mapping.removed_rows,
                removed_columns=mapping.removed_columns,
                squeezed=mapping.squeezed,
                index_bits=mapping.index_bits,
                replicas=placement.replicas[i],
                crossbars=placement.crossbars[i],
                imas=placement.imas[i],
                tiles=(placement.first_tile[i], placement.last_tile[i]),
                chips=(placement.first_tile[i] // per_chip, placement.last_tile[i] // per_chip),
                cell_utilisation=min(1.0, mapping.cells / cell_capacity),
                adc_bits=bits[i],
                positions=operation.positions,
                macs=operation.macs,
                digital_operations=_digital_operations(operation),
                interval_cycles=clock.cycles(timing.interval),
                interval_set_by=_reason(operation, timings, clock),
                busy_cycles=clock.cycles(stage.busy),
                occupancy=stage.positions * stage.interval / (stage.lanes * period),
                first_start_cycle=clock.cycles(int(starts[0, 0])),
                last_start_cycle=clock.cycles(int(starts[0, -1])),
                stall_cycles=run.stalled(at) / stage.lanes / clock.cycle_ps,
                waits_for=None if slowest is None else operations[slowest].name,
                paced_by=None if stage.busy == period else operations[bottleneck].name,
                crossbar_cycles=cycles * mapping.crossbars,
                buffer_bytes=held.get(mapping.name, 0),
                power_w=placement.imas[i] * ima_power / 1e3,
                area_mm2=placement.imas[i] * ima_area,
                energy_uj=sum(parts.values()) * 1e-6,
                energy_by_event_uj=None if done is None else sum(events.values()) * 1e-6,
                lines_driven=lines,
                cells_on=cells,
            )
        )
    period_us = period * 1e-6
    for level, count in (("tile", design.tiles), ("chip", design.chips)):
        for component in design.tables[-1].level(level):
            if component.energy_pj is not None:
                continue  # paid by event, with the layers that cause them
            for total in (energy, by_event):  # mW x us = nJ
                total[component.name] = total.get(component.name, 0.0) + count * component.power_mw * period_us * 1e-3

    totals = Totals(
        cycles=-(-_until(run, images) // clock.cycle_ps),
        images=images,
        interval_cycles=clock.cycles(period),
        cycle_ns=clock.cycle_ns,
        latency_us=run.first_image * 1e-6,
        images_per_s=1e12 / period,
        ops_per_image=2 * sum(op.macs for op in operations if op.kind is OperationKind.MATRIX),
        digital_operations=sum(_digital_operations(op) for op in operations),
        tiles=design.tiles,
        chips=design.chips,
        crossbars=sum(placement.crossbars),
        dropped_crossbars=sum(m.dropped_crossbars * r for m, r in zip(mappings, placement.replicas, strict=True)),
        crossbar_utilisation=sum(placement.crossbars) / (design.tiles * _crossbars_per_tile(hw)),
        cell_utilisation=sum(layer.cell_utilisation * layer.crossbars for layer in layers) / sum(placement.crossbars),
        buffer_tiles=buffer_tiles,
    )
    return ChipReport(
        hardware=hw.name,
        adc_law=law.value,
        adc_bits_from=origin,
        cycle_set_by=clock.set_by,
        bottleneck=operations[bottleneck].name,
        bottleneck_reason=_reason(operations[bottleneck], timings, clock),
        totals=totals,
        layers=tuple(layers),
        buffers=tuple(buffers),
        power_w=power,
        area_mm2=area,
        energy_uj=energy,
        energy_by_event_uj=by_event if activity else None,
        baseline=f"{reference_hw.name}, dense weights, {chip_of(reference_hw).adc.bits}-bit ADCs, same replicas",
        baseline_power_w=sum(reference_power.values()),
        baseline_area_mm2=sum(reference_area.values()),
        chip_level=tuple(component.name for component in design.tables[-1].level("chip")),
        baseline_tiles=(
            _without(reference_power, reference.tables[-1]),
            _without(reference_area, reference.tables[-1]),
        ),
        schedule=run,
    )


def _digital_operations(operation: Operation) -> int:
    """Elementary functions, sums and products of a recurrent layer's gates for one image."""
    gates = operation.gates
    return 0 if gates is None else (gates.functions + gates.arithmetic) * operation.positions


def _without(breakdown: Mapping[str, float], table: PriceTable) -> float:
    """Sum of a breakdown without what is counted once a chip."""
    outside = {component.name for component in table.level("chip")}
    return sum(value for name, value in breakdown.items() if name not in outside)


def _reason(operation: Operation, timings: Mapping[str, MatrixTiming], clock: Clock) -> str:
    """What sets an operation's interval."""
    if operation.name in timings:
        reason = timings[operation.name].set_by
        return "adc" if reason == "compute" and clock.set_by == "adc" else reason
    return "link" if operation.kind is OperationKind.INPUT else "edram"


def _until(run: Schedule, images: int) -> int:
    """Time until the last of several images is done: the first ones scheduled, the rest one period each."""
    first = min(images, _SETTLED_IMAGES)
    last = run.first_image if first == 1 else schedule(run.stages, images=first).total
    return last + (images - first) * run.period


def _crossbars_per_tile(hw: Hardware) -> int:
    hierarchy = chip_of(hw).hierarchy
    return hierarchy.crossbars_per_ima.value * hierarchy.imas_per_tile.value
