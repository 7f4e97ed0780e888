"""Writers of CIFAR's files for the tests: the bytes that Python 2 and numpy of 2009 wrote, by hand."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def text(value: bytes) -> bytes:
    """A Python 2 str: SHORT_BINSTRING or BINSTRING."""
    return (
        b"U" + struct.pack("<B", len(value)) + value
        if len(value) < 256
        else b"T" + struct.pack("<I", len(value)) + value
    )


def small(value: int) -> bytes:
    """A small int: BININT1 or BININT2."""
    return b"K" + struct.pack("<B", value) if value < 256 else b"M" + struct.pack("<H", value)


def array(pixels: NDArray[np.uint8], dtype: bytes = b"u1", shape: tuple[int, int] | None = None) -> bytes:
    """A matrix of bytes as Python 2's numpy pickled it."""
    rows, columns = pixels.shape if shape is None else shape
    return (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + small(0) + b"\x85" + text(b"b") + b"\x87R("
        + small(1) + small(rows) + small(columns) + b"\x86"
        + b"cnumpy\ndtype\n" + text(dtype) + small(0) + small(1) + b"\x87R("
        + small(3) + text(b"|") + b"NNN" + b"J\xff\xff\xff\xff" * 2 + small(0) + b"tb"
        + b"\x89" + text(pixels.tobytes()) + b"tb"
    )  # fmt: skip


def integers(values: Any) -> bytes:
    """A list of small ints."""
    return b"](" + b"".join(small(int(v)) for v in values) + b"e"


def dictionary(**items: bytes) -> bytes:
    """A pickle (protocol 2) of a dict with str keys and these pickled values."""
    return b"\x80\x02}(" + b"".join(text(k.encode()) + v for k, v in items.items()) + b"u."


def strings(values: list[str]) -> bytes:
    """A list of Python 2 str."""
    return b"](" + b"".join(text(v.encode()) for v in values) + b"e"


def images(count: int, seed: int, classes: int = 10) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Random images [shape=(count, 3072)] and labels."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 3072), dtype=np.uint8), rng.integers(0, classes, count)


def write_python(folder: Path, splits: dict[str, tuple[NDArray[np.uint8], NDArray[np.int64]]]) -> Path:
    """``cifar-10-batches-py`` with these batches."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (pixels, labels) in splits.items():
        (folder / name).write_bytes(
            dictionary(data=array(pixels), labels=integers(labels), batch_label=text(name.encode()))
        )
    (folder / "batches.meta").write_bytes(dictionary(label_names=strings(NAMES), num_vis=small(3072)))
    return folder


def write_binary(folder: Path, splits: dict[str, tuple[NDArray[np.uint8], NDArray[np.int64]]]) -> Path:
    """``cifar-10-batches-bin`` with these batches."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (pixels, labels) in splits.items():
        records = np.concatenate([labels[:, None].astype(np.uint8), pixels], axis=1)
        (folder / f"{name}.bin").write_bytes(records.tobytes())
    (folder / "batches.meta.txt").write_text("\n".join(NAMES) + "\n\n")
    return folder
