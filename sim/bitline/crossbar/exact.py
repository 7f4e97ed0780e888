"""Exact integer matrix products through floating-point hardware, where a bound proves them exact."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ExactMatrix", "exact_product"]

_LEAST_RUN = 64
"""Rows a float32 product must sum on average for several of them to be faster than one in float64."""


def exact_product(x: NDArray[Any], w: NDArray[Any]) -> NDArray[np.int64]:
    """Return ``x @ w`` of integer matrices, exactly.

    Every partial sum of a column, in whatever order and with or without fused multiply-add, is an integer of magnitude
    at most ``B = max|x| * max_n sum_k |w[k, n]|``. All integers up to ``2^24`` are float32 numbers and all up to
    ``2^53`` are float64 numbers, so below these bounds no operation of a floating-point product rounds. Beyond
    ``2^53`` the product is done in 64-bit integers.

    Parameters
    ----------
    x : ndarray [shape=(M, K), integer]
    w : ndarray [shape=(K, N), integer]

    Returns
    -------
    ndarray [shape=(M, N), int64]
    """
    if x.size == 0 or w.size == 0:
        return np.zeros((x.shape[0], w.shape[1]), np.int64)
    largest_input = max(abs(int(x.min())), abs(int(x.max())))
    bound = largest_input * int(np.abs(w.astype(np.int64)).sum(axis=0).max())
    if bound <= 1 << 24:
        return np.asarray((x.astype(np.float32) @ w.astype(np.float32)).astype(np.int64))
    if bound <= 1 << 53:
        return np.asarray((x.astype(np.float64) @ w.astype(np.float64)).astype(np.int64))
    return np.asarray(x.astype(np.int64) @ w.astype(np.int64))


class ExactMatrix:
    """A weight matrix ready for exact products, its operands made once.

    The argument is that of :func:`exact_product`, with the largest input there can be. Where the bound is beyond
    float32, the rows are cut into runs for each of which it is not, and their float32 products are added in float64.

    Parameters
    ----------
    w : ndarray [shape=(K, N), integer]
    max_input : int
        Largest magnitude of an input.
    """

    def __init__(self, w: NDArray[np.integer[Any]], max_input: int) -> None:
        sums = np.abs(w.astype(np.int64))
        bound = max_input * int(sums.sum(axis=0).max(initial=0))
        ends = [0]
        total = np.zeros(w.shape[1], np.int64)
        for row in range(w.shape[0]) if bound > 1 << 24 else ():
            total += sums[row]
            if max_input * int(total.max(initial=0)) > 1 << 24:
                ends.append(row)
                total = sums[row].copy()
        ends.append(w.shape[0])
        single = max_input * int(sums.max(initial=0)) <= 1 << 24 and w.shape[0] >= _LEAST_RUN * (len(ends) - 2)
        if single:
            self._parts = [(slice(*run), w[slice(*run)].astype(np.float32)) for run in pairwise(ends)]
        else:
            self._parts = [(slice(0, w.shape[0]), w.astype(np.float64 if bound <= 1 << 53 else np.int64))]
        self.outputs = w.shape[1]

    def multiply(self, x: NDArray[Any]) -> NDArray[np.int64]:
        """Multiply inputs (M, K) integer by the matrix; (M, N) int64."""
        total: NDArray[Any] | None = None
        for run, w in self._parts:
            y = x[:, run].astype(w.dtype) @ w
            total = y if total is None else total.astype(np.float64, copy=False) + y
        assert total is not None
        return np.asarray(total.astype(np.int64))
