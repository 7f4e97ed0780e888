"""Polarised mapping: columns and conversions by hand and against loops; its integers are the differential ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitline.chip.mapping import WeightFacts, map_layer
from bitline.crossbar.certificate import certify
from bitline.crossbar.engines import matmul
from bitline.crossbar.polarised import fragment_hardware, polarised_mapping
from bitline.errors import ConfigError
from bitline.hardware import load_hardware
from bitline.layers import LayerKind, MatrixLayer, Operation, OperationKind


def _layer(codes: np.ndarray, signed: bool = False) -> MatrixLayer:
    codes = np.asarray(codes, np.int32)
    codes = codes[None] if codes.ndim == 2 else codes
    return MatrixLayer(
        name="w",
        kind=LayerKind.LINEAR,
        codes=codes,
        weight_scale=np.ones((codes.shape[0], codes.shape[2])),
        bias=None,
        signed_inputs=signed,
    )


def test_by_hand() -> None:
    """Four rows a crossbar, fragments of two, 8-bit weights in four slices, eight input cycles."""
    hw = load_hardware("tinyadc", rows=4)
    codes = [
        [1, 1, 0],
        [2, -1, 0],  # fragment 0: one sign, both signs, zeros
        [-3, 5, 0],
        [0, 5, -7],  # fragment 1: one sign each
        [4, 0, 1],  # second row tile, one fragment of one row
    ]
    found = polarised_mapping(_layer(np.array(codes)), hw, 2)
    # tile 0: outputs 0 and 2 take one column a slice, output 1 a pair; tile 1: one each
    assert found.columns == ((4 * (1 + 2 + 1), 4 * 3),)
    assert found.differential_columns == 2 * 4 * 3 * 2
    assert (found.fragments, found.polarised) == (7, 6)
    assert found.conversions == 8 * 4 * (6 + 2)


def _loops(codes: np.ndarray, rows: int, fragment: int, slices: int) -> tuple[list[int], int]:
    columns, signs = [], 0
    for top in range(0, len(codes), rows):
        width = 0
        for n in range(codes.shape[1]):
            mixed = False
            for start in range(top, min(top + rows, len(codes)), fragment):
                part = codes[start : min(start + fragment, top + rows), n]
                here = int((part > 0).any()) + int((part < 0).any())
                signs, mixed = signs + here, mixed or here == 2
            width += slices * (2 if mixed else 1)
        columns.append(width)
    return columns, signs


@given(
    seed=st.integers(0, 2**32 - 1), k=st.integers(1, 40), n=st.integers(1, 5), fragment=st.sampled_from([1, 2, 4, 16])
)
def test_against_loops_and_the_exact_product(seed: int, k: int, n: int, fragment: int) -> None:
    random = np.random.default_rng(seed)
    hw = load_hardware("tinyadc", rows=16)
    codes = random.integers(-127, 128, (k, n)) * (random.random((k, n)) < 0.4)
    found = polarised_mapping(_layer(codes), hw, fragment)
    columns, signs = _loops(codes, 16, fragment, 4)
    assert found.columns == (tuple(columns),)
    assert found.conversions == 8 * 4 * signs
    x = random.integers(0, 256, (3, k))
    product = matmul(x, codes, fragment_hardware(hw, fragment))
    assert np.array_equal(product.y, x @ codes)
    assert product.saturations == 0
    assert found.conversions * 3 <= product.conversions
    assert certify(codes, fragment_hardware(hw, fragment)).bits <= certify(codes, hw).bits


def test_signed_inputs_through_wide_dacs_take_two_passes() -> None:
    hw = load_hardware("tinyadc", dac_bits=2)
    once = polarised_mapping(_layer(np.array([[1]])), hw, 8).conversions
    assert polarised_mapping(_layer(np.array([[1]]), signed=True), hw, 8).conversions == 2 * once == 2 * 4 * 4


@pytest.mark.parametrize(
    ("changes", "fragment", "message"),
    [
        ({}, 3, "fragment must divide 128 rows, got 3"),
        ({}, 0, "fragment must divide 128 rows, got 0"),
        ({"readout": "analog"}, 8, "needs the differential encoding with digital readout"),
        ({"encoding": "offset"}, 8, "needs the differential encoding with digital readout"),
    ],
)
def test_impossible_mappings(changes: dict[str, str], fragment: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        polarised_mapping(_layer(np.array([[1]])), load_hardware("tinyadc", **changes), fragment)


def test_the_chip_takes_its_columns_and_turns() -> None:
    hw = load_hardware("tinyadc")
    shape = Operation(
        name="w", kind=OperationKind.MATRIX, inputs=(), output_shape=(40, 1, 1), groups=1, rows=200, columns=40
    )
    facts = WeightFacts(
        removed_rows=(0,),
        removed_columns=(0,),
        zero_crossbars=0,
        zero_columns=0,
        zero_cells=0,
        zero_groups=0,
        passes=1,
        turns=16,
        tile_columns=((160, 256),),
    )
    mapped = map_layer(shape, hw, facts)
    assert (mapped.crossbars, mapped.row_tiles, mapped.column_groups, mapped.turns) == (4, 2, 2, 16)
    assert mapped.cells == 128 * 160 + 72 * 256
    assert map_layer(shape, hw).crossbars == 2 * 3  # 40 outputs x 4 slices x 2 signs = 320 columns
