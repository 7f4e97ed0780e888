"""Energy of a conversion, cut into its comparisons and the rest."""

from __future__ import annotations

import chip_networks
import pytest

from bitline import load_hardware
from bitline.chip import LayerActivity, estimate
from bitline.chip.adc_energy import conversion_energy
from bitline.chip.adc_laws import comparison_share
from bitline.chip_description import AdcLaw, ChipDescription, RateLaw
from bitline.errors import RangeError

TINYADC = load_hardware("tinyadc")


def chip_with(law: AdcLaw, rate_law: RateLaw = RateLaw.FIXED) -> ChipDescription:
    assert TINYADC.chip is not None
    adc = TINYADC.chip.adc.model_copy(update={"law": law, "rate_law": rate_law})
    return TINYADC.chip.model_copy(update={"adc": adc})


def test_kull_by_hand():
    """2 mW / 1.28 GS/s = 1.5625 pJ; 0.2 of Kull's 3.1 mW are the capacitive DAC, which doubles a bit."""
    eight = conversion_energy(chip_with(AdcLaw.KULL), 8)
    assert eight.conversion_pj == pytest.approx(1.5625 * 0.2 / 3.1)
    assert eight.comparison_pj == pytest.approx(1.5625 * 2.9 / 3.1 / 8)
    five = conversion_energy(chip_with(AdcLaw.KULL), 5)
    assert five.conversion_pj == pytest.approx(1.5625 * 0.2 / 3.1 / 8)
    assert five.comparison_pj == pytest.approx(eight.comparison_pj)  # a comparison is a comparison
    assert eight.total_pj(1000, 3000) == pytest.approx(1000 * eight.conversion_pj + 3000 * eight.comparison_pj)


def test_constant_latches_by_hand():
    """0.2 and 0.8 of 3.1 mW do not grow with the comparisons; 2.1 do."""
    found = conversion_energy(chip_with(AdcLaw.KULL_LATCHES_CONSTANT), 4)
    assert found.conversion_pj == pytest.approx(1.5625 * (0.2 / 16 + 0.8) / 3.1)
    assert found.comparison_pj == pytest.approx(1.5625 * 2.1 / 3.1 / 8)


@pytest.mark.parametrize("law", [AdcLaw.SURVEY, AdcLaw.HALVES_PER_BIT, AdcLaw.PUMA])
def test_laws_without_blocks_count_comparisons_alone(law):
    assert comparison_share(law, 6) == 1
    assert conversion_energy(chip_with(law), 6).conversion_pj == 0


@pytest.mark.parametrize("rate_law", RateLaw)
@pytest.mark.parametrize("law", [law for law in AdcLaw if law is not AdcLaw.TABLE])
@pytest.mark.parametrize("bits", [4, 7, 8, 9])
def test_a_plain_conversion_costs_what_the_chip_model_charges(law, rate_law, bits):
    chip = chip_with(law, rate_law)
    hw = TINYADC.replace(chip=chip.model_dump())
    graph = chip_networks.Graph(128, 8, 8)
    graph.conv("conv", "input", 32, kernel=1)
    activity = {"conv": LayerActivity(images=1, lines_driven=0, cells_on=0)}
    priced = estimate(graph.operations, hw, adc_bits=bits, activity=activity)
    conversions = 64 * 8 * 256  # positions x input cycles x (32 outputs x 4 slices x 2 signs)
    plain = conversion_energy(chip, bits).total_pj(conversions, conversions * bits)
    assert priced.energy_by_event_uj["adc"] * 1e6 == pytest.approx(plain)


def test_resolutions_outside_the_law_are_refused():
    with pytest.raises(RangeError, match=r"1\.\.16 for this ADC law, got 0"):
        comparison_share(AdcLaw.KULL, 0)
    with pytest.raises(RangeError, match=r"4\.\.16"):
        conversion_energy(chip_with(AdcLaw.SURVEY), 3)
