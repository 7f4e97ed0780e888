"""Mapping: hand-computed layers, and zero crossbars against a brute-force count of cells."""

from __future__ import annotations

from dataclasses import replace

import chip_networks
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitline.chip.mapping import map_layer, map_layers, place, weight_facts
from bitline.chip.replication import Replication, replicate, tile_budget
from bitline.errors import ConfigError, RangeError, ShapeError
from bitline.hardware import load_hardware
from bitline.layers import LayerKind, MatrixLayer, Operation, OperationKind

ISAAC = load_hardware("isaac")
TINYADC = load_hardware("tinyadc")


def _operation(rows, columns, groups=1, positions=(4, 4), name="layer") -> Operation:
    return Operation(
        name=name,
        kind=OperationKind.MATRIX,
        inputs=("input",),
        output_shape=(groups * columns, *positions),
        rows=rows,
        columns=columns,
        groups=groups,
    )


def _layer(codes, name="layer", signed=False) -> MatrixLayer:
    codes = np.asarray(codes, dtype=np.int32)
    scale = np.ones((codes.shape[0], codes.shape[2]))
    return MatrixLayer(
        name=name, kind=LayerKind.CONV2D, codes=codes, weight_scale=scale, bias=None, signed_inputs=signed
    )


def test_resnet18_first_layers_by_hand():
    conv1, layer1 = map_layers(chip_networks.resnet18(), TINYADC)[:2]
    # 147 rows: 2 row tiles; 64 outputs x 4 slices (7 bits in 2-bit cells) x 2 signs = 512 columns: 4 groups
    assert (conv1.row_tiles, conv1.column_groups, conv1.crossbars) == (2, 4, 8)
    assert conv1.cells == 147 * 512
    # 576 rows: 5 row tiles
    assert (layer1.row_tiles, layer1.column_groups, layer1.crossbars) == (5, 4, 20)
    # ISAAC: 16-bit offset weights, 8 slices, no signs: 64 x 8 = 512 columns; the 129th column takes no room
    assert map_layers(chip_networks.resnet18(), ISAAC)[0].crossbars == 2 * 4


def test_depthwise_groups_share_crossbars_in_the_differential_encoding_only():
    depthwise = _operation(rows=9, columns=1, groups=64)
    # 128 // 9 = 14 blocks by rows, 128 // 8 = 16 by columns: 14 groups a crossbar, ceil(64 / 14) = 5
    packed = map_layer(depthwise, TINYADC)
    assert (packed.groups_per_crossbar, packed.crossbars) == (14, 5)
    # a zero weight is no zero cell in an offset encoding
    assert map_layer(depthwise, ISAAC).crossbars == 64


def test_grouped_convolution_with_large_groups():
    mapping = map_layer(_operation(rows=300, columns=20, groups=3), TINYADC)
    assert mapping.crossbars == 3 * 3 * 2  # three groups, 3 row tiles, 160 columns
    assert mapping.cells == 3 * 300 * 160


def test_pruned_filters_and_filter_shapes_are_removed_before_tiling():
    codes = np.ones((1, 256, 32), dtype=np.int32)
    codes[:, 100:228] = 0  # 128 rows: one row tile
    codes[:, :, :16] = 0  # 16 outputs x 8 columns: one column group
    facts = weight_facts(_layer(codes), TINYADC)
    assert (facts.removed_rows, facts.removed_columns, facts.zero_crossbars) == ((128,), (16,), 0)
    operation = _operation(rows=256, columns=32)
    assert map_layer(operation, TINYADC).crossbars == 4
    pruned = map_layer(operation, TINYADC, facts)
    assert (pruned.crossbars, pruned.removed_rows, pruned.removed_columns) == (1, 128, 16)
    assert (pruned.live_rows, pruned.live_columns) == (128, 16)


def test_all_zero_crossbars_are_dropped_and_counted():
    codes = np.zeros((1, 256, 32), dtype=np.int32)
    codes[0, :128, :16] = 1
    codes[0, 128:, 16:] = 1
    mapping = map_layer(_operation(rows=256, columns=32), TINYADC, weight_facts(_layer(codes), TINYADC))
    assert (mapping.crossbars, mapping.dropped_crossbars) == (2, 2)


def test_a_layer_of_zeros_keeps_its_place():
    mapping = map_layer(_operation(8, 8), TINYADC, weight_facts(_layer(np.zeros((1, 8, 8))), TINYADC))
    assert mapping.crossbars == 1


def test_signed_inputs_take_two_passes_only_with_several_bits_a_cycle():
    layer = _layer(np.ones((1, 4, 4)), signed=True)
    assert weight_facts(layer, TINYADC).passes == 1
    assert weight_facts(layer, TINYADC.replace(dac_bits=2)).passes == 2
    # without weights the operation says it
    for signed, passes in ((False, 1), (True, 2)):
        operation = replace(_operation(4, 4), signed_inputs=signed)
        assert map_layer(operation, TINYADC.replace(dac_bits=2)).input_passes == passes
        assert map_layer(operation, TINYADC).input_passes == 1


def test_rows_switched_on_in_turns():
    # 300 rows: the fullest crossbar has 128; 8 on at once: 16 reads an input digit
    hw = TINYADC.replace(active_rows=8)
    assert map_layer(_operation(300, 4), hw).turns == 16
    assert map_layer(_operation(300, 4), hw).crossbars == map_layer(_operation(300, 4), TINYADC).crossbars
    # 20 rows: 8 + 8 + 4
    assert map_layer(_operation(20, 4), hw).turns == 3
    # 14 groups of 9 rows share a crossbar; the proof reads each as 8 + 1 rows
    assert map_layer(_operation(9, 1, groups=64), hw).turns == 14 * 2
    # 16 groups of 3 rows share a crossbar, two of them a read
    assert map_layer(_operation(3, 1, groups=64), hw).turns == 8
    # 100 of 128 rows are zero and go: 28 rows, 4 reads
    codes = np.ones((1, 128, 4), dtype=np.int32)
    codes[:, 28:] = 0
    assert map_layer(_operation(128, 4), hw, weight_facts(_layer(codes), hw)).turns == 4
    assert map_layer(_operation(300, 4), TINYADC).turns == 1


def _brute_force(codes, hw) -> tuple[int, int, int]:
    """Crossbars with a non-zero weight in one group, the columns read of them, and their cells, cell by cell."""
    live_rows = [r for r in range(codes.shape[0]) if codes[r].any()]
    live_columns = [c for c in range(codes.shape[1]) if codes[:, c].any()]
    held: dict[tuple[int, int], bool] = {}
    cells: list[tuple[tuple[int, int], int, int]] = []
    for y, row in enumerate(live_rows):
        for x, column in enumerate(live_columns):
            for physical in range(hw.slices * hw.signs):
                place = x * hw.slices * hw.signs + physical
                key = (y // hw.rows, place // hw.columns)
                held[key] = held.get(key, False) or codes[row, column] != 0
                cells.append((key, place, y // hw.read_rows))
    built = [(place, read) for key, place, read in cells if held[key]]
    return sum(held.values()), len(set(built)), len(built)


@given(
    st.integers(1, 3),
    st.integers(1, 14),
    st.integers(1, 8),
    st.integers(2, 6),
    st.integers(3, 20),
    st.sampled_from(["differential", "offset"]),
    st.integers(0, 2**32 - 1),
    st.floats(0, 1),
    st.booleans(),
)
def test_crossbars_against_brute_force(groups, rows, columns, tile, width, encoding, seed, density, turns):
    hw = TINYADC.replace(rows=tile, columns=width, encoding=encoding, weight_bits=6, adc_bits=8)
    if turns and tile % 2 == 0:
        hw = hw.replace(active_rows=2)
    generator = np.random.default_rng(seed)
    codes = generator.integers(-3, 4, (groups, rows, columns)) * (generator.random((groups, rows, columns)) < density)
    layer = _layer(codes)
    facts = weight_facts(layer, hw)
    alone = [sum(parts) for parts in zip(*(_brute_force(group, hw) for group in layer.codes), strict=True)]
    mapping = map_layer(_operation(rows, columns, groups), hw, facts)
    if mapping.groups_per_crossbar == 1:
        assert [mapping.crossbars, mapping.columns_read, mapping.cells] == [max(1, alone[0]), *alone[1:]]
    else:  # whole groups of one row tile, those of zeros left out
        live = sum(bool(group.any()) for group in layer.codes)
        physical = columns * hw.slices * hw.signs
        together = min(live, tile // rows, width // physical)
        assert mapping.crossbars == -(-live // together) <= alone[0]
        assert (mapping.columns_read, mapping.cells) == (
            live * physical * -(-rows // hw.read_rows),
            live * physical * rows,
        )
    dense = map_layer(_operation(rows, columns, groups), hw)
    assert mapping.dropped_crossbars == dense.crossbars - mapping.crossbars >= 0


def test_weights_and_operations_are_cut_alike():
    # 32 depthwise groups of 9 x 1, 8 columns each: 14 fit a crossbar by rows, 16 by columns: 3 crossbars
    layer = _layer(np.ones((32, 9, 1)))
    assert map_layer(layer, TINYADC) == map_layer(_operation(9, 1, groups=32), TINYADC)
    assert map_layer(layer, TINYADC, weight_facts(layer, TINYADC)).crossbars == 3
    codes = np.ones((32, 9, 1))
    codes[3:21] = 0  # 14 groups are left: one crossbar
    some = map_layer(layer, TINYADC, weight_facts(_layer(codes), TINYADC))
    assert (some.crossbars, some.dropped_crossbars, some.columns_read) == (1, 2, 14 * 8)
    assert (some.removed_rows, some.live_columns) == (18 * 9, 14)


def test_crossbars_of_a_layer_of_zeros_are_left_out_and_counted():
    # 576 rows, 64 outputs x 8 columns: 5 x 4 crossbars; one is kept, which converts nothing
    mapping = map_layer(_operation(576, 64), TINYADC, weight_facts(_layer(np.zeros((1, 576, 64))), TINYADC))
    assert (mapping.crossbars, mapping.dropped_crossbars, mapping.columns_read, mapping.cells) == (1, 19, 0, 0)


def test_placement_by_hand():
    # 8 crossbars an IMA, 12 IMAs a tile. Layers of 20 and 100 crossbars: 3 and 13 IMAs, 16 together: 2 tiles.
    mappings = [map_layer(_operation(640, 64, name="a"), TINYADC), map_layer(_operation(640, 320, name="b"), TINYADC)]
    assert [m.crossbars for m in mappings] == [20, 100]
    placed = place(mappings, (1, 1), TINYADC)
    assert (placed.imas, placed.first_tile, placed.last_tile) == ((3, 13), (0, 0), (0, 1))
    assert (placed.tiles, placed.chips) == (2, 1)
    assert placed.crossbar_utilisation == pytest.approx(120 / 192)
    # 9 copies of a: 180 crossbars, 23 IMAs
    assert place(mappings, (9, 1), TINYADC).tiles == 3


def test_balanced_replication_is_isaacs():
    # 56 x 56 positions, then 14 x 14, equal intervals: the first needs 16 times as many replicas.
    operations = [_operation(128, 16, positions=(56, 56), name="a"), _operation(128, 16, positions=(14, 14), name="b")]
    mappings = map_layers(operations, TINYADC)
    assert replicate(mappings, [3136, 196], [8, 8], TINYADC) == (16, 1)
    assert replicate(mappings, [3136, 196], [8, 8], TINYADC, Replication.SMALLEST) == (1, 1)
    assert replicate(mappings, [3136, 196], [8, 8], TINYADC, {"b": 4}) == (1, 4)


def _pace(work, replicas):
    return max(-(-w // r) for w, r in zip(work, replicas, strict=True))


@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(1, 40), st.integers(1, 9)), min_size=1, max_size=3),
    st.integers(1, 6),
)
def test_fastest_replication_is_the_best_pace_that_fits(layers, extra):
    hierarchy = TINYADC.chip.hierarchy.model_dump() | {
        "crossbars_per_ima": {"value": 2, "source": "test"},
        "imas_per_tile": {"value": 2, "source": "test"},
    }
    hw = TINYADC.replace(chip=TINYADC.chip.model_dump() | {"hierarchy": hierarchy})
    operations = [_operation(128, 16 * c, name=f"l{i}") for i, (_, c, _) in enumerate(layers)]
    mappings = map_layers(operations, hw)
    positions, intervals = [p for p, _, _ in layers], [i for _, _, i in layers]
    budget = place(mappings, [1] * len(layers), hw).tiles + extra
    chosen = replicate(mappings, positions, intervals, hw, "fastest", budget)
    assert place(mappings, chosen, hw).tiles <= budget
    work = [p * i for p, i in zip(positions, intervals, strict=True)]
    pace = _pace(work, chosen)
    if pace > max(intervals):
        # one cycle an image faster does not fit any more
        faster = [min(-(-w // (pace - 1)), p) for w, p in zip(work, positions, strict=True)]
        assert _pace(work, faster) >= pace or place(mappings, faster, hw).tiles > budget


def test_bad_requests_get_one_line():
    mappings = map_layers([_operation(128, 16)], TINYADC)
    cases = [
        (lambda: replicate(mappings, [4], [8], TINYADC, "quickest"), ConfigError, "smallest, balanced, fastest"),
        (lambda: replicate(mappings, [4], [8], TINYADC, {"nobody": 2}), ConfigError, "nobody"),
        (lambda: replicate(mappings, [4], [8], TINYADC, {"layer": 0}), RangeError, "at least 1"),
        (lambda: tile_budget(mappings, TINYADC, 0), RangeError, "tiles must be at least 1, got 0"),
        (lambda: map_layers([], TINYADC), ShapeError, "no matrix operation"),
        (lambda: map_layer(_operation(0, 4), TINYADC), ShapeError, "rows, columns and groups"),
        (
            lambda: map_layer(_operation(4, 4, groups=2), TINYADC, weight_facts(_layer(np.ones((1, 4, 4))), TINYADC)),
            ShapeError,
            "2 groups, but weights with 1",
        ),
        (
            lambda: tile_budget(map_layers(chip_networks.vgg16(), TINYADC), TINYADC, 10),
            ConfigError,
            "the budget is 10",
        ),
    ]
    for call, kind, words in cases:
        with pytest.raises(kind, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)
