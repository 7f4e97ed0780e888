"""What the bounds count, by hand, and that their loops count it."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from benchmarks.bounds import add_members, count_words, full_adders, multiply_bytes

from bitline.crossbar.lanes import PLANE


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="the bounds are of compiled code")
def test_the_loop_of_full_adders_adds() -> None:
    rng = np.random.default_rng(0)
    planes = rng.integers(0, 1 << 63, (5, 16), dtype=np.uint64)
    members = rng.integers(0, 5, 64).astype(np.uint16)
    low_bits = np.zeros((5, 16), np.uint64)
    add_members(planes, PLANE // 8 * members, low_bits, 1)
    ours = np.unpackbits(planes[members].view(np.uint8), axis=1).astype(int).sum(axis=0)  # of 1024 lanes
    for bit in range(5):  # the fifth, of 64 members, is the parity of the carries
        np.testing.assert_array_equal(np.unpackbits(low_bits[bit].view(np.uint8)), (ours >> bit) & 1)


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="the bounds are of compiled code")
def test_the_loop_of_population_counts_counts() -> None:
    sums = np.zeros(1, np.int64)
    words = np.array([[0b1111], [0b0011], [0b1000], [0]], np.uint64)
    count_words(np.array([0b0111, 0b1000], np.uint64), words, sums)
    assert sums[0] == 3 + 2 + 0 + 0 + 1 + 0 + 1 + 0


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="the bounds are of compiled code")
def test_the_loop_of_byte_products_multiplies() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, (8, 12), dtype=np.uint8)
    w = rng.integers(-127, 128, (12, 32), dtype=np.int8)
    weights = np.ascontiguousarray(w.reshape(3, 4, 2, 16).transpose(0, 2, 3, 1))
    sums = np.zeros((8, 32), np.int32)
    multiply_bytes(codes, weights, np.zeros(1, np.int64), sums, 2)
    np.testing.assert_array_equal(sums, codes.astype(int) @ w.astype(int))


def test_full_adders_by_hand() -> None:
    # ones of |w|: 7 has 3, -5 has 2, 0 none, 1 one; 4 digits: 24 bits go in. The first output's largest magnitude is
    # 12 * 15 = 180, 8 bits and the sign; the second's 1 * 15, 4 bits and the sign: 14 bits stay. 256 vectors are half
    # a block of lanes.
    w = np.array([[7, 0], [-5, 1]], np.int32)
    assert full_adders(w, digits=4, vectors=256) == (24 - 14) / 2
    assert full_adders(np.stack([w, w]), digits=4, vectors=512) == 2 * (24 - 14)  # groups
    assert full_adders(np.zeros((3, 2), np.int32), digits=4, vectors=512) == 0
