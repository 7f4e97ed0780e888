"""Structured projections against brute force over every set of rows, columns or weights."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import reference as twin
from bitline.errors import RangeError, ShapeError
from bitline.pruning.blocks import project_bcr
from bitline.pruning.constraints import (
    BlockColumnRow,
    ConstraintSet,
    Filter,
    FilterShape,
    PackedColumnProportional,
    Unstructured,
    combined,
)
from bitline.pruning.structured import (
    kept_multiple,
    project_filter,
    project_filter_shape,
    project_unstructured,
)


def matrices(most: int = 6) -> st.SearchStrategy[np.ndarray]:
    """Small matrices of small integers (sums of squares are exact, ties are frequent)."""
    shapes = st.tuples(st.integers(1, most), st.integers(1, most))
    return shapes.flatmap(lambda s: arrays.arrays(np.float64, s, elements=st.integers(-3, 3).map(float)))


def nearest(matrix: np.ndarray, masks: Iterable[np.ndarray]) -> np.ndarray:
    """The matrix under the first of the masks that keeps the largest sum of squares."""
    best = max(masks, key=lambda mask: float(np.square(matrix[mask]).sum()))
    return np.where(best, matrix, 0.0)


def row_masks(shape: tuple[int, int], count: int) -> Iterable[np.ndarray]:
    for rows in combinations(range(shape[0]), count):
        mask = np.zeros(shape, bool)
        mask[list(rows)] = True
        yield mask


def block_masks(shape: tuple[int, int], kept: tuple[int, int]) -> Iterable[np.ndarray]:
    for rows in combinations(range(shape[0]), min(kept[0], shape[0])):
        for columns in combinations(range(shape[1]), min(kept[1], shape[1])):
            mask = np.zeros(shape, bool)
            mask[np.ix_(rows, columns)] = True
            yield mask


@given(matrices(), st.floats(1, 6), st.integers(1, 4))
def test_filters_and_filter_shapes(matrix: np.ndarray, rate: float, multiple: int) -> None:
    rows = kept_multiple(matrix.shape[0], rate, multiple)
    np.testing.assert_array_equal(
        project_filter_shape(matrix, rate, multiple), nearest(matrix, row_masks(matrix.shape, rows))
    )
    columns = kept_multiple(matrix.shape[1], rate, multiple)
    by_columns = nearest(matrix.T, row_masks(matrix.T.shape, columns)).T
    np.testing.assert_array_equal(project_filter(matrix, rate, multiple), by_columns)


@pytest.mark.parametrize(
    ("size", "rate", "multiple", "expected"),
    [(576, 2, 128, 384), (512, 2, 128, 256), (512, 4, 128, 128), (144, 2, 128, 128), (64, 4, 128, 64), (64, 4, 16, 16)],
)
def test_kept_multiples_by_hand(size: int, rate: float, multiple: int, expected: int) -> None:
    assert kept_multiple(size, rate, multiple) == expected


@given(matrices(3), st.floats(1, 9))
def test_unstructured(matrix: np.ndarray, rate: float) -> None:
    rate = min(rate, matrix.size)
    count = max(1, int(matrix.size // rate))
    masks = []
    for kept in combinations(range(matrix.size), count):  # positions in the order of columns
        mask = np.zeros(matrix.size, bool)
        mask[list(kept)] = True
        masks.append(mask.reshape(matrix.T.shape).T)
    np.testing.assert_array_equal(project_unstructured(matrix, rate), nearest(matrix, masks))


@st.composite
def blocks(draw: st.DrawFn, most: int = 4) -> tuple[tuple[int, int], tuple[int, int]]:
    block = draw(st.tuples(st.integers(1, most), st.integers(1, most)))
    return block, (draw(st.integers(1, block[0])), draw(st.integers(1, block[1])))


@given(matrices(), blocks())
@settings(max_examples=150)
def test_block_column_row_is_nearest(matrix: np.ndarray, sizes: tuple[tuple[int, int], tuple[int, int]]) -> None:
    block, kept = sizes
    projected = project_bcr(matrix, block, kept)
    for top, left in product(range(0, matrix.shape[0], block[0]), range(0, matrix.shape[1], block[1])):
        part = matrix[top : top + block[0], left : left + block[1]]
        mine = projected[top : top + block[0], left : left + block[1]]
        best = nearest(part, block_masks(part.shape, kept))
        # Several choices may be equally near: the distance is what counts, and that the choice is of the set.
        assert np.square(part - mine).sum() == np.square(part - best).sum()
        assert ((mine == 0) | (mine == part)).all()
        assert np.count_nonzero(mine.any(axis=1)) <= kept[0]
        assert np.count_nonzero(mine.any(axis=0)) <= kept[1]
    np.testing.assert_array_equal(project_bcr(projected, block, kept), projected)


@settings(max_examples=60)
@given(matrices(10), blocks(6), st.sampled_from([np.float32, np.float64]), st.integers(0, 2))
def test_kernel_is_its_twin(
    matrix: np.ndarray, sizes: tuple[tuple[int, int], tuple[int, int]], dtype: type, noise: int
) -> None:
    # Without noise many totals are equal; with it the last bits of the sums decide.
    values = (matrix + noise * np.random.default_rng(noise).standard_normal(matrix.shape)).astype(dtype)
    for given_as in (values, np.asfortranarray(values)):
        projected = project_bcr(given_as, *sizes)
        assert projected.dtype == dtype
        np.testing.assert_array_equal(projected, twin.project_bcr(values, *sizes))


@pytest.mark.parametrize("transposed", [False, True])
def test_many_blocks_in_many_threads(transposed: bool) -> None:
    # 21 x 17 whole blocks fill more than one thread's share of 8 x 32, and the shorter ones at the edges come besides.
    matrix = np.random.default_rng(0).standard_normal((21 * 8 + 3, 17 * 8 + 5)).astype(np.float32)
    matrix[:40] = np.round(matrix[:40])
    matrix = matrix.T if transposed else matrix
    for kept in ((2, 2), (1, 6)):
        expected = twin.project_bcr(matrix, (8, 8), kept)
        np.testing.assert_array_equal(project_bcr(matrix, (8, 8), kept), expected)


def test_half_precision_and_no_blocks() -> None:
    matrix = np.array([[1, -2], [3, 0.5]], np.float16)
    projected = project_bcr(matrix, (2, 2), (1, 1))
    assert projected.dtype == np.float16
    np.testing.assert_array_equal(projected, np.array([[0, 0], [3, 0]], np.float16))
    assert project_bcr(np.zeros((0, 5)), (8, 8), (2, 2)).shape == (0, 5)


def test_block_column_row_by_hand() -> None:
    # 9 > 4 + 4: the row with the single 3 stays; and one row and one column of the second block hold its 16.
    matrix = np.array([[3.0, 0, 1, -4], [2, 2, 3, 3]])
    np.testing.assert_array_equal(project_bcr(matrix, (2, 2), (1, 2)), [[3, 0, 0, 0], [0, 0, 3, 3]])
    np.testing.assert_array_equal(project_bcr(matrix, (2, 2), (1, 1)), [[3, 0, 0, -4], [0, 0, 0, 0]])


@given(matrices(5), st.integers(1, 3), st.integers(1, 3), st.floats(1, 5), st.data())
def test_packed_cp_with_filters_is_nearest(
    matrix: np.ndarray, tile: int, limit: int, filter_rate: float, data: st.DataObject
) -> None:
    limit = min(limit, tile)
    every = range(matrix.shape[0])
    rows = sorted(data.draw(st.sets(st.sampled_from(list(every)), min_size=1)))
    constraint = PackedColumnProportional(
        kept_rows=(np.array(rows),), rate=tile / limit, filter_rate=filter_rate, rows=tile, multiple=1
    )
    assert int(tile / (tile / limit)) == limit
    weight = torch.from_numpy(matrix.T.copy())
    projected = constraint.project(weight).numpy().T
    # Brute force: the best CP of every column by itself, then every choice of columns.
    tiles = [rows[i : i + tile] for i in range(0, len(rows), tile)]
    pruned = np.zeros_like(matrix)
    for column in range(matrix.shape[1]):
        for members in tiles:
            options = combinations(members, min(limit, len(members)))
            best = max(options, key=lambda kept: float(np.square(matrix[list(kept), column]).sum()))
            pruned[list(best), column] = matrix[list(best), column]
    count = kept_multiple(matrix.shape[1], filter_rate, 1)
    distances = [
        float(np.square(matrix - np.where(mask.T, pruned, 0)).sum()) for mask in row_masks(matrix.T.shape, count)
    ]
    assert float(np.square(matrix - projected).sum()) == min(distances)
    assert ((projected == 0) | (projected == pruned)).all()
    assert constraint.violation(torch.from_numpy(projected.T.copy())) == 0


def test_combined_by_hand() -> None:
    # Rows 0 and 3 go (smallest sums of squares), so rows 1, 2 and 4, 5 are packed into two tiles of two rows. CP keeps
    # the larger of each tile in each column; then the filters with 25 and 64 + 1 stay, the one with 16 + 4 goes.
    matrix = np.array(
        [
            [1.0, 0.0, 0.0],
            [3.0, 8.0, 4.0],
            [4.0, 7.0, -3.0],
            [0.0, 1.0, 0.5],
            [3.0, 1.0, 2.0],
            [2.0, 0.5, 1.0],
        ]
    )
    weight = torch.from_numpy(matrix.T.copy())
    constraint = combined(weight, shape_rate=1.5, cp_rate=2, filter_rate=1.5, rows=2, multiple=1)
    assert constraint.kept_rows[0].tolist() == [1, 2, 4, 5]
    expected = np.zeros((6, 3))
    expected[2, 0], expected[4, 0], expected[1, 1], expected[4, 1] = 4, 3, 8, 1
    projected = constraint.project(weight)
    np.testing.assert_array_equal(projected.numpy().T, expected)
    assert constraint.violation(weight) == 15 - 4
    assert constraint.violation(projected) == 0


def test_cp_of_the_rows_that_are_on_together() -> None:
    # a crossbar of 4 rows, 2 on at once: at rate 2 one of every 2 rows stays, not two of 4
    weight = torch.tensor([[4.0, 3.0, 2.0, 1.0]])
    constraint = combined(weight, shape_rate=1, cp_rate=2, rows=4, read_rows=2, multiple=1)
    assert constraint.project(weight, 1).tolist() == [[4.0, 0.0, 2.0, 0.0]]
    whole = combined(weight, shape_rate=1, cp_rate=2, rows=4, multiple=1)
    assert whole.project(weight, 1).tolist() == [[4.0, 3.0, 0.0, 0.0]]


def test_filters_are_chosen_by_what_cp_leaves() -> None:
    # The first column has 9 + 9 before CP but 9 after it; the second keeps its 16.
    weight = torch.tensor([[3.0, 3.0], [4.0, 0.0]])
    constraint = combined(weight, shape_rate=1, cp_rate=2, filter_rate=2, rows=2, multiple=1)
    assert constraint.project(weight).tolist() == [[0, 0], [4, 0]]


SETS: list[ConstraintSet] = [
    Filter(2, multiple=2),
    FilterShape(2, rows=4),
    Unstructured(3),
    BlockColumnRow((4, 2), (2, 1)),
]


@pytest.mark.parametrize("constraint", SETS, ids=lambda c: type(c).__name__)
@pytest.mark.parametrize("groups", [1, 2])
def test_sets_are_feasible_idempotent_and_nearest(constraint: ConstraintSet, groups: int) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(8, 3, 3, 3, generator=generator)
    projected = constraint.project(weight, groups)
    assert constraint.violation(weight, groups) == int((projected == 0).sum()) > 0
    assert constraint.violation(projected, groups) == 0
    assert torch.equal(constraint.project(projected, groups), projected)
    for _ in range(20):  # projections of other weights are members of the set too
        other = constraint.project(torch.randn(weight.shape, generator=generator), groups)
        assert torch.dist(weight, projected) <= torch.dist(weight, torch.where(other != 0, weight, 0.0))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Filter(0.5),
        lambda: Filter(2, multiple=0),
        lambda: FilterShape(float("nan")),
        lambda: FilterShape(2, rows=True),
        lambda: Unstructured(float("inf")),
        lambda: BlockColumnRow((4, 4), (5, 1)),
        lambda: BlockColumnRow((4, 4), (0, 1)),
        lambda: BlockColumnRow((64, 64), (32, 32)),
        lambda: PackedColumnProportional((np.arange(2),), 129),
        lambda: PackedColumnProportional((np.arange(2),), 1, 0.1),
        lambda: combined(torch.full((2, 2), torch.nan), shape_rate=1, cp_rate=1),
        lambda: project_unstructured(np.zeros((2, 2)), 5),
    ],
)
def test_impossible_settings_are_refused(make: object) -> None:
    with pytest.raises(RangeError, match=r"must be|choices"):
        make()  # type: ignore[operator]


def test_rows_of_another_layer_are_refused() -> None:
    constraint = combined(torch.ones(2, 8), shape_rate=1, cp_rate=1)
    with pytest.raises(ShapeError, match=r"within 0\.\.3, found 0\.\.7"):
        constraint.project(torch.ones(2, 4))
    with pytest.raises(ShapeError, match="made for 1 groups"):
        constraint.project(torch.ones(2, 8, 1, 1), 2)
