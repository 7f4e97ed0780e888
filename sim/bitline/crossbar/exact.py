"""Exact integer matrix products through floating-point hardware, where a bound proves them exact."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["exact_product"]


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
