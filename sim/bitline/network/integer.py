"""The exact integer network's product, ``x @ w`` (docs/contract.md), written apart from the crossbars it judges."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bitline.layers import Window
from bitline.network.patches import without_idle_strides

__all__ = ["IntegerConvolution", "IntegerMatrices"]

_SIGNIFICANT = 1 << 8
"""Integers up to this magnitude are numbers even of the shortest type torch may be told to do float32 products in."""


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


class IntegerConvolution:
    """The same product for all receptive fields of images, by torch's float32 convolution on codes.

    Only for codes of 8 bits whose partial sums :class:`IntegerMatrices` may do in float32. oneDNN's convolution sums
    products (torch asks for its direct algorithm, never for Winograd's, which rounds), so the same argument holds.

    Parameters
    ----------
    w : ndarray [shape=(G, K, N), integer]
        One matrix per group, rows in order channel, kernel row, kernel column.
    max_input : int
        Largest magnitude of an activation code.
    window : Window
        Its padding is not applied.
    """

    def __init__(self, w: NDArray[np.integer[Any]], max_input: int, window: Window) -> None:
        groups, _, columns = w.shape
        kernels = w.transpose(0, 2, 1).reshape(groups * columns, -1, *window.kernel)
        self._w = torch.from_numpy(np.ascontiguousarray(kernels, np.float32))
        self._window, self._groups = window, groups

    @staticmethod
    def supports(w: NDArray[np.integer[Any]], max_input: int) -> bool:
        """Whether the product is exact, and torch has oneDNN."""
        bound = max_input * int(np.abs(w).sum(axis=1, dtype=np.int64).max(initial=0))
        short = max_input < _SIGNIFICANT and int(np.abs(w).max(initial=0)) < _SIGNIFICANT
        one_dnn = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
        return w.size > 0 and short and bound < 1 << 24 and one_dnn

    def multiply(self, x: NDArray[Any]) -> NDArray[np.floating[Any]]:
        """Products (n * height * width, G * N) float32 of codes (n, H, W, G * channels) float32, margins included."""
        x, stride = without_idle_strides(x, self._window)
        images, dilation = torch.from_numpy(x).permute(0, 3, 1, 2), list(self._window.dilation)
        y = torch.mkldnn_convolution(images, self._w, None, [0, 0], stride, dilation, self._groups)
        return np.asarray(y.permute(0, 2, 3, 1).reshape(-1, y.shape[1]).numpy())
