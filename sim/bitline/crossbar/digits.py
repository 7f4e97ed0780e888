"""Signed digits of a differential pair: ways to write a weight whose column sums are smaller.

A pair of columns can hold any ``w = sum_i d_i B^i`` with ``|d_i| <= B - 1`` and ``B = 2^cell_bits``: positive digits
lie in the positive column, negative ones in the negative column. 7 is (3, 1) or (-1, 2), lowest digit first. All ways
to write a weight take the same cells and columns and give the same product; their column sums differ.

``magnitude``
    The digits of ``|w|``, all with the weight's sign.
``canonical``
    The least ``sum_i |d_i|``; of equals the least largest ``|d_i|``, then the lexicographically least
    ``(|d_0|, |d_1|, ...)``.
``balanced``
    Chosen for every column of a row tile so that the largest of its sums, over slices and signs, is small: a local
    search that starts from the better of the two and never ends above it. :func:`lowest_possible` bounds what any
    choice can reach.

Digits follow from carries. With ``b_i`` the digits of ``|w|`` and a carry ``c_i`` into slice i (``c_0 = 0``), a slice
holds ``t = b_i + c_i`` itself and carries nothing, or ``t - B`` and carries 1; nothing may be carried out of the top
slice. So the best digits under any cost that is a sum over slices are found by a walk with two states.

References
----------
Avizienis, "Signed-digit number representations for fast parallel arithmetic", 1961. Xiao et al., arXiv 2101.02419,
2021: signed digits in differential cores. Choosing them per column to lower its largest sum is ours, to our knowledge.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from bitline.parallel import parallel_kernel

__all__ = ["balanced_digits", "canonical_digits", "lowest_possible", "magnitude_digits", "pair_sums"]

_SWEEPS = 48
"""Times the local search goes through the weights of a column."""


def _digit_type(cell_bits: int) -> type:
    return np.int8 if cell_bits < 8 else np.int16


def magnitude_digits(w: NDArray[np.int32], cell_bits: int, slices: int) -> NDArray[np.signedinteger]:
    """Digits of the magnitudes, with the weights' signs.

    Parameters
    ----------
    w : ndarray [shape=(K, N), int32]
        Weight codes, ``|w| < 2^(cell_bits * slices)``.
    cell_bits, slices : int

    Returns
    -------
    ndarray [shape=(S, K, N), int8 or int16]
        Slice 0 is the least significant.
    """
    shifts = (cell_bits * np.arange(slices)).reshape(-1, 1, 1)
    digits = ((np.abs(w) >> shifts) & ((1 << cell_bits) - 1)) * np.sign(w)
    return digits.astype(_digit_type(cell_bits))


def canonical_digits(w: NDArray[np.int32], cell_bits: int, slices: int) -> NDArray[np.signedinteger]:
    """Digits of least ``sum |d_i|``; arguments and result as for :func:`magnitude_digits`."""
    most = int(np.abs(w).max(initial=0))
    table = _canonical_table(max(1, most.bit_length()), cell_bits, slices)
    signs = np.sign(w).astype(table.dtype)
    return np.stack([table[i][np.abs(w)] * signs for i in range(slices)])


@lru_cache(maxsize=8)
def _canonical_table(bits: int, cell_bits: int, slices: int) -> NDArray[np.signedinteger]:
    """Canonical digits [shape=(S, 2^bits)] of all magnitudes below ``2^bits``."""
    base = 1 << cell_bits
    plain = (np.arange(1 << bits) >> (cell_bits * np.arange(slices)).reshape(-1, 1)) & (base - 1)
    far = np.int64(1) << 40

    def least_sums(limit: NDArray[np.int64]) -> NDArray[np.int64]:
        """[shape=(S + 1, 2, 2^bits)] least sum of slices i and up, by carry into i, no digit above the limit."""
        least = np.full((slices + 1, 2, 1 << bits), far)
        least[slices, 0] = 0
        for i in range(slices - 1, -1, -1):
            for carry in (0, 1):
                t = plain[i] + carry
                stay = np.where(t <= np.minimum(limit, base - 1), t + least[i + 1, 0], far)
                borrow = np.where((t >= 1) & (base - t <= limit), base - t + least[i + 1, 1], far)
                least[i, carry] = np.minimum(np.minimum(stay, borrow), far)
        return least

    best = least_sums(np.full(1 << bits, base - 1))[0, 0]
    limit = np.full(1 << bits, base - 1)  # the least largest digit with which the least sum can be had
    low, high = np.zeros(1 << bits, np.int64), limit.copy()
    while (low < high).any():
        middle = (low + high) // 2
        reached = least_sums(middle)[0, 0] == best
        low, high = np.where(reached, low, np.minimum(middle + 1, high)), np.where(reached, middle, high)
    least = least_sums(high)
    # the lexicographically least magnitudes, slice by slice: both carries stay alive where both can still have them
    alive = np.array([[True], [False]]) & np.ones(1 << bits, bool)
    left = best.copy()
    came_from = np.zeros((slices, 2, 1 << bits), np.int64)  # carry into the slice, by the carry out of it
    for i in range(slices):
        magnitudes = np.full((2, 2, 1 << bits), far)  # by carry in and carry out
        for carry in (0, 1):
            t = plain[i] + carry
            fits = alive[carry] & (t <= np.minimum(high, base - 1)) & (t + least[i + 1, 0] == left)
            magnitudes[carry, 0] = np.where(fits, t, far)
            fits = alive[carry] & (t >= 1) & (base - t <= high) & (base - t + least[i + 1, 1] == left)
            magnitudes[carry, 1] = np.where(fits, base - t, far)
        smallest = magnitudes.min(axis=(0, 1))
        chosen = magnitudes == smallest
        alive, came_from[i] = chosen.any(axis=0), chosen.argmax(axis=0)
        left -= smallest
    digits: NDArray[np.signedinteger] = np.zeros((slices, 1 << bits), _digit_type(cell_bits))
    out = np.zeros(1 << bits, np.int64)
    for i in range(slices - 1, -1, -1):
        carry = np.take_along_axis(came_from[i], out[None], axis=0)[0]
        digits[i] = plain[i] + carry - base * out
        out = carry
    digits.setflags(write=False)
    return digits


def balanced_digits(w: NDArray[np.int32], rows: int, cell_bits: int, slices: int) -> NDArray[np.signedinteger]:
    """Digits that make the largest sum of every column of every row tile small.

    Deterministic, and independent of the number of threads. No column's largest sum is above that of
    :func:`magnitude_digits` or :func:`canonical_digits`.

    Parameters
    ----------
    w : ndarray [shape=(K, N), int32]
    rows : int
        Rows of a row tile.
    cell_bits, slices : int

    Returns
    -------
    ndarray [shape=(S, K, N), int8 or int16]
    """
    starts = canonical_digits(w, cell_bits, slices)
    plain = magnitude_digits(w, cell_bits, slices)
    if not w.size:
        return starts
    better = _largest(plain, rows) < _largest(starts, rows)  # (T, N)
    tile = np.arange(w.shape[0]) // rows
    digits = np.ascontiguousarray(np.where(better[tile], plain, starts).transpose(2, 1, 0))  # (N, K, S)
    _balance(np.ascontiguousarray(w.T), rows, cell_bits, _SWEEPS, digits)
    return np.ascontiguousarray(digits.transpose(2, 1, 0))


def pair_sums(digits: NDArray[np.signedinteger], rows: int) -> NDArray[np.int64]:
    """Sums of the positive and the negative columns.

    Parameters
    ----------
    digits : ndarray [shape=(S, K, N), integer]
    rows : int
        Rows of a row tile.

    Returns
    -------
    ndarray [shape=(T, 2, S, N), int64]
        Positive columns first.
    """
    starts = np.arange(0, digits.shape[1], rows)
    positive = np.add.reduceat(np.maximum(digits, 0), starts, axis=1, dtype=np.int64)
    negative = np.add.reduceat(np.maximum(-digits.astype(np.int16), 0), starts, axis=1, dtype=np.int64)
    return np.stack([positive, negative]).transpose(2, 0, 1, 3)


def _largest(digits: NDArray[np.signedinteger], rows: int) -> NDArray[np.int64]:
    """Largest sum [shape=(T, N)] of every column of every row tile."""
    return np.asarray(pair_sums(digits, rows).max(axis=(1, 2)))


@njit(cache=True, inline="always")
def _penalty(total, threshold, weight):
    """Cost of a column sum: its square beyond a threshold, weighted; far below it, itself."""
    over = total - threshold
    if over > 0:
        return over * over * weight * 65536 + total
    return total


@njit(cache=True)
def _best_digits(magnitude, sign, cell_bits, sums, weights, threshold, carried, found):
    """The digits of one weight that cost least beside other weights' ``sums`` (2, S); returns their cost.

    ``carried`` (S, 2) is scratch. ``found`` (S,) receives them. Of equals the one that borrows
    least, the lowest slice first.
    """
    slices = found.shape[0]
    base = 1 << cell_bits
    mask = base - 1
    far = np.int64(1) << 62
    # least cost of slices i and up by the carry into i, from the top
    none, one = np.int64(0), far
    for i in range(slices - 1, -1, -1):
        plain = (magnitude >> (cell_bits * i)) & mask
        stay_sign = 0 if sign > 0 else 1
        next_none, next_one = far, far
        for carry in range(2):
            t = plain + carry
            best, choice = far, 0
            if t <= mask and none < far:
                cost = none
                if t > 0:
                    total = sums[stay_sign, i]
                    weight = weights[stay_sign, i]
                    cost += _penalty(total + t, threshold, weight) - _penalty(total, threshold, weight)
                best = cost
            if t >= 1 and one < far:
                cost = one
                if t < base:
                    total = sums[1 - stay_sign, i]
                    weight = weights[1 - stay_sign, i]
                    cost += _penalty(total + base - t, threshold, weight) - _penalty(total, threshold, weight)
                if cost < best:
                    best, choice = cost, 1
            carried[i, carry] = choice
            if carry == 0:
                next_none = best
            else:
                next_one = best
        none, one = next_none, next_one
    carry = 0
    for i in range(slices):
        t = ((magnitude >> (cell_bits * i)) & mask) + carry
        carry = carried[i, carry]
        found[i] = sign * (t - base * carry)
    return none


@njit(cache=True)
def _add(digits, factor, sums):
    """Add the digits (S,) of one weight to the sums (2, S), or take them away."""
    for i in range(digits.shape[0]):
        if digits[i] > 0:
            sums[0, i] += factor * digits[i]
        else:
            sums[1, i] -= factor * digits[i]


@njit(cache=True)
def _balance_column(w, cell_bits, sweeps, digits, sums, weights, carried, found, now):
    """Lower the largest sum of one column of one row tile: w (K,), digits (K, S) changed in place.

    The threshold is one below the largest sum so far. A sweep gives every weight, one after the other, the digits that
    cost least beside the others'. Where a sweep changes nothing, the sums that are still over the threshold weigh more.
    """
    rows, slices = digits.shape
    now[:rows] = digits
    sums[:] = 0
    for k in range(rows):
        _add(digits[k], 1, sums)
    best = sums.max()
    weights[:] = 1
    threshold = best - 1
    for _ in range(sweeps):
        if best <= 1:
            return
        changed = False
        for k in range(rows):
            if w[k] == 0:
                continue
            magnitude, sign = (w[k], 1) if w[k] > 0 else (-w[k], -1)
            _add(now[k], -1, sums)
            cost = np.int64(0)
            for i in range(slices):
                digit = now[k, i]
                if digit != 0:
                    side = 0 if digit > 0 else 1
                    total, weight = sums[side, i], weights[side, i]
                    cost += _penalty(total + abs(digit), threshold, weight) - _penalty(total, threshold, weight)
            if _best_digits(magnitude, sign, cell_bits, sums, weights, threshold, carried, found) < cost:
                now[k] = found
                changed = True
            _add(now[k], 1, sums)
        largest = sums.max()
        if largest < best:
            best = largest
            digits[:] = now[:rows]
            threshold = best - 1
            weights[:] = 1
        elif not changed:
            for side in range(2):
                for i in range(slices):
                    if sums[side, i] > threshold:
                        weights[side, i] += weights[side, i]
            if weights.max() > 1024:
                return


@parallel_kernel
def _balance(w, rows, cell_bits, sweeps, digits):
    """Every column of every row tile: w (N, K), digits (N, K, S) changed in place; one thread owns an output."""
    outputs, count, slices = digits.shape
    for n in prange(outputs):
        sums, weights = np.zeros((2, slices), np.int64), np.ones((2, slices), np.int64)
        carried, found = np.zeros((slices, 2), np.int64), np.zeros(slices, digits.dtype)
        now = np.zeros((min(rows, count), slices), digits.dtype)
        for first in range(0, count, rows):
            last = min(first + rows, count)
            _balance_column(
                w[n, first:last], cell_bits, sweeps, digits[n, first:last], sums, weights, carried, found, now
            )


@njit(cache=True)
def _cheapest(w, cell_bits, prices, cost, carried, digits):
    """Each weight's digits of least priced magnitude; their sums [shape=(2, S)] in ``cost``; returns the price of all.

    w (K,), prices (2, S) int64 not negative. Ties go to as little borrowing as possible.
    """
    cost[:] = 0
    total = np.int64(0)
    for k in range(w.shape[0]):
        if w[k] == 0:
            continue
        magnitude, sign = (w[k], 1) if w[k] > 0 else (-w[k], -1)
        total += _least_priced(magnitude, sign, cell_bits, prices, carried, digits)
        _add(digits, 1, cost)
    return total


@njit(cache=True)
def _least_priced(magnitude, sign, cell_bits, prices, carried, found):
    """As :func:`_best_digits`, where a digit costs its magnitude times its slice's and side's price."""
    slices = found.shape[0]
    base = 1 << cell_bits
    mask = base - 1
    far = np.int64(1) << 62
    side = 0 if sign > 0 else 1
    none, one = np.int64(0), far
    for i in range(slices - 1, -1, -1):
        plain = (magnitude >> (cell_bits * i)) & mask
        next_none, next_one = far, far
        for carry in range(2):
            t = plain + carry
            best, choice = far, 0
            if t <= mask and none < far:
                best = none + t * prices[side, i]
            if t >= 1 and one < far:
                cost = one + (base - t) * prices[1 - side, i]
                if cost < best:
                    best, choice = cost, 1
            carried[i, carry] = choice
            if carry == 0:
                next_none = best
            else:
                next_one = best
        none, one = next_none, next_one
    carry = 0
    for i in range(slices):
        t = ((magnitude >> (cell_bits * i)) & mask) + carry
        carry = carried[i, carry]
        found[i] = sign * (t - base * carry)
    return none


def lowest_possible(w: NDArray[np.int32], cell_bits: int, slices: int, cuts: int = 200) -> int:
    """A number that the largest sum of a column cannot fall below, whatever digits are chosen.

    For prices ``y >= 0`` of the sums that add up to 1, the largest sum is at least their priced sum, and so at least
    the least priced sum of all choices, which is found weight by weight. The best prices are looked for by Kelley's
    cutting planes, each a linear program of HiGHS. What is returned is worked out in integers from the prices found,
    so it holds however exact the programs were.

    Parameters
    ----------
    w : ndarray [shape=(K,), int32]
        Weight codes of one column of one row tile.
    cell_bits, slices : int
    cuts : int
        Most linear programs.

    Returns
    -------
    int

    References
    ----------
    Kelley, "The cutting-plane method for solving convex programs", 1960.
    """
    from scipy.optimize import linprog

    sides = 2 * slices
    scale = 1 << 20
    w = np.ascontiguousarray(w, np.int32)
    cost, carried = np.zeros((2, slices), np.int64), np.zeros((slices, 2), np.int64)
    digits = np.zeros(slices, np.int64)
    prices = np.full((2, slices), scale // sides, np.int64)
    planes: list[NDArray[np.int64]] = []
    proven = 0
    for _ in range(cuts):
        total = int(_cheapest(w, cell_bits, prices, cost, carried, digits))
        proven = max(proven, -(-total // max(1, int(prices.sum()))))
        planes.append(cost.ravel().copy())
        # the largest theta with theta <= plane . y for every choice met so far
        found = linprog(
            np.append(np.zeros(sides), -1.0),
            A_ub=np.column_stack([-np.array(planes, np.float64), np.ones(len(planes))]),
            b_ub=np.zeros(len(planes)),
            A_eq=np.append(np.ones(sides), 0.0)[None],
            b_eq=[1.0],
            bounds=[(0, None)] * sides + [(None, None)],
            method="highs",
        )
        if found.status != 0 or np.ceil(-found.fun - 1e-6) <= proven:
            break  # no prices prove more
        prices = np.maximum(0, np.rint(found.x[:-1] * scale)).astype(np.int64).reshape(2, slices)
    return proven
