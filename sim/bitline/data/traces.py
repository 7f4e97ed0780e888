"""Integer activation traces: one layer's inputs and weights, to replay or benchmark it without network or data.

The format is documented in ``traces/README.md``.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitline.data.npz import load_npz
from bitline.errors import DataError, OutputError
from bitline.paths import expanded

__all__ = ["ActivationTrace", "load_trace", "save_trace"]

FORMAT = "bitline-activation-trace"
VERSION = 1
_MAX_BYTES = 1 << 30
_FIELDS = {
    "layer": str,
    "input_bits": int,
    "weight_bits": int,
    "signed_inputs": bool,
    "input_scale": float,
    "source": str,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class ActivationTrace:
    """A layer's weight matrix and input vectors as integer codes.

    Raises
    ------
    DataError
        Arrays that are no matrices of integers or disagree on K, codes outside their bits, impossible numbers.
    """

    layer: str
    """Name of the layer in its network (a grouped layer is one trace a group)."""
    x: NDArray[np.int32]
    """[shape=(M, K)] activation codes, one input vector a row."""
    w: NDArray[np.int32]
    """[shape=(K, N)] signed weight codes, one output a column."""
    input_bits: int
    """Bits of an activation code, 1 to 16."""
    weight_bits: int
    """Bits of a weight code, 2 to 16."""
    signed_inputs: bool = False
    """Two's complement activation codes (True) or unsigned ones (False)."""
    input_scale: float = 1.0
    """Real activation per unit of code."""
    source: str = ""
    """Where the trace comes from: checkpoint, data set, images."""

    def __post_init__(self) -> None:
        where = f"trace of {self.layer!r}"
        for name in ("input_bits", "weight_bits"):
            low, value = (1 if name == "input_bits" else 2), getattr(self, name)
            if type(value) is not int or not low <= value <= 16:
                raise DataError(f"{where}: {name} must be {low}..16, found {value!r}")
        if not (math.isfinite(self.input_scale) and self.input_scale > 0):
            raise DataError(f"{where}: input_scale must be finite and positive, found {self.input_scale}")
        if self.signed_inputs:
            x_range = -(2 ** (self.input_bits - 1)), 2 ** (self.input_bits - 1) - 1
        else:
            x_range = 0, 2**self.input_bits - 1
        w_range = -(2 ** (self.weight_bits - 1)), 2 ** (self.weight_bits - 1) - 1
        # Frozen for the users; numbers and arrays are brought to one type here, whatever they were stored as.
        object.__setattr__(self, "input_scale", float(self.input_scale))
        object.__setattr__(self, "signed_inputs", bool(self.signed_inputs))
        object.__setattr__(self, "x", _codes(self.x, x_range, f"{where}: x"))
        object.__setattr__(self, "w", _codes(self.w, w_range, f"{where}: w"))
        if self.x.shape[1] != self.w.shape[0]:
            raise DataError(f"{where}: x {self.x.shape} and w {self.w.shape} disagree on K")


def _codes(array: Any, allowed: tuple[int, int], where: str) -> NDArray[np.int32]:
    array = np.asarray(array)
    if array.dtype.kind not in "iu" or array.ndim != 2 or 0 in array.shape:
        raise DataError(f"{where}: must be a matrix of integers, found {array.dtype} of shape {array.shape}")
    low, high = int(array.min()), int(array.max())
    if low < allowed[0] or high > allowed[1]:
        raise DataError(f"{where}: codes must be {allowed[0]}..{allowed[1]}, found {low}..{high}")
    codes: NDArray[np.int32] = array.astype(np.int32)
    codes.flags.writeable = False
    return codes


def save_trace(path: str | Path, trace: ActivationTrace) -> None:
    """Write a trace; under a temporary name first, so that a half-written file never bears the real one.

    Equal traces make equal files, byte for byte.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    path = expanded(path)
    header = {"format": FORMAT, "version": VERSION} | {name: getattr(trace, name) for name in _FIELDS}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            np.savez_compressed(
                stream,
                header=np.array(json.dumps(header, ensure_ascii=True)),
                x=trace.x.astype(_smallest_dtype(trace.x)),
                w=trace.w.astype(_smallest_dtype(trace.w)),
            )
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: cannot write the trace ({error.strerror or error})") from None
    finally:
        temporary.unlink(missing_ok=True)


def _smallest_dtype(codes: NDArray[np.int32]) -> type[np.integer[Any]]:
    low, high = int(codes.min()), int(codes.max())
    for dtype in (np.uint8, np.int8, np.uint16, np.int16):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return dtype
    return np.int32


def load_trace(path: str | Path) -> ActivationTrace:
    """Read a trace.

    Raises
    ------
    DataError
        Missing or damaged file, no trace, another version, or contents that make no trace.
    """
    path = expanded(path)
    arrays = load_npz(path, ("header", "x", "w"), _MAX_BYTES)
    missing = [name for name in ("header", "x", "w") if name not in arrays]
    if missing:
        raise DataError(f"{path}: not an activation trace: no array {missing[0]!r} in it")
    try:
        header = json.loads(str(arrays["header"][()]))
    except (ValueError, RecursionError):
        raise DataError(f"{path}: not an activation trace: its header is not JSON") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise DataError(f"{path}: not an activation trace: its header does not say {FORMAT!r}")
    if header.get("version") != VERSION:
        raise DataError(f"{path}: trace version {header.get('version')!r}; this Bitline reads version {VERSION}")
    fields: dict[str, Any] = {}
    for name, kind in _FIELDS.items():
        value = header.get(name)
        if kind is float and type(value) is int:
            value = float(value) if abs(value) < 2**53 else None
        if type(value) is not kind:
            raise DataError(f"{path}: header field {name!r} must be {kind.__name__}, found {header.get(name)!r}")
        fields[name] = value
    try:
        return ActivationTrace(x=arrays["x"], w=arrays["w"], **fields)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
