"""SAR searches against a step-by-step search with a comparator: every sum, every threshold, every count."""

from __future__ import annotations

import itertools

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference as twin
from bitline import load_hardware
from bitline.crossbar.adc import AdcBits
from bitline.crossbar.certificate import column_bits
from bitline.crossbar.engines import Crossbars, Transfer
from bitline.crossbar.sar import (
    LayerSearch,
    Search,
    clipped_sums,
    count,
    count_early,
    output_lsb,
    plan_adaptive,
    plan_plain,
    plan_twin_range,
)
from bitline.errors import ConfigError, RangeError, ShapeError
from bitline.hardware import Hardware, Readout
from strategies import SMALL, Problem, examples, hardware, problems

ENCODINGS = [("differential", "digital"), ("differential", "analog"), ("offset", "digital"), ("offset_flip", "digital")]


def every_search(most_bits: int, analog: bool) -> list[Search]:
    """All searches of up to so many bits."""
    found = []
    for bits in range(most_bits + 1):
        found += [Search(bits=bits, far_step=step) for step in range(bits + 1)]
        for near in range(bits - 1 if analog else bits):
            for far_step, near_step in itertools.product(range(near + 1), repeat=2):
                if near_step <= far_step:
                    found.append(Search(bits=bits, near_bits=near, near_step=near_step, far_step=far_step))
    return found


# ---- one conversion ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("readout", list(Readout))
def test_every_search_of_every_sum_equals_the_search_step_by_step(readout: Readout) -> None:
    analog = readout is Readout.ANALOG
    entries = 2**7  # sums beyond what 6 bits hold, too
    for search in every_search(4 if SMALL else 6, analog):
        table = search.table(entries, readout)
        for entry in range(entries):
            value, word, asked = twin.sar_search(search, entry - entries // 2 if analog else entry, analog)
            assert table.values[entry] == value, (search, entry)
            assert table.comparisons[entry] == len(asked), (search, entry, asked)
            assert len(set(asked)) == len(asked), (search, entry, asked)  # no question is asked twice
            assert format(table.words[entry], f"0{max(1, len(word))}b") == (word or "0"), (search, entry)
            assert search.word_bits(readout) == len(word)


@pytest.mark.parametrize(
    ("search", "s", "value", "asked"),
    [
        (Search(bits=3), 5, 5, [4, 6, 5]),
        (Search(bits=3), 9, 7, [4, 6, 7]),  # saturated
        (Search(bits=8, near_bits=0), 0, 0, [1]),  # an empty column takes one comparison
        (Search(bits=4, near_bits=2), 3, 3, [4, 2, 3]),
        (Search(bits=4, near_bits=2), 6, 6, [4, 8, 6, 7]),  # below 8 bit 2 must be 1: as many as plain, not one more
        (Search(bits=4, near_bits=2), 9, 9, [4, 8, 12, 10, 9]),
        (Search(bits=4, near_bits=2, far_step=1), 6, 6, [4, 7, 5]),  # thresholds half a step, here 1, lower
        (Search(bits=4, near_bits=2, far_step=1), 15, 14, [4, 7, 11, 13]),  # 15 would round to 16: the top code stays
        (Search(bits=4, far_step=2), 6, 8, [6, 10]),  # half a step rounds up
        (Search(bits=4, far_step=4), 15, 0, []),
    ],
)
def test_searches_by_hand(search: Search, s: int, value: int, asked: list[int]) -> None:
    assert twin.sar_search(search, s)[0::2] == (value, asked)
    table = search.table(16, Readout.DIGITAL)
    assert (table.values[s], table.comparisons[s]) == (value, len(asked))


def test_analog_search_by_hand() -> None:
    """4 bits: the sign, then -1 - s = 4 of 3 bits: 4? yes, 6? no, 5? no."""
    assert twin.sar_search(Search(bits=4), -5, analog=True) == (-5, "1100", [0, -4, -6, -5])
    table = Search(bits=4).table(16, Readout.ANALOG)
    assert (table.values[3], table.comparisons[3], table.words[3]) == (-5, 4, 0b1100)


@pytest.mark.parametrize("readout", list(Readout))
def test_lossless_searches_read_the_sum_and_words_tell_values_apart(readout: Readout) -> None:
    entries = 64
    sums = np.arange(entries) - (entries // 2 if readout is Readout.ANALOG else 0)
    for search in every_search(6, readout is Readout.ANALOG):
        table = search.table(entries, readout)
        if search.lossless and search.bits == 6:
            np.testing.assert_array_equal(table.values, sums)
            assert table.comparisons.max() <= 6 + 1
        pairs = set(zip(table.words.tolist(), table.values.tolist(), strict=True))
        assert len(pairs) == len({word for word, _ in pairs})  # a word stands for one value


@pytest.mark.parametrize(
    "fields",
    [
        {"bits": -1},
        {"bits": 3, "far_step": 4},
        {"bits": 3, "near_step": 1},
        {"bits": 3, "near_bits": 3},
        {"bits": 3, "near_bits": -1},
        {"bits": 3, "near_bits": 1, "far_step": 2},
        {"bits": 3, "near_bits": 2, "far_step": 1, "near_step": 2},
    ],
)
def test_impossible_searches_are_refused(fields: dict[str, int]) -> None:
    with pytest.raises(RangeError, match="search: "):
        Search(**fields)


def test_analog_near_range_must_fit_the_magnitude() -> None:
    with pytest.raises(RangeError, match="magnitude's 2 bits"):
        Search(bits=3, near_bits=2).table(8, Readout.ANALOG)


# ---- a product ---------------------------------------------------------------------------------------------------


def bits_of(hw: Hardware, adc: twin.Adc) -> AdcBits:
    return AdcBits(per_slice=adc.slices, unit=None if hw.encoding == "differential" else adc.unit)


def random_search(rng: np.random.Generator, hw: Hardware, adc: AdcBits) -> LayerSearch:
    """Any searches at all, another one for every input cycle and slice, and the unit column."""
    analog = hw.readout == "analog"

    def one(bits: int) -> Search:
        top = bits - 1 if analog else bits
        if top < 1 or rng.random() < 0.3:
            return Search(bits=bits, far_step=int(rng.integers(0, bits + 1)))
        near = int(rng.integers(0, top))
        far_step = int(rng.integers(0, near + 1))
        return Search(bits=bits, near_bits=near, far_step=far_step, near_step=int(rng.integers(0, far_step + 1)))

    cycles = tuple(tuple(one(bits) for bits in adc.per_slice) for _ in range(hw.input_cycles))
    return LayerSearch(slices=cycles, unit=None if adc.unit is None else one(adc.unit))


def transfer_of(search: LayerSearch, hw: Hardware, adc: AdcBits) -> Transfer:
    values = search.values(hw, adc)
    return Transfer(values=values, counts=np.zeros_like(values))


@pytest.mark.parametrize(("encoding", "readout"), ENCODINGS)
def test_searched_products_equal_the_twin(encoding: str, readout: str) -> None:
    """Outputs and comparisons of any searches, lossy ones among them, in every encoding, signed inputs or not."""

    @examples(25)
    @given(problems(hardware(encoding=encoding, readout=readout), max_rows=100), st.integers(0, 2**32 - 1))
    def check(problem: Problem, seed: int) -> None:
        hw, x, w = problem.hw, problem.x, problem.w
        resolution = twin.resolve_adc(w, hw, problem.signed_inputs)
        if max(*resolution.slices, resolution.unit) > 10:
            resolution = twin.Adc(tuple(min(bits, 10) for bits in resolution.slices), min(resolution.unit, 10))
        adc = bits_of(hw, resolution)
        search = random_search(np.random.default_rng(seed), hw, adc)
        y, comparisons = twin.searched_matmul(x, w, hw, resolution, search, problem.signed_inputs)
        transfer = transfer_of(search, hw, adc)
        product = Crossbars(w, hw, signed_inputs=problem.signed_inputs, adc=adc).multiply(x, transfer=transfer)
        np.testing.assert_array_equal(product.y, y)
        counted = count(search, transfer.counts, hw, adc)
        assert counted.comparisons.sum() == comparisons
        assert counted.conversions.sum() == product.conversions
        ideal = twin.matmul(x, w, hw, resolution, problem.signed_inputs)
        assert (product.saturations, product.max_column_sum) == (ideal.saturations, ideal.max_column_sum)

    check()


@pytest.mark.parametrize(("far_step", "y"), [(0, 0), (1, -2)])
def test_unit_column_is_read_as_its_search_says(far_step: int, y: int) -> None:
    """Three weights of 0 are cells of 2: the column sums to 6, the unit column to 3, which a step of 2 reads as 4."""
    hw = load_hardware("tinyadc", input_bits=1, weight_bits=2, encoding="offset", adc_bits=3)
    crossbars = Crossbars(np.zeros((3, 1), dtype=int), hw)
    search = LayerSearch(slices=((Search(bits=3),),), unit=Search(bits=3, far_step=far_step))
    transfer = transfer_of(search, hw, crossbars.adc)
    assert crossbars.multiply(np.ones((1, 3), dtype=int), transfer=transfer).y.tolist() == [[y]]
    assert [np.flatnonzero(row).tolist() for row in transfer.counts[0]] == [[6], [3]]
    assert count(search, transfer.counts, hw, crossbars.adc).comparisons.tolist() == [3, 3 - far_step]


def load(hw: Hardware, vectors: int, columns: int = 13) -> tuple[np.ndarray, np.ndarray]:
    """A product whose columns have all densities."""
    rng = np.random.default_rng(11)
    w = rng.integers(-127, 128, size=(150, columns))
    w[rng.random(w.shape) < np.linspace(0, 1, columns)] = 0
    return rng.integers(0, 2**hw.input_bits, size=(vectors, 150)), w


@pytest.mark.parametrize(("encoding", "readout"), ENCODINGS)
def test_lossless_twin_range_is_plain_conversion_with_fewer_comparisons(encoding: str, readout: str) -> None:
    """Bit-identical outputs, and exactly the comparisons of the search step by step, planned on other inputs."""
    hw = load_hardware("tinyadc", rows=64, encoding=encoding, readout=readout, input_bits=2 if SMALL else 4)
    x, w = load(hw, 4, 5)
    crossbars = Crossbars(w, hw)
    adc = crossbars.adc
    calibration = transfer_of(plan_plain(hw, adc), hw, adc)
    crossbars.multiply(x[:2], transfer=calibration)
    plan = plan_twin_range(calibration.counts, hw, adc)
    assert plan.lossless
    transfer = transfer_of(plan, hw, adc)
    product = crossbars.multiply(x, transfer=transfer)
    plain = crossbars.multiply(x)
    np.testing.assert_array_equal(product.y, plain.y)
    np.testing.assert_array_equal(plain.y, x @ w)
    resolution = twin.Adc(adc.per_slice, adc.unit or 1)
    y, comparisons = twin.searched_matmul(x, w, hw, resolution, plan)
    np.testing.assert_array_equal(product.y, y)
    made = int(count(plan, transfer.counts, hw, adc).comparisons.sum())
    assert made == comparisons
    in_full = count(plan_plain(hw, adc), transfer.counts, hw, adc)
    assert in_full.comparisons.sum() == sum(
        bits * n for bits, n in zip((*adc.per_slice, adc.unit or 0), in_full.conversions, strict=True)
    )
    assert made < int(in_full.comparisons.sum())


@pytest.mark.parametrize(("encoding", "readout"), ENCODINGS)
def test_counts_add_up_over_batches_threads_and_groups(encoding: str, readout: str) -> None:
    hw = load_hardware("tinyadc", adc_bits=5, encoding=encoding, readout=readout, input_bits=2 if SMALL else 8)
    x, w = load(hw, 5 if SMALL else 61)
    crossbars = Crossbars(w, hw)
    search = random_search(np.random.default_rng(5), hw, crossbars.adc)
    whole = transfer_of(search, hw, crossbars.adc)
    product = crossbars.multiply(x, transfer=whole)
    parts = transfer_of(search, hw, crossbars.adc)
    threads = numba.get_num_threads()
    try:
        for first, last in itertools.pairwise([0, 1, 3, 3, len(x)]):
            numba.set_num_threads(1 if first else threads)
            part = crossbars.multiply(x[first:last], transfer=parts)
            np.testing.assert_array_equal(part.y, product.y[first:last])
    finally:
        numba.set_num_threads(threads)
    np.testing.assert_array_equal(parts.counts, whole.counts)
    assert whole.counts.sum() == product.conversions
    both = Crossbars(np.stack([w, w]), hw, adc=crossbars.adc)
    doubled = transfer_of(search, hw, crossbars.adc)
    both.multiply(np.concatenate([x, x], axis=1), transfer=doubled)
    np.testing.assert_array_equal(doubled.counts, 2 * whole.counts)


def test_plain_search_is_the_engine_without_one() -> None:
    """128 rows, 200 vectors: the engine takes its fast paths without a search, the table with one."""
    hw = load_hardware("tinyadc", adc_bits=5, input_bits=1 if SMALL else 8)
    x, w = load(hw, 140 if SMALL else 200)
    crossbars = Crossbars(w, hw)
    transfer = transfer_of(plan_plain(hw, crossbars.adc), hw, crossbars.adc)
    product, plain = crossbars.multiply(x, transfer=transfer), crossbars.multiply(x)
    np.testing.assert_array_equal(product.y, plain.y)
    assert (product.conversions, product.saturations, product.max_column_sum) == (
        plain.conversions,
        plain.saturations,
        plain.max_column_sum,
    )
    assert plain.saturations > 0


def test_transfers_that_do_not_fit_are_refused() -> None:
    hw = load_hardware("tinyadc", adc_bits=4)
    crossbars = Crossbars(np.ones((4, 3), dtype=int), hw)
    good = transfer_of(plan_plain(hw, crossbars.adc), hw, crossbars.adc)
    x = np.ones((2, 4), dtype=int)
    with pytest.raises(ConfigError, match="bitserial"):
        crossbars.multiply(x, transfer=good, engine="certified")
    for values, counts in [
        (good.values[:, :, :8], good.counts),
        (good.values, good.counts[:7]),
        (good.values, good.counts.astype(np.int32)),
    ]:
        with pytest.raises(ShapeError, match="must be int64 of shape"):
            crossbars.multiply(x, transfer=Transfer(values=values, counts=counts))


def test_searches_of_another_layer_are_refused() -> None:
    hw = load_hardware("tinyadc", adc_bits=4)
    adc = AdcBits.uniform(4, hw)
    plan = plan_plain(hw, adc)
    other = hw.replace(input_bits=4)
    with pytest.raises(ShapeError, match="4 input cycles"):
        plan.tables(other, adc)
    with pytest.raises(ShapeError, match="unit column"):
        plan.tables(hw, AdcBits(per_slice=adc.per_slice, unit=4))
    with pytest.raises(ShapeError, match="'codes'"):
        count(plan, np.zeros((8, 5, 8), np.int64), hw, adc)
    with pytest.raises(ShapeError, match="'codes'"):
        plan_twin_range(np.zeros((8, 5, 8), np.int64), hw, adc)


# ---- plans -------------------------------------------------------------------------------------------------------


def some_codes(rng: np.random.Generator, hw: Hardware, adc: AdcBits) -> np.ndarray:
    """Conversions that crowd near zero."""
    shape = (hw.input_cycles, hw.slices + 1, 1 << adc.bits)
    sums = np.arange(shape[2]) - (shape[2] // 2 if hw.readout == "analog" else 0)
    codes = rng.poisson(60 * np.exp(-np.abs(sums) / 4), size=shape).astype(np.int64)
    if adc.unit is None:
        codes[:, -1] = 0
    return codes


def cost_and_error(plan: LayerSearch, codes: np.ndarray, hw: Hardware, adc: AdcBits) -> tuple[int, float, float]:
    """Comparisons, weighted squared error and weighted square of the sums, entry by entry through the twin."""
    analog = hw.readout == "analog"
    cost, error, signal = 0, 0.0, 0.0
    for i, j, entry in zip(*np.nonzero(codes[:, :-1]), strict=True):
        s = int(entry) - (codes.shape[2] // 2 if analog else 0)
        low, high = (-(2 ** (adc.per_slice[j] - 1)), 2 ** (adc.per_slice[j] - 1) - 1) if analog else (0, 2**16)
        s = min(max(s, low), high)
        value, _, asked = twin.sar_search(plan.slices[i][j], s, analog)
        weight = int(codes[i, j, entry]) * 4 ** (hw.dac_bits * int(i) + hw.cell_bits * int(j))
        cost += len(asked) * int(codes[i, j, entry])
        error += weight * (value - s) ** 2
        signal += weight * s**2
    return cost, error, signal


def brute_force(codes: np.ndarray, hw: Hardware, adc: AdcBits, budget: float) -> int:
    """Fewest comparisons of any combination of searches within the budget."""
    choices = []
    for j, bits in enumerate(adc.per_slice):
        only = np.zeros_like(codes)
        only[:, j] = codes[:, j]
        choices.append([])
        for search in every_search(bits, hw.readout == "analog"):
            if search.bits == bits:
                plan = LayerSearch(slices=((search,) * hw.slices,) * hw.input_cycles)
                choices[-1].append(cost_and_error(plan, only, hw, adc))
    signal = sum(parts[0][2] for parts in choices)
    return min(
        sum(part[0] for part in parts)
        for parts in itertools.product(*choices)
        if sum(part[1] for part in parts) <= budget * signal
    )


@pytest.mark.parametrize("readout", ["digital", "analog"])
@pytest.mark.parametrize("budget", [0.0, 0.003, 0.03, 0.3, 2.0])
def test_lossy_plan_is_the_best_within_its_budget(budget: float, readout: str) -> None:
    hw = load_hardware("tinyadc", input_bits=2, weight_bits=5, readout=readout)  # two slices
    adc = AdcBits(per_slice=(4, 5))
    codes = some_codes(np.random.default_rng(3), hw, adc)[:, :, : 1 << adc.bits]
    origin = codes.shape[2] // 2 if readout == "analog" else 0
    codes[:, 0, origin + 8 if readout == "analog" else 16 :] = 0  # slice 0 has 4 bits
    codes[:, 0, : max(0, origin - 8)] = 0
    plan = plan_twin_range(codes, hw, adc, budget=budget)
    cost, error, signal = cost_and_error(plan, codes, hw, adc)
    assert error <= budget * signal
    assert cost == brute_force(codes, hw, adc, budget)
    assert cost == count(plan, codes, hw, adc).comparisons.sum()


def test_rounded_costs_stay_close_to_the_best() -> None:
    """A million conversions: comparisons are minimised in steps of a thousandth a slice."""
    hw = load_hardware("tinyadc", input_bits=2, weight_bits=5)
    adc = AdcBits(per_slice=(4, 4))
    codes = 5000 * some_codes(np.random.default_rng(4), hw, adc) + 1
    codes[:, -1] = 0
    plain = count(plan_plain(hw, adc), codes, hw, adc).comparisons.sum()
    cost, error, signal = cost_and_error(plan_twin_range(codes, hw, adc, budget=0.02), codes, hw, adc)
    assert error <= 0.02 * signal
    assert brute_force(codes, hw, adc, 0.02) <= cost <= brute_force(codes, hw, adc, 0.02) + 2 * -(-plain // 1000)


def test_lossless_plan_is_the_best_near_range_of_each_slice() -> None:
    hw = load_hardware("tinyadc", encoding="offset", input_bits=2, weight_bits=4)
    adc = AdcBits(per_slice=(4, 5), unit=3)
    codes = some_codes(np.random.default_rng(6), hw, adc)
    codes[:, 0, 16:] = codes[:, 2, 8:] = 0
    plan = plan_twin_range(codes, hw, adc)
    assert plan.unit is not None
    for row, search in [*enumerate(plan.slices[0]), (2, plan.unit)]:
        totals = {
            other: sum(int(n) * len(twin.sar_search(other, s)[2]) for s, n in enumerate(codes[:, row].sum(axis=0)))
            for other in every_search(search.bits, False)
            if other.bits == search.bits and other.lossless
        }
        assert totals[search] == min(totals.values()) < totals[Search(bits=search.bits)]


def test_sums_that_do_not_crowd_need_no_range_check() -> None:
    hw = load_hardware("tinyadc")
    adc = AdcBits.uniform(5, hw)
    codes = np.zeros((8, 5, 32), np.int64)
    codes[:, :4, 17:] = 1
    assert plan_twin_range(codes, hw, adc) == plan_plain(hw, adc)


def test_certified_bits_shorten_the_search() -> None:
    hw = load_hardware("tinyadc")
    adc = AdcBits.uniform(8, hw)
    codes = np.zeros((8, 5, 256), np.int64)
    codes[:, :4, :16] = 1
    plan = plan_twin_range(codes, hw, adc, bits=(4, 5, 9, 0))
    assert [search.bits for search in plan.slices[0]] == [4, 5, 8, 0]
    with pytest.raises(RangeError, match="'bits'"):
        plan_twin_range(codes, hw, adc, bits=(3, 4, 4, 4), budget=0.0)
    with pytest.raises(RangeError, match="'budget'"):
        plan_twin_range(codes, hw, adc, budget=-0.1)


def test_adaptive_resolves_what_reaches_the_output() -> None:
    """Least significant bit 2^5: cycle 0 drops 5 - 2 j bits of slice j, cycle 4 one of slice 0, cycle 5 none."""
    hw = load_hardware("tinyadc")
    adc = AdcBits.uniform(4, hw)
    plan = plan_adaptive(hw, adc, 5)
    assert [search.far_step for search in plan.slices[0]] == [4, 3, 1, 0]  # of 4 bits no more than 4
    assert [search.far_step for search in plan.slices[4]] == [1, 0, 0, 0]
    assert [search.far_step for search in plan.slices[5]] == [0, 0, 0, 0]
    assert plan_adaptive(hw, adc, 0) == plan_plain(hw, adc)
    with pytest.raises(RangeError, match="'lsb'"):
        plan_adaptive(hw, adc, -1)


@pytest.mark.parametrize(
    ("weights", "signed", "bits", "lsb"),
    [
        ([[127], [3]], False, 16, 0),  # 255 * 130 = 33150: 16 bits and a sign are 17; see the next rows
        ([[127], [1]], False, 16, 0),
        ([[127], [1]], False, 8, 8),  # 255 * 128 = 32640: 15 bits and a sign are 16
        ([[127], [-127]], True, 16, 0),  # 127 * 127 + 128 * 127 = 32385
        ([[-127], [-127]], True, 8, 8),  # -128 * -254 = 32512
    ],
)
def test_output_register_by_hand(weights: list[list[int]], signed: bool, bits: int, lsb: int) -> None:
    hw = load_hardware("tinyadc")
    expected = 1 if weights == [[127], [3]] else lsb
    assert output_lsb(np.array([weights], np.int32), hw, signed, bits) == expected


@examples(60)
@given(problems(hardware(), max_rows=80))
def test_column_bits_and_early_counts_equal_the_twin(problem: Problem) -> None:
    hw, w = problem.hw, np.asarray(problem.w)
    table = twin.s_max_table(w, hw, problem.signed_inputs)
    wanted: list[list[int]] = [[] for _ in range(hw.slices)]
    units = []
    for (tile, j, sign, n), s_max in table.items():
        if j == -1:
            units.append(twin.column_bits(s_max))
        elif hw.readout == "analog":
            if sign == 1:
                wanted[j].append(twin.pair_bits(s_max, table[tile, j, -1, n]))
        else:
            wanted[j].append(twin.column_bits(s_max))
    bits, unit_bits = column_bits(w[None].astype(np.int32), hw, problem.signed_inputs)
    assert [sorted(bits[:, j].ravel().tolist()) for j in range(hw.slices)] == [sorted(row) for row in wanted]
    assert unit_bits.tolist() == units
    resolution = AdcBits(per_slice=(5,) * hw.slices, unit=3 if units else None)
    codes = np.zeros((hw.input_cycles, hw.slices + 1, 32), np.int64)
    for j, row in enumerate(wanted):
        codes[:, j, 0] = 7 * len(row)  # 7 vectors, every column once a cycle
    codes[:, -1, 0] = 7 * len(units)
    found = count_early(w[None].astype(np.int32), codes, hw, resolution, problem.signed_inputs)
    cycles = hw.input_cycles
    expected = [7 * cycles * sum(min(5, n) for n in row) for row in wanted]
    assert found.comparisons.tolist() == [*expected, 7 * cycles * sum(min(3, n) for n in units)]


def test_clipped_sums_are_what_ideal_adcs_read() -> None:
    hw = load_hardware("tinyadc")
    sums = clipped_sums(hw, AdcBits(per_slice=(3, 2, 3, 3)))
    assert sums.shape == (8, 5, 8)
    assert sums[7, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert sums[7, 1].tolist() == [0, 1, 2, 3, 3, 3, 3, 3]
    analog = hw.replace(readout="analog")
    assert clipped_sums(analog, AdcBits.uniform(2, analog))[0, 0].tolist() == [-2, -1, 0, 1]
