"""Images and labels in one ``.npz`` file, and the safe reading of numpy's files: no pickles, no surprise sizes."""

from __future__ import annotations

import io
import math
import warnings
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from bitline.data.dataset import ArrayPixels, check_labels
from bitline.data.files import MAX_BYTES, read_file
from bitline.errors import DataError

__all__ = ["load_npy", "load_npz", "read_npz"]

Part = tuple[ArrayPixels, NDArray[np.int64] | None]

_IMAGES = ("x", "images")
_LABELS = ("y", "labels")
_MAX_HEADER = 10_000


def load_npz(path: Path, names: Collection[str] | None = None, limit: int = MAX_BYTES) -> dict[str, NDArray[Any]]:
    """The arrays of an ``.npz`` file by name.

    Parameters
    ----------
    names : collection of str, optional
        Only these, where they are there; all by default.
    limit : int
        Refuse more bytes of arrays than this: a small compressed file can claim any size.

    Raises
    ------
    DataError
        Missing or damaged file, arrays of objects, sizes that disagree with the headers or are over the limit.
    """
    if not path.is_file():
        raise DataError(f"{path}: " + ("is a folder; expected an .npz file" if path.is_dir() else "no such file"))
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                if names is not None and name not in names:
                    continue
                if name in arrays:
                    raise ValueError(f"two arrays named {name[:40]!r}")
                with archive.open(member) as stream:
                    arrays[name] = _read_array(stream, member.file_size, limit)
                limit -= arrays[name].nbytes
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    # zipfile, zlib, lzma and numpy raise a dozen unrelated kinds on damaged bytes; all of them mean the same here.
    except Exception as error:
        raise DataError(f"{path}: damaged or not an .npz file ({_one_line(error)})") from None
    return arrays


def load_npy(path: Path) -> NDArray[Any]:
    """The array of an ``.npy`` file.

    Raises
    ------
    DataError
        Missing or damaged file, or an array of objects.
    """
    data = read_file(path)
    try:
        return _read_array(io.BytesIO(data), len(data), MAX_BYTES)
    # As above: numpy's header parser meets hostile bytes with many kinds of error.
    except Exception as error:
        raise DataError(f"{path}: damaged or not an .npy file ({_one_line(error)})") from None


def _read_array(stream: IO[bytes], size: int, limit: int) -> NDArray[Any]:
    """One ``.npy`` stream, its header checked against the size on file before any memory is taken."""
    version = npy_format.read_magic(stream)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy warns of headers written by Python 2; they are read all the same
        if version == (1, 0):
            shape, fortran, dtype = npy_format.read_array_header_1_0(stream, _MAX_HEADER)
        elif version == (2, 0):
            shape, fortran, dtype = npy_format.read_array_header_2_0(stream, _MAX_HEADER)
        else:
            raise ValueError(f"format version {version[0]}.{version[1]}")
    if dtype.kind not in "biufU" or dtype.itemsize == 0:
        raise ValueError(f"an array of {dtype}; expected numbers")
    if any(n < 0 for n in shape):
        raise ValueError(f"shape {shape}")
    bytes_needed = math.prod(shape) * dtype.itemsize
    if bytes_needed > limit:
        raise ValueError(f"an array of {bytes_needed} bytes, over the limit of {limit}")
    if bytes_needed > size:
        raise ValueError(f"an array of {bytes_needed} bytes in a member of {size}")
    data = stream.read(bytes_needed)
    if len(data) != bytes_needed or stream.read(1):
        raise ValueError(f"shape {shape} of {dtype} needs {bytes_needed} bytes, found {'more' if data else 'none'}")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def read_npz(path: Path) -> tuple[Part, Part | None, float, tuple[float, float], int]:
    """Images and labels of an ``.npz`` file.

    Images are ``x`` or ``images`` (the test split), or ``x_test`` and ``x_train``; labels ``y`` or ``labels``, or
    ``y_test`` and ``y_train``. Images are (N, C, H, W), (N, H, W, C) with 1, 3 or 4 channels, or (N, H, W). Whole
    numbers must be pixels 0..255; floats are taken as they are. White is 255 for whole numbers, also where they are
    stored as floats (128 or more is there), and 1 for other floats.

    Returns
    -------
    test, train, full_scale, raw_range, classes
        ``classes`` is one more than the largest label, 0 without labels.

    Raises
    ------
    DataError
        No images, shapes that make no images, values out of range, counts of images and labels that differ.
    """
    keys = {*_IMAGES, *_LABELS, "x_test", "y_test", "x_train", "y_train"}
    arrays = load_npz(path, keys)
    image_key = next((k for k in ("x_test", *_IMAGES) if k in arrays), None)
    if image_key is None:
        with zipfile.ZipFile(path) as archive:
            found = ", ".join(archive.namelist()[:8]) or "nothing"
        raise DataError(
            f"{path}: no images; expected an array x or images (labels: y or labels), or x_test and y_test "
            f"(and x_train and y_train), found {found}"
        )
    label_keys = ("y_test",) if image_key == "x_test" else _LABELS
    label_key = next((k for k in label_keys if k in arrays), None)
    test_images = _images(arrays[image_key], f"{path}: {image_key}")
    train_images = _images(arrays["x_train"], f"{path}: x_train") if "x_train" in arrays else None
    if train_images is not None and (
        train_images.shape[1:] != test_images.shape[1:] or train_images.dtype != test_images.dtype
    ):
        raise DataError(
            f"{path}: training and test images differ: {train_images.dtype} {train_images.shape[1:]} "
            f"and {test_images.dtype} {test_images.shape[1:]}"
        )
    test_labels = _labels(arrays.get(label_key or ""), len(test_images), f"{path}: {label_key}")
    train: Part | None = None
    train_labels = None
    if train_images is not None:
        train_labels = _labels(arrays.get("y_train"), len(train_images), f"{path}: y_train")
        train = (ArrayPixels(train_images), train_labels)
    classes = max((int(labels.max()) + 1 for labels in (test_labels, train_labels) if labels is not None), default=0)
    full_scale, raw_range = 255.0, (0.0, 255.0)
    if test_images.dtype != np.uint8:
        full_scale = 1.0
        both = [test_images] if train_images is None else [test_images, train_images]
        raw_range = (min(float(a.min()) for a in both), max(float(a.max()) for a in both))
        # Bytes stored as floats: whole numbers up to 255, beyond any 0..1 or 0..16. White of theirs is 255, not 1.
        if raw_range[0] >= 0 and 127 < raw_range[1] <= 255 and all(bool((a == np.rint(a)).all()) for a in both):
            full_scale = 255.0
    return (ArrayPixels(test_images), test_labels), train, full_scale, raw_range, classes


def _labels(labels: NDArray[Any] | None, count: int, where: str) -> NDArray[np.int64] | None:
    return None if labels is None else check_labels(labels, count, None, where)


def _images(array: NDArray[Any], where: str) -> NDArray[Any]:
    """Images as (N, C, H, W), uint8 or float32."""
    if array.ndim == 3:
        array = array[:, None]
    if array.ndim != 4 or 0 in array.shape:
        raise DataError(f"{where}: expected images (N, C, H, W), (N, H, W, C) or (N, H, W), found shape {array.shape}")
    if array.shape[1] not in (1, 3, 4) and array.shape[3] in (1, 3, 4):
        array = array.transpose(0, 3, 1, 2)
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, and that is refused next
            array = array.astype(np.float32)
        if not np.isfinite(array).all():
            raise DataError(f"{where}: holds NaN or infinite values")
    elif array.dtype.kind in "iu":
        low, high = int(array.min()), int(array.max())
        if low < 0 or high > 255:
            raise DataError(f"{where}: whole numbers must be pixels 0..255, found {low}..{high}")
        array = array.astype(np.uint8)
    else:
        raise DataError(f"{where}: expected pixels as uint8 or floats, found {array.dtype}")
    return np.ascontiguousarray(array)
