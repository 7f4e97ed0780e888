"""ADC laws against the published tables, and their domains."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitline.chip import adc_points, peak
from bitline.chip.adc_laws import (
    adc_rate_scale,
    adc_scale,
    halves_per_bit,
    kull_latches_constant,
    kull_split,
    linear_power_constant_area,
    survey_area_um2,
    survey_energy_pj,
    survey_regression,
)
from bitline.chip_description import AdcLaw, RateLaw
from bitline.errors import RangeError
from bitline.hardware import load_hardware

FORMULAS = [law for law in AdcLaw if law is not AdcLaw.TABLE]

# Ratios to 8 bits, power / area, of Kull et al. (ISSCC 2013) scaled as ISAAC and TinyADC scale its blocks, of
# Accelergy's regression, and of PUMA's constants; three printed digits.
RATIOS = {
    7: ((0.851, 0.704), 0.883, (0.680, 0.891)),
    6: ((0.718, 0.522), 0.782, (0.552, 0.837)),
    5: ((0.593, 0.397), 0.690, (0.485, 0.806)),
    4: ((0.472, 0.301), 0.601, (0.479, 0.802)),
    3: ((0.353, 0.219), 0.514, None),
    2: ((0.235, 0.143), 0.428, None),
}


@pytest.mark.parametrize("bits", RATIOS)
def test_ratios_to_eight_bits(bits):
    kull, constant, survey = RATIOS[bits]
    assert kull_split(bits) == pytest.approx(kull, abs=5.1e-4)
    assert kull_latches_constant(bits).power == pytest.approx(constant, abs=5.1e-4)
    if survey is not None:
        assert survey_regression(bits) == pytest.approx(survey, abs=5.1e-4)
    assert halves_per_bit(bits) == (2.0 ** (bits - 8),) * 2
    assert linear_power_constant_area(bits) == (bits / 8, 1.0)


def test_survey_absolute_figures():
    # at 1.28 GS/s and 32 nm
    assert [survey_energy_pj(b) for b in range(4, 9)] == pytest.approx(
        [0.9237, 0.9363, 1.0651, 1.3122, 1.9292], rel=1e-4
    )
    assert [survey_area_um2(b) for b in range(4, 9)] == pytest.approx([5190, 5211, 5416, 5765, 6469], rel=1e-4)


@pytest.mark.parametrize("bits", [3, 2, 1])
def test_survey_refuses_low_resolutions(bits):
    with pytest.raises(RangeError, match=rf"4\.\.16 for this ADC law, got {bits}"):
        adc_scale(AdcLaw.SURVEY, bits)


@pytest.mark.parametrize("law", FORMULAS)
@pytest.mark.parametrize("bits", [0, 17, -1])
def test_every_law_refuses_what_lies_outside_its_domain(law, bits):
    with pytest.raises(RangeError):
        adc_scale(law, bits)


@given(st.sampled_from(FORMULAS), st.integers(5, 16), st.integers(4, 16))
def test_more_bits_never_cost_less(law, bits, baseline):
    less, more = adc_scale(law, bits - 1, baseline), adc_scale(law, bits, baseline)
    assert less.power < more.power
    assert less.area <= more.area
    assert adc_scale(law, baseline, baseline) == (1.0, 1.0)


def test_conversion_rate():
    assert adc_rate_scale(RateLaw.FIXED, 4) == 1
    assert adc_rate_scale(RateLaw.PER_BIT, 4) == 2  # four comparisons instead of eight
    assert adc_rate_scale(RateLaw.PER_BIT, 7) == pytest.approx(8 / 7)
    with pytest.raises(RangeError):
        adc_rate_scale(RateLaw.PER_BIT, 17)


def test_points_of_the_adc_figure():
    points = adc_points(load_hardware("isaac"), bits=range(2, 9))
    by_law = {law: [p for p in points if p["law"] == law] for law in FORMULAS}
    assert [p["adc_bits"] for p in by_law[AdcLaw.SURVEY]] == [4, 5, 6, 7, 8]  # it refuses 2 and 3
    assert [len(by_law[law]) for law in FORMULAS] == [7, 7, 5, 7, 7]
    # the 6-bit Kull point is Table III's first assumption
    (six,) = [p for p in by_law[AdcLaw.KULL] if p["adc_bits"] == 6]
    assert six["gops_per_w"] == pytest.approx(728.3, rel=5e-4)
    assert {round(p[-1]["gops_per_w"], 6) for p in by_law.values()} == {
        round(peak(load_hardware("isaac")).gops_per_w, 6)
    }
