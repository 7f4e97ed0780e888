"""ADC resolutions: the four bit counts of docs/contract.md and what a policy makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bitline.hardware import AdcPolicy, AdcScope, Encoding, Hardware

__all__ = [
    "AdcBits",
    "BitCounts",
    "equation_bits",
    "max_digit",
    "paper_bits",
    "resolve",
    "signed_bits",
    "unsigned_bits",
]


@dataclass(frozen=True, kw_only=True)
class AdcBits:
    """The resolution each column of one layer is converted at."""

    per_slice: tuple[int, ...]
    """Bits of the columns of each weight slice, least significant first."""
    unit: int | None = None
    """Bits of the unit column (offset encodings), else None."""

    @property
    def bits(self) -> int:
        """The largest resolution in the layer."""
        return max((*self.per_slice, self.unit or 0))

    @classmethod
    def uniform(cls, bits: int, hw: Hardware) -> AdcBits:
        """One resolution for every column."""
        unit = None if hw.encoding is Encoding.DIFFERENTIAL else bits
        return cls(per_slice=(bits,) * hw.slices, unit=unit)


@dataclass(frozen=True, kw_only=True)
class BitCounts:
    """Bits one layer needs, by three ways of counting."""

    equation: int
    """Eq. (1) of TinyADC."""
    paper: int | None
    """What the paper's tables count; None where they do not apply."""
    weight_aware_per_slice: tuple[int, ...]
    """Smallest proven resolution of each slice's columns."""
    weight_aware_unit: int | None
    """Smallest proven resolution of the unit column, None without one."""

    @property
    def weight_aware(self) -> int:
        """Smallest proven resolution of the layer."""
        return max((*self.weight_aware_per_slice, self.weight_aware_unit or 0))


def max_digit(hw: Hardware, signed_inputs: bool) -> int:
    """Largest digit any code puts on a row in one cycle.

    ``2^min(v, a) - 1``, except that signed inputs at ``v >= a > 1`` are applied as magnitudes up to ``2^(a-1)`` in one
    cycle a pass, so the all-ones digit does not occur and the tight value is ``2^(a-1)``.
    """
    if signed_inputs and hw.dac_bits > 1 and hw.dac_bits >= hw.input_bits:
        return 1 << (hw.input_bits - 1)
    return hw.max_digit


def unsigned_bits(largest: int) -> int:
    """Smallest N with ``largest <= 2^N - 1``, that is ``ceil(log2(largest + 1))``."""
    return largest.bit_length()


def signed_bits(largest_positive: int, largest_negative: int) -> int:
    """Smallest N whose two's complement range holds ``-largest_negative .. largest_positive`` (0 for a zero column)."""
    if largest_positive == 0 and largest_negative == 0:
        return 0
    return 1 + max(largest_positive.bit_length(), max(largest_negative - 1, 0).bit_length())


def equation_bits(nonzeros: int, tile_rows: int, hw: Hardware) -> int:
    """TinyADC's Eq. (1): ``ceil(v + w + log2 r)``, minus 1 unless ``v > 1`` and ``w > 1``.

    ``r`` is the most non-zeros of a column of a row tile for the differential encoding, the tile's rows for the offset
    encodings. An all-zero matrix needs none. With analog readout the difference needs one more bit, for the sign, that
    the formula does not count.
    """
    return hw.equation_bits(nonzeros if hw.encoding is Encoding.DIFFERENTIAL else tile_rows)


def paper_bits(nonzeros: int, hw: Hardware) -> int | None:
    """TinyADC's tables: ``ceil(8 - log2(R / l))``, for R = 128, w = 2, v = 1 only; not lossless in general."""
    if (hw.read_rows, hw.cell_bits, hw.dac_bits) != (128, 2, 1):
        return None
    return 0 if nonzeros == 0 else 1 + (nonzeros - 1).bit_length()


def resolve(hw: Hardware, layers: Sequence[BitCounts]) -> list[AdcBits]:
    """Turn the hardware's ADC number or policy into each layer's resolutions; an ADC has at least 1 bit.

    Parameters
    ----------
    hw : Hardware
        ``adc_bits`` is the number or policy, ``adc_scope`` what shares one resolution.
    layers : sequence of BitCounts
        Of all layers on the chip; one matrix is a sequence of one.

    Returns
    -------
    list of AdcBits
        In the order of ``layers``.
    """
    if not isinstance(hw.adc_bits, AdcPolicy):
        return [AdcBits.uniform(hw.adc_bits, hw) for _ in layers]
    if hw.adc_bits is AdcPolicy.WEIGHT_AWARE and hw.adc_scope is AdcScope.SLICE:
        return [
            AdcBits(
                per_slice=tuple(max(1, bits) for bits in counts.weight_aware_per_slice),
                unit=None if counts.weight_aware_unit is None else max(1, counts.weight_aware_unit),
            )
            for counts in layers
        ]
    needed = []
    for counts in layers:
        if hw.adc_bits is AdcPolicy.WEIGHT_AWARE:
            needed.append(counts.weight_aware)
        elif hw.adc_bits is AdcPolicy.EQUATION:
            needed.append(counts.equation)
        else:
            assert counts.paper is not None  # the hardware description refuses the policy elsewhere
            needed.append(counts.paper)
    if hw.adc_scope is AdcScope.CHIP:
        needed = [max(needed, default=1)] * len(needed)
    return [AdcBits.uniform(max(1, bits), hw) for bits in needed]
