"""The exact integer network's product, ``x @ w`` (DESIGN section 2), written apart from the crossbars it judges."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["IntegerMatrices"]


class IntegerMatrices:
    """Integer weight matrices and their exact product with integer vectors.

    A floating-point product of integers is exact, in any order of summation and with or without fused multiply-add,
    where no partial sum can exceed the largest integer up to which the type holds them all: ``2^24`` for float32,
    ``2^53`` for float64. ``max|x| * max_n sum_k |w[k, n]|`` bounds every partial sum; beyond ``2^53`` the product is
    done in 64-bit integers.

    Parameters
    ----------
    w : ndarray [shape=(G, K, N), integer]
        One matrix per group.
    max_input : int
        Largest magnitude of an activation code.
    """

    def __init__(self, w: NDArray[np.integer[Any]], max_input: int) -> None:
        bound = max_input * int(np.abs(w).sum(axis=1, dtype=np.int64).max(initial=0))
        if bound < 1 << 24:
            self._w: NDArray[Any] = w.astype(np.float32)
        elif bound < 1 << 53:
            self._w = w.astype(np.float64)
        else:
            self._w = w.astype(np.int64)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type the product is computed in."""
        return self._w.dtype

    def multiply(self, x: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Multiply ``x`` (M, G * K) by the matrices; (M, G * N) int64, group after group."""
        groups, rows, columns = self._w.shape
        x = x.astype(self._w.dtype)
        if groups == 1:
            y = x @ self._w[0]
        else:
            stacked = np.matmul(x.reshape(-1, groups, rows).transpose(1, 0, 2), self._w)
            y = stacked.transpose(1, 0, 2).reshape(-1, groups * columns)
        return np.asarray(y.astype(np.int64))
