"""Crossbars freed by squeezing zero rows or columns out of crossbar-sized blocks: counted by hand, proven, and run."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitline.chip.blocks import closed_up_groups, squeeze_columns, squeeze_rows
from bitline.chip.mapping import LayerMapping, map_layer
from bitline.compaction import mapped_weights
from bitline.crossbar.certificate import certify_layers
from bitline.crossbar.engines import Crossbars
from bitline.hardware import Hardware, load_hardware
from bitline.layers import LayerKind, MatrixLayer, Operation, OperationKind
from bitline.pruning.blocks import project_bcr

TINYADC = load_hardware("tinyadc")  # 128 rows; 4 slices x 2 signs: 16 outputs a crossbar


def _layer(codes: np.ndarray) -> MatrixLayer:
    return MatrixLayer(
        name="layer",
        kind=LayerKind.LINEAR,
        codes=codes.astype(np.int32)[None],
        weight_scale=np.ones((1, codes.shape[1])),
        bias=None,
    )


def _mapped(codes: np.ndarray, hw: Hardware = TINYADC) -> LayerMapping:
    layer = _layer(codes)
    certificate = certify_layers([layer], hw)
    assert mapped_weights([layer], certificate, hw)[0]["layer"].blocks is None  # unless it is asked for
    facts, _ = mapped_weights([layer], certificate, hw, squeeze_blocks=True)
    rows, columns = codes.shape
    operation = Operation(
        name="layer",
        kind=OperationKind.MATRIX,
        inputs=(),
        output_shape=(columns, 1, 1),
        rows=rows,
        columns=columns,
    )
    return map_layer(operation, hw, facts["layer"])


def _half_of_the_rows(value: int = 1) -> np.ndarray:
    """Two tiles, two column groups; each block has every second row: the even ones on the diagonal, else the odd."""
    codes = np.zeros((256, 32))
    for tile in range(2):
        for group in range(2):
            codes[128 * tile + (tile + group) % 2 : 128 * (tile + 1) : 2, 16 * group : 16 * (group + 1)] = value
    return codes


def test_columns_squeezed_by_hand():
    # even outputs in the first tile, odd ones in the second: 16 of 32 in each, one crossbar instead of two
    codes = np.zeros((256, 32))
    codes[:128, 0::2], codes[128:, 1::2] = 1, 1
    mapped = _mapped(codes)
    assert (mapped.squeezed, mapped.crossbars, mapped.row_tiles, mapped.column_groups) == ("columns", 2, 2, 1)
    assert (mapped.removed_rows, mapped.removed_columns, mapped.dropped_crossbars) == (0, 0, 2)
    assert mapped.columns_read == 2 * 128
    assert (mapped.cells, mapped.rows_read) == (2 * 128 * 128, 256)
    assert mapped.index_bits == 32 * 5  # 16 outputs of each tile, one of 32 each


def test_rows_squeezed_by_hand():
    # 64 ones a column of a tile: 7 bits. Closed up, 128 ones: they need 8.
    stays = _mapped(_half_of_the_rows())
    assert (stays.squeezed, stays.crossbars, stays.index_bits) == (None, 4, 0)
    goes = _mapped(_half_of_the_rows(), TINYADC.replace(adc_bits=8))
    assert (goes.squeezed, goes.crossbars, goes.row_tiles, goes.column_groups) == ("rows", 2, 1, 2)
    assert (goes.removed_rows, goes.live_rows, goes.cells) == (0, 256, 2 * 128 * 128)
    assert (stays.rows_read, goes.rows_read) == (256, 2 * 128)  # each group fetches its own 128 inputs
    assert goes.index_bits == 2 * 128 * 8  # 128 rows of each group, one of 256 inputs each


def test_rows_go_at_the_same_bits_where_they_are_enough():
    # 64 ones in the first tile, 63 in the second: 7 bits hold the 64, and the 127 of the closed-up column too
    codes = _half_of_the_rows()
    codes[254:] = 0
    mapped = _mapped(codes)
    assert (mapped.squeezed, mapped.crossbars, mapped.removed_rows) == ("rows", 2, 2)
    assert mapped.index_bits == 2 * 127 * 8
    refuted = _mapped(codes, TINYADC.replace(adc_bits=6))  # what is priced must be what was simulated
    assert (refuted.squeezed, refuted.crossbars) == (None, 4)


def test_squeezing_that_frees_nothing_is_left_alone():
    dense = _mapped(np.ones((256, 32)))
    assert (dense.squeezed, dense.crossbars) == (None, 4)
    zero_block = np.ones((256, 32))
    zero_block[:128, :16] = 0  # a crossbar of zeros is dropped without any table
    dropped = _mapped(zero_block)
    assert (dropped.squeezed, dropped.crossbars, dropped.dropped_crossbars) == (None, 3, 1)
    nothing = _mapped(np.zeros((256, 32)))
    assert (nothing.squeezed, nothing.crossbars) == (None, 1)


@pytest.mark.parametrize(
    ("block", "kept", "squeezed", "crossbars"),
    [
        # two blocks side by side share a crossbar's row: 3 in 4 rows stay, some 384 in each group, 3 or 4 crossbars
        ((8, 8), (4, 4), "rows", 7),
        ((128, 16), (128, 8), "columns", 4),
        ((128, 16), (32, 16), "rows", 2),
        ((128, 16), (32, 8), "rows", 2),  # both at once frees no more: columns of a crossbar read the same rows
    ],
)
def test_only_blocks_of_crossbar_size_free_crossbars(block, kept, squeezed, crossbars):
    weights = np.random.default_rng(0).normal(size=(512, 32))
    codes = np.sign(project_bcr(weights, block, kept))
    mapped = _mapped(codes, TINYADC.replace(adc_bits=8))
    assert _mapped(np.ones((512, 32))).crossbars == 8
    assert (mapped.squeezed, mapped.crossbars) == (squeezed, crossbars)


@pytest.mark.parametrize("encoding", ["differential", "offset"])
@settings(max_examples=25)
@given(data=st.data())
def test_layouts_hold_every_weight_and_stay_lossless(encoding, data):
    """Counted again weight by weight; and where rows go, the groups run at the certified bits without saturation."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    rows, columns = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 12))
    hw = load_hardware(
        "tinyadc",
        rows=8,
        columns=data.draw(st.sampled_from([8, 12])),
        encoding=encoding,
        weight_bits=4,
        input_bits=2,
        adc_bits=data.draw(st.sampled_from(["weight_aware", 5])),
    )
    codes = rng.integers(-7, 8, (rows, columns)) * (
        rng.random((rows, columns)) < data.draw(st.sampled_from([0.05, 0.3]))
    )
    layer, per_output = _layer(codes), hw.slices * hw.signs
    by_columns, by_rows = squeeze_columns(layer, hw), squeeze_rows(layer, hw)
    tiles = [codes[start : start + 8] for start in range(0, rows, 8)]
    needed = [math.ceil(len({n for _, n in np.argwhere(tile)}) * per_output / hw.columns) for tile in tiles]
    assert by_columns.crossbars == sum(needed)
    homes: dict[int, set[int]] = {}
    for n in range(columns):
        for physical in range(n * per_output, (n + 1) * per_output):
            homes.setdefault(physical // hw.columns, set()).update(np.flatnonzero(codes[:, n]).tolist())
    assert by_rows.crossbars == sum(math.ceil(len(inputs) / 8) for inputs in homes.values())
    mapped, certificate = _mapped(codes, hw), certify_layers([layer], hw)
    if mapped.squeezed == "rows":
        for group in closed_up_groups(layer.codes[0], hw):
            crossbars = Crossbars(group, hw, adc=certificate.layers[0].adc)
            assert crossbars.multiply(np.full((1, group.shape[0]), 3)).saturations == 0
