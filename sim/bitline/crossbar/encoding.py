"""Signed weight codes to cell levels: the three encodings of docs/contract.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitline.errors import RangeError, ShapeError
from bitline.hardware import Encoding, Hardware

__all__ = ["CellLevels", "check_inputs", "check_weights", "encode"]


@dataclass(frozen=True, kw_only=True, eq=False)
class CellLevels:
    """Stored cell levels of one weight matrix.

    Attributes
    ----------
    levels : ndarray [shape=(K, P, S, N), uint8]
        Level of every cell: row, sign (one for the offset encodings), slice (0 least significant), output.
    flips : ndarray [shape=(T, P, S, N), bool]
        Whether the column is stored complemented, per row tile (``offset_flip`` only).
    """

    levels: NDArray[np.uint8]
    flips: NDArray[np.bool_]


def check_weights(w: Any, hw: Hardware) -> NDArray[np.int32]:
    """Check a signed integer weight matrix [shape=(K, N)] against the hardware's range.

    Raises
    ------
    ShapeError
        Not a matrix.
    RangeError
        Not integers, or outside what the encoding holds.
    """
    array = np.asarray(w)
    if array.ndim != 2:
        raise ShapeError(f"Argument 'w' must be a matrix of shape (K, N), not of shape {array.shape}")
    low, high = hw.weight_range
    return _codes(array, "w", low, high, f"{hw.weight_bits}-bit {hw.encoding.value} weights").astype(np.int32)


def _codes(array: NDArray[Any], name: str, low: int, high: int, what: str) -> NDArray[Any]:
    """Check that an array holds integers in low..high; the same in this machine's byte order, which kernels need."""
    if not (np.issubdtype(array.dtype, np.integer) or array.size == 0):
        raise RangeError(f"Argument '{name}' must hold integer codes, not {array.dtype}")
    if array.size and (int(array.min()) < low or int(array.max()) > high):
        raise RangeError(
            f"Argument '{name}' must lie in {low}..{high} ({what}), found {int(array.min())}..{int(array.max())}"
        )
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def check_inputs(x: Any, rows: int, hw: Hardware, signed: bool) -> NDArray[Any]:
    """Check activation codes [shape=(M, K)] against the matrix's rows and the hardware's range.

    Raises
    ------
    ShapeError
        Not a matrix, or K differs from ``rows``.
    RangeError
        Not integers, or outside ``hw.input_range(signed)``.
    """
    array = np.asarray(x)
    if array.ndim != 2:
        raise ShapeError(f"Argument 'x' must be a matrix of shape (M, K), not of shape {array.shape}")
    if array.shape[1] != rows:
        raise ShapeError(f"Argument 'x' must have K = {rows} columns, the rows of 'w', not {array.shape[1]}")
    low, high = hw.input_range(signed)
    kind = "signed" if signed else "unsigned"
    return _codes(array, "x", low, high, f"{hw.input_bits}-bit {kind} inputs")


def encode(w: NDArray[np.int32], hw: Hardware) -> CellLevels:
    """Slice a checked weight matrix into stored cell levels.

    Parameters
    ----------
    w : ndarray [shape=(K, N), int32]
        Signed weight codes inside ``hw.weight_range``.
    hw : Hardware

    Returns
    -------
    CellLevels
    """
    rows, columns = w.shape
    tiles = -(-rows // hw.read_rows)
    shifts = (hw.cell_bits * np.arange(hw.slices)).reshape(1, 1, -1, 1)
    if hw.encoding is Encoding.DIFFERENTIAL:
        stored = np.stack([np.maximum(w, 0), np.maximum(-w, 0)], axis=1)
    else:
        stored = (w + (1 << (hw.weight_bits - 1)))[:, None, :]
    levels = ((stored[:, :, None, :] >> shifts) & hw.max_level).astype(np.uint8)
    flips = np.zeros((tiles, hw.signs, hw.slices, columns), np.bool_)
    if hw.encoding is Encoding.OFFSET_FLIP:
        for tile in range(tiles):
            part = slice(tile * hw.read_rows, min(rows, (tile + 1) * hw.read_rows))
            half = hw.max_level * (part.stop - part.start)
            flips[tile] = 2 * levels[part].sum(axis=0, dtype=np.int64) > half
            levels[part] = np.where(flips[tile], hw.max_level - levels[part], levels[part])
    return CellLevels(levels=levels, flips=flips)
