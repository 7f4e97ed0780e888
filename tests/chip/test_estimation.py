"""The whole estimate: sums of parts, units, activity, normalisation, and the blocks a report needs."""

from __future__ import annotations

import json

import chip_networks
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitline.chip import LayerActivity, estimate, peak
from bitline.chip.mapping import map_layers, place
from bitline.chip.pipeline import schedule
from bitline.chip.timeline import timeline
from bitline.chip.timing import clock_of, homes_of, matrix_timing
from bitline.errors import RangeError, ShapeError
from bitline.hardware import load_hardware
from bitline.layers import LayerKind, MatrixLayer, OperationKind

ISAAC = load_hardware("isaac")
EIGHT = load_hardware("isaac_8bit")
TINYADC = load_hardware("tinyadc")
NETWORKS = {
    "resnet18": chip_networks.resnet18(),
    "resnet18_cifar": chip_networks.resnet18(32, 10),
    "resnet50": chip_networks.resnet50(),
    "vgg16": chip_networks.vgg16(),
}


def test_hand_written_networks_have_the_published_size():
    # multiply-accumulates and weights of the papers' networks (torchvision's tables: 1.81, 4.09, 15.47 GMACs)
    macs = {name: sum(op.macs for op in ops) for name, ops in NETWORKS.items()}
    assert macs["resnet18"] == pytest.approx(1.814e9, rel=1e-3)
    assert macs["resnet50"] == pytest.approx(4.089e9, rel=1e-3)
    assert macs["vgg16"] == pytest.approx(15.47e9, rel=1e-3)


@given(
    st.sampled_from(sorted(NETWORKS)),
    st.sampled_from([ISAAC, EIGHT, TINYADC, load_hardware("puma")]),
    st.sampled_from(["smallest", "balanced", "fastest"]),
    st.lists(st.integers(1, 16), min_size=64, max_size=64),
    st.sampled_from(["kull", "kull_latches_constant", "halves_per_bit", "puma"]),
)
def test_parts_sum_to_totals(name, hw, how, bits, law):
    operations = NETWORKS[name]
    layers = sum(op.kind is OperationKind.MATRIX for op in operations)
    report = estimate(operations, hw, replication=how, adc_bits=bits[:layers], law=law)
    data = report.to_json()
    performance, breakdown, totals = data["performance"], data["breakdown"], report.totals
    assert sum(breakdown["power_w"].values()) == pytest.approx(performance["power_w"], rel=1e-12)
    assert sum(breakdown["area_mm2"].values()) == pytest.approx(performance["area_mm2"], rel=1e-12)
    assert sum(breakdown["energy_uj"].values()) == pytest.approx(performance["energy_uj_per_image"], rel=1e-12)
    # by layer: its IMAs, plus the unused IMAs, plus what tiles and chips have besides
    table = peak(hw, adc_bits=bits[layers - 1], law=law).table
    unused = totals.tiles * table.imas_per_tile - sum(layer.imas for layer in report.layers)
    besides = [
        sum(getattr(c, field) for c in table.level("tile")) * totals.tiles
        + sum(getattr(c, field) for c in table.level("chip")) * totals.chips
        for field in ("power_mw", "area_mm2")
    ]
    power = sum(layer.power_w for layer in report.layers) + (unused * table.ima[0] + besides[0]) / 1e3
    area = sum(layer.area_mm2 for layer in report.layers) + unused * table.ima[1] + besides[1]
    assert power == pytest.approx(performance["power_w"], rel=1e-9)
    assert area == pytest.approx(performance["area_mm2"], rel=1e-9)
    assert unused >= 0
    # units: mW x ns = pJ; cycles x ns; images by time
    seconds = report.schedule.period * 1e-12
    assert totals.interval_cycles * totals.cycle_ns * 1e-9 == pytest.approx(seconds, rel=1e-4)
    assert performance["images_per_s"] == pytest.approx(1 / seconds)
    assert totals.cycles - 1 < performance["latency_us"] * 1e3 / totals.cycle_ns <= totals.cycles
    static_uj = besides[0] / 1e3 * seconds * 1e6
    assert static_uj + sum(layer.energy_uj for layer in report.layers) == pytest.approx(
        performance["energy_uj_per_image"], rel=1e-9
    )
    # what works part of the time cannot take more than everything all the time
    assert performance["average_power_w"] <= performance["power_w"] * (1 + 1e-9)
    assert performance["gops_per_w"] == pytest.approx(2 * sum(op.macs for op in operations) / seconds / 1e9 / power)
    assert all(0 < layer.occupancy <= 1 for layer in report.layers)
    assert max(s.busy for s in report.schedule.stages) == report.schedule.period
    assert all(0 < layer.cell_utilisation <= 1 for layer in report.layers)
    assert json.loads(json.dumps(data)) == data


@pytest.mark.parametrize("name", ["resnet18", "resnet18_cifar"])
@pytest.mark.parametrize("how", ["smallest", "balanced", "fastest"])
def test_cycles_of_several_images_are_what_the_scheduler_gives(name, how):
    for images in (5, 20):
        report = estimate(NETWORKS[name], EIGHT, replication=how, images=images)
        done = schedule(report.schedule.stages, images=images).total
        # of 100 ns; from the ninth image on every one is taken to need the same
        assert report.totals.cycles == pytest.approx(-(-done // 100_000), rel=1e-3 if images > 8 else 0)


def test_a_single_layer_priced_by_hand():
    graph = chip_networks.Graph(64, 8, 8)
    graph.conv("conv", "input", 16, kernel=1)
    report = estimate(graph.operations, EIGHT, replication="smallest")
    # 64 x 16 8-bit weights: 64 columns of 4 slices: one crossbar, one IMA, one tile, one chip
    assert (report.totals.crossbars, report.totals.tiles, report.totals.chips) == (1, 1, 1)
    assert report.total_area_mm2 == pytest.approx(0.37229 + 22.88)
    assert report.total_power_w == pytest.approx(0.32981 + 10.4)
    # 64 positions x 8 cycles of 100 ns; first input readable at cycle 1, last start 1 + 63 x 8, depth 8 + 6
    assert report.totals.interval_cycles == 512
    assert report.totals.cycles == 1 + 63 * 8 + 14
    assert report.totals.images_per_s == pytest.approx(1 / 51.2e-6)
    # energy: one crossbar's ADC, DACs, S+H and cells (16 + 4 + 0.01 + 2.4) / 8 mW and the IMA's registers and adders
    # (0.2 + 1.24 + 0.23 mW) for 51.2 us, the tile's rest (40.85 mW) and HyperTransport all the time
    ima = (16 + 4 + 0.01 + 2.4) / 8 + 0.2 + 1.24 + 0.23
    tile = 20.7 + 7 + 42 / 4 + 0.52 + 0.05 + 0.4 + 1.68
    assert report.energy_uj_per_image == pytest.approx((ima + tile + 10400) * 51.2e-3)
    layer = report.layers[0]
    assert layer.cell_utilisation == pytest.approx(64 * 64 / 128**2)
    assert report.bottleneck == "conv"
    # 64 x 16 MACs x 64 positions x 2 in 51.2 us
    assert report.gops == pytest.approx(2 * 64 * 16 * 64 / 51.2e-6 / 1e9)


def test_activity_counts_events():
    graph = chip_networks.Graph(128, 8, 8)
    graph.conv("conv", "input", 32, kernel=1)  # 128 rows, 128 columns: one full crossbar
    dense = estimate(graph.operations, EIGHT, replication="smallest")
    assert dense.energy_by_event_uj is None
    reads = 64 * 8  # positions x input cycles, an image
    full = LayerActivity(images=2, lines_driven=2 * reads * 128, cells_on=2 * reads * 128**2)
    everything = estimate(graph.operations, EIGHT, replication="smallest", activity={"conv": full})
    for name, energy in dense.energy_uj.items():
        assert everything.energy_by_event_uj[name] == pytest.approx(energy)
    assert everything.activity == pytest.approx({"lines_driven": 1, "cells_on": 1})
    half = LayerActivity(images=2, lines_driven=reads * 128, cells_on=reads * 128**2 // 2)
    less = estimate(graph.operations, EIGHT, replication="smallest", activity={"conv": half})
    assert less.energy_uj == dense.energy_uj  # full activity needs no run
    assert less.energy_by_event_uj["adc"] == pytest.approx(dense.energy_uj["adc"])
    assert less.energy_by_event_uj["dac"] == pytest.approx(dense.energy_uj["dac"] / 2)
    assert less.energy_by_event_uj["crossbar"] == pytest.approx(dense.energy_uj["crossbar"] / 4)
    assert less.activity == pytest.approx({"lines_driven": 0.5, "cells_on": 0.25})
    assert less.total_power_w == dense.total_power_w
    plain = less.to_json()
    assert plain["performance"]["energy_by_event_uj_per_image"] == pytest.approx(sum(less.energy_by_event_uj.values()))
    # HyperTransport's 10.4 W for 51.2 us are apart
    alone = plain["performance"]["tiles_alone"]["energy_by_event_uj_per_image"]
    assert plain["performance"]["energy_by_event_uj_per_image"] - alone == pytest.approx(10.4 * 51.2)


def test_events_of_a_part_of_a_crossbar_by_hand():
    # 10 outputs of 100 rows: 80 of 128 columns, 100 of 128 rows; 3 of 4 row reads of 32 rows have any
    for changes, reads in (({}, 1), ({"active_rows": 32}, 4), ({"readout": "analog"}, 1)):
        hw = TINYADC.replace(adc_bits=8, **changes)
        graph = chip_networks.Graph(100, 8, 8)
        graph.conv("conv", "input", 10, kernel=1)
        cycles = 64 * 8
        activity = {"conv": LayerActivity(images=1, lines_driven=cycles * 100, cells_on=cycles * 100 * 80)}
        report = estimate(graph.operations, hw, replication="smallest", activity=activity)
        full, events = report.energy_uj, report.energy_by_event_uj
        # an ADC of 2 mW at 1.28 GS/s is on for all of 128 columns (64 pairs: the cycle stays 100 ns); 80 are converted
        assert full["adc"] == pytest.approx(2 * cycles * reads * 100 * 1e-6)
        assert events["adc"] == pytest.approx(2 / 1.28 * cycles * reads * (40 if "readout" in changes else 80) * 1e-6)
        # whatever is on at once, all rows take 4 / 8 mW and all cells 2.4 / 8 mW for one read of each
        assert full["dac"] == pytest.approx(0.5 * cycles * 100 * 1e-6)
        assert events["dac"] == pytest.approx(full["dac"] * 100 / 128)
        assert events["crossbar"] == pytest.approx(0.3 * cycles * 100 * 1e-6 * 100 / 128 * 80 / 128)
        assert report.activity["lines_driven"] == pytest.approx(100 / 128)


def test_normalised_to_the_dense_design_with_printed_adcs():
    operations = NETWORKS["resnet18_cifar"]
    dense = estimate(operations, TINYADC, adc_bits=8).to_json()["normalised"]
    assert (dense["power"], dense["area"]) == (1, 1)
    pruned = estimate(operations, TINYADC, adc_bits=4).to_json()["normalised"]
    assert 0.5 < pruned["power"] < 0.8
    assert 0.8 < pruned["area"] < 0.9
    # 4 bits by the Kull split: 0.472 of the ADC's power, 0.301 of its area, at 58.2 % and 30.9 % of a tile
    assert pruned["power_tiles"] == pytest.approx(1 - 0.5822 * (1 - 0.4718), abs=1e-3)
    assert pruned["area_tiles"] == pytest.approx(1 - 0.3094 * (1 - 0.3009), abs=1e-3)
    # the offset encoding has one column where the differential one has two: nearly half the crossbars
    other = estimate(operations, TINYADC, adc_bits=8, replication="smallest", baseline=EIGHT).to_json()["normalised"]
    assert other["power"] > 1
    assert "isaac_8bit" in other["baseline"]


def test_pruned_weights_shrink_the_chip():
    operations = NETWORKS["resnet18_cifar"]
    generator = np.random.default_rng(0)
    layers = []
    for op in operations:
        if op.kind is not OperationKind.MATRIX:
            continue
        codes = generator.integers(1, 100, (1, op.rows, op.columns), dtype=np.int32)
        if op.name == "layer4.1.conv2":
            codes[:, :, 256:] = 0  # half of the filters
        layers.append(
            MatrixLayer(
                name=op.name, kind=LayerKind.CONV2D, codes=codes, weight_scale=np.ones((1, op.columns)), bias=None
            )
        )
    dense = estimate(operations, TINYADC, adc_bits=8, replication="smallest")
    pruned = estimate(operations, TINYADC, adc_bits=8, replication="smallest", weights=layers)
    by_name = {layer.name: layer for layer in pruned.layers}
    assert by_name["layer4.1.conv2"].crossbars * 2 == next(
        layer.crossbars for layer in dense.layers if layer.name == "layer4.1.conv2"
    )
    assert by_name["layer4.1.conv2"].removed_columns == 256
    assert pruned.to_json()["normalised"]["area"] < 1
    assert pruned.baseline_area_mm2 == pytest.approx(dense.total_area_mm2)


def test_resolutions_by_slice_are_a_mix_of_adcs():
    operations = NETWORKS["resnet18_cifar"]
    layers = sum(op.kind is OperationKind.MATRIX for op in operations)
    mixed = estimate(operations, TINYADC, adc_bits=[(8, 8, 4, 4)] * layers, replication="smallest")
    high, low = (estimate(operations, TINYADC, adc_bits=b, replication="smallest") for b in (8, 4))
    assert mixed.power_w["adc"] == pytest.approx((high.power_w["adc"] + low.power_w["adc"]) / 2)


def test_resolutions_by_layer_name():
    operations = NETWORKS["resnet18_cifar"]
    names = [op.name for op in operations if op.kind is OperationKind.MATRIX]
    by_name = {name: np.int64(3 + i % 6) for i, name in enumerate(names)}
    ordered = estimate(operations, TINYADC, adc_bits=[int(b) for b in by_name.values()])
    assert estimate(operations, TINYADC, adc_bits=by_name).to_json() == ordered.to_json()
    assert (
        estimate(operations, TINYADC, adc_bits=np.int64(4)).to_json()
        == estimate(operations, TINYADC, adc_bits=4).to_json()
    )
    del by_name["fc"]
    with pytest.raises(ShapeError, match="no resolution for fc"):
        estimate(operations, TINYADC, adc_bits=by_name)


def test_a_layer_called_twice_is_laid_out_twice_and_its_activity_shared():
    graph = chip_networks.Graph(128, 8, 8)
    x = graph.conv("conv", "input", 128, kernel=1)
    once = estimate(graph.operations, EIGHT, replication="smallest")
    graph.conv("conv#2", x, 128, kernel=1)
    activity = {"conv": LayerActivity(images=1, lines_driven=1000, cells_on=0)}
    twice = estimate(
        graph.operations,
        EIGHT,
        replication="smallest",
        adc_bits={"conv": 7},
        weights=[_ones("conv", 128, 128)],
        activity=activity,
    )
    assert twice.totals.crossbars == 2 * once.totals.crossbars
    # 64 positions x 8 cycles x 512 columns of each call at 2 mW x 0.851 (7 bits, Kull) and 1.28 GS/s
    assert twice.energy_by_event_uj["adc"] == pytest.approx(2 * 64 * 8 * 512 * 2 * 0.8508 / 1.28 * 1e-6, rel=1e-3)
    # 1000 lines of both calls together; a DAC is 4 mW / 8 / 128
    assert twice.energy_by_event_uj["dac"] == pytest.approx(1000 * 4 / 8 / 128 * 100 * 1e-6)
    assert [layer.lines_driven for layer in twice.layers] == [500 / (64 * 8 * 4 * 128)] * 2


def test_buffers_can_ask_for_more_tiles():
    chip = EIGHT.chip.model_dump()
    chip["timing"]["edram_kbytes"] = {"value": 1, "source": "a test"}
    report = estimate(NETWORKS["resnet18_cifar"], EIGHT.replace(chip=chip), replication="smallest")
    normal = estimate(NETWORKS["resnet18_cifar"], EIGHT, replication="smallest")
    need = sum(use.bytes for use in report.buffers)
    assert report.totals.buffer_tiles == -(-need // 1024)
    assert report.totals.tiles == report.totals.buffer_tiles > normal.totals.tiles
    assert report.totals.crossbars == normal.totals.crossbars


def test_buffers_hold_what_the_next_images_bring():
    """A fast network in a tile's worth of copies: the rows of the second image come before the first one's are done."""
    hw = load_hardware("tinyadc")
    report = estimate(NETWORKS["resnet18_cifar"], hw, replication="fastest")
    first = schedule(report.schedule.stages)
    fourth, twelfth = (schedule(report.schedule.stages, images=n) for n in (4, 12))
    held = []
    for run in (first, fourth, twelfth):
        rows = [run.buffered_rows(index, wait) for index, stage in enumerate(run.stages) for wait in stage.waits]
        held.append(sum(rows))
    assert held[0] < held[1] == held[2]


def test_residual_branches_are_buffered():
    report = estimate(NETWORKS["resnet18_cifar"], EIGHT, replication="smallest")
    skip = next(u for u in report.buffers if (u.reader, u.source) == ("layer1.0.add", "conv1"))
    straight = next(u for u in report.buffers if (u.reader, u.source) == ("layer1.0.add", "layer1.0.conv2"))
    # two 3 x 3 convolutions lag two rows behind their input
    assert skip.rows >= straight.rows + 2
    assert skip.bytes == skip.rows * 32 * 64


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vgg16"])
def test_every_network_names_its_bottleneck(name):
    for hw in (ISAAC, TINYADC):
        report = estimate(NETWORKS[name], hw, replication="smallest")
        # unreplicated, the layer with the most positions sets the pace: the first one
        assert report.bottleneck in ("conv1", "conv1_1")
        assert report.bottleneck_reason == "compute"
        assert report.layers[0].paced_by is None
        assert report.layers[-1].paced_by == report.bottleneck
        assert report.layers[-1].stall_reason.endswith(f"paced by {report.bottleneck}")


def test_hand_calculation_of_the_documentation():
    """docs/chip_model.md works this layer out; it must stay true."""
    report = estimate(NETWORKS["resnet18"], ISAAC, replication="smallest")
    layer = next(layer for layer in report.layers if layer.name == "layer2.0.conv1")
    # 64 x 3 x 3 = 576 rows: 5 row tiles; 128 outputs x 8 slices = 1024 columns: 8 groups; 40 crossbars, 5 IMAs
    assert (layer.row_tiles, layer.column_groups, layer.crossbars, layer.imas) == (5, 8, 40, 5)
    assert (layer.rows, report.totals.cycle_ns) == (576, 100)
    mapping = map_layers(NETWORKS["resnet18"], ISAAC)[5]
    assert mapping.name == "layer2.0.conv1"
    # 1 + 4 x 3 IMAs lie before it: it takes IMAs 1 to 5 of the second tile, all 12 of which are in use
    homes = homes_of(place(map_layers(NETWORKS["resnet18"], ISAAC), [1] * 21, ISAAC), ISAAC)[5]
    assert homes.tiles == ((1, 5, 12),)
    timing = matrix_timing(mapping, ISAAC, clock_of(ISAAC, 8), homes)
    # 5 of 12 IMAs have 128 bits a ns of the port, 192 of the bus, 16 of the router
    assert timing.compute == 1_600_000
    assert timing.edram == pytest.approx((576 + 128) * 16 / 128 * 1e3, abs=1)
    assert timing.bus == pytest.approx(576 * 16 / 192 * 1e3, abs=1)
    assert timing.router == pytest.approx(128 * 16 / 16 * 1e3, abs=1)
    assert layer.interval_set_by == "compute"
    # 16 input cycles of 100 ns; 28 x 28 positions: 12544 cycles, 1.2544 ms an image
    assert layer.interval_cycles == 16
    assert layer.busy_cycles == 12544
    # conv1 needs 112 x 112 x 16 = 200704 cycles: this layer is busy a sixteenth of the time
    assert report.totals.interval_cycles == 200704
    assert layer.occupancy == pytest.approx(1 / 16)


def test_rows_switched_on_in_turns_cost_time_and_save_power():
    """8 of 128 rows on at once: 16 reads for one, so a sixteenth of the peak; a sixteenth of the cells and DACs on."""
    few, all_on = peak(ISAAC.replace(active_rows=8)), peak(ISAAC)
    assert few.tops == pytest.approx(all_on.tops / 16)
    power = {c.name: c.power_mw for c in all_on.table.components}
    for component in few.table.components:
        factor = 1 / 16 if component.name in ("crossbar", "dac") else 1
        assert component.power_mw == pytest.approx(factor * power[component.name]), component.name
    assert few.area_mm2 == all_on.area_mm2
    report = estimate(NETWORKS["resnet18"], ISAAC.replace(active_rows=8), replication="smallest")
    # conv1: 112 x 112 positions x 16 input cycles x 16 reads
    assert report.totals.interval_cycles == 112 * 112 * 16 * 16


def test_timeline_is_a_small_chrome_trace():
    report = estimate(NETWORKS["resnet18"], EIGHT)
    trace = timeline(report)
    text = json.dumps(trace, allow_nan=False)
    assert len(text) < 1_000_000
    events = trace["traceEvents"]
    slices = [e for e in events if e["ph"] == "X"]
    assert {e["ph"] for e in events} == {"X", "M"}
    assert all({"name", "ts", "dur", "pid", "tid"} <= set(e) and e["dur"] > 0 and e["ts"] >= 0 for e in slices)
    names = {e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert {layer.name for layer in report.layers} <= names
    rows = [e for e in slices if e["cat"] == "row" and e["args"].get("waits_for") == "input"]
    assert len(rows) <= 112
    assert rows[0]["args"]["replicas"] == report.layers[0].replicas
    assert any(e["cat"] == "stall" and e["name"].startswith("wait for ") for e in slices)
    # the last slice ends at the last start of fc plus its interval
    fc = report.layers[-1]
    assert max(e["ts"] + e["dur"] for e in slices) == pytest.approx((fc.last_start_cycle + fc.interval_cycles) * 0.1)
    _assert_no_overlap(slices)


def test_detailed_timeline_has_a_track_a_replica():
    # the fastest replicas do not divide the positions, so the second image starts in the middle of the lanes
    report = estimate(NETWORKS["resnet18_cifar"], EIGHT, replication="fastest")
    assert any(layer.positions % layer.replicas for layer in report.layers)
    trace = timeline(report, images=2, detail=True)
    slices = [e for e in trace["traceEvents"] if e["ph"] == "X"]
    _assert_no_overlap(slices)
    assert len(slices) == 2 * sum(s.positions for s in report.schedule.stages if s.interval)
    names = [e["args"]["name"] for e in trace["traceEvents"] if e["name"] == "thread_name"]
    assert sum(name.startswith("conv1 [") for name in names) == report.layers[0].replicas


def _assert_no_overlap(slices):
    ends: dict = {}
    for event in sorted(slices, key=lambda e: (e["pid"], e["tid"], e["ts"])):
        track = event["pid"], event["tid"]
        assert event["ts"] >= ends.get(track, 0) - 1e-9
        ends[track] = event["ts"] + event["dur"]


def _ones(name, rows, columns) -> MatrixLayer:
    codes = np.ones((1, rows, columns), dtype=np.int32)
    return MatrixLayer(name=name, kind=LayerKind.LINEAR, codes=codes, weight_scale=np.ones((1, columns)), bias=None)


def _one_chip(edram_kbytes):
    chip = EIGHT.chip.model_dump()
    chip["hierarchy"]["max_chips"] = 1
    chip["timing"]["edram_kbytes"] = {"value": edram_kbytes, "source": "a test"}
    return EIGHT.replace(chip=chip)


def test_bad_requests_get_one_line():
    operations = NETWORKS["resnet18_cifar"]
    cases = [
        (lambda: estimate(operations, EIGHT, adc_bits=17), RangeError, r"1\.\.16, got 17"),
        (lambda: estimate(operations, EIGHT, adc_bits=[8]), ShapeError, "21 matrix layers, but 1 resolutions"),
        (lambda: estimate(operations, EIGHT, adc_bits=[0] * 21), RangeError, "adc_bits of conv1 must be integers"),
        (lambda: estimate(operations, EIGHT, adc_bits=3, law="survey"), RangeError, r"4\.\.16 for this ADC law"),
        (lambda: estimate(operations, EIGHT, law="moore"), ValueError, "ADC law must be one of kull"),
        (lambda: estimate(operations, EIGHT, images=0), RangeError, "images must be at least 1, got 0"),
        (lambda: estimate([], EIGHT), ShapeError, "nothing to map"),
        (lambda: estimate([*operations, operations[-1]], EIGHT), ShapeError, "operation fc: two operations"),
        (lambda: estimate(operations, EIGHT, weights=[_ones("fc", 5, 5)]), ShapeError, "weights of fc: .*1, 512, 10"),
        (lambda: estimate(operations, EIGHT, weights=[_ones("x", 5, 5)]), ShapeError, "weights are given for x"),
        (lambda: estimate(operations, EIGHT, replication={"conv1": 999}, tiles=40), ValueError, "budget is 40"),
        (lambda: estimate(operations, _one_chip(1e-3)), ValueError, "feature maps need the buffers of"),
        (lambda: timeline(estimate(operations, EIGHT), images=0), RangeError, "images must be at least 1"),
    ]
    for call, kind, words in cases:
        with pytest.raises(kind, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)
