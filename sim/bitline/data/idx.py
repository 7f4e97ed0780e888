"""MNIST and Fashion-MNIST: big-endian IDX files, plain or gzipped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitline.data import files
from bitline.data.dataset import ArrayPixels, check_labels
from bitline.errors import DataError

__all__ = ["FASHION_NAMES", "MNIST_NAMES", "read_idx"]

MNIST_NAMES = tuple(str(n) for n in range(10))
FASHION_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_UNSIGNED_BYTES = 8
_MAX_FILE_BYTES = 1 << 30

Part = tuple[ArrayPixels, NDArray[np.int64]]


def read_idx(path: Path, subfolders: tuple[str, ...]) -> tuple[Part, Part | None]:
    """The test split, and the training split where its files are there.

    Parameters
    ----------
    path : Path
        Folder of ``t10k-images-idx3-ubyte`` and its like, each with or without ``.gz``.
    subfolders : tuple of str
        Also looked into, as torchvision lays the files out.

    Raises
    ------
    DataError
        Missing, truncated or mismatched files.
    """
    expected = "t10k-images-idx3-ubyte[.gz] and t10k-labels-idx1-ubyte[.gz]"
    files.folder(path, expected)
    for place in (path, *(path / name for name in subfolders)):
        images = _find(place, "t10k-images", 3)
        if images is not None:
            train = _find(place, "train-images", 3)
            return _part(images), None if train is None else _part(train)
    raise DataError(f"{path}: no test images; expected {expected}")


def _find(place: Path, stem: str, rank: int) -> Path | None:
    for separator in "-.":
        for suffix in ("", ".gz"):
            candidate = place / f"{stem}{separator}idx{rank}-ubyte{suffix}"
            if candidate.is_file():
                return candidate
    return None


def _part(images: Path) -> Part:
    stem = images.name.split("-")[0] + "-labels"
    labels = _find(images.parent, stem, 1)
    if labels is None:
        raise DataError(f"{images.parent}: {images.name} has no labels beside it; expected {stem}-idx1-ubyte[.gz]")
    pixels = _array(images, 3)
    if 0 in pixels.shape:
        raise DataError(f"{images}: no images in it (shape {pixels.shape})")
    return ArrayPixels(pixels[:, None]), check_labels(_array(labels, 1), len(pixels), 10, str(labels))


def _array(path: Path, rank: int) -> NDArray[np.uint8]:
    """The array of an IDX file: two zero bytes, type, rank, big-endian sizes, then the bytes."""
    data = files.read_file(path, _MAX_FILE_BYTES)
    header = 4 + 4 * rank
    if len(data) < header or data[:4] != bytes((0, 0, _UNSIGNED_BYTES, rank)):
        raise DataError(f"{path}: not an IDX file of bytes with {rank} dimensions (starts with {data[:4].hex()!r})")
    shape = tuple(int(n) for n in np.frombuffer(data, ">u4", rank, 4))
    size = 1
    for n in shape:
        size *= n
    if len(data) - header != size:
        raise DataError(f"{path}: its header promises {size} bytes, found {len(data) - header} (truncated?)")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)
