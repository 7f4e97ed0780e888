"""Reading what a user names: regular files of a bounded size, or standard input where ``-`` is named.

A pipe, a device or an endless file is refused before it is read: none of them can make a command wait or fill memory.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from bitline.errors import BitlineError, ConfigError
from bitline.paths import expanded

__all__ = ["STANDARD_INPUT", "read_bytes", "read_text"]

STANDARD_INPUT = "-"
"""The name that stands for standard input."""


def read_bytes(path: str | Path, what: str, limit: int, error: type[BitlineError] = ConfigError) -> bytes:
    """The bytes of a regular file, or of standard input where the path is ``-``.

    Parameters
    ----------
    what : str
        What the file should be, as in "hardware description".
    limit : int
        Most bytes; one more is refused without reading on.
    error : type
        Class of the error raised.

    Raises
    ------
    BitlineError
        Of that class: missing, unreadable, no regular file, or larger than the limit.
    """
    shown = f"{what} {path}"
    try:
        if str(path) == STANDARD_INPUT:
            content = _standard_input(limit, shown, error)
        else:
            content = _regular_file(path, limit, shown, error)
    except (OSError, ValueError) as problem:  # ValueError: a null character in the name
        if isinstance(problem, BitlineError):
            raise
        reason = problem.strerror if isinstance(problem, OSError) else problem
        raise error(f"{shown}: cannot be read: {reason or problem}") from None
    if len(content) > limit:
        raise error(f"{shown}: larger than {limit} bytes, not a {what}")
    return content


def _regular_file(path: str | Path, limit: int, shown: str, error: type[BitlineError]) -> bytes:
    # without O_NONBLOCK, opening a pipe that nobody writes would wait for ever
    descriptor = os.open(expanded(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise error(f"{shown}: expected a regular file, found a folder, pipe or device")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(limit + 1)
    finally:
        os.close(descriptor)


def _standard_input(limit: int, shown: str, error: type[BitlineError]) -> bytes:
    stream = sys.stdin
    if stream is None or stream.closed:
        raise error(f"{shown}: standard input is closed")
    if hasattr(stream, "buffer"):
        content: bytes = stream.buffer.read(limit + 1)
        return content
    return stream.read(limit + 1).encode()  # replaced by a text stream, as in a test


def read_text(path: str | Path, what: str, limit: int, error: type[BitlineError] = ConfigError) -> str:
    """The text of a regular UTF-8 file, or of standard input where the path is ``-``; see :func:`read_bytes`.

    Raises
    ------
    BitlineError
        As :func:`read_bytes`, and where the bytes are not UTF-8.
    """
    content = read_bytes(path, what, limit, error)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise error(f"{what} {path}: not UTF-8 text") from None
