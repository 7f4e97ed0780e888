"""Weights that fit an ADC: by hand, against plain loops, and by properties."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bitline.errors import RangeError
from bitline.pruning.adc_fit import AdcFit, fitting_mask


def slow_mask(
    weights: np.ndarray, codes: np.ndarray, rows: int, limit: int, cell_bits: int, slices: int, most: int
) -> np.ndarray:
    """In plain loops: of every column of every tile, go down the magnitudes until one does not fit."""
    keep = np.zeros(codes.shape, bool)
    for start in range(0, len(codes), rows):
        tile = range(start, min(start + rows, len(codes)))
        for column in range(codes.shape[1]):
            sums: dict[tuple[bool, int], int] = {}
            order = sorted(tile, key=lambda row: (-abs(float(weights[row, column])), row))
            for row in order[:most]:
                code = int(codes[row, column])
                for number in range(slices):
                    level = (abs(code) // 2 ** (cell_bits * number)) % 2**cell_bits
                    sums[code > 0, number] = sums.get((code > 0, number), 0) + level
                if max(sums.values()) > limit:
                    break
                keep[row, column] = True
    return keep


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, int, int, int, int, int]:
    codes = draw(
        arrays.arrays(np.int32, (draw(st.integers(1, 12)), draw(st.integers(1, 3))), elements=st.integers(-127, 127))
    )
    cell_bits = draw(st.sampled_from((1, 2, 4)))
    rows = draw(st.integers(1, 7))
    limit = draw(st.integers((1 << cell_bits) - 1, 20))
    return codes, rows, limit, cell_bits, -(-7 // cell_bits), draw(st.integers(1, rows))


@given(cases())
def test_mask_equals_plain_loops(case: tuple[np.ndarray, int, int, int, int, int]) -> None:
    codes, rows, limit, cell_bits, slices, most = case
    weights = codes.astype(np.float32) / 3
    found = fitting_mask(weights, codes, rows, limit, cell_bits=cell_bits, slices=slices, most=most)
    assert (found == slow_mask(weights, codes, rows, limit, cell_bits, slices, most)).all()


def test_by_hand() -> None:
    # 127 = 1 3 3 3 in 2-bit digits (most significant first), 64 = 1 0 0 0: with a limit of 3 the top slice holds
    # 1 + 1 + 1 and no fourth; the other sign has its own column.
    codes = np.array([[127, 64, 64, 64, -64]]).T
    keep = fitting_mask(codes.astype(np.float32), codes, 5, 3, cell_bits=2, slices=4)
    assert keep.ravel().tolist() == [True, True, True, False, False]  # the prefix ends at the first that does not fit
    keep = fitting_mask(codes.astype(np.float32), codes, 4, 3, cell_bits=2, slices=4)
    assert keep.ravel().tolist() == [True, True, True, False, True]  # another tile


@given(
    arrays.arrays(np.float32, (14, 3), elements=st.floats(-4, 4, width=32)),
    st.integers(3, 31),
    st.integers(1, 6),
)
def test_projection_is_feasible_idempotent_and_keeps_the_scale(matrix: np.ndarray, limit: int, most: int) -> None:
    constraint = AdcFit(limit=limit, nonzeros=most, rows=6)
    weight = torch.from_numpy(np.ascontiguousarray(matrix.T))
    projected = constraint.project(weight)
    assert constraint.violation(projected) == 0
    assert torch.equal(constraint.project(projected), projected)
    assert torch.equal(projected[projected != 0], weight[projected != 0])
    assert torch.equal(projected.abs().amax(1), weight.abs().amax(1))


def test_violation_counts_what_must_go() -> None:
    weight = torch.ones(1, 6)  # six codes of 127: each slice's sum is 18 (6 in the top one)
    assert AdcFit(limit=18, nonzeros=6, rows=6).violation(weight) == 0
    assert AdcFit(limit=17, nonzeros=6, rows=6).violation(weight) == 1
    assert AdcFit(limit=7, nonzeros=6, rows=6).violation(weight) == 4
    assert AdcFit(limit=18, nonzeros=2, rows=6).violation(weight) == 4


def test_impossible_limits() -> None:
    with pytest.raises(RangeError, match=r"at least 3, .* found 2"):
        AdcFit(limit=2, nonzeros=1)
    with pytest.raises(RangeError, match=r"within 1\.\.128, found 0"):
        AdcFit(limit=3, nonzeros=0)
