"""Signed weight codes to cell levels: the three encodings of docs/contract.md."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitline.errors import RangeError, ShapeError
from bitline.hardware import Digits, Encoding, Hardware

__all__ = ["CellLevels", "check_inputs", "check_weights", "chosen_digits", "encode"]

_DIGIT_BYTES = 256 << 20
"""Balanced digits that are kept, of the matrices last asked for."""


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


class _Kept:
    """Balanced digits by what they were chosen for, so that proof and engines choose once."""

    def __init__(self) -> None:
        self._found: OrderedDict[tuple[object, ...], NDArray[np.signedinteger]] = OrderedDict()
        self._lock = Lock()

    def get(self, w: NDArray[np.int32], hw: Hardware) -> NDArray[np.signedinteger]:
        from bitline.crossbar.digits import balanced_digits

        content = hashlib.sha256(np.ascontiguousarray(w, "<i4").tobytes()).digest()
        key = (content, w.shape, hw.read_rows, hw.cell_bits, hw.slices)
        with self._lock:
            if key not in self._found:
                found = balanced_digits(w, hw.read_rows, hw.cell_bits, hw.slices)
                found.setflags(write=False)
                self._found[key] = found
                while len(self._found) > 1 and sum(kept.nbytes for kept in self._found.values()) > _DIGIT_BYTES:
                    self._found.popitem(last=False)
            self._found.move_to_end(key)
            return self._found[key]


_kept = _Kept()


def chosen_digits(w: NDArray[np.int32], hw: Hardware) -> NDArray[np.signedinteger]:
    """Digits that a differential pair holds of checked weights.

    Parameters
    ----------
    w : ndarray [shape=(K, N), int32]
        From the first row of a row tile on: balanced digits depend on which rows are summed together.
    hw : Hardware

    Returns
    -------
    ndarray [shape=(S, K, N), int8 or int16]
        ``w = sum_i digits[i] << (cell_bits * i)``; slice 0 is the least significant.
    """
    from bitline.crossbar.digits import canonical_digits, magnitude_digits

    if hw.digits is Digits.MAGNITUDE:
        return magnitude_digits(w, hw.cell_bits, hw.slices)
    if hw.digits is Digits.CANONICAL:
        return canonical_digits(w, hw.cell_bits, hw.slices)
    if not w.size:
        return _kept.get(w, hw)
    # tile by tile: those who ask for one tile and those who ask for all of them share what is kept
    tiles = [_kept.get(w[first : first + hw.read_rows], hw) for first in range(0, len(w), hw.read_rows)]
    return tiles[0] if len(tiles) == 1 else np.concatenate(tiles, axis=1)


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
    if hw.encoding is Encoding.DIFFERENTIAL and hw.digits is not Digits.MAGNITUDE:
        digits = chosen_digits(w, hw).astype(np.int16).transpose(1, 0, 2)
        levels = np.stack([np.maximum(digits, 0), np.maximum(-digits, 0)], axis=1).astype(np.uint8)
        return CellLevels(levels=levels, flips=np.zeros((tiles, hw.signs, hw.slices, columns), np.bool_))
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
