"""From real numbers to integer codes: weights per output, activations per tensor. The way back is ``rescaling``.

Everything is float64 with one documented order of operations, so that equal integers give equal floats bit for bit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitline.hardware import Hardware

__all__ = ["code_dtype", "quantise", "quantise_weights"]


_BLOCK_WEIGHTS = 1 << 20


def quantise_weights(weight: NDArray[np.float64], bits: int) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Quantise weights to signed symmetric codes, one scale per output.

    ``scale = max|w| / (2^(bits - 1) - 1)`` over an output's weights, ``code = w / scale`` rounded half to even. An
    output whose weights are all zero has scale 1 and codes 0.

    Parameters
    ----------
    weight : ndarray [shape=(..., K, N), float64]
        Finite weights, one output per column.
    bits : int
        Bits of a signed code, at least 2.

    Returns
    -------
    codes : ndarray [shape=(..., K, N), int32]
        In ``-(2^(bits - 1) - 1) .. 2^(bits - 1) - 1``.
    scale : ndarray [shape=(..., N), float64]
        Real weight per unit of code, positive.
    """
    high = (1 << (bits - 1)) - 1
    codes = np.empty(weight.shape, np.int32)
    scale = np.empty((*weight.shape[:-2], weight.shape[-1]), np.float64)
    step = max(1, _BLOCK_WEIGHTS * weight.shape[-1] // max(1, weight.size))
    for start in range(0, weight.shape[-1], step):  # some outputs at once: a layer may have 10^8 weights
        block = weight[..., start : start + step]
        unit = np.abs(block).max(axis=-2, initial=0.0) / high
        unit = np.where(unit > 0, unit, 1.0)  # also where max|w| is so small that the division underflows
        real = block / unit[..., None, :]
        np.rint(real, out=real)
        codes[..., start : start + step] = np.clip(real, -high, high, out=real)
        scale[..., start : start + step] = unit
    return codes, scale


def code_dtype(hw: Hardware, signed: bool) -> np.dtype[np.generic]:
    """Smallest integer type that holds every activation code."""
    wide = hw.input_bits > 8
    if signed:
        return np.dtype(np.int16 if wide else np.int8)
    return np.dtype(np.uint16 if wide else np.uint8)


def quantise(x: NDArray[np.floating], scale: float, low: int, high: int, dtype: np.dtype[np.generic]) -> NDArray:  # type: ignore[type-arg]
    """Quantise finite activations: ``x / scale`` in float64, rounded half to even, clipped to ``low .. high``.

    Parameters
    ----------
    x : ndarray [any shape, floating]
    scale : float
        Real activation per unit of code.
    low, high : int
        Range of the codes (:meth:`bitline.hardware.Hardware.input_range`).
    dtype : dtype
        Integer type of the result (:func:`code_dtype`).
    """
    real = x.astype(np.float64)
    np.divide(real, scale, out=real)
    np.rint(real, out=real)
    np.clip(real, low, high, out=real)
    return real.astype(dtype)
