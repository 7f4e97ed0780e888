"""Energy of one ADC conversion, cut into what every conversion costs and what every comparison costs."""

from __future__ import annotations

from dataclasses import dataclass

from bitline.chip.adc_laws import comparison_share, energy_scale_at, rate_at, scale_at
from bitline.chip_description import ChipDescription

__all__ = ["ConversionEnergy", "conversion_energy"]


@dataclass(frozen=True, kw_only=True)
class ConversionEnergy:
    """Energy of the conversions of one ADC."""

    bits: int
    """The ADC's resolution."""
    conversion_pj: float
    """Of every conversion, however many comparisons it makes."""
    comparison_pj: float
    """Of every comparison."""

    def total_pj(self, conversions: int, comparisons: int) -> float:
        """Energy of so many conversions that made so many comparisons together."""
        return conversions * self.conversion_pj + comparisons * self.comparison_pj


def conversion_energy(chip: ChipDescription, bits: int) -> ConversionEnergy:
    """Cut the energy of a ``bits``-bit conversion, power over sample rate, as the chip's ADC law says.

    ``bits`` comparisons cost exactly what :func:`bitline.chip.estimate` charges a conversion: mW / (GS/s) = pJ.

    Parameters
    ----------
    chip : ChipDescription
    bits : int
        Resolution of the ADC, not of the search: a shorter search on the same ADC charges the same capacitors.

    Raises
    ------
    RangeError
        ``bits`` outside the law's domain.
    """
    component = chip.components["adc"]
    if component.energy_pj is not None:
        total = component.energy_pj * energy_scale_at(chip.adc, chip.adc.law, bits)
    else:
        assert component.power_mw is not None  # one of the two is there
        power = component.power_mw / component.units * scale_at(chip.adc, chip.adc.law, bits).power
        total = power / rate_at(chip.adc, bits)
    share = comparison_share(chip.adc.law, bits)
    return ConversionEnergy(bits=bits, conversion_pj=(1 - share) * total, comparison_pj=share * total / bits)
