"""What the machine allows, measured on the spot: population counts, full adders of 512 lanes, products of bytes.

Each loop works on what stays in the first-level cache and does nothing else, by one thread. The bit-sliced kernel is
held against full adders. It counts ones: a full adder turns three bits of a sum into two, so to end with the bits of
the results every other bit of the inputs, one a one of ``|w|``, input digit and vector, costs one full adder,
whatever the order, as long as no sum is shared between columns. The certified engine is held against multiply-
accumulates of bytes, one for each of the layer's.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import median_seconds
from bitline.crossbar.byte_tiles import HAS_BYTE_DOTS, LANES, STEP, byte_tile
from bitline.crossbar.kernels import popcount
from bitline.crossbar.lanes import HALF, PLANE, VECTORS, address, different, full_add, load_member, store, zeros

__all__ = ["ADDER_BOUND", "BYTE_BOUND", "COUNT_BOUND", "WORDS", "adder_rate", "byte_rate", "count_rate", "full_adders"]

COUNT_BOUND = "population-count bound, 1 thread"
ADDER_BOUND = "full-adder bound, 1 thread"
BYTE_BOUND = "byte-product bound, 1 thread"
WORDS = 4
"""Words counted for a conversion of the bound: 128 rows of 2-bit cells."""

_MEMBERS = 4096
"""Members of the list that is added: 8 KiB, beside 16 KiB of input planes."""

_POSITIONS, _REGISTERS = 8, 2
_tile = byte_tile(_POSITIONS, _REGISTERS)


@numba.njit
def count_words(digits, words, sums):  # type: ignore[no-untyped-def]
    """Population counts alone, without conversions: sums[c] += ones of (digit & words[q, c]), four words a column.

    Nothing is reduced across lanes, and words (4, C) and sums (C,) stay in the first-level cache.
    """
    w0, w1, w2, w3 = words[0], words[1], words[2], words[3]
    for m in range(digits.shape[0]):
        d = digits[m]
        for c in range(sums.shape[0]):
            sums[c] += popcount(d & w0[c]) + popcount(d & w1[c]) + popcount(d & w2[c]) + popcount(d & w3[c])


def count_rate(repeats: int) -> dict[str, float]:
    """The machine's population counts a second, as conversions of four words."""
    rng = np.random.default_rng(0)
    words = rng.integers(0, 1 << 63, (WORDS, 512), dtype=np.uint64)  # 16 KiB: stays in the first-level cache
    digits, sums = rng.integers(0, 1 << 63, 20000, dtype=np.uint64), np.zeros(512, np.int64)
    seconds = median_seconds(lambda: count_words(digits, words, sums), repeats)
    return seconds | {"conversions_per_s_and_core": digits.size * sums.size / seconds["median"]}


@numba.njit
def _add_eight(inputs, members, k, c0, c1, c2):  # type: ignore[no-untyped-def]
    """Seven full adders for eight members; the new low bits, and the carry."""
    c0, a = full_add(c0, load_member(inputs, members, k), load_member(inputs, members, k + 1))
    c0, b = full_add(c0, load_member(inputs, members, k + 2), load_member(inputs, members, k + 3))
    c1, d = full_add(c1, a, b)
    c0, a = full_add(c0, load_member(inputs, members, k + 4), load_member(inputs, members, k + 5))
    c0, b = full_add(c0, load_member(inputs, members, k + 6), load_member(inputs, members, k + 7))
    c1, e = full_add(c1, a, b)
    c2, carry = full_add(c2, d, e)
    return c0, c1, c2, carry


@numba.njit
def add_members(planes, members, low_bits, rounds):  # type: ignore[no-untyped-def]
    """Full adders alone: 15 for 16 members of a list, each of 512 lanes of two digits.

    planes (R, 16) uint64, of which members (n,) uint16, n a multiple of 16, are distances in words; low_bits (5, 16)
    uint64 receives the sum's low bits, and the parity of the carries beyond, so that nothing is left out.
    """
    inputs, list_at, low_at = address(planes), address(members), address(low_bits)
    zero = zeros()
    c0, c1, c2, c3, beyond = zero, zero, zero, zero, zero
    for _ in range(rounds):
        for k in range(0, members.shape[0], 16):
            c0, c1, c2, a = _add_eight(inputs, list_at, k, c0, c1, c2)
            c0, c1, c2, b = _add_eight(inputs, list_at, k + 8, c0, c1, c2)
            c3, a = full_add(c3, a, b)
            beyond = different(beyond, a)
    store(low_at, c0)
    store(low_at + PLANE, c1)
    store(low_at + 2 * PLANE, c2)
    store(low_at + 3 * PLANE, c3)
    store(low_at + 4 * PLANE, beyond)


def adder_rate(repeats: int, rounds: int = 20_000) -> dict[str, float]:
    """The machine's full adders of 512 lanes a second, their inputs read through a list as the kernel reads them."""
    rng = np.random.default_rng(0)
    words = rng.integers(0, 1 << 63, 129 * 16, dtype=np.uint64)
    first = -words.ctypes.data // 8 % 16  # planes begin where cache lines do, as the kernel's
    planes = words[first : first + 128 * 16].reshape(128, 16)
    members = (PLANE // 8 * rng.integers(0, len(planes), _MEMBERS)).astype(np.uint16)
    low_bits = np.zeros((5, 16), np.uint64)
    seconds = median_seconds(lambda: add_members(planes, members, low_bits, rounds), repeats)
    return seconds | {"full_adders_per_s_and_core": PLANE // HALF * rounds * _MEMBERS / 16 * 15 / seconds["median"]}


def full_adders(w: NDArray[np.integer[Any]], digits: int, vectors: float) -> float:
    """Least full adders of 512 lanes with which ones can be counted bit-sliced; lanes of the last block count in part.

    Parameters
    ----------
    w : ndarray [shape=(..., K, N), integer]
        Weight codes.
    digits : int
        1-bit input digits.
    vectors : float
        Input vectors.
    """
    magnitudes = np.abs(w.astype(np.int64))
    ones = int(np.bitwise_count(magnitudes).sum(dtype=np.int64))
    largest = magnitudes.sum(axis=-2) * ((1 << digits) - 1)
    left = int(np.frexp(largest.astype(np.float64))[1].sum()) + largest.size  # bits of the results, one for the sign
    return max(0, ones * digits - left) * vectors / VECTORS


@numba.njit
def multiply_bytes(codes, weights, offsets, sums, rounds):  # type: ignore[no-untyped-def]
    """One tile of sums in registers, again and again: codes times weights.

    codes (8, 4 * steps) uint8; weights (steps, 2, 16, 4) int8; offsets (1,) int64, zero; sums (8, 32) int32.
    """
    for _ in range(rounds):
        _tile(
            address(codes),
            codes.shape[1],
            address(offsets),
            1,
            weights.shape[0],
            address(weights),
            address(sums),
            4 * sums.shape[1],
        )


def byte_rate(repeats: int, rounds: int = 50_000) -> dict[str, float]:
    """The machine's multiply-accumulates of bytes a second; none where it has no instruction for them."""
    if not HAS_BYTE_DOTS:
        return {}
    rng = np.random.default_rng(0)
    steps = 128  # 4 KiB of codes and 16 KiB of weights
    codes = rng.integers(0, 256, (_POSITIONS, STEP * steps), dtype=np.uint8)
    weights = rng.integers(-127, 128, (steps, _REGISTERS, LANES, STEP), dtype=np.int8)
    offsets, sums = np.zeros(1, np.int64), np.zeros((_POSITIONS, _REGISTERS * LANES), np.int32)
    seconds = median_seconds(lambda: multiply_bytes(codes, weights, offsets, sums, rounds), repeats)
    return seconds | {"macs_per_s_and_core": rounds * codes.size * sums.shape[1] / seconds["median"]}
