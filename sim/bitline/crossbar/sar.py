"""The search inside a SAR ADC: which comparisons a conversion makes, and what it reads (docs/adc_search.md).

A SAR ADC asks one question at a time, "is the column sum at least ``t``?". How many it asks depends on the column sum
alone, so exact counts follow from how often each (clipped) column sum was converted: ``codes``, an int64 array of shape
(input cycles, slices + 1, 2^bits) that the bit-serial engine fills (:class:`bitline.crossbar.engines.Transfer`). Entry
``s`` stands for the sum ``s``, with analog readout entry ``s + 2^(bits - 1)`` for the difference ``s``; the last row of
the second axis is the unit column's.

The searches, by name:

``plain``
    Successive approximation, ``N`` comparisons, whatever the sum.
``early``
    The same, begun at the highest bit that the column's certificate leaves open.
``adaptive``
    After Newton: bits below the least significant bit of the layer's output register are not resolved.
``twin_range``
    One comparison with ``2^near_bits`` decides between a short search of a near range and a search of the rest.

References
----------
Nag et al., "Newton: Gravitating Towards the Physical Limits of Crossbar Acceleration", IEEE Micro 2018 (adaptive ADC).
Twin-range quantisation in a SAR ADC: known to us by its abstract only; docs/adc_search.md says what is our reading.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bitline.crossbar.adc import AdcBits
from bitline.crossbar.certificate import column_bits
from bitline.errors import RangeError, ShapeError
from bitline.hardware import Hardware, Readout

__all__ = [
    "Comparisons",
    "LayerSearch",
    "Search",
    "SearchTable",
    "clipped_sums",
    "count",
    "count_early",
    "output_lsb",
    "plan_adaptive",
    "plan_plain",
    "plan_twin_range",
]

_COST_STEPS = 1000
"""A lossy plan minimises comparisons in steps of this part of the layer's plain ones, so that fronts stay small."""


class SearchTable(NamedTuple):
    """What a search does with every entry of a table of clipped column sums; all [shape=(entries,), int64]."""

    comparisons: NDArray[np.int64]
    """Questions asked."""
    values: NDArray[np.int64]
    """Column sum that the result stands for."""
    words: NDArray[np.int64]
    """Code word: sign bit (analog readout), range bit (twin range), resolved bits, from the highest down."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """The search of one conversion.

    Plain successive approximation with ``near_bits=None`` and ``far_step=0``. A step of ``2^k`` leaves the ``k`` lowest
    bits unresolved: thresholds lie half a step lower, so a sum is rounded to the nearest multiple of the step, half up,
    and the top multiple within the range takes what would be rounded beyond.

    With analog readout one comparison with zero finds the sign, and ``s`` or ``-1 - s`` is searched like a magnitude.

    Raises
    ------
    RangeError
        Steps or a near range that do not fit the bits.
    """

    bits: int
    """Resolution searched, the sign included (analog readout); a larger sum reads as the largest."""
    near_bits: int | None = None
    """The range check asks for ``2^near_bits``; None: no range check, everything is far."""
    near_step: int = 0
    """Lowest bits that are not resolved in the near range."""
    far_step: int = 0
    """Lowest bits that are not resolved in the far range."""

    def __post_init__(self) -> None:
        if self.bits < 0 or not 0 <= self.far_step <= self.bits:
            raise RangeError(f"search: steps must lie in 0..bits, got far_step {self.far_step} of {self.bits} bits")
        if self.near_bits is None:
            if self.near_step:
                raise RangeError(f"search: near_step {self.near_step} has no meaning without near_bits")
        elif not 0 <= self.near_step <= self.far_step <= self.near_bits < self.bits:
            raise RangeError(
                "search: must have 0 <= near_step <= far_step <= near_bits < bits, got "
                f"{self.near_step}, {self.far_step}, {self.near_bits}, {self.bits}"
            )

    @property
    def lossless(self) -> bool:
        """Whether every bit is resolved."""
        return self.near_step == 0 and self.far_step == 0

    def word_bits(self, readout: Readout) -> int:
        """Width of the code word."""
        magnitude = max(0, self.bits - 1) if readout is Readout.ANALOG else self.bits
        sign = int(readout is Readout.ANALOG and self.bits > 0)
        return sign + int(self.near_bits is not None) + self._resolved(magnitude)

    def _resolved(self, magnitude_bits: int) -> int:
        near = 0 if self.near_bits is None else self.near_bits - self.near_step
        return max(near, magnitude_bits - min(self.far_step, magnitude_bits))

    def table(self, entries: int, readout: Readout) -> SearchTable:
        """Comparisons, value and code word of every clipped column sum.

        Parameters
        ----------
        entries : int
            Digital readout: sums ``0 .. entries - 1``; analog: ``-entries / 2 .. entries / 2 - 1``.
        readout : Readout

        Returns
        -------
        SearchTable
            Each [shape=(entries,), int64].

        Raises
        ------
        RangeError
            Analog readout and a near range that does not fit the magnitude's bits.
        """
        if readout is not Readout.ANALOG:
            return self._magnitudes(np.arange(entries), self.bits)
        if self.bits == 0:
            nothing = np.zeros(entries, np.int64)
            return SearchTable(nothing, nothing, nothing)
        if self.near_bits is not None and self.near_bits >= self.bits - 1:
            raise RangeError(
                f"search: near_bits must be less than the magnitude's {self.bits - 1} bits, got {self.near_bits}"
            )
        sums = np.arange(entries) - entries // 2
        found = self._magnitudes(np.where(sums < 0, ~sums, sums), self.bits - 1)
        sign = (sums < 0).astype(np.int64) << (self.word_bits(readout) - 1)
        return SearchTable(found.comparisons + 1, np.where(sums < 0, ~found.values, found.values), found.words | sign)

    def _magnitudes(self, sums: NDArray[np.int64], bits: int) -> SearchTable:
        sums = np.minimum(sums, (1 << bits) - 1)
        far_step = min(self.far_step, bits)
        far = _approximate(sums, bits, far_step)
        far_asked = np.full(sums.shape, bits - far_step, np.int64)
        if self.near_bits is None:
            return SearchTable(far_asked, far, far >> far_step)
        # beyond the near range, bits near_bits and above are not all zero: the last of them need not be asked for
        inferred = far >> (self.near_bits + 1) == 0
        near = _approximate(np.minimum(sums, (1 << self.near_bits) - 1), self.near_bits, self.near_step)
        is_near = sums < 1 << self.near_bits
        range_bit = 1 << self._resolved(bits)
        return SearchTable(
            1 + np.where(is_near, self.near_bits - self.near_step, far_asked - inferred),
            np.where(is_near, near, far),
            np.where(is_near, near >> self.near_step, range_bit | far >> far_step),
        )


def _approximate(sums: NDArray[np.int64], bits: int, step: int) -> NDArray[np.int64]:
    """What successive approximation of bits ``bits - 1 .. step`` reads, thresholds half a step lower."""
    half = (1 << step) >> 1
    return (np.minimum(sums + half, (1 << bits) - 1) >> step) << step


@lru_cache(maxsize=4096)
def _table(search: Search, entries: int, readout: Readout) -> SearchTable:
    found = search.table(entries, readout)
    for array in found:
        array.flags.writeable = False
    return found


@dataclass(frozen=True, kw_only=True)
class LayerSearch:
    """The searches of one layer's conversions."""

    slices: tuple[tuple[Search, ...], ...]
    """Search of every input cycle (outer) and weight slice (inner)."""
    unit: Search | None = None
    """Of the unit column (offset encodings); always every bit."""

    @property
    def lossless(self) -> bool:
        """Whether every conversion resolves every bit it searches."""
        return all(search.lossless for cycle in self.slices for search in cycle)

    def tables(self, hw: Hardware, adc: AdcBits) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Comparisons made for, and values read from, every clipped column sum.

        Returns
        -------
        ndarray [shape=(input cycles, slices + 1, 2^bits), int64]
            Comparisons.
        ndarray of the same shape, int64
            Values.

        Raises
        ------
        ShapeError
            The search has other input cycles or slices than the hardware.
        """
        shape = (hw.input_cycles, hw.slices + 1, 1 << adc.bits)
        if len(self.slices) != shape[0] or any(len(cycle) != hw.slices for cycle in self.slices):
            raise ShapeError(f"search: must have {shape[0]} input cycles of {hw.slices} slices each")
        if (self.unit is None) != (adc.unit is None):
            raise ShapeError("search: must have a unit column's search if, and only if, the encoding has unit columns")
        comparisons, values = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for i, cycle in enumerate(self.slices):
            for j, search in enumerate(cycle):
                comparisons[i, j], values[i, j], _ = _table(search, shape[2], hw.readout)
            if self.unit is not None:
                comparisons[i, -1], values[i, -1], _ = _table(self.unit, shape[2], hw.readout)
        return comparisons, values

    def values(self, hw: Hardware, adc: AdcBits) -> NDArray[np.int64]:
        """The second of :meth:`tables`."""
        return self.tables(hw, adc)[1]


class Comparisons(NamedTuple):
    """What a layer's conversions took, by weight slice, unit columns last; each [shape=(slices + 1,), int64]."""

    conversions: NDArray[np.int64]
    comparisons: NDArray[np.int64]


def count(search: LayerSearch, codes: NDArray[np.int64], hw: Hardware, adc: AdcBits) -> Comparisons:
    """Count the comparisons a search makes for the conversions that were counted.

    Parameters
    ----------
    search : LayerSearch
    codes : ndarray [shape=(input cycles, slices + 1, 2^bits), int64]
        Conversions by clipped column sum. For a lossy search they are those of a run that converted with it: its errors
        change the column sums of later layers.
    hw : Hardware
    adc : AdcBits

    Returns
    -------
    Comparisons

    Raises
    ------
    ShapeError
    """
    comparisons, _ = search.tables(hw, adc)
    _check(codes, comparisons.shape)
    return Comparisons(codes.sum(axis=(0, 2)), (comparisons * codes).sum(axis=(0, 2)))


def count_early(
    weights: NDArray[np.int32], codes: NDArray[np.int64], hw: Hardware, adc: AdcBits, signed_inputs: bool
) -> Comparisons:
    """Count the comparisons of ``early``: of each column as many as its own certified resolution, or the ADC's if less.

    Every column is converted equally often, so the mean over a layer's columns is exact; a column of zeros needs none.

    Parameters
    ----------
    weights : ndarray [shape=(G, K, N), int32]
        The layer's weight codes.
    codes, hw, adc
        As for :func:`count`.
    signed_inputs : bool

    Returns
    -------
    Comparisons
    """
    bits, units = column_bits(weights, hw, signed_inputs)
    conversions = codes.sum(axis=(0, 2))
    comparisons = np.zeros_like(conversions)
    for j, limit in enumerate(adc.per_slice):
        mine = np.minimum(bits[:, j], limit)
        comparisons[j] = conversions[j] // max(1, mine.size) * int(mine.sum())
    if adc.unit is not None:
        comparisons[-1] = conversions[-1] // max(1, units.size) * int(np.minimum(units, adc.unit).sum())
    return Comparisons(conversions, comparisons)


def clipped_sums(hw: Hardware, adc: AdcBits) -> NDArray[np.int64]:
    """What ideal ADCs read from every entry: the clipped column sums [shape=(input cycles, slices + 1, 2^bits)]."""
    return plan_plain(hw, adc).values(hw, adc)


# --- plans -----------------------------------------------------------------------------------------------------------


def plan_plain(hw: Hardware, adc: AdcBits) -> LayerSearch:
    """Every conversion at full resolution: the integers of the engine without a search."""
    return _every_cycle([Search(bits=bits) for bits in adc.per_slice], hw, adc)


def plan_adaptive(hw: Hardware, adc: AdcBits, lsb: int) -> LayerSearch:
    """Resolve only the bits of a conversion that reach the output register (after Newton; our reading).

    Bit ``p`` of slice ``j``'s conversion in input cycle ``i`` has weight ``2^(v i + w j + p)`` in the product; bits of
    less weight than ``2^lsb`` are not resolved. There are none above the register: it holds every product.

    Parameters
    ----------
    hw : Hardware
    adc : AdcBits
    lsb : int
        Exponent of the output register's least significant bit (:func:`output_lsb`); 0 resolves everything.

    Raises
    ------
    RangeError
        A negative ``lsb``.
    """
    if lsb < 0:
        raise RangeError(f"Argument 'lsb' must be at least 0, not {lsb}")
    cycles = tuple(
        tuple(
            Search(bits=bits, far_step=min(bits, max(0, lsb - hw.dac_bits * i - hw.cell_bits * j)))
            for j, bits in enumerate(adc.per_slice)
        )
        for i in range(hw.input_cycles)
    )
    return LayerSearch(slices=cycles, unit=_unit(adc))


def output_lsb(weights: NDArray[np.int32], hw: Hardware, signed_inputs: bool, output_bits: int) -> int:
    """Exponent of the least significant bit of a signed output register that holds every product of a layer.

    Parameters
    ----------
    weights : ndarray [shape=(G, K, N), int32]
    hw : Hardware
    signed_inputs : bool
    output_bits : int
        Width of the register, sign included (16 in ISAAC and Newton).

    Returns
    -------
    int
        0 where the register holds every bit of the largest possible ``|y|``.
    """
    low, high = hw.input_range(signed_inputs)
    rows = weights.astype(np.int64)
    positive, negative = np.maximum(rows, 0).sum(axis=1), np.maximum(-rows, 0).sum(axis=1)
    extremes = (high * positive - low * negative, high * negative - low * positive)
    largest = max(int(extreme.max(initial=0)) for extreme in extremes)
    return max(0, largest.bit_length() + 1 - output_bits)


def plan_twin_range(
    codes: NDArray[np.int64],
    hw: Hardware,
    adc: AdcBits,
    *,
    budget: float | None = None,
    bits: Sequence[int] | None = None,
) -> LayerSearch:
    """Choose a twin-range search for every weight slice from the conversions of a calibration run.

    Lossless (``budget=None``): every bit is resolved, and the near range of each slice is the one with the fewest
    comparisons, or none if none helps. Lossy: near range and steps of all slices together make the fewest comparisons
    whose squared error, weighted as in the product, is within ``budget`` of the converted sums' own squares,

        sum_ijs codes[i, j, s] 4^(v i + w j) (value_j(s) - s)^2  <=  budget sum_ijs codes[i, j, s] 4^(v i + w j) s^2,

    found exactly, by merging the slices' Pareto fronts, but for a rounding of each slice's comparisons up to a
    thousandth of the layer's plain ones. One search serves all input cycles of a slice. Unit columns are converted
    losslessly.

    Parameters
    ----------
    codes : ndarray [shape=(input cycles, slices + 1, 2^bits), int64]
        Conversions by clipped column sum, of calibration inputs.
    hw : Hardware
    adc : AdcBits
        Resolution of the layer's ADCs.
    budget : float, optional
        None: lossless for every input. 0: without error on the calibration inputs.
    bits : sequence of int, optional
        Certified resolution of each slice: what lies beyond needs no search. The ADC's by default.

    Raises
    ------
    ShapeError, RangeError
        ``codes`` or ``bits`` of another layer; a negative budget.
    """
    plain = clipped_sums(hw, adc)
    _check(codes, plain.shape)
    if budget is not None and not budget >= 0:
        raise RangeError(f"Argument 'budget' must be at least 0, not {budget}")
    searched = [min(have, need) for have, need in zip(adc.per_slice, bits or adc.per_slice, strict=True)]
    unit = None if adc.unit is None else _shortest(codes[:, -1], adc.unit, hw)
    if budget is None:
        found = [_shortest(codes[:, j], n, hw) for j, n in enumerate(searched)]
        return _every_cycle(found, hw, adc, unit)
    shares = [codes[:, j].sum(axis=0) for j in range(hw.slices)]
    plain_cost = sum(n * int(share.sum()) for n, share in zip(searched, shares, strict=True))
    cost_unit = max(1, -(-plain_cost // _COST_STEPS))
    cycle_weights = 4.0 ** (hw.dac_bits * np.arange(hw.input_cycles))
    fronts, signal = [], 0.0
    for j, n in enumerate(searched):
        weighted = 4.0 ** (hw.cell_bits * j) * (cycle_weights @ codes[:, j])
        signal += float(weighted @ plain[0, j].astype(np.float64) ** 2)
        fronts.append(_front(shares[j], weighted, plain[0, j], n, cost_unit, hw))
    return _every_cycle(_merge(fronts, budget * signal), hw, adc, unit)


def _unit(adc: AdcBits) -> Search | None:
    return None if adc.unit is None else Search(bits=adc.unit)


def _every_cycle(searches: Sequence[Search], hw: Hardware, adc: AdcBits, unit: Search | None = None) -> LayerSearch:
    return LayerSearch(slices=(tuple(searches),) * hw.input_cycles, unit=unit or _unit(adc))


def _check(codes: NDArray[np.int64], shape: tuple[int, ...]) -> None:
    if codes.shape != shape:
        raise ShapeError(f"Argument 'codes' must have shape {shape}, not {codes.shape}")


def _near_ranges(bits: int, readout: Readout) -> range:
    """Near ranges that leave something far."""
    return range(max(0, bits - 1 if readout is Readout.ANALOG else bits))


def _shortest(codes: NDArray[np.int64], bits: int, hw: Hardware) -> Search:
    """The lossless search with the fewest comparisons; of equals the plain one, then the smallest near range."""
    choices = [Search(bits=bits)]
    choices += [Search(bits=bits, near_bits=near) for near in _near_ranges(bits, hw.readout)]
    counts = codes.sum(axis=0)
    return min(choices, key=lambda search: int(_table(search, counts.size, hw.readout).comparisons @ counts))


class _Front(NamedTuple):
    """Choices none of which is better than another in cost and error at once, by growing cost."""

    cost: NDArray[np.int64]
    error: NDArray[np.float64]
    chosen: list[tuple[Search, ...]]


def _front(
    counts: NDArray[np.int64],
    weighted: NDArray[np.float64],
    plain: NDArray[np.int64],
    bits: int,
    unit: int,
    hw: Hardware,
) -> _Front:
    """The worthwhile searches of one slice, plain and uniformly coarse ones among them; costs are multiples of unit."""
    choices = [Search(bits=bits, far_step=far) for far in range(bits + 1)]
    choices += [
        Search(bits=bits, near_bits=near, near_step=near_step, far_step=far_step)
        for near in _near_ranges(bits, hw.readout)
        for far_step in range(near + 1)
        for near_step in range(far_step + 1)
    ]
    tables = [_table(search, counts.size, hw.readout) for search in choices]
    cost = np.array([-(-int(table.comparisons @ counts) // unit) * unit for table in tables])
    error = np.array([float(weighted @ (table.values - plain).astype(np.float64) ** 2) for table in tables])
    kept = _undominated(cost, error)
    return _Front(cost[kept], error[kept], [(choices[index],) for index in kept])


def _undominated(cost: NDArray[np.int64], error: NDArray[np.float64]) -> NDArray[np.intp]:
    """Which choices no other beats, by growing cost."""
    order = np.lexsort((error, cost))
    least = np.minimum.accumulate(error[order])
    return order[np.concatenate(([True], least[1:] < least[:-1]))]


def _merge(fronts: Sequence[_Front], most: float) -> tuple[Search, ...]:
    """The choices of all slices with the least total cost whose total error is within ``most``."""
    total = _Front(np.zeros(1, np.int64), np.zeros(1), [()])
    for front in fronts:
        cost = (total.cost[:, None] + front.cost).reshape(-1)
        error = (total.error[:, None] + front.error).reshape(-1)
        fine = np.flatnonzero(error <= most)
        if not fine.size:
            raise RangeError(
                "Argument 'bits' must hold every column sum of the calibration inputs: the budget is not met"
            )
        kept = fine[_undominated(cost[fine], error[fine])]
        pairs = [divmod(int(index), len(front.chosen)) for index in kept]
        total = _Front(cost[kept], error[kept], [total.chosen[a] + front.chosen[b] for a, b in pairs])
    return total.chosen[0]
