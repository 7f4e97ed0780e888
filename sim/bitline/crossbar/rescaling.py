"""Numba kernels between real activations and integer codes: one pass each way, the margins of a convolution included.

Everything is float64 with one documented order of operations, the one of ``network.quantisation``, their readable twin:
equal integers give equal floats bit for bit. They release the interpreter, so several threads may run them at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["dequantise_rows", "quantise_lines"]

_LARGEST = float(np.finfo(np.float64).max)


@njit(nogil=True, cache=True)
def _quantise_lines(x, scale, low, high, zero, first, left, out):
    """Quantise lines of images into lines with margins; returns whether a number was not finite.

    x (n, H, L) floating; out (n, H', L') integer or floating: its line i is line ``first + i`` of the image, or margin,
    and its element ``left + k`` is element k. Margins hold ``zero``, which is also added to every code.
    """
    images, lines, length = x.shape
    odd = False
    for n in range(images):
        for i in range(out.shape[1]):
            target = out[n, i]
            line = first + i
            if line < 0 or line >= lines:
                target[:] = zero
                continue
            source = x[n, line]
            target[:left] = zero
            target[left + length :] = zero
            codes = target[left : left + length]
            for k in range(length):
                real = np.float64(source[k])
                odd |= not (abs(real) <= _LARGEST)
                code = min(max(np.rint(real / scale), low), high)
                codes[k] = np.int32(code) + zero
    return odd


@njit(nogil=True, cache=True)
def _dequantise_rows(y, offset, scale, bias, out):
    """Real values of the products y (M, N) float32 or float64, into out (M, N) float32."""
    for m in range(y.shape[0]):
        for n in range(y.shape[1]):
            # a sum with an offset of +0 also turns -0, which only floating-point products know, into +0
            out[m, n] = np.float32((np.float64(y[m, n]) + offset[n]) * scale[n] + bias[n])


def quantise_lines(
    x: NDArray[np.floating[Any]],
    scale: float,
    code_range: tuple[int, int],
    out: NDArray[Any],
    *,
    first: int = 0,
    left: int = 0,
    zero: int = 0,
) -> bool:
    """Quantise lines of images, ``clip(round(x / scale))`` with ties to even, and surround them with margins.

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
        Its type must hold ``code + zero``.
    first, left : int
        Where the image lies in ``out``; ``first`` is negative where ``out`` begins with margins.
    zero : int
        What the margins hold, also added to every code (128 makes signed 8-bit codes unsigned).

    Returns
    -------
    bool
        Whether all numbers were finite; where not, ``out`` means nothing.
    """
    low, high = code_range
    return not _quantise_lines(x, float(scale), float(low), float(high), np.int32(zero), first, left, out)


def dequantise_rows(
    y: NDArray[np.floating[Any]],
    offset: NDArray[np.float64],
    scale: NDArray[np.float64],
    bias: NDArray[np.float64],
    out: NDArray[np.float32],
) -> None:
    """Give products their real value: ``(y + offset) * scale + bias`` in float64, rounded once to float32.

    Parameters
    ----------
    y : ndarray [shape=(M, N), float32 or float64]
        Integers.
    offset : ndarray [shape=(N,), float64]
        Integers added first, exactly; +0 where there is nothing to add.
    scale, bias : ndarray [shape=(N,), float64]
    out : ndarray [shape=(M, N), float32]
        Overwritten.
    """
    _dequantise_rows(y, offset, scale, bias, out)
