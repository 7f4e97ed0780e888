"""Cycle time, initiation intervals and stages, against arithmetic done by hand."""

from __future__ import annotations

from dataclasses import replace

import chip_networks
import numpy as np
import pytest

from bitline.chip import estimate
from bitline.chip.mapping import map_layer, map_layers, place
from bitline.chip.pipeline import schedule
from bitline.chip.timing import adc_read_ns, build_stages, clock_of, homes_of, matrix_timing
from bitline.errors import ConfigError, ShapeError
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
    # bits a ns: 256 at 1.2 GHz; 384 wires; a 32-bit flit; 4 links of 6.4 GB/s
    assert (clock.edram_gbps, clock.bus_gbps, clock.router_gbps, clock.link_gbps) == pytest.approx(
        (307.2, 460.8, 38.4, 204.8)
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


def _alone(mapping, hw, replicas=1):
    """The timing of a layer that has its tiles to itself."""
    placement = place([mapping], [replicas], hw)
    return matrix_timing(mapping, hw, clock_of(hw, 8), homes_of(placement, hw)[0])


def test_compute_interval_is_the_input_cycles():
    for hw, cycles in ((ISAAC, 16), (EIGHT, 8), (EIGHT.replace(dac_bits=3), 3)):
        timing = _alone(map_layer(_matrix(576, 64), hw), hw)
        assert (timing.compute_cycles, timing.compute, timing.set_by) == (cycles, cycles * 100_000, "compute")


def test_bandwidth_intervals_by_hand():
    # 576 x 64 at 8 bits, offset: 5 row tiles x 2 column groups = 10 crossbars; 9 replicas take the 12 IMAs of a tile.
    # Each reads 576 x 8 = 4608 bits and writes 64 x 8 = 512: 9 x 5120 = 46080 bits at 307.2 a ns are 150 ns.
    mapping = map_layer(_matrix(576, 64), EIGHT)
    timing = _alone(mapping, EIGHT, 9)
    assert (timing.edram, timing.bus, timing.router) == (150_000, 90_000, 120_000)
    # one replica alone in the tile has all of the port: no others are there to share it
    assert _alone(mapping, EIGHT).edram == 16_667
    # a port of 16 bits moves 19.2 bits a ns: 2400 ns, more than the 800 of compute
    timing = _alone(mapping, _with(EIGHT, timing__edram_port_bits=16), 9)
    assert (timing.edram, timing.interval, timing.set_by) == (2_400_000, 2_400_000, "edram")
    timing = _alone(mapping, _with(EIGHT, timing__bus_bits=8), 9)  # 9.6 bits a ns for 9 x 4608
    assert (timing.bus, timing.set_by) == (4_320_000, "bus")
    timing = _alone(mapping, _with(EIGHT, timing__router_bits=1), 9)  # 1.2 bits a ns for 9 x 512
    assert (timing.router, timing.set_by) == (3_840_000, "router")


def test_neighbours_share_a_tiles_ports_by_their_imas():
    # 10 crossbars are 2 IMAs; with a neighbour of 40 crossbars, 5 IMAs, it has 2/7 of the port: 16.67 ns become 58.33
    mapping, other = map_layer(_matrix(576, 64), EIGHT), map_layer(_matrix(576, 256, name="other"), EIGHT)
    homes = homes_of(place([mapping, other], [1, 1], EIGHT), EIGHT)
    assert [h.tiles for h in homes] == [((1, 2, 7),), ((1, 5, 7),)]
    assert matrix_timing(mapping, EIGHT, clock_of(EIGHT, 8), homes[0]).edram == 58_334


def test_a_replica_that_spans_tiles_spreads_its_traffic():
    # 25088 x 4096 at 8 bits, offset: 196 x 128 = 25088 crossbars, 262 tiles. A tile reads at most 96 x 128 rows and
    # writes 12 of 3136 IMAs' share: (12288 + 4096 x 12 / 3136) x 8 bits at 307.2 a ns; the bus moves 460.8.
    timing = _alone(map_layer(_matrix(25088, 4096, (1, 1)), EIGHT), EIGHT)
    assert timing.edram == pytest.approx((12288 + 4096 * 12 / 3136) * 8 / 307.2 * 1e3, abs=1)
    assert timing.bus == pytest.approx(12288 * 8 / 460.8 * 1e3, abs=1)


def _stages(operations, hw, replicas=None):
    mappings = map_layers(operations, hw)
    placement = place(mappings, replicas or [1] * len(mappings), hw)
    return build_stages(operations, mappings, placement, hw, clock_of(hw, 8))


def test_isaacs_pipeline_is_22_cycles_deep():
    stages, _ = _stages(chip_networks.vgg16(32), ISAAC)
    conv = next(s for s in stages if s.name == "conv1_1")
    assert (conv.interval, conv.depth) == (1_600_000, 2_200_000)


def test_pooling_moves_its_window_through_the_buffers():
    stages, timings = _stages(chip_networks.vgg16(32), EIGHT)
    pool = next(s for s in stages if s.name == "pool1")
    # 64 channels x (4 read + 1 written) x 8 bits = 2560 bits at each of 256 positions. conv1_2 has 2 of the 12 IMAs of
    # its tile, a sixth of the port, and moves (576 + 64) x 8 bits at each of 1024 positions through it. Together
    # 5,898,240 bits at 51.2 a ns: 115.2 us an image, 450 ns a position of the pool.
    assert (pool.interval, pool.lanes) == (450_000, 1)
    assert pool.depth == 450_000 - 100_000 + 300_000  # its first cycle is one of the 3 digital ones
    # conv1_2 takes as long for its part: 115.2 us / 1024
    assert timings["conv1_2"].edram == 112_500


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
    # b reads its inputs on chips 1 and 2 too: 64 x 2 x 2 x 8 bits for the 16 positions of a at 0.8 bits a ns
    assert timings["a"].link == 160_000
    # and its own inputs and results pass on for each of its 4 positions: 512 bits
    assert timings["b"].link == 640_000
    assert timings["c"].link == 0
    # 9 copies of a fill 90 crossbars, 12 IMAs: b starts on chip 1
    _, timings = _stages(operations, hw, [9, 1, 1])
    # 9 replicas x 64 channels x 8 bits, a quarter of the positions left by pooling: 1152 bits at 0.8 a ns
    assert (timings["a"].link, timings["a"].set_by) == (1_440_000, "link")


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
    # 32 crossbars, 4 IMAs each: both layers have half of the tile's ports and units. 512 outputs x 8 bits at 19.2 a ns
    # take 213 ns; 8 input cycles are more. 6 cycles of pipeline. Gates: 640 functions in one unit at 1.2 a ns take
    # 533.3 ns, 1408 values less: 5.333 - 1 + 3 cycles. A turn: 8 + 6 + 7.333 = 21.333.
    report = estimate(_lstm(128, 4), TINYADC, replication="fastest")
    product, recurrence = report.layers
    assert (product.interval_cycles, product.interval_set_by) == (8, "compute")
    assert (recurrence.interval_cycles, recurrence.interval_set_by, recurrence.replicas) == (21.333, "recurrence", 1)
    # the input's vectors are there in cycle 1, a product is readable 8 + 6 later
    turn = 2_133_334
    assert report.schedule.starts[2][0].tolist() == [1_500_000 + step * turn for step in range(4)]
    assert report.schedule.first_image == 1_500_000 + 4 * turn
    assert report.totals.interval_cycles == pytest.approx(4 * 21.3333, abs=1e-3)
    assert report.totals.images_per_s == pytest.approx(1e12 / (4 * turn))  # sequences of four steps
    assert report.totals.digital_operations == recurrence.digital_operations == 4 * 128 * (5 + 8)
    assert report.to_json()["performance"]["digital_operations_per_image"] == 6656


def test_several_sequences_do_not_overlap_in_a_recurrence():
    run = estimate(_lstm(128, 4), TINYADC).schedule
    starts = schedule(run.stages, images=3, period=1).starts[2].ravel()
    assert (np.diff(starts) == 2_133_334).all()


def test_gates_of_a_large_layer_use_the_units_of_all_its_tiles():
    # 1024 outputs: 8 x 256 crossbars on 22 tiles of 96; 5120 functions / (22 x 240) and 11264 x 8 bits / (22 x 30720):
    # 1 cycle, + 2; 4096 x 8 bits / (22 tiles x 3840) and 96 crossbars' rows through one port stay below 8 input cycles
    report = estimate(_lstm(1024, 2), TINYADC)
    assert report.layers[1].interval_cycles == 8 + 6 + 3


def test_gates_need_units_whatever_they_are_called():
    chip = TINYADC.chip.model_dump()
    turn = estimate(_lstm(128, 4), TINYADC).layers[1].interval_cycles
    unit = chip["components"].pop("sigmoid")
    with pytest.raises(ConfigError, match="need units for elementary functions, and none is described"):
        estimate(_lstm(128, 4), TINYADC.replace(chip=chip))
    chip["components"]["lookup"] = unit | {"role": "activation"}
    assert estimate(_lstm(128, 4), TINYADC.replace(chip=chip)).layers[1].interval_cycles == turn
    # PUMA's, one an IMA: 640 functions in the 4 units of the layer's 4 IMAs at 1.2 a ns take 133.3 ns
    del chip["components"]["lookup"]
    chip["components"]["activation"] = unit | {"per": "ima", "count": 1.0}
    assert estimate(_lstm(128, 4), TINYADC.replace(chip=chip)).layers[1].interval_cycles == 8 + 6 + 3 + 0.333


def test_nothing_is_copied_to_be_faster_than_the_recurrence_allows():
    # a layer of 64 positions before a recurrence of 16 x 17 cycles: 64 x 8 = 512 cycles, two copies keep up with 272
    source, product, state = _lstm(20, 16)
    wide = _matrix(28, 28, (1, 64), "wide")
    report = estimate([source, wide, replace(product, inputs=("wide",)), state], TINYADC)
    assert {layer.name: layer.replicas for layer in report.layers} == {"wide": 2, "ih": 1, "hh": 1}
