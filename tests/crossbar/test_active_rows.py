"""Crossbars whose rows are switched on a few at a time, and cells of more than four bits: by hand and by the twin."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bitline
import reference as twin
from bitline.crossbar.certificate import certify_layers
from bitline.crossbar.check import check_certificate
from bitline.layers import LayerKind, MatrixLayer
from strategies import Problem, examples, hardware, problems


def test_a_read_sums_the_active_rows_only() -> None:
    # 128 weights of 3 in one column: 128 x 3 = 384 with all rows on (9 bits), 8 x 3 = 24 with 8 on (5 bits)
    w = np.full((128, 1), 3)
    x = np.full((1, 128), 255)
    for active, bits, reads in ((None, 9, 1), (8, 5, 16), (1, 2, 128)):
        hw = bitline.load_hardware("tinyadc", active_rows=active)
        proof = bitline.certify(w, hw)
        assert proof.lossless
        assert proof.bits == bits
        assert proof.row_tiles == reads
        out = bitline.matmul(x, w, hw)
        assert out.y.tolist() == [[255 * 3 * 128]]
        assert out.saturations == 0
        # 8 input bits x 4 slices x 2 signs, once a read
        assert out.conversions == 8 * 4 * 2 * reads
        assert out.max_column_sum == 3 * (active or 128)


def test_the_proofs_l_follows_the_rows_of_a_read() -> None:
    # one non-zero in 16 rows: 8 in a column of 128 rows, 1 in a read of 16; 3 x 1 fits 2 bits, Eq. (1) of l = 1 is 2
    w = np.zeros((128, 2), np.int64)
    w[::16] = 3
    whole, part = (bitline.certify(w, bitline.load_hardware("tinyadc", active_rows=n)) for n in (None, 16))
    assert (whole.nonzeros_max, whole.bits, whole.counts.equation, whole.counts.paper) == (8, 5, 5, 4)
    assert (part.nonzeros_max, part.bits, part.counts.equation, part.counts.paper) == (1, 2, 2, None)
    assert (whole.cp_rate, part.cp_rate) == (16, 16)


def test_a_read_saturates_where_its_own_rows_do() -> None:
    # rows 8..15 hold the only full group: with 4 bits (15) its 24 saturates, and the witness drives these rows alone
    w = np.zeros((32, 1), np.int64)
    w[8:16] = 3
    w[20] = 3
    proof = bitline.certify(w, bitline.load_hardware("tinyadc", active_rows=8, adc_bits=4))
    assert not proof.lossless
    assert np.flatnonzero(proof.witness()).tolist() == list(range(8, 16))
    hw = bitline.load_hardware("tinyadc", active_rows=8, adc_bits=4)
    out = bitline.matmul(proof.witness()[None], w, hw)
    assert out.saturations == 8  # the lowest slice of one sign, once an input bit
    assert out.y.tolist() == [[15 * 255]]


@pytest.mark.parametrize("encoding", ["differential", "offset", "offset_flip"])
@pytest.mark.parametrize("cell_bits", [5, 8])
def test_wide_cells_by_hand(encoding: str, cell_bits: int) -> None:
    hw = bitline.load_hardware("tinyadc", cell_bits=cell_bits, encoding=encoding, adc_bits=16)
    # 8-bit weights: 7 bits of magnitude or 8 of offset in cells of 5 or 8 bits
    slices = {("differential", 5): 2, ("differential", 8): 1}.get((encoding, cell_bits), 2 if cell_bits == 5 else 1)
    assert hw.slices == slices
    w = np.array([[127, -127], [-3, 64], [96, 1]])
    x = np.array([[255, 1, 7], [0, 128, 200]])
    assert (bitline.matmul(x, w, hw).y == x @ w).all()
    if encoding == "differential" and cell_bits == 8:
        # one slice, levels are magnitudes: the largest column sum is 127 + 96
        assert bitline.certify(w, hw).max_column_sum == 223
        assert bitline.certify(w, hw).bits == 8


def test_tall_wide_cells_leave_the_fast_kernels_planes() -> None:
    # 200 rows x level 255 = 51,000 take 16 bits, more than the planes of the kernel for 512 vectors hold
    hw = bitline.load_hardware("tinyadc", rows=200, cell_bits=8, weight_bits=9, adc_bits=16)
    rng = np.random.default_rng(1)
    w = rng.integers(-255, 256, (200, 3))
    w[:, 0] = 255
    x = rng.integers(0, 256, (130, 200))
    x[0] = 255
    out = bitline.matmul(x, w, hw)
    assert (out.y == x @ w).all()
    assert out.max_column_sum == 200 * 255


@given(problem=problems(hardware(rows=16, active_rows=4) | hardware(rows=130, active_rows=65)))
@examples(40)
def test_both_engines_give_the_twins_integers(problem: Problem) -> None:
    adc = twin.resolve_adc(problem.w, problem.hw, problem.signed_inputs)
    wanted = twin.matmul(problem.x, problem.w, problem.hw, adc, problem.signed_inputs)
    for engine in ("bitserial", "certified"):
        out = bitline.matmul(problem.x, problem.w, problem.hw, problem.signed_inputs, engine=engine)
        assert out.y.tolist() == wanted.y.tolist()
        assert (out.conversions, out.saturations) == (wanted.conversions, wanted.saturations)


@given(seed=st.integers(0, 2**32 - 1), encoding=st.sampled_from(["differential", "offset", "offset_flip"]))
@examples(15)
def test_the_independent_check_agrees(seed: int, encoding: str) -> None:
    rng = np.random.default_rng(seed)
    hw = bitline.load_hardware("tinyadc", rows=32, active_rows=int(rng.choice([1, 2, 8, 16])), encoding=encoding)
    codes = rng.integers(-127, 128, (2, int(rng.integers(1, 70)), 3)).astype(np.int32)
    codes[rng.random(codes.shape) < 0.6] = 0
    scale = np.ones((2, 3))
    layer = MatrixLayer(name="a", kind=LayerKind.CONV2D, codes=codes, weight_scale=scale, bias=None)
    document = certify_layers([layer], hw).to_json()
    assert check_certificate(document, [layer]) == []
    # the same claims for rows that are all on would be other sums
    document["hardware"]["active_rows"] = None
    assert check_certificate(document, [layer]) != []
