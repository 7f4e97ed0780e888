"""CIFAR-10 and CIFAR-100: the python and the binary distribution, and a packed layout of lossless mosaics."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bitline.data import files
from bitline.data.dataset import ChunkedPixels, check_labels
from bitline.data.images import decode_errors
from bitline.data.npz import load_npy
from bitline.data.pickles import PickledArray, load_batch
from bitline.errors import DataError

__all__ = ["CIFAR10", "CIFAR100", "CifarKind", "read_cifar"]

_SHAPE = (3, 32, 32)
_BYTES = 3 * 32 * 32
_TILE = 32
# Named, so that a file's contents cannot choose a decoder that runs a program (Pillow's EPS starts Ghostscript).
_MOSAIC_FORMATS = ("WEBP",)

Part = tuple[ChunkedPixels, NDArray[np.int64]]
Bytes = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class CifarKind:
    """What tells CIFAR-10's files from CIFAR-100's."""

    name: str
    classes: int
    python_folder: str
    binary_folder: str
    train: tuple[str, ...]
    """Files of the training split; the binary distribution's end in ``.bin``."""
    test: str
    label_key: str
    """Where the pickled dictionary keeps the labels."""
    meta: str
    """The pickled file of class names."""
    meta_key: str
    names_file: str
    """The binary distribution's file of class names."""
    label_bytes: int
    """Labels before each image of the binary distribution; the last one is the class."""


CIFAR10 = CifarKind(
    name="cifar10",
    classes=10,
    python_folder="cifar-10-batches-py",
    binary_folder="cifar-10-batches-bin",
    train=tuple(f"data_batch_{n}" for n in range(1, 6)),
    test="test_batch",
    label_key="labels",
    meta="batches.meta",
    meta_key="label_names",
    names_file="batches.meta.txt",
    label_bytes=1,
)
CIFAR100 = CifarKind(
    name="cifar100",
    classes=100,
    python_folder="cifar-100-python",
    binary_folder="cifar-100-binary",
    train=("train",),
    test="test",
    label_key="fine_labels",
    meta="meta",
    meta_key="fine_label_names",
    names_file="fine_label_names.txt",
    label_bytes=2,
)
_CIFAR10_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def read_cifar(path: Path, kind: CifarKind) -> tuple[Part, Part | None, tuple[str, ...], str]:
    """The splits of a CIFAR folder, whatever its layout.

    Parameters
    ----------
    path : Path
        The folder of the files, or the one that holds it.

    Returns
    -------
    test, train, class_names, layout
        ``train`` is None where no training file is there; labels are int64 [shape=(n,)].

    Raises
    ------
    DataError
        No known layout, missing or damaged files, labels out of range, a pickle with anything unexpected in it.
    """
    files.folder(path, f"{kind.python_folder} or {kind.binary_folder}")
    for place in (path, path / kind.python_folder, path / kind.binary_folder):
        if (place / kind.test).is_file():
            return *_splits(place, kind, "", _python_part), _python_names(place, kind), "python"
        if (place / f"{kind.test}.bin").is_file():
            return *_splits(place, kind, ".bin", _binary_part), _binary_names(place, kind), "binary"
        if kind is CIFAR10 and (place / "test_00.webp").is_file():
            test = _packed_part(place, "test")
            train = _packed_part(place, "train") if (place / "train_00.webp").is_file() else None
            return test, train, _CIFAR10_NAMES, "packed"
    packed = ", or packed test_00.webp" if kind is CIFAR10 else ""
    raise DataError(
        f"{path}: no {kind.name} test files here, nor in {kind.python_folder} or {kind.binary_folder} under it; "
        f"expected {kind.test} (python) or {kind.test}.bin (binary){packed}"
    )


def _splits(
    place: Path, kind: CifarKind, suffix: str, read: Callable[[Sequence[Path], CifarKind], Part]
) -> tuple[Part, Part | None]:
    train = [place / f"{name}{suffix}" for name in kind.train]
    missing = [p.name for p in train if not p.is_file()]
    if missing and len(missing) < len(train):
        raise DataError(
            f"{place}: training files missing: {', '.join(missing)} (all {len(train)}, or none for test only)"
        )
    return read([place / f"{kind.test}{suffix}"], kind), None if missing else read(train, kind)


# --- python distribution: one pickled dictionary a file ---------------------------------------------------------------


def _python_part(paths: Sequence[Path], kind: CifarKind) -> Part:
    counts, labels = [], []
    for path in paths:
        pixels, batch_labels = _python_batch(path, kind)
        counts.append(len(pixels))
        labels.append(batch_labels)
    # Only the labels are kept: a training split is read again, file by file, when its images are asked for.
    source = ChunkedPixels(_SHAPE, counts, lambda n: _python_batch(paths[n], kind)[0])
    return source, np.concatenate(labels)


def _python_batch(path: Path, kind: CifarKind) -> tuple[Bytes, NDArray[np.int64]]:
    batch = _by_text(load_batch(path), path)
    data, labels = batch.get("data"), batch.get(kind.label_key)
    if not isinstance(data, PickledArray) or not isinstance(labels, list):
        found = (
            ", ".join(f"{key[:40]!r} ({type(value).__name__})" for key, value in list(batch.items())[:6]) or "nothing"
        )
        raise DataError(
            f"{path}: expected an array 'data' and a list {kind.label_key!r}, as {kind.name} has them; found {found}"
        )
    pixels = data.bytes_matrix(_BYTES, path).reshape(-1, *_SHAPE)
    if not all(type(label) is int for label in labels):
        raise DataError(f"{path}: {kind.label_key} must be a list of integers")
    return pixels, check_labels(labels, len(pixels), kind.classes, str(path))


def _by_text(batch: dict[Any, Any], path: Path) -> dict[str, Any]:
    """A batch's entries by text: keys are bytes where it was read with ``encoding="bytes"`` and pickled again."""
    entries: dict[str, Any] = {}
    for key, value in batch.items():
        name = key.decode("latin-1") if isinstance(key, bytes) else key
        if not isinstance(name, str):
            continue
        if name in entries:
            raise DataError(f"{path}: holds {name[:40]!r} twice, as text and as bytes")
        entries[name] = value
    return entries


def _python_names(place: Path, kind: CifarKind) -> tuple[str, ...]:
    if not (place / kind.meta).is_file():
        return _default_names(kind)
    names: Any = _by_text(load_batch(place / kind.meta), place / kind.meta).get(kind.meta_key)
    if isinstance(names, list):
        names = [name.decode("latin-1") if isinstance(name, bytes) else name for name in names]
    if not isinstance(names, list) or len(names) != kind.classes or not all(isinstance(n, str) for n in names):
        raise DataError(f"{place / kind.meta}: expected {kind.classes} names in {kind.meta_key!r}")
    return tuple(names)


def _default_names(kind: CifarKind) -> tuple[str, ...]:
    return _CIFAR10_NAMES if kind is CIFAR10 else tuple(str(n) for n in range(kind.classes))


# --- binary distribution: label bytes and 3072 pixels a record --------------------------------------------------------


def _binary_part(paths: Sequence[Path], kind: CifarKind) -> Part:
    records = [_binary_records(path, kind) for path in paths]
    labels = [
        check_labels(r[:, kind.label_bytes - 1], len(r), kind.classes, str(p))
        for p, r in zip(paths, records, strict=True)
    ]

    def load(number: int) -> Bytes:
        return _binary_records(paths[number], kind)[:, kind.label_bytes :].reshape(-1, *_SHAPE)

    return ChunkedPixels(_SHAPE, [len(r) for r in records], load), np.concatenate(labels)


def _binary_records(path: Path, kind: CifarKind) -> Bytes:
    record = kind.label_bytes + _BYTES
    data = files.read_file(path)
    if not data or len(data) % record:
        raise DataError(f"{path}: expected records of {record} bytes, found {len(data)} bytes (truncated?)")
    return np.frombuffer(data, np.uint8).reshape(-1, record)


def _binary_names(place: Path, kind: CifarKind) -> tuple[str, ...]:
    path = place / kind.names_file
    if not path.is_file():
        return _default_names(kind)
    names = files.read_file(path, 1 << 20).decode("utf-8", "replace").split()
    if len(names) != kind.classes:
        raise DataError(f"{path}: expected {kind.classes} class names, found {len(names)}")
    return tuple(names)


# --- packed: lossless mosaics of 32 x 32 images, row by row, with labels in one .npy a split --------------------------


def _packed_part(place: Path, split: str) -> Part:
    paths = sorted(place.glob(f"{split}_*.webp"))
    counts = []
    for path in paths:
        with decode_errors(path), Image.open(path, formats=_MOSAIC_FORMATS) as mosaic:
            width, height = mosaic.size
            mode = mosaic.mode
        if width % _TILE or height % _TILE or mode != "RGB":
            raise DataError(f"{path}: expected an RGB mosaic of 32x32 images, found {mode} {width}x{height}")
        counts.append((width // _TILE) * (height // _TILE))
    source = ChunkedPixels(_SHAPE, counts, lambda n: _mosaic(paths[n]))
    labels = check_labels(load_npy(place / f"{split}_labels.npy"), len(source), 10, str(place / f"{split}_labels.npy"))
    hashes = place / "sha256.json"
    if split == "test" and hashes.is_file():
        # WebP has no checksum, and the test images are what is measured: a changed pixel must not pass.
        _check_hash(hashes, split, paths)
    return source, labels


def _mosaic(path: Path) -> Bytes:
    with decode_errors(path), Image.open(path, formats=_MOSAIC_FORMATS) as mosaic:
        pixels = np.asarray(mosaic)
    down, across = pixels.shape[0] // _TILE, pixels.shape[1] // _TILE
    tiles = pixels.reshape(down, _TILE, across, _TILE, 3).transpose(0, 2, 4, 1, 3)
    return np.ascontiguousarray(tiles).reshape(-1, *_SHAPE)


def _check_hash(hashes: Path, split: str, paths: Sequence[Path]) -> None:
    try:
        expected = json.loads(files.read_file(hashes, 1 << 20))[split]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise DataError(f"{hashes}: expected a JSON object with the hash of {split!r}") from None
    digest = hashlib.sha256()
    for path in paths:
        digest.update(_mosaic(path).tobytes())
    if digest.hexdigest() != expected:
        raise DataError(f"{hashes}: the {split} images' hash is {digest.hexdigest()}, expected {expected}")
