"""Numba kernels between real activations and integer codes: one pass each way, the margins of a convolution included.

Everything is float64 with one documented order of operations, so equal integers give equal floats bit for bit; their
readable twins are ``network.quantisation.quantise`` and one in ``tests/reference.py``. One thread owns an image or a
line, so no result depends on their number.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from bitline.parallel import parallel_kernel

__all__ = ["dequantise_columns", "dequantise_rows", "quantise_image", "quantise_lines", "real_value"]

_LARGEST = float(np.finfo(np.float64).max)


@njit(cache=True)
def quantise_image(x, scale, low, high, zero, first, left, out):
    """Quantise lines of one image, x (H, L) floating, into out (H', L') with margins: see ``quantise_lines``."""
    lines, length = x.shape
    odd = False
    for i in range(out.shape[0]):
        target = out[i]
        line = first + i
        if line < 0 or line >= lines:
            target[:] = zero
            continue
        source = x[line]
        target[:left] = zero
        target[left + length :] = zero
        codes = target[left : left + length]
        for k in range(length):
            real = np.float64(source[k])
            odd |= not (abs(real) <= _LARGEST)
            code = min(max(np.rint(real / scale), low), high)
            codes[k] = np.int32(code) + zero
    return odd


@njit(cache=True)
def real_value(y, offset, scale, bias):
    """Real value of a product, an integer of any type."""
    # a sum with an offset of +0 also turns -0, which only floating-point products know, into +0
    return np.float32((np.float64(y) + offset) * scale + bias)


@parallel_kernel
def _quantise_lines(x, scale, low, high, first, left, out, odd):
    """Quantise images x (n, H, L) floating into out (n, H', L'); odd (n,) bool: whether a number was not finite."""
    for n in prange(x.shape[0]):
        odd[n] = quantise_image(x[n], scale, low, high, np.int32(0), first, left, out[n])


@parallel_kernel
def _dequantise_rows(y, scale, bias, out):
    """Real values of the products y (M, N), into out (M, N) float32."""
    for m in prange(y.shape[0]):
        for n in range(y.shape[1]):
            out[m, n] = real_value(y[m, n], 0.0, scale[n], bias[n])


@parallel_kernel
def _dequantise_columns(y, scale, bias, out):
    """Real values of the products y (N, n * P), into out (n, N, P) float32."""
    images, outputs, positions = out.shape
    for k in prange(images * outputs):
        image, n = k // outputs, k % outputs
        for p in range(positions):
            out[image, n, p] = real_value(y[n, image * positions + p], 0.0, scale[n], bias[n])


def quantise_lines(
    x: NDArray[np.floating[Any]],
    scale: float,
    code_range: tuple[int, int],
    out: NDArray[Any],
    *,
    first: int = 0,
    left: int = 0,
) -> bool:
    """Quantise lines of images, ``clip(round(x / scale))`` with ties to even, and surround them with zeros.

    Parameters
    ----------
    x : ndarray [shape=(n, H, L), float32 or float64, C-contiguous]
        A line may hold several channels of each pixel.
    scale : float
        Real activation per unit of code.
    code_range : int, int
        Smallest and largest code.
    out : ndarray [shape=(n, H', L'), integer or float32, C-contiguous]
        Overwritten: line i is line ``first + i`` of the image where there is one, element ``left + k`` is element k.
        Its type must hold the codes.
    first, left : int
        Where the image lies in ``out``; ``first`` is negative where ``out`` begins with margins.

    Returns
    -------
    bool
        Whether all numbers were finite; where not, ``out`` means nothing.
    """
    low, high = code_range
    odd = np.zeros(len(x), np.bool_)
    _quantise_lines(x, float(scale), float(low), float(high), first, left, out, odd)
    return not odd.any()


def dequantise_rows(
    y: NDArray[Any], scale: NDArray[np.float64], bias: NDArray[np.float64], out: NDArray[np.float32]
) -> None:
    """Give products their real value: ``y * scale + bias`` in float64, rounded once to float32.

    Parameters
    ----------
    y : ndarray [shape=(M, N), integer or floating]
        Integers.
    scale, bias : ndarray [shape=(N,), float64]
    out : ndarray [shape=(M, N), float32]
        Overwritten.
    """
    _dequantise_rows(y, scale, bias, out)


def dequantise_columns(
    y: NDArray[Any], scale: NDArray[np.float64], bias: NDArray[np.float64], out: NDArray[np.float32]
) -> None:
    """As :func:`dequantise_rows` where the positions of an output lie together.

    Parameters
    ----------
    y : ndarray [shape=(N, n * P), integer]
    scale, bias : ndarray [shape=(N,), float64]
    out : ndarray [shape=(n, N, P), float32]
        Overwritten.
    """
    _dequantise_columns(y, scale, bias, out)
