"""Zero rows go only where the closed-up matrix is proven at the same bits; zero columns and crossbars always go."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitline.chip.mapping import WeightFacts, map_layer
from bitline.compaction import mapped_weights
from bitline.crossbar.certificate import certify_layers
from bitline.crossbar.engines import Crossbars
from bitline.hardware import Hardware, load_hardware
from bitline.layers import LayerKind, MatrixLayer, Operation, OperationKind


def _layer(codes: np.ndarray) -> MatrixLayer:
    return MatrixLayer(
        name="layer",
        kind=LayerKind.LINEAR,
        codes=codes.astype(np.int32)[None],
        weight_scale=np.ones((1, codes.shape[1])),
        bias=None,
    )


def _mapped(codes: np.ndarray, hw: Hardware) -> tuple[WeightFacts, list[str]]:
    layers = [_layer(codes)]
    facts, kept = mapped_weights(layers, certify_layers(layers, hw), hw)
    return facts["layer"], kept


def _two_tiles(second_column: int) -> np.ndarray:
    """Eight weights of 3 in each of two row tiles, of one output or of two: 8 x 3 = 24 in a column, 5 bits."""
    codes = np.zeros((256, 2))
    codes[:8, 0] = 3
    codes[128:136, second_column] = 3
    return codes


def test_rows_stay_where_the_closed_up_columns_need_more_bits() -> None:
    # closed up, the 16 weights of column 0 share a row tile: 48, which 5 bits (31) do not hold and 6 bits (63) do
    facts, kept = _mapped(_two_tiles(0), load_hardware("tinyadc"))
    assert (facts.removed_rows, facts.removed_columns, kept) == ((0,), (1,), ["layer"])
    facts, kept = _mapped(_two_tiles(0), load_hardware("tinyadc", adc_bits=6))
    assert (facts.removed_rows, kept) == ((240,), [])


def test_rows_go_where_the_proof_survives() -> None:
    facts, kept = _mapped(_two_tiles(1), load_hardware("tinyadc"))
    assert (facts.removed_rows, facts.removed_columns, kept) == ((240,), (0,), [])


def test_rows_of_a_refuted_layer_stay() -> None:
    # 24 in rows 128 to 135 saturates 4 bits; closed up they are rows 124 to 131, 12 in each of two tiles, which does
    # not: what is priced would not be what was simulated
    codes = np.zeros((256, 27))
    codes[128:136, 0] = 3
    codes[np.arange(124), 2 + np.arange(124) % 25] = 1
    facts, kept = _mapped(codes, load_hardware("tinyadc", adc_bits=4))
    assert (facts.removed_rows, kept) == ((0,), [])  # two row tiles either way: no crossbar is lost by it


def test_groups_that_share_crossbars_stay_together() -> None:
    # 64 depthwise groups of 9 x 1 (8 columns each): 14 a crossbar, 5 crossbars; apart they would be 64
    codes = np.ones((64, 9, 1))
    codes[3, 4] = 0
    layer = replace(_layer(np.ones((9, 1))), codes=codes.astype(np.int32), weight_scale=np.ones((64, 1)))
    hw = load_hardware("tinyadc")
    facts, kept = mapped_weights([layer], certify_layers([layer], hw), hw)
    operation = Operation(
        name="layer", kind=OperationKind.MATRIX, inputs=(), output_shape=(64, 1, 1), groups=64, rows=9, columns=1
    )
    assert map_layer(operation, hw, facts["layer"]).crossbars == 5
    assert kept == []


def test_zero_crossbars_are_dropped_where_rows_stay() -> None:
    codes = np.zeros((512, 2))
    codes[:256] = _two_tiles(0)
    facts, kept = _mapped(codes, load_hardware("tinyadc"))
    assert (facts.zero_crossbars, kept) == (2, ["layer"])  # of one column group: tiles 2 and 3


@pytest.mark.parametrize("encoding", ["differential", "offset", "offset_flip"])
@given(data=st.data())
def test_closed_up_matrices_are_lossless_when_run(encoding: str, data: st.DataObject) -> None:
    """Where rows go, no input saturates the closed-up matrix at the certified bits: all codes at their maximum tell."""
    seed, density = data.draw(st.integers(0, 2**32)), data.draw(st.sampled_from([0.02, 0.1, 0.4]))
    rng = np.random.default_rng(seed)
    hw = load_hardware("tinyadc", rows=8, columns=8, encoding=encoding, weight_bits=4, input_bits=2)
    codes = rng.integers(-7, 8, (24, 3)) * (rng.random((24, 3)) < density) * (rng.random((24, 1)) < 0.6)
    layers = [_layer(codes)]
    certificate = certify_layers(layers, hw)
    facts, kept = mapped_weights(layers, certificate, hw)
    live = codes[(codes != 0).any(axis=1)]
    if kept or len(live) == 0:
        return
    assert facts["layer"].removed_rows == (24 - len(live),)
    crossbars = Crossbars(live[None].astype(np.int32), hw, adc=certificate.layers[0].adc)
    assert crossbars.multiply(np.full((1, len(live)), 3)).saturations == 0
