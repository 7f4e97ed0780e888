"""scikit-learn's handwritten digits: real data that travels with a dependency, so the default needs no download."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from bitline.data.dataset import ArrayPixels, PixelSource, ResizedPixels
from bitline.errors import DataError

__all__ = ["DEFAULT_SIZE", "FULL_SCALE", "TEST_IMAGES", "read_digits"]

DEFAULT_SIZE = 16
FULL_SCALE = 16.0
"""The digits' pixels are 0..16."""
TEST_IMAGES = 500
_STORED = 8
_LARGEST = 256

Part = tuple[PixelSource, NDArray[np.int64]]


def read_digits(size: int) -> tuple[Part, Part]:
    """The 1797 digits as 500 test and 1297 training images of ``size`` x ``size`` pixels, bilinear from 8 x 8.

    The split is stratified and fixed for good: within every class, the images with the smallest SHA-256 of their
    pixels are the test images (a hash, not a generator: no library's version can move an image a shipped checkpoint
    was trained on into the test split). Both splits keep the original order, which mixes the classes.

    Returns
    -------
    test, train
        Sources of float32 values 0..16 [shape=(1, size, size)] and labels.

    Raises
    ------
    DataError
        A size outside 8..256.
    """
    if not _STORED <= size <= _LARGEST:
        raise DataError(f"digits: size must be {_STORED}..{_LARGEST}, found {size}")
    from sklearn.datasets import load_digits  # half of what a certificate, which has no data, would import

    pixels, labels = load_digits(return_X_y=True)
    pixels = pixels.astype(np.uint8)
    is_test = _test_mask(pixels, labels)
    return _part(pixels[is_test], labels[is_test], size), _part(pixels[~is_test], labels[~is_test], size)


def _part(pixels: NDArray[np.uint8], labels: NDArray[np.int64], size: int) -> Part:
    source = ArrayPixels(pixels.reshape(-1, 1, _STORED, _STORED))
    return ResizedPixels(source, size, None), labels.astype(np.int64)


def _test_mask(pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """True for the test images, each class in proportion (largest remainders, then the lower class)."""
    counts = np.bincount(labels)
    shares, remainders = np.divmod(counts * TEST_IMAGES, len(labels))
    for extra in np.argsort(-remainders, kind="stable")[: TEST_IMAGES - shares.sum()]:
        shares[extra] += 1
    mask = np.zeros(len(labels), np.bool_)
    for label, share in enumerate(shares):
        members = np.flatnonzero(labels == label)
        order = sorted(members, key=lambda i: (hashlib.sha256(pixels[i].tobytes()).digest(), i))
        mask[order[:share]] = True
    return mask
