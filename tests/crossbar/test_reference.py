"""The twin itself, against arithmetic done by hand and the published tables: an oracle must be checked too."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

import reference as twin
from bitline import load_hardware
from strategies import Problem, examples, hardware, problems


@examples(60)
@given(problems(hardware(adc_bits=16)))  # no adc_bits is needed: 64 bits are passed below
def test_twin_is_the_integer_product_when_no_conversion_can_saturate(problem: Problem) -> None:
    out = twin.matmul(problem.x, problem.w, problem.hw, 64, problem.signed_inputs)
    assert out.saturations == 0
    np.testing.assert_array_equal(out.y, problem.x.astype(np.int64) @ problem.w.astype(np.int64))
    assert sum(out.sums.values()) == out.conversions


def test_conversions_counted_by_hand() -> None:
    """M=2, K=5 on 2-row tiles is 3 tiles; a=3, v=2 is 2 digits; b=4, 2-bit cells; N=3.

    differential: ceil(3/2)=2 slices x 2 signs x 3 outputs = 12 columns; 2 vectors x 2 digits x 3 tiles x 12 = 144;
    signed inputs at v>1 take two passes: 288; analog halves the columns: 72.
    offset: ceil(4/2)=2 slices x 3 outputs + 1 unit = 7 columns; 2 x 2 x 3 x 7 = 84.
    """
    x, w = np.ones((2, 5), dtype=int), np.ones((5, 3), dtype=int)
    fields = {"rows": 2, "input_bits": 3, "dac_bits": 2, "weight_bits": 4, "cell_bits": 2}
    counts = {
        ("differential", "digital", False): 144,
        ("differential", "digital", True): 288,
        ("differential", "analog", False): 72,
        ("offset", "digital", False): 84,
        ("offset_flip", "digital", True): 168,
    }
    for (encoding, readout, signed), expected in counts.items():
        hw = load_hardware("tinyadc", encoding=encoding, readout=readout, **fields)
        assert twin.matmul(x, w, hw, 9, signed).conversions == expected


def test_equation_and_paper_reproduce_the_published_table() -> None:
    """published_checks: TinyADC's ADC bit counts for 128 rows, w = 2, v = 1."""
    nonzeros = (128, 64, 32, 16, 8, 4, 2, 1)
    assert [twin.equation_formula(1, 2, count) for count in nonzeros] == [9, 8, 7, 6, 5, 4, 3, 2]
    assert [twin.paper_formula(count) for count in nonzeros] == [8, 7, 6, 5, 4, 3, 2, 1]
    # "Eq. (1), which is ceil(log2(3 l + 1)) at these powers of two"
    assert [twin.column_bits(3 * count) for count in nonzeros] == [9, 8, 7, 6, 5, 4, 3, 2]


@pytest.mark.parametrize(("v", "w", "r", "bits"), [(2, 2, 128, 11), (2, 1, 128, 9), (1, 1, 100, 8), (3, 4, 1, 7)])
def test_equation_by_hand(v: int, w: int, r: int, bits: int) -> None:
    """ceil(2+2+7)=11; ceil(2+1+7)-1=9; ceil(1+1+6.64)-1=8; ceil(3+4+0)=7."""
    assert twin.equation_formula(v, w, r) == bits


def test_flip_keeps_128_rows_of_two_bit_cells_within_eight_bits() -> None:
    """Half of the maximum, 3 x 128 / 2 = 192, is the worst stored sum: 8 bits; without flipping 384 needs 9."""
    worst = np.full((128, 1), -(2**7) + 2**8 - 1)  # every cell at level 3
    hw = load_hardware("isaac_8bit", rows=128, cell_bits=2, weight_bits=8, dac_bits=1, encoding="offset_flip")
    assert twin.weight_aware_bits(worst, hw)[0] == 8  # the unit column's 128, all others are stored as zeros
    assert twin.weight_aware_bits(worst, hw.replace(encoding="offset"))[0] == 9
