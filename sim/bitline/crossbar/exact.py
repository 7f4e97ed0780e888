"""Exact integer matrix products by the fastest arithmetic for which a bound proves that nothing is lost."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitline.crossbar.byte_products import ByteProducts
from bitline.layers import Window

__all__ = ["FLOAT32_INTEGERS", "ExactMatrix", "exact_product", "float32_runs"]

FLOAT32_INTEGERS = 1 << 24
"""All integers up to this magnitude are float32 numbers."""

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
    if bound <= FLOAT32_INTEGERS:
        return np.asarray((x.astype(np.float32) @ w.astype(np.float32)).astype(np.int64))
    if bound <= 1 << 53:
        return np.asarray((x.astype(np.float64) @ w.astype(np.float64)).astype(np.int64))
    return np.asarray(x.astype(np.int64) @ w.astype(np.int64))


def float32_runs(sums: NDArray[np.integer[Any]], largest_input: int) -> list[int]:
    """Where to cut rows into runs whose partial sums are float32 numbers: 0, the ends of the runs, the last of them K.

    Parameters
    ----------
    sums : ndarray [shape=(K, N), integer]
        Magnitudes of the weights.
    largest_input : int
        Largest magnitude of an input.
    """
    cuts, total = [0], np.zeros(sums.shape[1], np.int64)
    if largest_input * int(sums.sum(axis=0, dtype=np.int64).max(initial=0)) > FLOAT32_INTEGERS:
        for row, mine in enumerate(sums):
            total = total + mine
            if largest_input * int(total.max(initial=0)) > FLOAT32_INTEGERS:
                cuts.append(row)
                total = mine.astype(np.int64)
    return [*cuts, sums.shape[0]]


class ExactMatrix:
    """A weight matrix ready for exact products, its operands made once.

    Numbers of 8 bits are multiplied as such where the processor does that (:class:`.byte_products.ByteProducts`). Else
    the argument is that of :func:`exact_product`, with the largest input there can be. Where the bound is beyond
    float32, the rows are cut into runs for each of which it is not, and their float32 products are added in float64.

    Parameters
    ----------
    w : ndarray [shape=(K, N), integer]
    code_range : int, int
        Smallest and largest input.
    """

    def __init__(self, w: NDArray[np.integer[Any]], code_range: tuple[int, int]) -> None:
        self._bytes: ByteProducts | None = None
        self.outputs = w.shape[1]
        if ByteProducts.supports(w[None], code_range):
            self._bytes = ByteProducts(w[None], Window(), code_range)
            return
        max_input = max(-code_range[0], code_range[1])
        sums = np.abs(w.astype(np.int64))
        bound = max_input * int(sums.sum(axis=0).max(initial=0))
        ends = float32_runs(sums, max_input)
        single = max_input * int(sums.max(initial=0)) <= FLOAT32_INTEGERS and w.shape[0] >= _LEAST_RUN * (len(ends) - 2)
        if single:
            self._parts = [(slice(*run), w[slice(*run)].astype(np.float32)) for run in pairwise(ends)]
        else:
            self._parts = [(slice(0, w.shape[0]), w.astype(np.float64 if bound <= 1 << 53 else np.int64))]

    def multiply(self, x: NDArray[Any]) -> NDArray[np.int64]:
        """Multiply inputs (M, K) integer by the matrix; (M, N) int64."""
        if self._bytes is not None:
            return self._bytes.multiply(x)
        total: NDArray[Any] | None = None
        for run, w in self._parts:
            y = x[:, run].astype(w.dtype) @ w
            total = y if total is None else total.astype(np.float64, copy=False) + y
        assert total is not None
        return np.asarray(total.astype(np.int64))
