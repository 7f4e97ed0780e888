"""The certificate against brute force over every input, hand arithmetic and the published tables."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference as twin
from bitline import certify, load_hardware, matmul
from bitline.errors import BitlineError, RangeError, ShapeError
from bitline.hardware import Hardware
from strategies import SMALL, examples, hardware, small_hardware, weights

ENCODINGS = [("differential", "digital"), ("differential", "analog"), ("offset", "digital"), ("offset_flip", "digital")]


# ---- tight: brute force over every input ---------------------------------------------------------------------------


@st.composite
def tiny_matrices(draw: st.DrawFn, **fixed: str) -> tuple[Hardware, np.ndarray]:
    """A matrix of at most 3 rows and 2 columns, and hardware with at most 3 input bits and any ADC number."""
    hw = draw(st.integers(1, 8).flatmap(lambda bits: small_hardware(adc_bits=bits, **fixed)))
    return hw, draw(weights(hw, max_columns=2, max_rows=2 if SMALL else 3))


@pytest.mark.parametrize("signed_inputs", [False, True])
@pytest.mark.parametrize(("encoding", "readout"), ENCODINGS)
def test_lossless_if_and_only_if_no_input_saturates(encoding: str, readout: str, signed_inputs: bool) -> None:
    @examples(80)
    @given(tiny_matrices(encoding=encoding, readout=readout))
    def check(case: tuple[Hardware, np.ndarray]) -> None:
        hw, w = case
        quiet, largest = twin.brute_force(w, hw, int(hw.adc_bits), signed_inputs)
        certificate = certify(w, hw, signed_inputs=signed_inputs)
        assert certificate.lossless == quiet
        witness = certificate.witness()
        assert (witness is None) == quiet
        if witness is not None:
            assert matmul(witness[None], w, hw, signed_inputs=signed_inputs).saturations > 0
        # the needed bits are tight too: enough, and one less is not
        assert twin.brute_force(w, hw, max(1, certificate.bits), signed_inputs)[0]
        if certificate.bits > 1:
            assert not twin.brute_force(w, hw, certificate.bits - 1, signed_inputs)[0]
        # the bound itself is reached by some input
        assert certificate.max_column_sum == largest

    check()


# ---- against the twin ----------------------------------------------------------------------------------------------


@examples(120)
@given(hardware().flatmap(lambda hw: st.tuples(st.just(hw), weights(hw))), st.booleans())
def test_witness_saturates_the_simulated_crossbars(case: tuple[Hardware, np.ndarray], signed_inputs: bool) -> None:
    """A refuted matrix names an input that saturates at the configured bits; a proven one has none, and the extreme
    inputs do not saturate it."""
    hw, w = case
    certificate = certify(w, hw, signed_inputs=signed_inputs)
    witness = certificate.witness()
    assert (witness is None) == certificate.lossless
    low, high = twin.input_limits(hw, signed_inputs)
    if witness is None:
        for code in (low, high, -1 if signed_inputs else high):
            assert matmul(np.full((1, w.shape[0]), code), w, hw, signed_inputs=signed_inputs).saturations == 0
        return
    assert witness.shape == (w.shape[0],)
    assert low <= witness.min() <= witness.max() <= high
    product = matmul(witness[None], w, hw, signed_inputs=signed_inputs)
    assert product.saturations > 0
    adc = twin.resolve_adc(w, hw, signed_inputs)
    assert twin.matmul(witness[None], w, hw, adc, signed_inputs).saturations == product.saturations
    assert product.max_column_sum >= certificate.worst().max_sum


@examples(120)
@given(hardware().flatmap(lambda hw: st.tuples(st.just(hw), weights(hw))), st.booleans())
def test_every_number_is_the_twins(case: tuple[Hardware, np.ndarray], signed_inputs: bool) -> None:
    """Counts, configured bits, the worst of each tile, slice and sign, the number of refuted columns."""
    hw, w = case
    certificate = certify(w, hw, signed_inputs=signed_inputs)
    bits, per_slice, unit = twin.weight_aware_bits(w, hw, signed_inputs)
    assert certificate.bits == certificate.counts.weight_aware == bits
    assert list(certificate.counts.weight_aware_per_slice) == per_slice
    assert (certificate.counts.weight_aware_unit or 0) == unit
    assert certificate.counts.equation == twin.equation_bits(w, hw)
    assert certificate.counts.paper == twin.paper_bits(w, hw)
    assert certificate.nonzeros_max == twin.largest_nonzeros(w, hw)
    assert certificate.nonzeros == np.count_nonzero(w)
    adc = twin.resolve_adc(w, hw, signed_inputs)
    assert certificate.adc.per_slice == adc.slices
    assert certificate.adc.unit == (None if hw.encoding == "differential" else adc.unit)

    table = twin.s_max_table(w, hw, signed_inputs)
    names = {+1: "positive", -1: "negative"} if hw.encoding == "differential" else {+1: "offset"}
    worst: dict[tuple[int, int | None, str], int] = {}
    refuted = set()
    for (tile, s, sign, n), s_max in table.items():
        key = (tile, s, names[sign]) if s >= 0 else (tile, None, "unit")
        worst[key] = max(worst.get(key, 0), s_max)
        own = adc.unit if s < 0 else adc.slices[s]
        if hw.readout == "analog":
            limit = 2 ** (own - 1) - 1 if sign > 0 else 2 ** (own - 1)
        else:
            limit = 2**own - 1
        if s_max > limit:
            refuted.add((tile, s, 0 if hw.readout == "analog" else sign, n))  # an analog pair has one conversion
    assert {(r.tile, r.slice, r.sign): r.max_sum for r in certificate.records} == worst
    assert certificate.refuted_columns == len(refuted)
    for record in certificate.records:
        if record.slice is not None:
            sign = -1 if record.sign == "negative" else +1
            assert table[record.tile, record.slice, sign, record.column] == record.max_sum


@examples(60)
@given(hardware().flatmap(lambda hw: st.tuples(st.just(hw), weights(hw, max_rows=60))), st.booleans(), st.data())
def test_any_columns_record_and_witness(
    case: tuple[Hardware, np.ndarray], signed_inputs: bool, data: st.DataObject
) -> None:
    """A witness on request drives exactly its column to its largest sum."""
    hw, w = case
    certificate = certify(w, hw, signed_inputs=signed_inputs)
    tiles = twin.column_levels(w, hw)
    tile = data.draw(st.sampled_from(tiles))
    column = data.draw(st.sampled_from(tile.columns))
    name = {+1: "positive", -1: "negative"}[column.sign] if hw.encoding == "differential" else "offset"
    record = certificate.column(column.tile, column.slice, name, column.output)
    assert record.max_sum == twin.largest_digit(hw, signed_inputs) * int(column.levels.sum())
    witness = certificate.witness(record)
    if record.lossless:
        assert witness is None
        return
    part = witness[tile.start : tile.start + tile.rows]
    assert not np.delete(witness, np.s_[tile.start : tile.start + tile.rows]).any()
    sums = [int(digits @ column.levels) for _, digits in twin.input_passes(part, hw, signed_inputs)]
    assert max(sums) == record.max_sum


@examples(100)
@given(hardware(adc_bits="weight_aware").flatmap(lambda hw: st.tuples(st.just(hw), weights(hw))))
def test_needed_bits_are_proven_and_one_less_is_refuted(case: tuple[Hardware, np.ndarray]) -> None:
    hw, w = case
    certificate = certify(w, hw)
    assert certificate.lossless
    if 2 <= certificate.bits <= 17:
        assert not certify(w, hw.replace(adc_bits=certificate.bits - 1)).lossless
    if 1 <= certificate.bits <= 16:
        assert certify(w, hw.replace(adc_bits=certificate.bits)).lossless


@pytest.mark.parametrize("encoding", ["differential", "offset", "offset_flip"])
def test_equation_is_lossless_for_any_weights(encoding: str) -> None:
    """Digital readout; with an analog one the difference's sign is a bit the formula does not count."""

    @examples(60)
    @given(
        hardware(adc_bits="equation", readout="digital", encoding=encoding).flatmap(
            lambda hw: st.tuples(st.just(hw), weights(hw))
        )
    )
    def check(case: tuple[Hardware, np.ndarray]) -> None:
        hw, w = case
        assert certify(w, hw).lossless

    check()


# ---- by hand and from the papers -----------------------------------------------------------------------------------

# published_checks: TinyADC's ADC bit counts, 128 rows, w = 2, v = 1: (l, Eq. (1), the tables' count)
PUBLISHED = [(128, 9, 8), (64, 8, 7), (32, 7, 6), (16, 6, 5), (8, 5, 4), (4, 4, 3), (2, 3, 2), (1, 2, 1)]


@pytest.mark.parametrize(("nonzeros", "equation", "paper"), PUBLISHED)
def test_published_counts(nonzeros: int, equation: int, paper: int) -> None:
    """l weights of 63 = 3 + 4 * 3 + 16 * 3 put l cells of level 3 in one column: S_max = 3 l, which needs Eq. (1)'s
    bits and one more than the tables count. Half of them negative leave 3 l / 2 in a column, which
    the tables' bits hold."""
    hw = load_hardware("tinyadc", rows=128, cell_bits=2, dac_bits=1, weight_bits=8, adc_bits="paper")
    w = np.zeros((128, 2), dtype=np.int64)
    w[np.random.default_rng(nonzeros).permutation(128)[:nonzeros], 1] = 63
    certificate = certify(w, hw)
    assert (certificate.counts.equation, certificate.counts.paper) == (equation, paper)
    assert certificate.counts.weight_aware_per_slice == (equation, equation, equation, 0)
    assert certificate.bits == equation
    assert certificate.max_column_sum == 3 * nonzeros
    assert certificate.cp_rate == 128 / nonzeros
    assert not certificate.lossless
    assert matmul(certificate.witness()[None], w, hw).saturations > 0
    assert certify(w, hw.replace(adc_bits="equation")).lossless
    if nonzeros > 1:
        w[np.flatnonzero(w[:, 1])[::2], 1] *= -1
        split = certify(w, hw)
        assert split.counts.paper == split.bits == paper
        assert split.lossless
        assert split.witness() is None


def test_offset_loses_column_sparsity_in_the_top_slice() -> None:
    """A zero 8-bit weight is 128 = cells (2, 0, 0, 0): 128 rows sum to 256, which needs 9 bits at any CP rate.

    The unit column sums to 128: 8 bits. Differential: a zero weight is all-zero cells.
    """
    w = np.zeros((128, 1), dtype=np.int64)
    hw = load_hardware("tinyadc", rows=128, cell_bits=2, dac_bits=1, weight_bits=8, encoding="offset")
    certificate = certify(w, hw)
    assert certificate.counts.weight_aware_per_slice == (0, 0, 0, 9)
    assert certificate.counts.weight_aware_unit == 8
    assert (certificate.bits, certificate.counts.equation, certificate.counts.paper) == (9, 9, 0)
    assert certify(w, hw.replace(encoding="differential")).bits == 0
    w[5] = 1  # one non-zero: level 1 in slice 0, the top slice as before
    assert certify(w, hw).counts.weight_aware_per_slice == (1, 0, 0, 9)
    assert certify(w, hw.replace(encoding="differential")).counts.weight_aware_per_slice == (1, 0, 0, 0)


@examples(40)
@given(st.data(), st.sampled_from([1, 2]))
def test_flip_fits_eight_bits(data: st.DataObject, cell_bits: int) -> None:
    """ISAAC: 128 rows of 2-bit cells fit 8 bits with flipping; 1-bit cells need 8 either way (the unit column)."""
    hw = load_hardware(
        "tinyadc", rows=128, cell_bits=cell_bits, dac_bits=1, weight_bits=8, encoding="offset_flip", adc_bits=8
    )
    w = data.draw(weights(hw, max_rows=1000))
    certificate = certify(w, hw)
    assert certificate.lossless
    assert certificate.max_column_sum <= (192 if cell_bits == 2 else 128)


def test_flip_saves_a_bit_of_two_bit_cells_only() -> None:
    """-1 + 128 = 127 = cells (1, 3, 3, 3) in 128 rows: 384 without flipping (9 bits); with it the largest stored sum is
    the 128 of the unit column and of the top slice (8 bits). 1-bit cells: 128 either way."""
    w = np.full((128, 1), -1)
    hw = load_hardware("tinyadc", rows=128, cell_bits=2, dac_bits=1, weight_bits=8, encoding="offset")
    assert (certify(w, hw).bits, certify(w, hw).max_column_sum) == (9, 384)
    flipped = certify(w, hw.replace(encoding="offset_flip"))
    assert (flipped.bits, flipped.max_column_sum) == (8, 128)
    assert flipped.counts.weight_aware_per_slice == (0, 0, 0, 8)
    one = hw.replace(cell_bits=1)
    assert certify(w, one).bits == certify(w, one.replace(encoding="offset_flip")).bits == 8
    # exactly half of the maximum, 192, is not flipped: the published worst case
    half = np.repeat([[3 - 128], [-128]], 64, axis=0)
    assert certify(half, hw.replace(encoding="offset_flip")).max_column_sum == 192


def test_unit_column_alone_can_refute() -> None:
    """Stored columns of zeros, 5 rows: the unit column's sum 5 needs 3 bits; its witness drives all rows."""
    hw = load_hardware("tinyadc", rows=5, encoding="offset", weight_bits=2, cell_bits=2, input_bits=2, adc_bits=2)
    w = np.full((7, 3), -2)
    certificate = certify(w, hw)
    assert (certificate.bits, certificate.lossless, certificate.refuted_columns) == (3, False, 1)
    assert certificate.counts.weight_aware_per_slice == (0,)
    np.testing.assert_array_equal(certificate.witness(), [3, 3, 3, 3, 3, 0, 0])
    product = matmul(certificate.witness()[None], w, hw)
    assert product.saturations == 2  # one a cycle
    assert certify(w, hw.replace(adc_bits=3)).lossless


def test_dac_digit_multiplies_the_sum() -> None:
    """v = 3 applies digits up to 7: two cells of level 3 reach 42, 6 bits. With 2 input bits the digit is at most 3."""
    w = np.array([[3], [3]])
    hw = load_hardware("tinyadc", dac_bits=3, input_bits=8, weight_bits=3, adc_bits=5)
    certificate = certify(w, hw)
    assert (certificate.max_column_sum, certificate.bits, certificate.lossless) == (42, 6, False)
    certificate = certify(w, hw.replace(input_bits=2))
    assert (certificate.max_column_sum, certificate.bits, certificate.lossless) == (18, 5, True)


@pytest.mark.parametrize(("weight", "bits"), [(2, 4), (-2, 3), (-3, 4), (3, 4), (1, 3), (-1, 2)])
def test_analog_range_is_one_larger_below(weight: int, bits: int) -> None:
    """Two equal weights: +4 needs -8..7, -4 fits -4..3; +-6 needs 4 bits; +2 needs 3 bits, -2 fits -2..1."""
    hw = load_hardware("tinyadc", weight_bits=3, readout="analog", adc_bits=bits)
    w = np.full((2, 1), weight)
    assert certify(w, hw).bits == bits
    assert certify(w, hw).lossless
    assert not certify(w, hw.replace(adc_bits=bits - 1)).lossless


def test_zero_matrix_needs_nothing() -> None:
    certificate = certify(np.zeros((300, 4), dtype=np.int8), load_hardware("tinyadc", adc_bits=1))
    assert certificate.lossless
    assert (certificate.bits, certificate.counts.equation, certificate.cp_rate) == (0, 0, None)


@pytest.mark.parametrize(
    ("w", "error"),
    [
        (np.ones(4, dtype=int), ShapeError),
        (np.full((2, 2), 128), RangeError),
        (np.full((2, 2), -128), RangeError),
        (np.full((2, 2), np.nan), RangeError),
        (np.full((2, 2), 0.5), RangeError),
    ],
)
def test_impossible_weights_are_refused(w: np.ndarray, error: type[BitlineError]) -> None:
    with pytest.raises(error):
        certify(w, load_hardware("tinyadc"))
