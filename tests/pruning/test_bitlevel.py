"""The projection on codes: by hand, against every choice there is, and its bound."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reference
from bitline.errors import RangeError, ShapeError
from bitline.pruning.bitlevel import LevelProjection, _choose, _nearest, project_levels

TWO_BIT: dict[str, Any] = {"cell_bits": 2, "slices": 4, "high": 127}


def column(targets: list[float], limit: int, **options: Any) -> LevelProjection:
    return project_levels(np.array(targets, float)[:, None], len(targets), limit, **{**TWO_BIT, **options})


def check_fits(
    projected: LevelProjection, targets: np.ndarray, rows: int, limit: int, cell_bits: int, slices: int
) -> None:
    """Levels within the limit everywhere, and the cost is that of the codes."""
    for tile, start in enumerate(range(0, len(targets), rows)):
        codes, wanted = projected.codes[start : start + rows], targets[start : start + rows]
        for side, sign in enumerate((1, -1)):
            mine = np.maximum(sign * codes.astype(int), 0)
            for number in range(slices):
                levels = mine // 2 ** (cell_bits * number) % 2**cell_bits
                assert levels.sum(axis=0).max(initial=0) <= limit
            cost = (np.where(sign * wanted > 0, wanted - codes, 0.0) ** 2).sum(axis=0)
            assert np.allclose(projected.cost[tile, side], cost)
    assert (projected.codes * targets >= 0).all()


def test_by_hand() -> None:
    # The top slice of a limit of 3 holds three cells of 64. A fourth becomes 63, which fills the others with 3, 3, 3.
    assert sorted(column([64, 64, 64, 64], 3).codes.ravel()) == [63, 64, 64, 64]
    assert column([64, 64, 64, 64], 3).cost.sum() == 1
    # A fifth shares these cells: codes of sum 63, least far from 64 twice where they are 32 = 2 0 0 and 31 = 1 3 3.
    five = column([64] * 5, 3)
    assert sorted(five.codes.ravel()) == [31, 32, 64, 64, 64]
    assert five.cost.sum() == 32**2 + 33**2
    # The other sign has columns of its own.
    assert column([64, 64, 64, -64], 3).cost.sum() == 0
    # Plain rounding where it fits; of what is half-way the smaller.
    assert column([2.5, -3.2, 0.5, 100.4], 7).codes.ravel().tolist() == [2, -3, 0, 100]
    # One slice that holds a single full cell: 3 0 0 costs 2 * 0.9^2 = 1.62, 2 1 0 costs 1 + 0.01 + 0.81.
    assert column([3, 0.9, 0.9], 3, slices=1, high=3).codes.ravel().tolist() == [3, 0, 0]
    # With the next slice 4 stands for 3, and frees the lower cells.
    assert column([3, 1, 1], 3, slices=2, high=7).codes.ravel().tolist() == [4, 1, 1]


def test_a_pinned_weight_is_full_and_leaves_the_others_less() -> None:
    # 127 = 1 3 3 3 takes all lower cells of a limit of 3 and one of the top ones: two of 64 are left, then nothing.
    targets = np.array([[64.0, 120.0, 64.0, 64.0, 30.0, -20.0]]).T
    found = project_levels(targets, 6, 3, pinned=np.array([1]), **TWO_BIT)
    assert found.codes.ravel().tolist()[1::4] == [127, -20]
    assert sorted(found.codes.ravel()[[0, 2, 3, 4]].tolist()) == [0, 0, 64, 64]
    assert found.cost[0, :, 0].tolist() == [7**2 + 64**2 + 30**2, 0]
    # In another tile it takes nothing.
    tiled = project_levels(targets, 2, 3, pinned=np.array([1]), **TWO_BIT)
    assert tiled.codes.ravel().tolist() == [64, 127, 64, 64, 30, -20]


@given(
    st.lists(st.floats(0, 20), min_size=1, max_size=9),
    st.lists(st.floats(0, 60), min_size=2, max_size=2),
    st.integers(1, 2),
    st.data(),
)
def test_choice_at_prices_is_the_best_of_all(
    targets: list[float], prices: list[float], cell_bits: int, data: st.DataObject
) -> None:
    high = data.draw(st.integers(1, 4**cell_bits - 1))
    t, v = np.sort(targets), np.zeros(len(targets), np.int64)
    hull, lines = np.zeros(high + 1, np.int64), np.zeros((2, high + 1))
    total = _choose(t, len(t), np.array(prices), cell_bits, 2, high, hull, lines, v)
    best = [reference.priced_choice(x, prices, cell_bits, high) for x in t]
    assert total == pytest.approx(sum(value for _, value in best), abs=1e-6)
    for x, code in zip(t, v, strict=True):
        digits = reference.level_digits(int(code), cell_bits, 2)
        own = (x - code) ** 2 + sum(p * d for p, d in zip(prices, digits, strict=True))
        assert own == pytest.approx(reference.priced_choice(x, prices, cell_bits, high)[1], abs=1e-6)


@given(st.floats(0, 20), st.tuples(*[st.integers(0, 3)] * 2), st.integers(1, 15))
def test_nearest_code_under_caps_is_the_nearest_of_all(target: float, caps: tuple[int, int], high: int) -> None:
    fit = [
        code
        for code in range(high + 1)
        if all(d <= c for d, c in zip(reference.level_digits(code, 2, 2), caps, strict=True))
    ]
    found = _nearest(target, np.array(caps), 2, 2, high)
    assert found in fit
    assert abs(found - target) == pytest.approx(min(abs(code - target) for code in fit))


@given(
    st.lists(st.floats(-18, 18, width=32), min_size=1, max_size=7),
    st.integers(1, 2),
    st.integers(1, 7),
    st.integers(1, 7),
    st.data(),
)
@settings(max_examples=200)
def test_bound_least_cost_and_cost_stand_in_this_order(
    targets: list[float], cell_bits: int, rows: int, limit: int, data: st.DataObject
) -> None:
    slices = 2
    high = data.draw(st.integers(1, 4**cell_bits - 1))
    matrix = np.array(targets, float)[:, None]
    found = project_levels(matrix, rows, limit, cell_bits=cell_bits, slices=slices, high=high)
    check_fits(found, matrix, rows, limit, cell_bits, slices)
    for tile, start in enumerate(range(0, len(targets), rows)):
        for side, sign in enumerate((1, -1)):
            mine = [max(0.0, sign * x) for x in targets[start : start + rows]]
            least = reference.least_level_cost(mine, (limit,) * slices, cell_bits, high)
            assert found.bound[tile, side, 0] <= least + 1e-6
            assert least <= found.cost[tile, side, 0] + 1e-6


def test_the_twin_is_the_best_of_all_choices() -> None:
    # The budgets' table against every combination of codes.
    targets, budgets = [6.2, 3.0, 5.4], (2, 3)
    digits = {code: reference.level_digits(code, 2, 2) for code in range(8)}
    every = min(
        sum((t - c) ** 2 for t, c in zip(targets, codes, strict=True))
        for codes in itertools.product(range(8), repeat=3)
        if all(sum(digits[c][s] for c in codes) <= budgets[s] for s in range(2))
    )
    assert reference.least_level_cost(targets, budgets, 2, 7) == pytest.approx(every)


def test_near_the_best_on_columns_like_real_ones() -> None:
    # 7-bit codes in 2-bit cells at 2 bits, 12 weights of a bell curve: what the exact table can still hold.
    rng = np.random.default_rng(7)
    costs, bests, bounds = [], [], []
    for _ in range(8):
        targets = np.abs(rng.normal(0, 18, 12)).clip(0, 63)
        found = column(targets.tolist(), 3, slices=3, high=63)
        costs.append(found.cost.sum())
        bounds.append(found.bound.sum())
        bests.append(reference.least_level_cost(targets, (3, 3, 3), 2, 63))
    assert sum(bounds) <= sum(bests) <= sum(costs)
    assert sum(costs) <= 1.005 * sum(bests)
    assert sum(bounds) >= 0.98 * sum(bests)


def test_gap_is_small_on_full_columns() -> None:
    targets = np.random.default_rng(1).normal(0, 30, (288, 32)).clip(-127, 127)
    for limit, gap in ((3, 0.002), (7, 0.005), (15, 0.01)):
        found = project_levels(targets, 128, limit, **TWO_BIT)
        check_fits(found, targets, 128, limit, 2, 4)
        assert (found.bound <= found.cost).all()
        assert found.cost.sum() <= (1 + gap) * found.bound.sum()


def test_prices_of_before_give_codes_that_fit_and_are_near() -> None:
    rng = np.random.default_rng(2)
    targets = rng.normal(0, 30, (160, 24)).clip(-127, 127)
    first = project_levels(targets, 128, 7, **TWO_BIT)
    prices = first.prices.copy()
    for _ in range(4):
        targets = targets + rng.normal(0, 0.5, targets.shape)
        warm = project_levels(targets, 128, 7, prices=prices, **TWO_BIT)
        check_fits(warm, targets, 128, 7, 2, 4)
        assert (warm.bound <= warm.cost).all()
    assert not np.array_equal(prices, first.prices)  # they follow the targets
    assert warm.cost.sum() <= 1.05 * project_levels(targets, 128, 7, **TWO_BIT).cost.sum()


def test_bad_arguments() -> None:
    with pytest.raises(ShapeError, match=r"targets: must be a matrix .* not of shape \(3,\)"):
        project_levels(np.zeros(3), 3, 3, **TWO_BIT)
    with pytest.raises(RangeError, match=r"targets: must be finite"):
        column([1.0, np.nan], 3)
    with pytest.raises(RangeError, match=r"high: must be within 1\.\.255, found 256"):
        column([1.0], 3, high=256)
    with pytest.raises(RangeError, match=r"at least 3 and 1, found 2 and 1"):
        column([1.0], 2, pinned=np.array([0]))
    with pytest.raises(ShapeError, match=r"pinned: expected one row for each of 1 columns"):
        column([1.0], 3, pinned=np.array([0, 0]))
