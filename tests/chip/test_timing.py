"""Cycle time, initiation intervals and stages, against arithmetic done by hand."""

from __future__ import annotations

from dataclasses import replace

import chip_networks
import numpy as np
import pytest

from bitline.chip import estimate
from bitline.chip.mapping import map_layer, map_layers, place
from bitline.chip.pipeline import schedule
from bitline.chip.timing import adc_read_ns, build_stages, clock_of, matrix_timing
from bitline.errors import ShapeError
from bitline.hardware import load_hardware
from bitline.layers import Gates, Operation, OperationKind, Window

ISAAC = load_hardware("isaac")
EIGHT = load_hardware("isaac_8bit")
TINYADC = load_hardware("tinyadc")


def _with(hw, **changes):
    """A description with chip figures replaced: section__field=value."""
    chip = hw.chip.model_dump()
    for path, value in changes.items():
        section, field = path.split("__")
        chip[section][field] = {"value": value, "source": "a test"} if isinstance(value, int | float) else value
    return hw.replace(chip=chip)


def _matrix(rows, columns, positions=(4, 4), name="layer", source="input") -> Operation:
    return Operation(
        name=name,
        kind=OperationKind.MATRIX,
        inputs=(source,),
        output_shape=(columns, *positions),
        rows=rows,
        columns=columns,
    )


def test_isaac_reads_128_columns_in_100_ns():
    assert adc_read_ns(ISAAC, 8) == pytest.approx(100)
    clock = clock_of(ISAAC, 8)
    assert (clock.cycle_ns, clock.set_by) == (100, "array_read")
    # 256 bits at 1.2 GHz for 100 ns; 384 wires; a 32-bit flit; 4 links of 6.4 GB/s
    assert (clock.edram_bits, clock.bus_bits, clock.router_bits, clock.link_bits) == pytest.approx(
        (30720, 46080, 3840, 20480)
    )


def test_fewer_adcs_make_the_cycle_longer():
    chip = ISAAC.chip.model_dump()
    chip["components"]["adc"]["count"] = 0.5  # one ADC for two crossbars
    halved = ISAAC.replace(chip=chip)
    assert adc_read_ns(halved, 8) == pytest.approx(200)
    clock = clock_of(halved, 8)
    assert (clock.cycle_ns, clock.set_by) == (pytest.approx(200), "adc")
    report = estimate([*chip_networks.resnet18(32)], halved)
    assert report.layers[0].interval_set_by == "adc"
    assert report.totals.cycle_ns == pytest.approx(200)


def test_a_sar_adc_of_fewer_bits_is_faster_where_the_array_allows_it():
    faster = _with(EIGHT, timing__array_read_ns=10, adc__rate_law="per_bit")
    assert clock_of(faster, 4).cycle_ns == pytest.approx(50)
    assert clock_of(_with(EIGHT, adc__rate_law="per_bit"), 4).cycle_ns == 100  # the crossbar read is the limit


def test_analog_readout_converts_half_as_often():
    assert adc_read_ns(TINYADC.replace(readout="analog"), 8) == pytest.approx(50)


def test_compute_interval_is_the_input_cycles():
    for hw, cycles in ((ISAAC, 16), (EIGHT, 8), (EIGHT.replace(dac_bits=3), 3)):
        timing = matrix_timing(map_layer(_matrix(576, 64), hw), hw, clock_of(hw, 8))
        assert (timing.compute, timing.interval, timing.set_by) == (cycles, cycles, "compute")


def test_bandwidth_intervals_by_hand():
    # 576 x 64 at 8 bits, offset: 5 row tiles x 2 column groups = 10 crossbars, 9 replicas in a tile of 96.
    # Each reads 576 x 8 = 4608 bits and writes 64 x 8 = 512: 9 x 5120 = 46080 bits, 1.5 port cycles of 30720.
    mapping = map_layer(_matrix(576, 64), EIGHT)
    timing = matrix_timing(mapping, EIGHT, clock_of(EIGHT, 8))
    assert (timing.edram, timing.bus, timing.router) == (2, 1, 2)
    # a port of 16 bits moves 1920 bits a cycle: 24 cycles, more than the 8 of compute
    narrow = _with(EIGHT, timing__edram_port_bits=16)
    timing = matrix_timing(map_layer(_matrix(576, 64), narrow), narrow, clock_of(narrow, 8))
    assert (timing.edram, timing.interval, timing.set_by) == (24, 24, "edram")
    narrow = _with(EIGHT, timing__bus_bits=8)  # 960 bits a cycle for 41472
    timing = matrix_timing(map_layer(_matrix(576, 64), narrow), narrow, clock_of(narrow, 8))
    assert (timing.bus, timing.set_by) == (44, "bus")
    narrow = _with(EIGHT, timing__router_bits=1)  # 120 bits a cycle for 9 x 512
    timing = matrix_timing(map_layer(_matrix(576, 64), narrow), narrow, clock_of(narrow, 8))
    assert (timing.router, timing.set_by) == (39, "router")


def test_a_replica_that_spans_tiles_spreads_its_traffic():
    # 25088 x 4096 at 8 bits, offset: 196 x 128 = 25088 crossbars, 262 tiles. A tile reads at most 96 x 128 rows.
    mapping = map_layer(_matrix(25088, 4096, (1, 1)), EIGHT)
    timing = matrix_timing(mapping, EIGHT, clock_of(EIGHT, 8))
    assert mapping.crossbars == 25088
    assert timing.edram == 4  # (12288 + 4096 / 262) x 8 bits through 30720 a cycle: 3.2
    assert timing.bus == 3  # 98304 / 46080 = 2.1


def _stages(operations, hw, replicas=None):
    mappings = map_layers(operations, hw)
    clock = clock_of(hw, 8)
    timings = {m.name: matrix_timing(m, hw, clock) for m in mappings}
    placement = place(mappings, replicas or [1] * len(mappings), hw)
    index = {m.name: i for i, m in enumerate(mappings)}
    return build_stages(operations, timings, placement, index, hw, clock)


def test_isaacs_pipeline_is_22_cycles_deep():
    stages, _ = _stages(chip_networks.vgg16(32), ISAAC)
    conv = next(s for s in stages if s.name == "conv1_1")
    assert (conv.interval, conv.depth) == (16, 22)


def test_pooling_moves_its_window_through_the_buffers():
    stages, _ = _stages(chip_networks.vgg16(32), EIGHT)
    pool = next(s for s in stages if s.name == "pool1")
    # 64 channels x (4 read + 1 written) x 8 bits = 2560 bits a position; the one tile of conv1_2 moves 30720 a cycle
    assert (pool.interval, pool.lanes, pool.depth) == (1, 12, 3)


def test_activations_and_concatenations_take_no_time():
    operations = [
        Operation(name="input", kind=OperationKind.INPUT, inputs=(), output_shape=(16, 4, 4)),
        _matrix(16, 16),
        Operation(name="relu", kind=OperationKind.ELEMENTWISE, inputs=("layer",), output_shape=(16, 4, 4)),
        Operation(name="cat", kind=OperationKind.CONCAT, inputs=("relu", "input"), output_shape=(32, 4, 4)),
    ]
    stages, _ = _stages(operations, EIGHT)
    assert [(s.interval, s.depth) for s in stages[2:]] == [(0, 0), (0, 0)]


def test_a_reader_on_another_chip_pays_for_the_link():
    small = EIGHT.chip.model_dump()
    small["hierarchy"]["tiles_per_chip"] = {"value": 1, "source": "a test"}
    small["timing"]["links"] = {"value": 1, "source": "a test"}
    small["timing"]["link_gbyte_per_s"] = {"value": 0.1, "source": "a test"}  # 80 bits a cycle
    hw = EIGHT.replace(chip=small)
    pool = Operation(
        name="pool",
        kind=OperationKind.MAX_POOL,
        inputs=("a",),
        output_shape=(64, 2, 2),
        window=Window(kernel=(2, 2), stride=(2, 2)),
    )
    operations = [
        Operation(name="input", kind=OperationKind.INPUT, inputs=(), output_shape=(64, 4, 4)),
        _matrix(576, 64, name="a"),
        pool,
        _matrix(12288, 64, (2, 2), name="b", source="pool"),  # 192 crossbars: the rest of tile 0 and tiles 1 and 2
        _matrix(64, 64, (2, 2), name="c", source="b"),
    ]
    # IMAs: a takes 2, b 24, c 1: a starts chip 0, b starts on it too and ends on chip 2, c follows there
    _, timings = _stages(operations, hw)
    assert timings["a"].link == 0
    # 9 copies of a fill 90 crossbars, 12 IMAs: b starts on chip 1
    _, timings = _stages(operations, hw, [9, 1, 1])
    # 9 replicas x 64 channels x 8 bits, a quarter of the positions left by pooling: 1152 bits, 14.4 cycles of 80
    assert (timings["a"].link, timings["a"].set_by) == (15, "link")


def test_operations_out_of_order_are_refused():
    operations = chip_networks.resnet18(32)
    with pytest.raises(ShapeError, match="does not come before it"):
        estimate([*operations[1:], operations[0]], EIGHT)


def _lstm(hidden: int, steps: int) -> list[Operation]:
    """An input, the product with it, and the recurrence: 28 features to ``hidden`` outputs a step."""
    gates = Gates(functions=5 * hidden, arithmetic=8 * hidden, moved=11 * hidden)
    source = Operation(name="input", kind=OperationKind.INPUT, inputs=(), output_shape=(28, 1, steps))
    state = replace(_matrix(hidden, 4 * hidden, (1, steps), "hh", "ih"), output_shape=(hidden, 1, steps), gates=gates)
    return [source, _matrix(28, 4 * hidden, (1, steps), "ih"), state]


def test_steps_of_a_recurrent_layer_follow_each_other():
    # 32 crossbars: three replicas could share a tile, 3 x 512 outputs x 8 bits / 3840 = 4 cycles; 8 input cycles are
    # more. 6 cycles of pipeline. Gates: 640 functions / (2 units x 120 clocks) = 3 cycles, 1408 values fit one cycle of
    # the port: 3 - 1 + 3. A turn: 8 + 6 + 5 = 19.
    report = estimate(_lstm(128, 4), TINYADC, replication="fastest")
    product, recurrence = report.layers
    assert (product.interval_cycles, product.interval_set_by) == (8, "compute")
    assert (recurrence.interval_cycles, recurrence.interval_set_by, recurrence.replicas) == (19, "recurrence", 1)
    # the input's vectors are there in cycle 1, a product is readable 8 + 6 later
    assert report.schedule.starts[2][0].tolist() == [15, 34, 53, 72]
    assert report.schedule.first_image_cycles == 72 + 19
    assert report.totals.interval_cycles == 4 * 19
    assert report.totals.images_per_s == pytest.approx(1e9 / 7600)  # sequences of four steps
    assert report.totals.digital_operations == recurrence.digital_operations == 4 * 128 * (5 + 8)
    assert report.to_json()["performance"]["digital_operations_per_image"] == 6656


def test_several_sequences_do_not_overlap_in_a_recurrence():
    run = estimate(_lstm(128, 4), TINYADC).schedule
    starts = schedule(run.stages, images=3, period=1).starts[2].ravel()
    assert (np.diff(starts) == 19).all()


def test_gates_of_a_large_layer_use_the_units_of_all_its_tiles():
    # 1024 outputs: 8 x 256 crossbars on 22 tiles of 96; 5120 functions / (22 x 240) and 11264 x 8 bits / (22 x 30720):
    # 1 cycle, + 2; 4096 x 8 bits / (22 tiles x 3840) and 96 crossbars' rows through one port stay below 8 input cycles
    report = estimate(_lstm(1024, 2), TINYADC)
    assert report.layers[1].interval_cycles == 8 + 6 + 3
    # without sigmoid units in the description the port alone limits the gates
    chip = TINYADC.chip.model_dump()
    del chip["components"]["sigmoid"]
    assert estimate(_lstm(128, 4), TINYADC.replace(chip=chip)).layers[1].interval_cycles == 8 + 6 + 3


def test_nothing_is_copied_to_be_faster_than_the_recurrence_allows():
    # a layer of 64 positions before a recurrence of 16 x 17 cycles: 64 x 8 = 512 cycles, two copies keep up with 272
    source, product, state = _lstm(20, 16)
    wide = _matrix(28, 28, (1, 64), "wide")
    report = estimate([source, wide, replace(product, inputs=("wide",)), state], TINYADC)
    assert {layer.name: layer.replicas for layer in report.layers} == {"wide": 2, "ih": 1, "hh": 1}
