"""Products on crossbars against the twin, to the last bit: values, conversions, saturations, column sums."""

from __future__ import annotations

import itertools
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference as twin
from bitline import load_hardware, matmul
from bitline.crossbar import byte_products, engines
from bitline.crossbar.adc import AdcBits
from bitline.crossbar.engines import Crossbars, exact_product
from bitline.crossbar.exact import ExactMatrix
from bitline.errors import BitlineError, ConfigError, RangeError, ShapeError
from bitline.hardware import Hardware
from strategies import SMALL, Problem, examples, hardware, problems


@pytest.fixture(autouse=True, scope="module")
def always_split() -> Any:
    """Refuted columns apart from proven ones, however many; tests/network/test_dense.py lets the costs decide too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engines, "_NANOSECONDS_PER_MAC", -1e9)
        yield


ENCODINGS = [("differential", "digital"), ("differential", "analog"), ("offset", "digital"), ("offset_flip", "digital")]


def tiny(**fields: Any) -> Hardware:
    """Hardware for hand arithmetic: 1 input bit, one 2-bit cell a weight, 128 rows."""
    defaults = {"rows": 128, "input_bits": 1, "dac_bits": 1, "cell_bits": 2, "weight_bits": 3, "adc_bits": 8}
    return load_hardware("tinyadc", **{**defaults, **fields})


def assert_is(product: Any, y: Any, conversions: int, saturations: int, max_column_sum: int | None) -> None:
    """The product has exactly these results."""
    np.testing.assert_array_equal(product.y, y)
    assert product.y.dtype == np.int64
    assert product.conversions == conversions
    assert product.saturations == saturations
    assert product.max_column_sum == max_column_sum


def both(x: Any, w: Any, hw: Hardware, signed_inputs: bool = False) -> Any:
    """The bit-serial product, after the certified engine has given the same integers."""
    product = matmul(x, w, hw, signed_inputs=signed_inputs)
    certified = matmul(x, w, hw, signed_inputs=signed_inputs, engine="certified")
    assert_is(certified, product.y, product.conversions, product.saturations, None)
    return product


# ---- by hand -----------------------------------------------------------------------------------------------------


def test_two_weights_by_hand() -> None:
    """w = (3, -2), x = (1, 2): cycle 0 applies (1, 0), cycle 1 (0, 1).

    Slice 0: positive column 3, 0; negative column 0, 2; slice 1 (4-bit weights) is empty.
    y = 1 * 3 - 2 * 2 = -1; 2 cycles x 2 slices x 2 signs = 8 conversions; the largest sum is 3, which 2 bits hold.
    """
    hw = tiny(input_bits=2, weight_bits=4, adc_bits=2)
    assert_is(both(np.array([[1, 2]]), np.array([[3], [-2]]), hw), [[-1]], 8, 0, 3)


def test_saturating_column_by_hand() -> None:
    """Two cells of level 3 sum to 6; 2 bits read 3: one saturation (the negative column reads 0)."""
    w, x = np.array([[3], [3]]), np.array([[1, 1]])
    assert_is(both(x, w, tiny(adc_bits=2)), [[3]], 2, 1, 6)
    assert_is(both(x, -w, tiny(adc_bits=2)), [[-3]], 2, 1, 6)
    assert_is(both(x, w, tiny(adc_bits=3)), [[6]], 2, 0, 6)


def test_top_code_is_not_a_saturation() -> None:
    """3 is the top code of 2 bits and is read exactly."""
    assert_is(both(np.array([[1, 1]]), np.array([[1], [2]]), tiny(adc_bits=2)), [[3]], 2, 0, 3)


@pytest.mark.parametrize(
    ("adc_bits", "y", "saturations"),
    [
        (3, 1, 0),  # 5 - 2 * 2
        (2, -1, 1),  # min(5, 3) - 2 * 2
        (1, -1, 2),  # min(5, 1) - 2 * min(2, 1): the unit column saturates too
    ],
)
def test_offset_by_hand(adc_bits: int, y: int, saturations: int) -> None:
    """2-bit weights (0, 1) are cells (2, 3), sum 5; the unit column reads 2 and stands for 2 each."""
    hw = tiny(weight_bits=2, encoding="offset", adc_bits=adc_bits)
    assert_is(both(np.array([[1, 1]]), np.array([[0], [1]]), hw), [[y]], 2, saturations, 5)


def test_flipped_column_by_hand() -> None:
    """Cells (2, 3) sum to 5, more than half of 6: stored as (1, 0). Code 1 stands for 3 * 2 - 1 = 5; 5 - 2 * 2 = 1."""
    hw = tiny(weight_bits=2, encoding="offset_flip", adc_bits=2)
    assert_is(both(np.array([[1, 1]]), np.array([[0], [1]]), hw), [[1]], 2, 0, 2)


def test_column_at_exactly_half_is_not_flipped() -> None:
    """Cells (3, 0) sum to half of 6. Row 0 alone: s = 3, 1 bit reads 1, minus 2 * 1 = -1 (a flip would give 1)."""
    hw = tiny(weight_bits=2, encoding="offset_flip", adc_bits=1)
    assert_is(both(np.array([[1, 0]]), np.array([[1], [-2]]), hw), [[-1]], 2, 1, 3)


def test_saturated_unit_code_recovers_a_flipped_column() -> None:
    """Cells (3, 3, 3) are stored as zeros. Unit sum 3 at 1 bit reads 1: y = (3 * 1 - 0) - 2 * 1 = 1, not 3."""
    hw = tiny(weight_bits=2, encoding="offset_flip", adc_bits=1)
    assert_is(both(np.array([[1, 1, 1]]), np.array([[1], [1], [1]]), hw), [[1]], 2, 1, 3)


@pytest.mark.parametrize(
    ("weights", "y", "saturations", "largest"),
    [
        ((-3, -3), -4, 1, 6),  # below -4
        ((-2, -2), -4, 0, 4),  # the lower limit itself is read exactly
        ((2, 2), 3, 1, 4),  # the upper limit is one less
        ((3, -3), 0, 0, 0),
        ((1, 2), 3, 0, 3),
    ],
)
def test_analog_limits_by_hand(weights: tuple[int, int], y: int, saturations: int, largest: int) -> None:
    """3 bits read a difference of -4 .. 3; one conversion for the pair."""
    hw = tiny(readout="analog", adc_bits=3)
    assert_is(both(np.array([[1, 1]]), np.array(weights)[:, None], hw), [[y]], 1, saturations, largest)


@pytest.mark.parametrize("rows", [5, 128, 300])  # one word of word lines, two, five
@pytest.mark.parametrize(
    ("encoding", "readout", "conversions"),
    [
        ("differential", "digital", 6),  # 3 cycles x 2 columns
        ("differential", "analog", 3),
        ("offset", "digital", 9),  # 3 cycles x (2 slices + the unit column)
        ("offset_flip", "digital", 9),
    ],
)
def test_signed_inputs_by_hand(rows: int, encoding: str, readout: str, conversions: int) -> None:
    """-3 in 3 bits is 101: 1 + 0 - 4, with every encoding and whatever the tile height.

    Offset, 3-bit weights: 1 is stored as 5 = cells (1, 1) of 2 bits: 1 x 1 + 4 x 1 - 4 x 1 = 1 a cycle.
    """
    hw = tiny(rows=rows, input_bits=3, adc_bits=2, encoding=encoding, readout=readout)
    assert_is(both(np.array([[-3]]), np.array([[1]]), hw, signed_inputs=True), [[-3]], conversions, 0, 1)


def test_signed_inputs_in_two_passes_by_hand() -> None:
    """v = 2: passes 0 and 3, the digits of 3 are (3, 0). At 1 bit the sum 3 reads 1, subtracted: -1."""
    hw = tiny(input_bits=3, dac_bits=2, adc_bits=1)
    assert_is(both(np.array([[-3]]), np.array([[1]]), hw, signed_inputs=True), [[-1]], 8, 1, 3)
    assert_is(both(np.array([[-3]]), np.array([[1]]), hw.replace(adc_bits=2), signed_inputs=True), [[-3]], 8, 0, 3)


def test_tiles_saturate_on_their_own() -> None:
    """Levels 1, 1, 1, 0, 2 on 2-row tiles: sums 2, 1, 2; at 1 bit 1 + 1 + 1 = 3, saturated in the first and last."""
    hw = tiny(rows=2, adc_bits=1)
    assert_is(both(np.ones((1, 5), dtype=int), np.array([[1], [1], [1], [0], [2]]), hw), [[3]], 6, 2, 2)


def test_word_line_128_counts() -> None:
    """128 cells of level 3 sum to 384, in the last row of the tile as in the first."""
    hw = tiny(adc_bits=9)
    w = np.full((128, 1), 3)
    assert_is(both(np.ones((1, 128), dtype=np.uint8), w, hw), [[384]], 2, 0, 384)
    assert_is(both(np.eye(128, dtype=np.uint8)[[0, 63, 64, 127]], w, hw), [[3]] * 4, 8, 0, 3)


# ---- against the twin --------------------------------------------------------------------------------------------


def check_bitserial(problem: Problem) -> None:
    """The bit-serial engine is the twin; the certified engine agrees with it; lossless means ``x @ w``."""
    hw, x, w = problem.hw, problem.x, problem.w
    before = x.copy(), w.copy()
    expected = twin.matmul(x, w, hw, twin.resolve_adc(w, hw, problem.signed_inputs), problem.signed_inputs)
    product = matmul(x, w, hw, signed_inputs=problem.signed_inputs)
    assert_is(product, expected.y, expected.conversions, expected.saturations, expected.max_column_sum)
    certified = matmul(x, w, hw, signed_inputs=problem.signed_inputs, engine="certified")
    assert_is(certified, expected.y, expected.conversions, expected.saturations, None)
    if expected.saturations == 0:
        np.testing.assert_array_equal(product.y, x.astype(np.int64) @ w.astype(np.int64))
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(w, before[1])


@pytest.mark.parametrize(("encoding", "readout"), ENCODINGS)
def test_engines_equal_the_twin(encoding: str, readout: str) -> None:
    @examples(120)
    @given(problems(hardware(encoding=encoding, readout=readout)))
    def check(problem: Problem) -> None:
        check_bitserial(problem)

    check()


@pytest.mark.parametrize(("encoding", "readout"), ENCODINGS)
def test_engines_equal_the_twin_on_the_common_design(encoding: str, readout: str) -> None:
    """128 rows, 2-bit cells, 1-bit inputs: the shape most users run, and the one a fast path would be for."""

    @examples(40)
    @given(
        problems(
            st.integers(1, 9).flatmap(
                lambda bits: hardware(
                    encoding=encoding, readout=readout, adc_bits=bits, rows=128, cell_bits=2, dac_bits=1, input_bits=8
                )
            ),
            max_columns=9,
        )
    )
    def check(problem: Problem) -> None:
        check_bitserial(problem)

    check()


@pytest.mark.parametrize("engine", ["bitserial", "certified"])
@pytest.mark.parametrize(("encoding", "readout"), ENCODINGS)
@pytest.mark.parametrize("rows", [1, 5, 63, 64, 65, 100, 128, 130, 200])
def test_every_tile_height(rows: int, encoding: str, readout: str, engine: str) -> None:
    """Enough bits by policy: the product is ``x @ w``; two bits less: the twin's."""
    rng = np.random.default_rng(rows)
    hw = load_hardware("tinyadc", rows=rows, encoding=encoding, readout=readout, input_bits=2 if SMALL else 8)
    x = rng.integers(0, 2**hw.input_bits, size=(2, 2 * rows + 3), dtype=np.uint8)
    w = rng.integers(-127, 128, size=(2 * rows + 3, 2), dtype=np.int8)
    product = matmul(x, w, hw, engine=engine)
    np.testing.assert_array_equal(product.y, x.astype(np.int64) @ w.astype(np.int64))
    assert product.saturations == 0
    short = hw.replace(adc_bits=max(1, twin.weight_aware_bits(w, hw)[0] - 2))
    expected = twin.matmul(x, w, short, twin.resolve_adc(w, short))
    product = matmul(x, w, short, engine=engine)
    np.testing.assert_array_equal(product.y, expected.y)
    assert (product.conversions, product.saturations) == (expected.conversions, expected.saturations)


@pytest.mark.parametrize(("encoding", "readout"), ENCODINGS)
@pytest.mark.parametrize("signed_inputs", [False, True])
@pytest.mark.parametrize(("rows", "dac_bits"), [(70, 1), (50, 1), (70, 3), (70, 16)])
def test_widest_codes(rows: int, dac_bits: int, signed_inputs: bool, encoding: str, readout: str) -> None:
    """16-bit inputs and weights at their extremes: sums near 2^40 stay exact."""
    hw = load_hardware(
        "tinyadc", rows=rows, input_bits=16, weight_bits=16, dac_bits=dac_bits, encoding=encoding, readout=readout
    )
    (low_x, high_x), (low_w, high_w) = hw.input_range(signed_inputs), hw.weight_range
    rng = np.random.default_rng(dac_bits)
    x = rng.choice([low_x, high_x], size=(3, 141))
    x[0], x[1] = high_x, low_x
    w = rng.choice([low_w, high_w], size=(141, 3))
    w[:, 0], w[:, 1] = high_w, low_w
    for engine in ("bitserial", "certified"):
        np.testing.assert_array_equal(matmul(x, w, hw, signed_inputs=signed_inputs, engine=engine).y, x @ w)
    for bits in (1, 7, 13):
        short = hw.replace(adc_bits=bits)
        expected = twin.matmul(x, w, short, bits, signed_inputs)
        product = matmul(x, w, short, signed_inputs=signed_inputs)
        assert_is(product, expected.y, expected.conversions, expected.saturations, expected.max_column_sum)
        certified = matmul(x, w, short, signed_inputs=signed_inputs, engine="certified")
        assert_is(certified, expected.y, expected.conversions, expected.saturations, None)


@pytest.mark.parametrize("engine", ["bitserial", "certified"])
@pytest.mark.parametrize("vectors", [2, 200])
@pytest.mark.parametrize("dtype", [">u2", ">i8", "<u4"])
def test_byte_order_does_not_matter(dtype: str, vectors: int, engine: str) -> None:
    """As numbers read from a file may come."""
    hw = load_hardware("tinyadc")
    rng = np.random.default_rng(5)
    x, w = rng.integers(0, 256, (vectors, 9)), rng.integers(-127, 128, (9, 6))
    np.testing.assert_array_equal(matmul(x.astype(dtype), w.astype(">i4"), hw, engine=engine).y, x @ w)


@pytest.mark.parametrize("engine", ["bitserial", "certified"])
def test_groups_are_separate_matrices(engine: str) -> None:
    rng = np.random.default_rng(3)
    hw = load_hardware("tinyadc", rows=9, adc_bits=3)
    w = rng.integers(-127, 128, size=(3, 20, 4))
    x = rng.integers(0, 256, size=(5, 60))
    expected = twin.matmul(x, w, hw, 3)
    product = Crossbars(w, hw).multiply(x, engine=engine)
    assert expected.saturations > 0
    assert_is(
        product,
        expected.y,
        expected.conversions,
        expected.saturations,
        expected.max_column_sum if engine == "bitserial" else None,
    )


@pytest.mark.parametrize("rows", [70, 20])  # two words a column, and one
@pytest.mark.parametrize(("encoding", "readout"), ENCODINGS)
def test_many_columns(encoding: str, readout: str, rows: int) -> None:
    """More physical columns than any block of them a kernel may take at once: 4 slices x 170 outputs, and two signs."""
    rng = np.random.default_rng(4)
    outputs = 3 if SMALL else 170
    hw = load_hardware("tinyadc", rows=rows, adc_bits=3, encoding=encoding, readout=readout, input_bits=3)
    w = rng.integers(-127, 128, size=(2 * rows + 1, outputs))
    w[:, ::3] = 0
    x = rng.integers(0, 8, size=(3, len(w)))
    x[1] = 0  # no row driven: every conversion reads 0 and still counts
    expected = twin.matmul(x, w, hw, 3)
    assert expected.saturations > 0
    product = matmul(x, w, hw)
    assert_is(product, expected.y, expected.conversions, expected.saturations, expected.max_column_sum)
    certified = matmul(x, w, hw, engine="certified")
    assert_is(certified, expected.y, expected.conversions, expected.saturations, None)
    counts = np.zeros(12, dtype=np.int64)
    Crossbars(w, hw).multiply(x, histogram=counts)
    wanted = [sum(n for (_, s), n in expected.sums.items() if min(abs(s), 11) == bin) for bin in range(12)]
    np.testing.assert_array_equal(counts, wanted)


@examples(60)
@given(problems(hardware(adc_bits=1), max_rows=100), st.data())
def test_every_slice_and_the_unit_column_have_their_own_resolution(problem: Problem, data: st.DataObject) -> None:
    hw, x, w = problem.hw, problem.x, problem.w
    bits = data.draw(st.lists(st.integers(1, 9), min_size=hw.slices + 1, max_size=hw.slices + 1))
    adc = AdcBits(per_slice=tuple(bits[1:]), unit=None if hw.encoding == "differential" else bits[0])
    expected = twin.matmul(x, w, hw, twin.Adc(tuple(bits[1:]), bits[0]), problem.signed_inputs)
    crossbars = Crossbars(w, hw, signed_inputs=problem.signed_inputs, adc=adc)
    assert_is(crossbars.multiply(x), expected.y, expected.conversions, expected.saturations, expected.max_column_sum)
    certified = crossbars.multiply(x, engine="certified")
    assert_is(certified, expected.y, expected.conversions, expected.saturations, None)


# ---- what must not matter ----------------------------------------------------------------------------------------


def _load(hw: Hardware, vectors: int) -> tuple[np.ndarray, np.ndarray]:
    """A product with columns on both sides of the ADC's range."""
    rng = np.random.default_rng(11)
    w = rng.integers(-127, 128, size=(300, 13))
    w[rng.random(w.shape) < np.linspace(0, 1, 13)] = 0
    return rng.integers(0, 2**hw.input_bits, size=(vectors, 300)), w


@pytest.mark.parametrize("engine", ["bitserial", "certified"])
@pytest.mark.parametrize(("encoding", "readout"), ENCODINGS)
def test_batch_split_does_not_matter(encoding: str, readout: str, engine: str) -> None:
    hw = load_hardware("tinyadc", adc_bits=5, encoding=encoding, readout=readout, input_bits=2 if SMALL else 8)
    x, w = _load(hw, 7 if SMALL else 150)
    crossbars = Crossbars(w, hw)
    whole = crossbars.multiply(x, engine=engine)
    cuts = [0, 1, 3, 3, len(x)]
    parts = [crossbars.multiply(x[i:j], engine=engine) for i, j in itertools.pairwise(cuts)]
    np.testing.assert_array_equal(np.concatenate([part.y for part in parts]), whole.y)
    assert sum(part.conversions for part in parts) == whole.conversions
    assert sum(part.saturations for part in parts) == whole.saturations > 0
    if engine == "bitserial":
        assert max(part.max_column_sum for part in parts) == whole.max_column_sum


@pytest.mark.parametrize("engine", ["bitserial", "certified"])
@pytest.mark.parametrize(("encoding", "readout"), ENCODINGS)
def test_thread_count_does_not_matter(encoding: str, readout: str, engine: str) -> None:
    hw = load_hardware("tinyadc", adc_bits=5, encoding=encoding, readout=readout, input_bits=2 if SMALL else 8)
    x, w = _load(hw, 5 if SMALL else 61)
    threads = numba.get_num_threads()
    results = []
    try:
        for count in sorted({1, min(2, threads), threads}):
            numba.set_num_threads(count)
            results.append(matmul(x, w, hw, engine=engine))
    finally:
        numba.set_num_threads(threads)
    for result in results[1:]:
        assert_is(result, results[0].y, results[0].conversions, results[0].saturations, results[0].max_column_sum)


def test_memory_layout_does_not_matter() -> None:
    hw = load_hardware("tinyadc", adc_bits=4, input_bits=2 if SMALL else 8)
    x, w = _load(hw, 6)
    expected = matmul(x, w, hw)
    padded_x, padded_w = np.zeros((12, 600), dtype=np.int16), np.zeros((600, 26), dtype=np.int8)
    padded_x[::2, ::-2], padded_w[::2, ::2] = x, w
    x_view, w_view = padded_x[::2, ::-2], padded_w[::2, ::2]
    x_view.flags.writeable = w_view.flags.writeable = False
    for engine in ("bitserial", "certified"):
        product = matmul(x_view, w_view, hw, engine=engine)
        np.testing.assert_array_equal(product.y, expected.y)
        assert product.saturations == expected.saturations > 0


@examples(40)
@given(problems(hardware(), max_rows=150))
def test_histogram_counts_every_column_sum(problem: Problem) -> None:
    """Bins are added to in place; the last one collects everything larger; analog sums count by magnitude."""
    hw, x, w = problem.hw, problem.x, problem.w
    expected = twin.matmul(x, w, hw, twin.resolve_adc(w, hw, problem.signed_inputs), problem.signed_inputs)
    bins = 7
    wanted = np.full((hw.slices + 1, bins), 10, dtype=np.int64)
    for (which, s), count in expected.sums.items():
        wanted[which, min(abs(s), bins - 1)] += count  # the unit column is the last row, in the twin -1
    counts = np.full((hw.slices + 1, bins), 10, dtype=np.int64)
    crossbars = Crossbars(w, hw, signed_inputs=problem.signed_inputs)
    product = crossbars.multiply(x, histogram=counts)
    np.testing.assert_array_equal(counts, wanted)
    assert (counts - 10).sum() == product.conversions
    assert_is(product, expected.y, expected.conversions, expected.saturations, expected.max_column_sum)
    flat = np.zeros(bins, dtype=np.int64)
    crossbars.multiply(x, histogram=flat)
    np.testing.assert_array_equal(flat, (wanted - 10).sum(axis=0))


def test_exact_product_is_exact_beyond_float32() -> None:
    """4097 * 4096 + 1 = 2^24 + 4097, which float32 does not hold."""
    assert exact_product(np.array([[4097, 1]]), np.array([[4096], [1]])).tolist() == [[16_781_313]]


def test_exact_product_is_exact_beyond_float() -> None:
    """2^15 * 2^16 * 600 needs more than float32's 24 bits, and the odd terms more than rounding."""
    x = np.full((2, 600), 2**16 - 1)
    w = np.full((600, 2), -(2**15) + 1)
    x[1, 0] = 1
    expected = [[600 * 65535 * -32767] * 2, [(599 * 65535 + 1) * -32767] * 2]
    np.testing.assert_array_equal(exact_product(x, w), expected)


@pytest.mark.parametrize(
    ("rows", "weight", "largest", "parts", "dtype"),
    [
        (518, 127, 255, 1, np.float32),  # 518 * 127 * 255 = 16 775 430 <= 2^24 = 16 777 216
        (519, 127, 255, 2, np.float32),
        (1152, 127, 255, 3, np.float32),
        (600, 32767, 65535, 1, np.float64),
        (4, 2**31 - 1, 2**20, 1, np.float64),  # 2^53 - 2^22
        (5, 2**31 - 1, 2**20, 1, np.int64),
    ],
)
def test_exact_matrix_picks_what_cannot_round(
    rows: int, weight: int, largest: int, parts: int, dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sums of odd terms at and beyond each bound, on a processor without products of bytes."""
    monkeypatch.setattr(byte_products, "HAS_BYTE_DOTS", False)
    w = np.full((rows, 2), weight, np.int64)
    w[:, 1] *= -1
    w[0, 0] -= 2
    matrix = ExactMatrix(w, (0, largest))
    assert [part.dtype for _, part in matrix._parts] == [dtype] * parts
    x = np.full((2, rows), largest)
    x[1, 0] = 1
    expected = [[sum(int(a) * int(b) for a, b in zip(row, column, strict=True)) for column in w.T] for row in x]
    assert matrix.multiply(x).tolist() == expected


def test_refuted_digits_are_split_from_proven_ones() -> None:
    """Two weights of 5 = 1 + 4 * 1 and one of 3: slice 0 sums to 5, slice 1 to 2. At 2 bits only slice 0 is refuted."""
    w = np.array([[5, 1], [5, 0], [3, -2]])
    crossbars = Crossbars(w, tiny(weight_bits=5, adc_bits=2))
    np.testing.assert_array_equal(crossbars.proven, [[[4, 1], [4, 0], [0, -2]]])
    assert not crossbars.lossless
    assert Crossbars(w, tiny(weight_bits=5, adc_bits=3)).lossless


# ---- empty and impossible inputs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["bitserial", "certified"])
@pytest.mark.parametrize(("encoding", "readout"), ENCODINGS)
def test_no_input_vectors(encoding: str, readout: str, engine: str) -> None:
    hw = load_hardware("tinyadc", encoding=encoding, readout=readout)
    product = matmul(np.zeros((0, 5), dtype=np.uint8), np.ones((5, 3), dtype=np.int8), hw, engine=engine)
    assert product.y.shape == (0, 3)
    assert (product.conversions, product.saturations) == (0, 0)


@pytest.mark.parametrize("shape", [(0, 3), (5, 0), (0, 0)])
@pytest.mark.parametrize(("encoding", "readout"), ENCODINGS)
def test_empty_matrices(encoding: str, readout: str, shape: tuple[int, int]) -> None:
    """No rows: zeros and no conversions. No columns: no outputs, only a unit column's conversions."""
    hw = load_hardware("tinyadc", encoding=encoding, readout=readout)
    w, x = np.zeros(shape, dtype=np.int8), np.ones((2, shape[0]), dtype=np.uint8)
    expected = twin.matmul(x, w, hw, 8)
    counts = np.zeros(8, dtype=np.int64)
    product = Crossbars(w, hw).multiply(x, histogram=counts)
    assert_is(product, expected.y, expected.conversions, expected.saturations, expected.max_column_sum)
    assert counts.sum() == product.conversions
    certified = matmul(x, w, hw, engine="certified")
    assert_is(certified, expected.y, expected.conversions, expected.saturations, None)


def test_no_groups_are_refused() -> None:
    with pytest.raises(ShapeError):
        Crossbars(np.zeros((0, 5, 3), dtype=int), load_hardware("tinyadc"))


GOOD_X, GOOD_W = np.ones((2, 4), dtype=np.int64), np.ones((4, 3), dtype=np.int64)


@pytest.mark.parametrize("engine", ["bitserial", "certified"])
@pytest.mark.parametrize(
    ("x", "w", "error"),
    [
        (np.ones((2, 5), dtype=int), GOOD_W, ShapeError),
        (np.ones((2, 0), dtype=int), GOOD_W, ShapeError),
        (GOOD_X, np.ones(4, dtype=int), ShapeError),
        (np.ones((1, 2, 4), dtype=int), GOOD_W, ShapeError),
        (GOOD_X * 256, GOOD_W, RangeError),
        (GOOD_X * -1, GOOD_W, RangeError),
        (GOOD_X * (2**40 + 1), GOOD_W, RangeError),  # 1 after a cast to 32 bits
        (GOOD_X.astype(np.uint64) * np.uint64(2**64 - 1), GOOD_W, RangeError),  # -1 after a cast to int64
        (GOOD_X, GOOD_W * 128, RangeError),
        (GOOD_X, GOOD_W * -128, RangeError),
        (GOOD_X, GOOD_W * (2**40 + 1), RangeError),
        (GOOD_X * 1.5, GOOD_W, BitlineError),
        (GOOD_X * np.nan, GOOD_W, BitlineError),
        (GOOD_X, GOOD_W * np.nan, BitlineError),
        (GOOD_X, GOOD_W * np.inf, BitlineError),
        (GOOD_X, GOOD_W * 0.5, BitlineError),
        (GOOD_X.astype(str), GOOD_W, BitlineError),
        (GOOD_X.astype(object), GOOD_W, BitlineError),
    ],
)
def test_impossible_operands_are_refused(x: np.ndarray, w: np.ndarray, error: type[Exception], engine: str) -> None:
    hw = load_hardware("tinyadc")
    assert matmul(GOOD_X, GOOD_W, hw, engine=engine).y.tolist() == [[4] * 3] * 2
    with pytest.raises(error) as caught:
        matmul(x, w, hw, engine=engine)
    assert isinstance(caught.value, BitlineError)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) > 10


@pytest.mark.parametrize(
    ("code", "signed_inputs", "fits"),
    [(127, True, True), (-128, True, True), (128, True, False), (-129, True, False), (255, False, True)],
)
def test_edges_of_the_input_range(code: int, signed_inputs: bool, fits: bool) -> None:
    hw = load_hardware("tinyadc")
    x = np.array([[0, code]])
    w = np.array([[3], [-5]])
    if fits:
        assert matmul(x, w, hw, signed_inputs=signed_inputs).y.tolist() == [[-5 * code]]
    else:
        with pytest.raises(RangeError, match=str(code)):
            matmul(x, w, hw, signed_inputs=signed_inputs)


def test_offset_holds_one_more_negative_weight() -> None:
    hw = load_hardware("tinyadc", encoding="offset")
    assert matmul(np.array([[2]]), np.array([[-128]]), hw).y.tolist() == [[-256]]
    with pytest.raises(RangeError, match="-129"):
        matmul(np.array([[2]]), np.array([[-129]]), hw)


def test_unknown_engine_is_refused() -> None:
    with pytest.raises(ConfigError, match="magic"):
        matmul(GOOD_X, GOOD_W, load_hardware("tinyadc"), engine="magic")


def test_certified_engine_refuses_a_histogram_it_cannot_fill() -> None:
    """The certified engine does not form all column sums; a half-filled histogram would be a lie."""
    with pytest.raises(ConfigError):
        Crossbars(GOOD_W, load_hardware("tinyadc")).multiply(
            GOOD_X, engine="certified", histogram=np.zeros(8, dtype=np.int64)
        )
