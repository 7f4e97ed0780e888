"""Reading files that may be missing, damaged or hostile: every failure is one DataError line naming the file."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from bitline.errors import DataError

__all__ = ["MAX_BYTES", "folder", "read_file"]

MAX_BYTES = 4 << 30
"""No file or array of a data set may be larger than this in memory (a small compressed file can claim any size)."""


def folder(path: Path, holds: str) -> Path:
    """``path``, which must be a folder with something in it.

    Raises
    ------
    DataError
        Missing, a file, unreadable or empty; ``holds`` says what was expected in it.
    """
    try:
        if not path.exists():
            raise DataError(f"{path}: no such folder; expected {holds}")
        if not path.is_dir():
            raise DataError(f"{path}: is a file; expected a folder with {holds}")
        if next(path.iterdir(), None) is None:
            raise DataError(f"{path}: the folder is empty; expected {holds}")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); expected {holds}") from None
    return path


def read_file(path: Path, limit: int = MAX_BYTES) -> bytes:
    """The bytes of a file, decompressed where its name ends in ``.gz``.

    Raises
    ------
    DataError
        Missing, a folder, unreadable, damaged compression, or more than ``limit`` bytes.
    """
    try:
        if not path.is_file():
            raise DataError(f"{path}: " + ("is a folder; expected a file" if path.is_dir() else "no such file"))
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            data = stream.read(limit + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: damaged or truncated gzip file ({error})") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    if len(data) > limit:
        raise DataError(f"{path}: holds more than the {limit} bytes such a file may have")
    return data
