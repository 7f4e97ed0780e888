"""Weight codes whose cells fit an ADC: the nearest codes when every physical column's levels may sum to a limit.

One physical column holds one digit of one sign's magnitudes of a row tile, so the two signs of a column are problems of
their own, and changing a weight's sign never helps: clearing it instead is nearer and frees every cell. What couples
the slices is the value: where the top cell of 64 must go, 63 is near and fills the lower cells. For one sign of one
column of a row tile with targets ``t_i > 0`` (real weights in units of a code) the problem is

    minimise sum_i (t_i - v_i)^2  over codes v_i  such that  sum_i digit_s(v_i) <= L_s  for every slice s,

a multiple-choice knapsack with one budget a slice. With a price ``p_s`` a level each weight chooses by itself, from the
lower envelope of the lines ``v^2 + sum_s p_s digit_s(v) - 2 v t``, exactly. By duality the priced optimum less the
budgets' price is a lower bound on every feasible cost. Polyak's subgradient steps raise it; the choice at the best
prices is made feasible by the cheapest moves, and improved by single moves as long as one helps. So every answer comes
with a bound on how far it is from the best there is: ``bound <= best <= cost``. Where the plain rounding fits, all
three are equal.

References
----------
Fisher, "The Lagrangian relaxation method for solving integer programming problems", Management Science, 1981.
Polyak, "Minimization of unsmooth functionals", USSR Comput. Math. Math. Phys., 1969.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from bitline.errors import RangeError, ShapeError
from bitline.parallel import parallel_kernel

__all__ = ["LevelProjection", "project_levels"]

_HALVINGS = 8
_STEPS = 40
_LENGTH, _SHORTER = 0.6, 0.6
"""Share of Polyak's step that is taken, and the factor on it after :data:`_PATIENCE` steps without a better bound."""
_PATIENCE = 3
_WARM_LENGTH = 0.3
"""The same share where prices go from one call to the next."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LevelProjection:
    """Codes that fit, what they cost, and what they must cost at least."""

    codes: NDArray[np.int32]
    """[shape=(K, N)] Signed codes."""
    cost: NDArray[np.float64]
    """[shape=(T, 2, N)] Sum of squared distances from the targets by row tile, sign (positive first) and column."""
    bound: NDArray[np.float64]
    """[shape=(T, 2, N)] No codes that fit cost less."""
    prices: NDArray[np.float64]
    """[shape=(N, T, 2, S)] Of a level of each slice, from which projections of much the same targets may start."""


def project_levels(
    targets: NDArray[np.floating],
    rows: int,
    limit: int,
    *,
    cell_bits: int,
    slices: int,
    high: int,
    pinned: NDArray[np.integer] | None = None,
    prices: NDArray[np.float64] | None = None,
) -> LevelProjection:
    """The nearest codes whose levels sum to at most a limit in every column of every row tile, slice and sign.

    Parameters
    ----------
    targets : ndarray [shape=(K, N), floating]
        Weights in units of a code; fastest where ``targets.T`` is contiguous.
    rows : int
        Rows of a crossbar.
    limit : int
        Largest sum of one sign's levels in one slice of a column of a row tile.
    cell_bits, slices : int
        How magnitudes of codes are cut into levels.
    high : int
        Largest magnitude of a code.
    pinned : ndarray [shape=(N,), integer], optional
        Of each column a row whose code must be ``high`` with its target's sign; -1 for none.
    prices : ndarray [shape=(N, T, 2, S), float64], optional
        Of an earlier projection of targets much like these: they are trusted, some forty times fewer are tried, and
        they are moved by one step, in place. The codes fit as always; the bound is looser.

    Raises
    ------
    ShapeError
        Not a matrix, or not one pinned row a column.
    RangeError
        Targets that are not finite, a negative limit, one that does not hold a pinned code, or codes the slices do
        not hold.
    """
    if targets.ndim != 2:
        raise ShapeError(f"targets: must be a matrix of shape (K, N), not of shape {targets.shape}")
    if not 1 <= high < 1 << (cell_bits * slices):
        raise RangeError(f"high: must be within 1..{(1 << (cell_bits * slices)) - 1}, found {high}")
    lowest = 0 if pinned is None or bool((pinned < 0).all()) else (1 << cell_bits) - 1
    if limit < lowest or rows < 1:
        raise RangeError(f"limit and rows: must be at least {lowest} and 1, found {limit} and {rows}")
    if not np.isfinite(targets).all():
        raise RangeError("targets: must be finite, found NaN or infinity")
    depth, columns = targets.shape
    pins = np.full(columns, -1, np.int64) if pinned is None else pinned.astype(np.int64)
    if pins.shape != (columns,):
        raise ShapeError(f"pinned: expected one row for each of {columns} columns, found shape {pins.shape}")
    tiles = -(-depth // rows)
    codes = np.zeros((columns, depth), np.int32)
    cost, bound = np.zeros((2, columns, tiles, 2))
    real = np.ascontiguousarray(targets.T, np.float64)
    steps = _STEPS if prices is None else 0
    priced = np.zeros((columns, tiles, 2, slices)) if prices is None else prices
    _project_columns(real, pins, rows, limit, cell_bits, slices, high, steps, priced, codes, cost, bound)
    return LevelProjection(codes=codes.T, cost=cost.transpose(1, 2, 0), bound=bound.transpose(1, 2, 0), prices=priced)


@njit(cache=True)
def _choose(t, n, prices, cell_bits, slices, high, hull, lines, v):
    """Each target's best code at these prices; returns the sum of their priced costs.

    ``t`` (>= n,) float64: targets, ascending. ``hull`` (high + 1,) int64 and ``lines`` (2, high + 1) float64: the codes
    on the lower envelope, from where each is best, and its line's intercept. ``v`` (>= n,) int64 is written.
    """
    mask = (1 << cell_bits) - 1
    top = 0
    hull[0] = 0
    lines[1, 0] = 0.0
    for code in range(1, high + 1):
        intercept = float(code) * code
        for s in range(slices):
            intercept += prices[s] * ((code >> (cell_bits * s)) & mask)
        start = (intercept - lines[1, top]) / (2.0 * (code - hull[top]))
        while top > 0 and start <= lines[0, top]:
            top -= 1
            start = (intercept - lines[1, top]) / (2.0 * (code - hull[top]))
        top += 1
        hull[top] = code
        lines[0, top] = start
        lines[1, top] = intercept
    total = 0.0
    at = 0
    for i in range(n):
        while at < top and t[i] > lines[0, at + 1]:
            at += 1
        v[i] = hull[at]
        total += t[i] * t[i] - 2.0 * hull[at] * t[i] + lines[1, at]
    return total


@njit(cache=True)
def _count_levels(v, n, cell_bits, slices, used):
    """Sums of the levels of each slice."""
    mask = (1 << cell_bits) - 1
    for s in range(slices):
        used[s] = 0
        for i in range(n):
            used[s] += (v[i] >> (cell_bits * s)) & mask


@njit(cache=True)
def _below(code, caps, cell_bits, slices):
    """The largest code up to ``code`` with no digit above its cap."""
    mask = (1 << cell_bits) - 1
    found = 0
    for s in range(slices - 1, -1, -1):
        digit = (code >> (cell_bits * s)) & mask
        if digit > caps[s]:
            for q in range(s + 1):
                found += caps[q] << (cell_bits * q)
            return found
        found += digit << (cell_bits * s)
    return found


@njit(cache=True)
def _above(code, caps, cell_bits, slices, high):
    """The smallest code from ``code`` to ``high`` with no digit above its cap, -1 where there is none."""
    mask = (1 << cell_bits) - 1
    found, prefix = -1, 0
    for s in range(slices - 1, -1, -1):
        digit = (code >> (cell_bits * s)) & mask
        if digit < caps[s]:
            found = prefix + ((digit + 1) << (cell_bits * s))
        if digit > caps[s]:
            return found if found <= high else -1
        prefix += digit << (cell_bits * s)
    return prefix


@njit(cache=True)
def _nearest(target, caps, cell_bits, slices, high):
    """The code nearest to a target with no digit above its cap; of two the smaller."""
    floor = min(math.floor(target), high)
    lower = _below(floor, caps, cell_bits, slices)
    if floor < high:
        upper = _above(floor + 1, caps, cell_bits, slices, high)
        if upper >= 0 and upper - target < target - lower:
            return upper
    return lower


@njit(cache=True)
def _move(v, i, code, cell_bits, slices, used):
    """Give one weight another code, and count its levels."""
    mask = (1 << cell_bits) - 1
    for s in range(slices):
        used[s] += ((code >> (cell_bits * s)) & mask) - ((v[i] >> (cell_bits * s)) & mask)
    v[i] = code


@njit(cache=True)
def _settle(t, n, budgets, cell_bits, slices, high, v, used, caps):
    """Make codes fit by the moves cheapest a level, then take the best move while one helps; returns the cost."""
    mask = (1 << cell_bits) - 1
    _count_levels(v, n, cell_bits, slices, used)
    for over in range(slices - 1, -1, -1):
        # Moves fill only cells that are free, so a slice that fits once stays so.
        while used[over] > budgets[over]:
            least, pick, code = np.inf, 0, 0
            for i in range(n):
                level = (v[i] >> (cell_bits * over)) & mask
                for s in range(slices):
                    caps[s] = min(mask, max(0, budgets[s] - used[s]) + ((v[i] >> (cell_bits * s)) & mask))
                for lower in range(level):
                    caps[over] = lower
                    found = _nearest(t[i], caps, cell_bits, slices, high)
                    freed = min(level - ((found >> (cell_bits * over)) & mask), used[over] - budgets[over])
                    price = ((t[i] - found) ** 2 - (t[i] - v[i]) ** 2) / freed
                    if price < least:
                        least, pick, code = price, i, found
            _move(v, pick, code, cell_bits, slices, used)
    while True:
        most, pick, code = 1e-12, -1, 0
        for i in range(n):
            now = (t[i] - v[i]) ** 2
            if now <= most:
                continue
            for s in range(slices):
                caps[s] = min(mask, budgets[s] - used[s] + ((v[i] >> (cell_bits * s)) & mask))
            found = _nearest(t[i], caps, cell_bits, slices, high)
            gain = now - (t[i] - found) ** 2
            if gain > most:
                most, pick, code = gain, i, found
        if pick < 0:
            break
        _move(v, pick, code, cell_bits, slices, used)
    cost = 0.0
    for i in range(n):
        cost += (t[i] - v[i]) ** 2
    return cost


@njit(cache=True)
def _step(prices, used, budgets, gap, length, cell_bits, slices):
    """Polyak's step in place, a slice's price scaled by the worth of its level squared; False where none is left."""
    norm = 0.0
    for s in range(slices):
        excess = used[s] - budgets[s]
        if excess > 0 or prices[s] > 0:
            norm += (excess * float(1 << (cell_bits * s))) ** 2
    if norm == 0 or gap <= 0:
        return False
    for s in range(slices):
        excess = used[s] - budgets[s]
        prices[s] = max(0.0, prices[s] + length * gap / norm * excess * float(1 << (2 * cell_bits * s)))
    return True


@njit(cache=True)
def _priced(t, n, budgets, prices, cell_bits, slices, high, hull, lines, v, used):
    """The dual's value at these prices; ``v`` and ``used`` are its choice."""
    value = _choose(t, n, prices, cell_bits, slices, high, hull, lines, v)
    _count_levels(v, n, cell_bits, slices, used)
    for s in range(slices):
        value -= prices[s] * budgets[s]
    return value


@njit(cache=True)
def _solve(t, n, budgets, cell_bits, slices, high, steps, prices, v):
    """Codes of one sign of one column of a row tile, for ascending targets; returns their cost and a lower bound.

    ``steps`` 0 trusts the ``prices`` given but for one step, which is left in them for the next call; otherwise they
    are found anew and left there.
    """
    hull, lines = np.empty(high + 1, np.int64), np.zeros((2, high + 1))
    best, used, caps = np.zeros(slices), np.zeros(slices, np.int64), np.zeros(slices, np.int64)
    if steps == 0:
        bound = _priced(t, n, budgets, prices, cell_bits, slices, high, hull, lines, v, used)
        best[:] = used
        cost = _settle(t, n, budgets, cell_bits, slices, high, v, used, caps)
        _step(prices, best, budgets, cost - bound, _WARM_LENGTH, cell_bits, slices)
        return cost, min(bound, cost)

    bound = _priced(t, n, budgets, best, cell_bits, slices, high, hull, lines, v, used)
    if (used <= budgets).all():
        prices[:] = 0.0
        return bound, bound
    # Prices in proportion to what a level is worth: the dual along that ray, by halving on its slope.
    low, upper = 0.0, t[n - 1]
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + upper)
        for s in range(slices):
            prices[s] = middle * (1 << (cell_bits * s))
        value = _priced(t, n, budgets, prices, cell_bits, slices, high, hull, lines, v, used)
        if value > bound:
            bound = value
            best[:] = prices
        slope = 0.0
        for s in range(slices):
            slope += (used[s] - budgets[s]) * float(1 << (cell_bits * s))
        if slope > 0:
            low = middle
        else:
            upper = middle
    _choose(t, n, best, cell_bits, slices, high, hull, lines, v)
    cost = _settle(t, n, budgets, cell_bits, slices, high, v, used, caps)
    first = v[:n].copy()
    prices[:] = best
    length, stalled = _LENGTH, 0
    for _ in range(steps):
        value = _priced(t, n, budgets, prices, cell_bits, slices, high, hull, lines, v, used)
        if value > bound:
            bound, stalled = value, 0
            best[:] = prices
        else:
            stalled += 1
            if stalled == _PATIENCE:
                length, stalled = length * _SHORTER, 0
                prices[:] = best
                continue
        if not _step(prices, used, budgets, cost - max(value, bound), length, cell_bits, slices):
            break
    prices[:] = best
    _choose(t, n, best, cell_bits, slices, high, hull, lines, v)
    second = _settle(t, n, budgets, cell_bits, slices, high, v, used, caps)
    if second > cost:
        v[:n] = first
    return min(cost, second), min(bound, cost, second)


@parallel_kernel
def _project_columns(targets, pins, rows, limit, cell_bits, slices, high, steps, prices, codes, cost, bound):
    """All columns; one thread owns a column.

    ``targets`` (N, K) float64. ``pins`` (N,) int64. ``prices`` (N, T, 2, S) float64: read where ``steps`` is 0, and
    written. ``codes`` (N, K) int32, zeros; ``cost`` and ``bound`` (N, T, 2) float64: written.
    """
    columns, depth = targets.shape
    mask = (1 << cell_bits) - 1
    for column in prange(columns):
        found, at, v = np.empty(rows), np.empty(rows, np.int64), np.empty(rows, np.int64)
        budgets = np.empty(slices, np.int64)
        for tile in range(cost.shape[1]):
            for side in range(2):
                sign = 1 - 2 * side
                budgets[:] = limit
                count, fixed = 0, 0.0
                for row in range(tile * rows, min(depth, (tile + 1) * rows)):
                    target = sign * targets[column, row]
                    if row == pins[column] and target > 0:
                        codes[column, row] = sign * high
                        fixed += (target - high) ** 2
                        for s in range(slices):
                            budgets[s] -= (high >> (cell_bits * s)) & mask
                    elif target > 0.5:
                        found[count] = target
                        at[count] = row
                        count += 1
                    elif target > 0:
                        fixed += target * target  # zero is nearest, and free
                if count:
                    order = np.argsort(found[:count])
                    spent, least = _solve(
                        found[:count][order],
                        count,
                        budgets,
                        cell_bits,
                        slices,
                        high,
                        steps,
                        prices[column, tile, side],
                        v,
                    )
                    for i in range(count):
                        codes[column, at[order[i]]] = sign * v[i]
                    cost[column, tile, side] = fixed + spent
                    bound[column, tile, side] = fixed + least
                else:
                    cost[column, tile, side] = bound[column, tile, side] = fixed
