"""The readable twin of the kernels: of the crossbars, docs/contract.md, and of pruning, in plain loops.

Nothing here is taken from, or shared with, ``bitline.crossbar``: only the hardware description's fields are read, and
even its derived numbers (slices, cycles, ranges) are worked out again. It is slow on purpose; every function reads
like the sentence of the design it restates.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Adc:
    """Resolution of every ADC: one number of bits per weight slice, and one for an offset encoding's unit column."""

    slices: tuple[int, ...]
    unit: int


@dataclass(frozen=True)
class Column:
    """One physical column: what its cells hold."""

    tile: int
    slice: int
    sign: int  # +1, or -1 for the negative column of a differential pair
    output: int
    levels: np.ndarray  # one cell level per row of the tile, int64
    flipped: bool = False


@dataclass
class Tile:
    """One row tile of a weight matrix as cells."""

    start: int
    rows: int
    columns: list[Column]
    unit: np.ndarray | None  # levels of the unit column of the offset encodings


@dataclass
class TwinProduct:
    """What a matrix product on crossbars gives, to the last bit."""

    y: np.ndarray
    conversions: int = 0
    saturations: int = 0
    max_column_sum: int = 0
    sums: Counter[tuple[int, int]] = field(default_factory=Counter)
    """(slice or -1 for the unit column, column sum, signed for analog readout) -> conversions that read it"""


def slice_count(hw: Any) -> int:
    """``ceil((b - 1) / cell_bits)`` slices of ``|w|``, or ``ceil(b / cell_bits)`` of ``w + 2^(b-1)``."""
    bits = hw.weight_bits - 1 if hw.encoding == "differential" else hw.weight_bits
    count = 0
    while count * hw.cell_bits < bits:
        count += 1
    return count


def read_rows(hw: Any) -> int:
    """Rows of a row tile: all of a crossbar's, or those that are switched on together."""
    return hw.rows if getattr(hw, "active_rows", None) is None else hw.active_rows


def weight_limits(hw: Any) -> tuple[int, int]:
    """Smallest and largest weight code of the encoding."""
    top = 2 ** (hw.weight_bits - 1) - 1
    return (-top if hw.encoding == "differential" else -top - 1), top


def input_limits(hw: Any, signed_inputs: bool) -> tuple[int, int]:
    """Smallest and largest activation code."""
    if signed_inputs:
        return -(2 ** (hw.input_bits - 1)), 2 ** (hw.input_bits - 1) - 1
    return 0, 2**hw.input_bits - 1


def representations(weight: int, base: int, slices: int) -> list[tuple[int, ...]]:
    """Every way to write a weight with digits of magnitude below the base, lowest first.

    In the order of their carries into slice 1, 2, ..., those that carry nothing first.
    """
    sign, magnitude = (1, weight) if weight >= 0 else (-1, -weight)

    def of(rest: int, left: int) -> list[tuple[int, ...]]:
        if left == 0:
            return [()] if rest == 0 else []
        found = []
        for digit in (rest % base, rest % base - base):
            if abs(digit) < base:
                found += [(digit, *others) for others in of((rest - digit) // base, left - 1)]
        return found

    return [tuple(sign * digit for digit in vector) for vector in of(magnitude, slices)]


def canonical(weight: int, base: int, slices: int) -> tuple[int, ...]:
    """Least sum of magnitudes; of equals the least largest, then the lexicographically least magnitudes."""

    def rank(vector: tuple[int, ...]) -> tuple[Any, ...]:
        magnitudes = [abs(digit) for digit in vector]
        return sum(magnitudes), max(magnitudes), magnitudes

    return min(representations(weight, base, slices), key=rank)


def column_sums_of(vectors: list[tuple[int, ...]]) -> list[int]:
    """Sums of the positive digits of every slice, then those of the negative ones' magnitudes."""
    slices = range(len(vectors[0]))
    return [sum(max(sign * vector[i], 0) for vector in vectors) for sign in (1, -1) for i in slices]


def balanced(weights: list[int], base: int, slices: int, sweeps: int) -> list[tuple[int, ...]]:
    """The local search of ``balanced`` digits: one weight after the other gets the digits that cost least.

    A sum costs itself, and beyond a threshold, one below the largest so far, also its excess squared times 65536 and a
    weight. Where a sweep changes nothing the weights of sums beyond the threshold double.
    """
    plain = [tuple((abs(w) // base**i % base) * (1 if w > 0 else -1) for i in range(slices)) for w in weights]
    now = [canonical(w, base, slices) for w in weights]
    if max(column_sums_of(plain)) < max(column_sums_of(now)):
        now = plain
    held, best = list(now), max(column_sums_of(now))
    stress = [1] * (2 * slices)
    threshold = best - 1

    def price(vectors: list[tuple[int, ...]]) -> int:
        return sum(
            total + 65536 * factor * max(0, total - threshold) ** 2
            for total, factor in zip(column_sums_of(vectors), stress, strict=True)
        )

    for _ in range(sweeps):
        if best <= 1:
            break
        changed = False
        for k, weight in enumerate(weights):
            others = now[:k] + now[k + 1 :]
            found = min(representations(weight, base, slices), key=lambda vector: price([*others, vector]))
            if price([*others, found]) < price(now):
                now[k], changed = found, True
        totals = column_sums_of(now)
        if max(totals) < best:
            held, best = list(now), max(totals)
            threshold, stress = best - 1, [1] * (2 * slices)
        elif not changed:
            stress = [2 * s if total > threshold else s for s, total in zip(stress, totals, strict=True)]
            if max(stress) > 1024:
                break
    return held


def digits_of_column(weights: list[int], hw: Any, sweeps: int = 48) -> list[tuple[int, ...]]:
    """Digits of one column of a row tile, as the description chooses them."""
    base, slices = 2**hw.cell_bits, slice_count(hw)
    digits = getattr(hw, "digits", "magnitude")
    if digits == "canonical":
        return [canonical(weight, base, slices) for weight in weights]
    if digits == "balanced":
        return balanced(weights, base, slices, sweeps)
    return [tuple((abs(w) // base**i % base) * (1 if w > 0 else -1) for i in range(slices)) for w in weights]


def column_levels(w: Any, hw: Any) -> list[Tile]:
    """Cells of every physical column of ``w`` (K, N)."""
    w = np.asarray(w, dtype=np.int64)
    full = 2**hw.cell_bits - 1
    tiles = []
    for number, start in enumerate(range(0, w.shape[0], read_rows(hw))):
        block = w[start : start + read_rows(hw)]
        rows = block.shape[0]
        columns = []
        for s in range(slice_count(hw)):
            for n in range(w.shape[1]):
                weights = [int(weight) for weight in block[:, n]]
                if hw.encoding == "differential":
                    digits = [vector[s] for vector in digits_of_column(weights, hw)]
                    for sign in (+1, -1):
                        levels = [max(sign * digit, 0) for digit in digits]
                        columns.append(Column(number, s, sign, n, np.array(levels, dtype=np.int64)))
                else:
                    held = [weight + 2 ** (hw.weight_bits - 1) for weight in weights]
                    levels = [(value >> (hw.cell_bits * s)) & full for value in held]
                    flip = hw.encoding == "offset_flip" and 2 * sum(levels) > full * rows
                    if flip:
                        levels = [full - level for level in levels]
                    columns.append(Column(number, s, +1, n, np.array(levels, dtype=np.int64), flip))
        unit = None if hw.encoding == "differential" else np.ones(rows, dtype=np.int64)
        tiles.append(Tile(start, rows, columns, unit))
    return tiles


def input_passes(x: np.ndarray, hw: Any, signed_inputs: bool) -> list[tuple[int, np.ndarray]]:
    """The input cycles of one vector ``x`` (K,): (the cycle's weight in shift-and-add, the digits it applies)."""
    a, v = hw.input_bits, hw.dac_bits
    digits = 0
    while digits * v < a:
        digits += 1
    codes = [int(code) for code in x]
    if not signed_inputs:
        passes = [(+1, codes)]
    elif v == 1:
        passes = [(+1, codes)]  # two's complement: Python's >> and & read the digits of a negative code
    else:
        passes = [(+1, [max(code, 0) for code in codes]), (-1, [max(-code, 0) for code in codes])]
    cycles = []
    for sign, values in passes:
        for i in range(digits):
            weight = sign * 2 ** (v * i)
            if signed_inputs and v == 1 and i == digits - 1:
                weight = -weight  # the sign bit's cycle is subtracted
            applied = [(value >> (v * i)) & (2**v - 1) for value in values]
            cycles.append((weight, np.array(applied, dtype=np.int64)))
    return cycles


def matmul(x: Any, w: Any, hw: Any, adc: int | Adc, signed_inputs: bool = False) -> TwinProduct:
    """Multiply on crossbars, one conversion at a time.

    ``x`` (M, K) codes and ``w`` (K, N), or ``x`` (M, G*K) and ``w`` (G, K, N), whose groups follow each other in ``y``.
    """
    x, w = np.asarray(x), np.asarray(w)
    if w.ndim == 3:
        parts = [
            matmul(x[:, g * w.shape[1] : (g + 1) * w.shape[1]], w[g], hw, adc, signed_inputs) for g in range(w.shape[0])
        ]
        return TwinProduct(
            np.concatenate([part.y for part in parts], axis=1),
            sum(part.conversions for part in parts),
            sum(part.saturations for part in parts),
            max(part.max_column_sum for part in parts),
            sum((part.sums for part in parts), Counter()),
        )
    if isinstance(adc, int):
        adc = Adc((adc,) * slice_count(hw), adc)
    analog = hw.readout == "analog"
    full = 2**hw.cell_bits - 1
    out = TwinProduct(np.zeros((x.shape[0], w.shape[1]), dtype=np.int64))

    def convert(s: int, bits: int, which: int) -> int:
        """One ADC reading."""
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if analog else (0, 2**bits - 1)
        out.conversions += 1
        out.sums[which, s] += 1
        out.max_column_sum = max(out.max_column_sum, abs(s))
        if s > high or s < low:
            out.saturations += 1
        return min(max(s, low), high)

    tiles = column_levels(w, hw)
    for m in range(x.shape[0]):
        for weight, digits in input_passes(x[m], hw, signed_inputs):
            for tile in tiles:
                d = digits[tile.start : tile.start + tile.rows]
                unit_code = 0
                if tile.unit is not None:
                    unit_code = convert(int(d @ tile.unit), adc.unit, -1)
                    for n in range(w.shape[1]):
                        out.y[m, n] -= weight * 2 ** (hw.weight_bits - 1) * unit_code
                if analog:
                    # the columns come in pairs, positive then negative; only the difference is converted
                    for plus, minus in zip(tile.columns[0::2], tile.columns[1::2], strict=True):
                        assert (plus.slice, plus.output) == (minus.slice, minus.output)
                        difference = int(d @ plus.levels) - int(d @ minus.levels)
                        code = convert(difference, adc.slices[plus.slice], plus.slice)
                        out.y[m, plus.output] += weight * 2 ** (hw.cell_bits * plus.slice) * code
                    continue
                for column in tile.columns:
                    code = convert(int(d @ column.levels), adc.slices[column.slice], column.slice)
                    if column.flipped:
                        code = full * unit_code - code
                    out.y[m, column.output] += column.sign * weight * 2 ** (hw.cell_bits * column.slice) * code
    return out


def driven_rows(x: Any, hw: Any, signed_inputs: bool = False) -> list[int]:
    """How often each column of ``x`` (M, K) holds a digit that is not zero, over vectors, input cycles and passes."""
    driven = [0] * np.asarray(x).shape[1]
    for vector in np.asarray(x):
        for _, digits in input_passes(vector, hw, signed_inputs):
            for row, digit in enumerate(digits):
                driven[row] += int(digit != 0)
    return driven


def row_use(w: Any, hw: Any) -> tuple[list[int], list[int]]:
    """Of each row of ``w`` (K, N): crossbars that hold a part of it, and its cells in them that are not at level 0.

    Columns lie output by output; a crossbar is built where an output that has a column in it has a weight in its rows.
    """
    w = np.asarray(w)
    crossbars: list[set[int]] = [set() for _ in range(len(w))]
    cells = [0] * len(w)
    slices, signs = slice_count(hw), 2 if hw.encoding == "differential" else 1
    for tile in column_levels(w, hw):
        first = tile.start // hw.rows * hw.rows
        holds = (w[first : first + hw.rows] != 0).any(axis=0)
        homes = {}
        for column in tile.columns:
            sign = 0 if column.sign > 0 else 1
            homes[id(column)] = ((column.output * signs + sign) * slices + column.slice) // hw.columns
        built = {homes[id(column)] for column in tile.columns if holds[column.output]}
        for column in tile.columns:
            home = homes[id(column)]
            if home in built:
                for row, level in enumerate(column.levels):
                    crossbars[tile.start + row].add(home)
                    cells[tile.start + row] += int(level != 0)
    return [len(homes) for homes in crossbars], cells


@dataclass
class TwinExcess:
    """What saturation takes from the exact product, and how many conversions had to be looked at for it."""

    y: np.ndarray
    performed: int = 0
    saturations: int = 0


def excess(x: Any, w: Any, hw: Any, adc: Adc, signed_inputs: bool = False) -> TwinExcess:
    """One conversion at a time, of a differential, digital design with 1-bit inputs.

    A conversion has to be looked at unless the rows it drives, whichever they are, cannot reach saturation: the largest
    levels of as many rows do not sum to more than the code range.
    """
    x, w = np.asarray(x), np.asarray(w)
    out = TwinExcess(np.zeros((x.shape[0], w.shape[1]), dtype=np.int64))
    for m in range(x.shape[0]):
        for weight, digits in input_passes(x[m], hw, signed_inputs):
            for tile in column_levels(w, hw):
                d = digits[tile.start : tile.start + tile.rows]
                for column in tile.columns:
                    limit = 2 ** adc.slices[column.slice] - 1
                    driven = int(d.sum())
                    if sum(sorted(column.levels.tolist(), reverse=True)[:driven]) <= limit:
                        continue
                    out.performed += 1
                    over = int(d @ column.levels) - limit
                    if over > 0:
                        out.saturations += 1
                        out.y[m, column.output] -= column.sign * weight * 2 ** (hw.cell_bits * column.slice) * over
    return out


# ---- ADC bits (docs/contract.md) ---------------------------------------------------------------------------------


def convolve(x: Any, w: Any, window: Any) -> np.ndarray:
    """Receptive fields of codes x (n, H, W, G * C), margins included, times w (G, K, N); (positions, G * N) integers.

    Rows of w are in the order channel, kernel row, kernel column (docs/contract.md).
    """
    x, w = np.asarray(x).astype(np.int64), np.asarray(w).astype(np.int64)
    groups, rows, _ = w.shape
    channels = rows // (window.kernel[0] * window.kernel[1])
    reach = [(kernel - 1) * dilation + 1 for kernel, dilation in zip(window.kernel, window.dilation, strict=True)]
    products = []
    for image in x:
        for top in range(0, x.shape[1] - reach[0] + 1, window.stride[0]):
            for left in range(0, x.shape[2] - reach[1] + 1, window.stride[1]):
                field = image[top : top + reach[0] : window.dilation[0], left : left + reach[1] : window.dilation[1]]
                for g in range(groups):
                    mine = field[:, :, g * channels : (g + 1) * channels]
                    products.append(mine.transpose(2, 0, 1).reshape(-1) @ w[g])
    return np.array(products).reshape(-1, groups * w.shape[2])


def dequantise(y: Any, input_scale: float, weight_scale: Any, bias: Any) -> np.ndarray:
    """Real values of products y (M, N): ``y * (input_scale * weight_scale) + bias`` in float64, rounded to float32."""
    return (np.asarray(y, np.float64) * (input_scale * weight_scale) + bias).astype(np.float32)


def ceil_log2(numerator: int, denominator: int = 1) -> int:
    """``ceil(log2(numerator / denominator))`` without floating point; may be negative."""
    bits = -64
    while numerator * 2**64 > denominator * 2 ** (bits + 64):
        bits += 1
    return bits


def column_bits(s_max: int) -> int:
    """``ceil(log2(S_max + 1))``: the smallest N with ``S_max <= 2^N - 1``."""
    bits = 0
    while s_max > 2**bits - 1:
        bits += 1
    return bits


def pair_bits(s_plus: int, s_minus: int) -> int:
    """Smallest N whose signed range ``-2^(N-1) .. 2^(N-1) - 1`` holds a pair's extremes (analog); 0 for a zero pair."""
    if s_plus == 0 and s_minus == 0:
        return 0  # as column_bits(0)
    bits = 1
    while s_plus > 2 ** (bits - 1) - 1 or s_minus > 2 ** (bits - 1):
        bits += 1
    return bits


def largest_digit(hw: Any, signed_inputs: bool = False) -> int:
    """Largest digit any code applies: ``2^min(v, a) - 1``.

    The one exception: signed inputs whose magnitudes, up to ``2^(a-1)``, fit one digit (``v >= a > 1``) never apply
    the all-ones digit. It is found by looking at the digits of the extreme codes.
    """
    if not signed_inputs:
        return 2 ** min(hw.dac_bits, hw.input_bits) - 1
    low, high = input_limits(hw, signed_inputs)
    codes = np.array([low, -1, high])
    return max(int(digits.max()) for _, digits in input_passes(codes, hw, signed_inputs))


def s_max_table(w: Any, hw: Any, signed_inputs: bool = False) -> dict[tuple[int, int, int, int], int]:
    """``S_max`` of every physical column: (tile, slice, sign, output) -> sum; the unit column is (tile, -1, 1, -1)."""
    table = {}
    digit = largest_digit(hw, signed_inputs)
    for number, tile in enumerate(column_levels(w, hw)):
        for column in tile.columns:
            table[number, column.slice, column.sign, column.output] = digit * int(column.levels.sum())
        if tile.unit is not None:
            table[number, -1, +1, -1] = digit * int(tile.unit.sum())
    return table


def weight_aware_bits(w: Any, hw: Any, signed_inputs: bool = False) -> tuple[int, list[int], int]:
    """Bits this matrix needs: (of the whole matrix, of each slice, of the unit column)."""
    table = s_max_table(w, hw, signed_inputs)
    slices = [0] * slice_count(hw)
    unit = 0
    for (tile, s, sign, n), s_max in table.items():
        if s == -1:
            unit = max(unit, column_bits(s_max))
        elif hw.readout == "analog":
            if sign == +1:
                slices[s] = max(slices[s], pair_bits(s_max, table[tile, s, -1, n]))
        else:
            slices[s] = max(slices[s], column_bits(s_max))
    return max([*slices, unit]), slices, unit


def largest_nonzeros(w: Any, hw: Any) -> int:
    """``l``: the most non-zero weights in one column of one row tile."""
    w = np.asarray(w)
    counts = [0]
    for start in range(0, w.shape[0], read_rows(hw)):
        for n in range(w.shape[1]):
            counts.append(sum(1 for weight in w[start : start + read_rows(hw), n] if weight != 0))
    return max(counts)


def equation_formula(v: int, w: int, r: int) -> int:
    """Eq. (1) of TinyADC: ``ceil(v + w + log2(r))``, minus 1 unless ``v > 1 and w > 1``."""
    bits = v + w + ceil_log2(r)
    return bits if v > 1 and w > 1 else bits - 1


def equation_bits(w: Any, hw: Any) -> int:
    """Eq. (1) for a matrix; 0 where r is 0 and the formula has no value: no bits are needed."""
    w = np.asarray(w)
    r = largest_nonzeros(w, hw) if hw.encoding == "differential" else min(read_rows(hw), w.shape[0])
    return equation_formula(hw.dac_bits, hw.cell_bits, r) if r > 0 else 0


def paper_formula(nonzeros: int) -> int:
    """``ceil(8 - log2(128 / l))``, the count of TinyADC's tables."""
    return 8 + ceil_log2(nonzeros, 128)


def paper_bits(w: Any, hw: Any) -> int | None:
    """The tables' count for a matrix, 0 without non-zeros; None outside ``R = 128, w = 2, v = 1``."""
    if (read_rows(hw), hw.cell_bits, hw.dac_bits) != (128, 2, 1):
        return None
    nonzeros = largest_nonzeros(w, hw)
    return paper_formula(nonzeros) if nonzeros > 0 else 0


def resolve_adc(w: Any, hw: Any, signed_inputs: bool = False) -> Adc:
    """The ADC resolutions a number or policy stands for on one matrix; an ADC has at least one bit."""
    count = slice_count(hw)
    if hw.adc_bits == "weight_aware" and hw.adc_scope == "slice":
        _, slices, unit = weight_aware_bits(w, hw, signed_inputs)
        return Adc(tuple(max(1, bits) for bits in slices), max(1, unit))
    if hw.adc_bits == "weight_aware":
        bits = weight_aware_bits(w, hw, signed_inputs)[0]
    elif hw.adc_bits == "equation":
        bits = equation_bits(w, hw)
    elif hw.adc_bits == "paper":
        bits = paper_bits(w, hw) or 0
    else:
        bits = int(hw.adc_bits)
    return Adc((max(1, bits),) * count, max(1, bits))


# ---- brute force -------------------------------------------------------------------------------------------------


def every_input(length: int, hw: Any, signed_inputs: bool = False) -> np.ndarray:
    """Every code vector of this length, one a row."""
    low, high = input_limits(hw, signed_inputs)
    return np.array(list(itertools.product(range(low, high + 1), repeat=length)), dtype=np.int64).reshape(-1, length)


def brute_force(w: Any, hw: Any, adc: int | Adc, signed_inputs: bool = False) -> tuple[bool, int]:
    """Try every input vector: (no conversion ever saturates, largest column sum ever seen)."""
    w = np.asarray(w)
    product = matmul(every_input(w.shape[0], hw, signed_inputs), w, hw, adc, signed_inputs)
    return product.saturations == 0, product.max_column_sum


# ---- pruning -----------------------------------------------------------------------------------------------------


def project_bcr(matrix: np.ndarray, block: tuple[int, int], kept: tuple[int, int]) -> np.ndarray:
    """Of every block the rows and columns whose crossings have the largest sum of squares; all else is zero.

    Every choice of rows is tried (of columns, where those have fewer), the first of equals stays; with each the columns
    with the largest sums, the lower of equals. Sums run over a choice in order, then from the largest column down.
    """
    projected = np.zeros_like(matrix)
    for top, left in itertools.product(range(0, matrix.shape[0], block[0]), range(0, matrix.shape[1], block[1])):
        part = matrix[top : top + block[0], left : left + block[1]]
        stay = [min(kept[0], part.shape[0]), min(kept[1], part.shape[1])]
        by_columns = math.comb(part.shape[0], stay[0]) > math.comb(part.shape[1], stay[1])
        lines = part.T if by_columns else part
        count, keep = stay[::-1] if by_columns else stay
        best, best_total = ((), ()), -1.0
        for chosen in itertools.combinations(range(lines.shape[0]), count):
            sums = [0.0] * lines.shape[1]
            for line, across in itertools.product(chosen, range(lines.shape[1])):
                sums[across] += float(lines[line, across]) * float(lines[line, across])
            order = sorted(range(len(sums)), key=lambda across: (-sums[across], across))[:keep]
            total = 0.0
            for across in order:
                total += sums[across]
            if total > best_total:
                best, best_total = (chosen, tuple(order)), total
        for line, across in itertools.product(*best):
            row, column = (across, line) if by_columns else (line, across)
            projected[top + row, left + column] = part[row, column]
    return projected


# ---- SAR searches (docs/adc_search.md) ---------------------------------------------------------------------------


@dataclass
class Comparator:
    """Answers "is the sum at least t?" and remembers every question."""

    s: int
    asked: list[int] = field(default_factory=list)

    def at_least(self, t: int) -> bool:
        """One comparison."""
        self.asked.append(t)
        return self.s >= t


def successive_approximation(comparator: Comparator, bits: int, step: int, at_least_bit: int | None = None) -> int:
    """Find bits ``bits - 1 .. step``, one comparison each; thresholds lie half a step lower.

    With ``at_least_bit = n`` the sum is known to be at least ``2^n``: once all bits above n are found to be 0, bit n
    is 1 without a question.
    """
    value = 0
    half = 2**step // 2
    for bit in range(bits - 1, step - 1, -1):
        if at_least_bit == bit and value == 0:
            value = 2**bit
        elif comparator.at_least(value + 2**bit - half):
            value += 2**bit
    return value


def sar_search(search: Any, s: int, analog: bool = False) -> tuple[int, str, list[int]]:
    """Convert one column sum, comparison by comparison: (what it reads, code word as text, thresholds asked)."""
    if not analog:
        comparator = Comparator(s)
        value, word = magnitude_search(search, search.bits, comparator)
        return value, word, comparator.asked
    if search.bits == 0:
        return 0, "", []
    if s >= 0:  # the first comparison, with zero
        comparator = Comparator(s)
        value, word = magnitude_search(search, search.bits - 1, comparator)
        return value, "0" + word, [0, *comparator.asked]
    comparator = Comparator(-1 - s)  # s <= -1 - t  is the same question as  -1 - s >= t
    value, word = magnitude_search(search, search.bits - 1, comparator)
    return -1 - value, "1" + word, [0, *(-t for t in comparator.asked)]


def magnitude_search(search: Any, bits: int, comparator: Comparator) -> tuple[int, str]:
    """The search of a sum that is not negative: what it reads and its code word (range bit, then resolved bits)."""
    far_step = min(search.far_step, bits)
    width = bits - far_step
    if search.near_bits is None:
        value = successive_approximation(comparator, bits, far_step)
        return value, as_bits(value // 2**far_step, width)
    width = max(width, search.near_bits - search.near_step)
    if comparator.at_least(2**search.near_bits):
        value = successive_approximation(comparator, bits, far_step, search.near_bits)
        return value, "1" + as_bits(value // 2**far_step, width)
    value = successive_approximation(comparator, search.near_bits, search.near_step)
    return value, "0" + as_bits(value // 2**search.near_step, width)


def as_bits(number: int, width: int) -> str:
    """Binary text of a fixed width."""
    return format(number, f"0{width}b") if width else ""


def searched_matmul(x: Any, w: Any, hw: Any, adc: Adc, search: Any, signed_inputs: bool = False) -> tuple[Any, int]:
    """Multiply on crossbars whose every conversion is such a search: (y, comparisons made)."""
    x, w = np.asarray(x), np.asarray(w)
    analog, full = hw.readout == "analog", 2**hw.cell_bits - 1
    y = np.zeros((x.shape[0], w.shape[1]), dtype=np.int64)
    comparisons = 0

    def convert(s: int, bits: int, how: Any) -> int:
        nonlocal comparisons
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if analog else (0, 2**bits - 1)
        value, _, asked = sar_search(how, min(max(s, low), high), analog)
        comparisons += len(asked)
        return value

    tiles = column_levels(w, hw)
    for m in range(x.shape[0]):
        for number, (weight, digits) in enumerate(input_passes(x[m], hw, signed_inputs)):
            cycle = search.slices[number % len(search.slices)]
            for tile in tiles:
                d = digits[tile.start : tile.start + tile.rows]
                unit_code = 0
                if tile.unit is not None:
                    unit_code = convert(int(d @ tile.unit), adc.unit, search.unit)
                    y[m] -= weight * 2 ** (hw.weight_bits - 1) * unit_code
                pairs = zip(tile.columns[0::2], tile.columns[1::2], strict=True) if analog else ()
                for plus, minus in pairs:
                    difference = int(d @ plus.levels) - int(d @ minus.levels)
                    code = convert(difference, adc.slices[plus.slice], cycle[plus.slice])
                    y[m, plus.output] += weight * 2 ** (hw.cell_bits * plus.slice) * code
                for column in () if analog else tile.columns:
                    code = convert(int(d @ column.levels), adc.slices[column.slice], cycle[column.slice])
                    if column.flipped:
                        code = full * unit_code - code
                    y[m, column.output] += column.sign * weight * 2 ** (hw.cell_bits * column.slice) * code
    return y, comparisons


def level_digits(code: int, cell_bits: int, slices: int) -> tuple[int, ...]:
    """The levels of a magnitude's cells, least significant first."""
    return tuple(code // 2 ** (cell_bits * number) % 2**cell_bits for number in range(slices))


def priced_choice(target: float, prices: Any, cell_bits: int, high: int) -> tuple[int, float]:
    """The code with the least squared distance plus price of its levels, and that least, by trying all."""

    def priced(code: int) -> float:
        digits = level_digits(code, cell_bits, len(prices))
        return (target - code) ** 2 + sum(float(p) * d for p, d in zip(prices, digits, strict=True))

    code = min(range(high + 1), key=priced)
    return code, priced(code)


def least_level_cost(targets: Any, budgets: tuple[int, ...], cell_bits: int, high: int) -> float:
    """The least sum of squared distances of codes whose levels keep one budget a slice: every way of using them.

    Row by row, of all ways to the same levels used the cheapest is kept, which loses none that could be best.
    """
    codes = [(code, level_digits(code, cell_bits, len(budgets))) for code in range(high + 1)]
    costs = {(0,) * len(budgets): 0.0}
    for target in targets:
        found: dict[tuple[int, ...], float] = {}
        for used, cost in costs.items():
            for code, digits in codes:
                then = tuple(u + d for u, d in zip(used, digits, strict=True))
                if all(u <= b for u, b in zip(then, budgets, strict=True)):
                    least = cost + (float(target) - code) ** 2
                    found[then] = min(least, found.get(then, least))
        costs = found
    return min(costs.values())
