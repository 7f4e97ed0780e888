"""How an ADC's power, area and sample rate scale with its resolution: small pure functions, each with its domain.

Every law returns ratios to the same law at ``baseline`` bits, so a printed power or area is multiplied by it. Which
law a result used is part of the result.

References
----------
Kull et al., ISSCC 2013 (8 bit, 1.2 GS/s, 32 nm): the block split.
Shafiee et al., ISCA 2016 (ISAAC) and Yuan et al., DATE 2021 (TinyADC): which block scales how.
Murmann's ADC survey through Accelergy's ADC model: the regression.
Ankit et al., ASPLOS 2019 (PUMA), its published simulator: linear power and constant area.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from bitline.chip_description import AdcDescription, AdcLaw, RateLaw
from bitline.errors import RangeError

__all__ = [
    "MAX_BITS",
    "AdcScale",
    "adc_rate_scale",
    "adc_scale",
    "comparison_share",
    "energy_scale_at",
    "halves_per_bit",
    "kull_latches_constant",
    "kull_split",
    "laws_of",
    "linear_power_constant_area",
    "rate_at",
    "scale_at",
    "survey_area_um2",
    "survey_energy_pj",
    "survey_regression",
]

MAX_BITS = 16
"""Highest resolution any law answers for."""

_SURVEY_MIN_BITS = 4

# Shares of Kull's blocks. Power: the capacitive DAC's 0.2 of 3.1 mW doubles a bit, the rest (reference buffer, memory,
# latches, clock) is linear. Area: the DAC's 728 of 1600 um2 doubles; 0.4552 is the published closed form's share, which
# the rounded block areas miss by 0.0002. Nobody says how latches and comparator scale: one law for each reading.
_DOUBLING_POWER, _DOUBLING_AREA = 0.2 / 3.1, 0.4552
_LATCHES_POWER, _LATCHES_AREA = 0.8 / 3.1, 58 / 1600


class AdcScale(NamedTuple):
    """Power and area of an ADC relative to the baseline resolution."""

    power: float
    area: float


def _check_bits(bits: float, lowest: int = 1) -> None:
    if not lowest <= bits <= MAX_BITS:
        raise RangeError(f"adc bits must lie in {lowest}..{MAX_BITS} for this ADC law, got {bits}")


def _kull(bits: float, doubling: float, constant: float) -> float:
    return (1 - doubling - constant) * bits / 8 + doubling * math.pow(2, bits - 8) + constant


def _kull_ratios(bits: float, baseline: float, latches: tuple[float, float]) -> AdcScale:
    _check_bits(bits)
    power, area = (
        _kull(bits, doubling, constant) / _kull(baseline, doubling, constant)
        for doubling, constant in zip((_DOUBLING_POWER, _DOUBLING_AREA), latches, strict=True)
    )
    return AdcScale(power, area)


def kull_split(bits: float, baseline: float = 8) -> AdcScale:
    """Kull's block split with latches and comparator linear in the bits; domain 1..16 bits. The default.

    At a baseline of 8 bits: power ``0.9355 b/8 + 0.0645 2^(b-8)``, area ``0.5448 b/8 + 0.4552 2^(b-8)``.
    """
    return _kull_ratios(bits, baseline, (0.0, 0.0))


def kull_latches_constant(bits: float, baseline: float = 8) -> AdcScale:
    """Kull's block split with latches and comparator constant; domain 1..16 bits."""
    return _kull_ratios(bits, baseline, (_LATCHES_POWER, _LATCHES_AREA))


def survey_energy_pj(bits: float, sample_rate_hz: float = 1.28e9, node_nm: float = 32) -> float:
    """Energy of one conversion in pJ from the survey regression; ``bits`` is the ENOB, domain 4..16.

    Raises
    ------
    RangeError
        Below 4 bits: the regression flattens and turns up there.
    """
    _check_bits(bits, _SURVEY_MIN_BITS)
    figure_of_merit = min(213.7807 - 2.87190 * math.log(sample_rate_hz), 128.3068 + 3.22051 * math.ceil(bits))
    sndr = 6.0206 * bits + 1.7609
    correction = math.exp(26.0496 + 1.88004 * math.log(node_nm) - 2.82913 * math.log(bits) - 1.47020)
    return float(0.5 * 10 ** ((sndr - figure_of_merit) / 10) * correction)


def survey_area_um2(bits: float, sample_rate_hz: float = 1.28e9, node_nm: float = 32) -> float:
    """Area of one ADC in um2 from the survey regression; ``bits`` is the ENOB, domain 4..16."""
    energy = survey_energy_pj(bits, sample_rate_hz, node_nm)
    return math.exp(
        1.34619 + 0.993279 * math.log(node_nm) + 0.180715 * math.log(sample_rate_hz) + 0.299124 * math.log(energy)
    )


def survey_regression(bits: float, baseline: float = 8) -> AdcScale:
    """Accelergy's regression over Murmann's survey at 1.28 GS/s and 32 nm; domain 4..16 bits, lower is refused.

    Only the ratios are used: its absolute figures at Kull's own point are 4x low in energy and 3x high in area.
    """
    return AdcScale(
        survey_energy_pj(bits) / survey_energy_pj(baseline), survey_area_um2(bits) / survey_area_um2(baseline)
    )


def halves_per_bit(bits: float, baseline: float = 8) -> AdcScale:
    """Power and area halve for every bit less, as in a flash converter; domain 1..16 bits."""
    _check_bits(bits)
    ratio = 2.0 ** (bits - baseline)
    return AdcScale(ratio, ratio)


def linear_power_constant_area(bits: float, baseline: float = 8) -> AdcScale:
    """Power linear in the bits, area constant, as PUMA's simulator tabulates it; domain 1..16 bits."""
    _check_bits(bits)
    return AdcScale(bits / baseline, 1.0)


_LAWS: dict[AdcLaw, Callable[[float, float], AdcScale]] = {
    AdcLaw.KULL: kull_split,
    AdcLaw.KULL_LATCHES_CONSTANT: kull_latches_constant,
    AdcLaw.SURVEY: survey_regression,
    AdcLaw.HALVES_PER_BIT: halves_per_bit,
    AdcLaw.PUMA: linear_power_constant_area,
}


def adc_scale(law: AdcLaw, bits: float, baseline: float = 8) -> AdcScale:
    """Power and area of a ``bits``-bit ADC relative to a ``baseline``-bit one under a named law.

    Raises
    ------
    RangeError
        ``bits`` outside the law's domain.
    """
    if law not in _LAWS:
        raise RangeError("adc law table: the table is in a hardware description, a baseline alone has none")
    return _LAWS[law](bits, baseline)


def laws_of(adc: AdcDescription) -> tuple[AdcLaw, ...]:
    """Laws a description's ADC can be scaled by: all formulas, and its own table where it has one."""
    return tuple(law for law in AdcLaw if law is not AdcLaw.TABLE or adc.table)


def scale_at(adc: AdcDescription, law: AdcLaw, bits: float) -> AdcScale:
    """Power (or energy a conversion) and area of an ADC of ``bits``, relative to the one the component prints.

    Raises
    ------
    RangeError
        ``bits`` outside the law's domain, or not in the table.
    """
    if law is not AdcLaw.TABLE:
        return adc_scale(law, bits, adc.bits)
    at, base = adc.point(bits), adc.point(adc.bits)
    return AdcScale(at.cost / base.cost, at.area_mm2 / base.area_mm2)


def energy_scale_at(adc: AdcDescription, law: AdcLaw, bits: float) -> float:
    """Energy of a conversion of ``bits``, relative to the one the component prints: power over rate, or the table's.

    Raises
    ------
    RangeError
        ``bits`` outside the law's domain, or not in the table.
    """
    power = scale_at(adc, law, bits).power
    return power if law is AdcLaw.TABLE else power / adc_rate_scale(adc.rate_law, bits, adc.bits)


def rate_at(adc: AdcDescription, bits: float) -> float:
    """Conversions of one ADC of ``bits`` in 1e9 a second: of the table where that has rates, else by the rate law.

    Raises
    ------
    RangeError
        ``bits`` outside 1..16, or not in the table.
    """
    if adc.table:
        listed = adc.point(bits).sample_rate_gsps
        if listed is not None:
            return listed
    return adc.sample_rate_gsps.value * adc_rate_scale(adc.rate_law, bits, adc.bits)


def comparison_share(law: AdcLaw, bits: int) -> float:
    """Share of a ``bits``-bit conversion's energy that grows with the number of comparisons made; our reading.

    ``kull``: all but the capacitive DAC, whose charging is counted in full however short the search.
    ``kull_latches_constant``: all but that and the latches and comparators. The other laws do not separate the blocks:
    everything (a search half as long takes half the energy).

    Raises
    ------
    RangeError
        ``bits`` outside 1..16.
    """
    _check_bits(bits)
    shares = {AdcLaw.KULL: (_DOUBLING_POWER, 0.0), AdcLaw.KULL_LATCHES_CONSTANT: (_DOUBLING_POWER, _LATCHES_POWER)}
    if law not in shares:
        return 1.0
    doubling, constant = shares[law]
    return (1 - doubling - constant) * bits / 8 / _kull(bits, doubling, constant)


def adc_rate_scale(law: RateLaw, bits: float, baseline: float = 8) -> float:
    """Sample rate of a ``bits``-bit ADC relative to a ``baseline``-bit one: 1, or ``baseline / bits``.

    Raises
    ------
    RangeError
        ``bits`` outside 1..16.
    """
    _check_bits(bits)
    return baseline / bits if law is RateLaw.PER_BIT else 1.0
