"""CP projection against brute force, by properties, and against matrices written by hand."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bitline.errors import RangeError, ShapeError
from bitline.pruning.projections import count_cp_violations, nonzeros_per_column, project_cp

INTEGERS = st.integers(-3, 3).map(float)  # many ties, and sums of squares are exact


@st.composite
def cases(draw: st.DrawFn, elements: st.SearchStrategy[float] = INTEGERS) -> tuple[np.ndarray, float, int]:
    """A matrix, a rate and a tile height; row counts around multiples of the height."""
    rows = draw(st.integers(1, 6))
    rate = draw(st.floats(1, rows) | st.integers(1, rows))
    shape = (draw(st.integers(1, 13)), draw(st.integers(1, 3)))
    dtype = draw(st.sampled_from((np.float32, np.float64)))
    return draw(arrays.arrays(dtype, shape, elements=elements)), rate, rows


def brute_force(matrix: np.ndarray, rate: float, rows: int) -> np.ndarray:
    """Try every set of rows to keep in every column of every tile; of the nearest take the lexicographically first."""
    limit = max(1, int(rows // rate))
    result = np.zeros_like(matrix)
    for start in range(0, matrix.shape[0], rows):
        for column in range(matrix.shape[1]):
            part = matrix[start : start + rows, column]
            options = combinations(range(len(part)), min(limit, len(part)))
            best = min(options, key=lambda kept: (sum(v * v for i, v in enumerate(part) if i not in kept), kept))
            for row in best:
                result[start + row, column] = part[row]
    return result


@given(cases())
def test_projection_equals_brute_force(case: tuple[np.ndarray, float, int]) -> None:
    matrix, rate, rows = case
    projected = project_cp(matrix, rate, rows)
    assert projected.dtype == matrix.dtype
    np.testing.assert_array_equal(projected, brute_force(matrix, rate, rows))


@given(cases(st.floats(-1e3, 1e3, width=32)), st.randoms(use_true_random=False))
def test_projection_is_feasible_idempotent_and_nearest(case: tuple[np.ndarray, float, int], random: object) -> None:
    matrix, rate, rows = case
    projected = project_cp(matrix, rate, rows)
    assert count_cp_violations(projected, rate, rows) == 0
    assert (projected[projected != 0] == matrix[projected != 0]).all()
    np.testing.assert_array_equal(project_cp(projected, rate, rows), projected)
    # Any other member of the set: random rows kept, their values as they were (other values are only further away).
    limit = nonzeros_per_column(rate, rows)
    other = np.zeros_like(matrix)
    for start in range(0, matrix.shape[0], rows):
        height = min(rows, matrix.shape[0] - start)
        for column in range(matrix.shape[1]):
            kept = start + np.array(random.sample(range(height), min(limit, height)))  # type: ignore[attr-defined]
            other[kept, column] = matrix[kept, column]
    distances = [float(np.square(matrix.astype(np.float64) - m).sum()) for m in (projected, other)]
    assert distances[0] <= distances[1]


@given(cases())
def test_violations_count_the_excess(case: tuple[np.ndarray, float, int]) -> None:
    matrix, rate, rows = case
    limit = nonzeros_per_column(rate, rows)
    excess = 0
    for start in range(0, matrix.shape[0], rows):
        for column in matrix[start : start + rows].T:
            excess += max(0, sum(1 for value in column if value != 0) - limit)
    assert count_cp_violations(matrix, rate, rows) == excess


def test_hand_made_tiles_and_ties() -> None:
    # Tiles of 4 rows at rate 2: two non-zeros a column; rows 4 and 5 are a last tile, short and so within the limit.
    matrix = np.array(
        [
            [1.0, 2.0, 0.0],
            [-4.0, -2.0, 0.0],
            [3.0, 2.0, 0.0],
            [2.0, -2.0, 7.0],
            [0.1, 5.0, -1.0],
            [0.2, 6.0, -2.0],
        ]
    )
    expected = np.array(
        [
            [0.0, 2.0, 0.0],
            [-4.0, -2.0, 0.0],
            [3.0, 0.0, 0.0],
            [0.0, 0.0, 7.0],
            [0.1, 5.0, -1.0],
            [0.2, 6.0, -2.0],
        ]
    )
    before = matrix.copy()
    np.testing.assert_array_equal(project_cp(matrix, 2, 4), expected)
    np.testing.assert_array_equal(matrix, before)
    assert count_cp_violations(matrix, 2, 4) == 4


def test_last_short_tile_keeps_the_same_number() -> None:
    # 3 rows beyond a tile of 4, at rate 4: one non-zero in each tile, not one in four of the last tile's rows.
    matrix = np.array([[1.0], [2.0], [3.0], [4.0], [5.0], [7.0], [6.0]])
    np.testing.assert_array_equal(project_cp(matrix, 4, 4).ravel(), [0, 0, 0, 4, 0, 7, 0])


def test_no_negative_zeros() -> None:
    projected = project_cp(np.array([[-1.0], [-2.0]], np.float32), 2, 2)
    assert not np.signbit(projected[0, 0])


@pytest.mark.parametrize(
    ("rate", "rows", "expected"),
    [(1, 128, 128), (16, 128, 8), (32, 128, 4), (128, 128, 1), (3, 128, 42), (100, 128, 1), (1.5, 64, 42), (1, 1, 1)],
)
def test_nonzeros_of_a_rate(rate: float, rows: int, expected: int) -> None:
    assert nonzeros_per_column(rate, rows) == expected


@pytest.mark.parametrize("rate", [0.99, 0, -1, 129, float("nan"), float("inf"), True, "16"])
def test_impossible_rates_are_refused(rate: object) -> None:
    with pytest.raises(RangeError, match=r"rate: must be within 1\.\.128"):
        project_cp(np.zeros((2, 2)), rate)  # type: ignore[arg-type]


@pytest.mark.parametrize("rows", [0, -4, 1.5, True])
def test_impossible_rows_are_refused(rows: object) -> None:
    with pytest.raises(RangeError, match="rows: must be an integer of at least 1"):
        nonzeros_per_column(1, rows)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(RangeError, match="must be finite"):
        project_cp(np.array([[1.0, 2.0], [bad, 0.0]]), 1)


def test_other_than_float_matrices_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"found int64 of shape \(2, 2\)"):
        project_cp(np.zeros((2, 2), np.int64), 1)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match=r"found float64 of shape \(4,\)"):
        project_cp(np.zeros(4), 1)


def test_empty_matrices_stay() -> None:
    assert project_cp(np.zeros((0, 3)), 2).shape == (0, 3)
    assert count_cp_violations(np.zeros((0, 3)), 2) == 0
