"""The 1000 keyword-spotting inputs of MLPerf Tiny: 49 frames of 10 MFCC features as signed bytes, not pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitline.data import files
from bitline.data.dataset import ArrayPixels, check_labels
from bitline.errors import DataError

__all__ = ["KEYWORDS", "read_keywords"]

KEYWORDS = (
    "Down",
    "Go",
    "Left",
    "No",
    "Off",
    "On",
    "Right",
    "Stop",
    "Up",
    "Yes",
    "Silence",
    "Unknown",
)
_SHAPE = (1, 49, 10)
_CLIP = 490


def read_keywords(path: Path) -> tuple[ArrayPixels, NDArray[np.int64]]:
    """Features [shape=(n, 1, 49, 10), int8] and labels of a folder with one file of each.

    Raises
    ------
    DataError
        Missing or several files, a size that is no whole number of clips, labels out of range.
    """
    expected = "one *features_int8_*.bin (490 signed bytes a clip) and one *labels_uint8_*.bin"
    files.folder(path, expected)
    found = []
    for pattern in ("*features_int8_*.bin", "*labels_uint8_*.bin"):
        matches = sorted(path.glob(pattern))
        if len(matches) != 1:
            raise DataError(f"{path}: found {len(matches)} files {pattern}; expected {expected}")
        found.append(matches[0])
    features = files.read_file(found[0], 1 << 30)
    if not features or len(features) % _CLIP:
        raise DataError(f"{found[0]}: expected a multiple of {_CLIP} bytes, found {len(features)} (truncated?)")
    array = np.frombuffer(features, np.int8).reshape(-1, *_SHAPE)
    labels = np.frombuffer(files.read_file(found[1], 1 << 24), np.uint8)
    return ArrayPixels(array), check_labels(labels, len(array), len(KEYWORDS), str(found[1]))
