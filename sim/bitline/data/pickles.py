"""The pickles of CIFAR's python distribution, read without running anything they name.

A pickle is a program. This reader refuses every instruction these files do not need, and where they name numpy's
array and dtype it hands out records of its own, so that not even numpy's code is reached from the file.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitline.data.files import read_file
from bitline.errors import DataError

__all__ = ["PickledArray", "load_batch"]

MAX_FILE_BYTES = 1 << 30
# Names of pickle instructions, see pickletools.
_PLAIN_NAMES = """
    PROTO FRAME STOP MARK POP POP_MARK NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1
    STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINBYTES SHORT_BINBYTES
    EMPTY_DICT DICT SETITEM SETITEMS EMPTY_LIST LIST APPEND APPENDS EMPTY_TUPLE MEMOIZE GET BINGET LONG_BINGET
"""
_PLAIN = frozenset(_PLAIN_NAMES.split())
_MEMO = frozenset(("PUT", "BINPUT", "LONG_BINPUT"))
_STRUCTURE = frozenset(("GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"))
# A table of contents needs a few of these; a nest of a million tuples would overflow the C stack when hashed.
_MAX_STRUCTURE = 1000
# Python's reader allocates as much memory as the largest memo index says, whatever the file's size.
_MAX_MEMO = 1 << 20


class PickledArray:
    """What a pickle says of a numpy array; :meth:`bytes_matrix` makes it one."""

    def __init__(self) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def bytes_matrix(self, columns: int, where: Path) -> NDArray[np.uint8]:
        """The array [shape=(n, columns), uint8].

        Raises
        ------
        DataError
            Another dtype or shape, or fewer bytes than the shape needs.
        """
        if not (isinstance(self.state, tuple) and len(self.state) == 5):
            raise DataError(f"{where}: damaged array in the pickle")
        _, shape, dtype, fortran, raw = self.state
        if isinstance(raw, str):  # a Python 2 byte string, read as latin-1: one character a byte
            try:
                raw = raw.encode("latin-1")
            except UnicodeEncodeError:
                raw = None
        name = dtype.name if isinstance(dtype, _PickledDtype) else dtype
        if not isinstance(raw, bytes) or name not in ("u1", "|u1", "B", "uint8"):
            raise DataError(f"{where}: data must be an array of bytes (uint8), found dtype {name!r}")
        if not (
            isinstance(shape, tuple)
            and len(shape) == 2
            and all(type(n) is int and n > 0 for n in shape)
            and shape[1] == columns
            and shape[0] * columns == len(raw)
        ):
            raise DataError(f"{where}: data must be n x {columns} bytes, found shape {shape} and {len(raw)} bytes")
        return np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")


class _PickledDtype:
    """What a pickle says of a dtype: its name alone (byte order does not matter for bytes)."""

    def __init__(self, name: Any) -> None:
        self.name = name

    def __setstate__(self, state: Any) -> None:
        pass


class _BatchUnpickler(pickle.Unpickler):
    """Knows the four names a pickled byte array needs, each as a function of ours, and nothing else."""

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        # Made anew for every name: a file that writes attributes onto them changes nothing that lives on.
        def reconstruct(*_: Any) -> PickledArray:
            return PickledArray()

        def dtype(name: Any, *_: Any) -> _PickledDtype:
            return _PickledDtype(name)

        def ndarray(*_: Any) -> None:
            raise pickle.UnpicklingError("numpy.ndarray is called")

        def encode(text: str, encoding: str) -> bytes:
            if encoding != "latin1":
                raise pickle.UnpicklingError(f"an encoding other than latin1: {encoding!r}")
            return text.encode("latin-1")

        known: dict[tuple[str, str], Callable[..., Any]] = {
            ("numpy.core.multiarray", "_reconstruct"): reconstruct,
            ("numpy._core.multiarray", "_reconstruct"): reconstruct,
            ("numpy", "ndarray"): ndarray,
            ("numpy", "dtype"): dtype,
            ("_codecs", "encode"): encode,
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return known[module, name]


def load_batch(path: Path) -> dict[Any, Any]:
    """The dictionary in one of CIFAR's pickled files; arrays come as :class:`PickledArray`.

    Raises
    ------
    DataError
        Missing, damaged, no dictionary, or a pickle with anything in it that these files do not need.
    """
    data = read_file(path, MAX_FILE_BYTES)
    try:
        _check_instructions(data)
        batch = _BatchUnpickler(io.BytesIO(data), encoding="latin1").load()
    # Python documents that reading a damaged pickle may raise any exception; none of them carries more than its text.
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{path}: not a pickled CIFAR batch, refused: {reason}") from None
    if not isinstance(batch, dict):
        raise DataError(f"{path}: not a pickled CIFAR batch: expected a dictionary, found {type(batch).__name__}")
    return batch


def _check_instructions(data: bytes) -> None:
    """Raise UnpicklingError at the first instruction that a pickled CIFAR batch does not need."""
    structure = 0
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in _STRUCTURE:
            structure += 1
            if structure > _MAX_STRUCTURE:
                raise pickle.UnpicklingError("more nested structure than these files have")
        elif opcode.name in _MEMO:
            if not 0 <= int(str(argument)) < _MAX_MEMO:
                raise pickle.UnpicklingError(f"memo index {argument}")
        elif opcode.name not in _PLAIN:
            raise pickle.UnpicklingError(f"the instruction {opcode.name}")
