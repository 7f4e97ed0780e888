"""Standard output and standard error: closed, full, of any encoding, and read by people whose terminals obey.

Everything that the command line prints goes through :func:`emit` (results) and :func:`complain` (errors, notes).
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TextIO

from bitline.errors import OutputError
from bitline.printable import lines, one_line

__all__ = ["complain", "emit", "repair_streams"]


def repair_streams() -> None:
    """Give a process whose standard streams were closed others that lead nowhere, and let none fail at a character.

    Descriptors first: a file opened later would otherwise take the number 1 or 2 and receive what was meant for a
    terminal. What an encoding lacks, and bytes of file names that are no text, are escaped: ``\\xe9``, ``\\udcff``.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - for as long as the process lives
        escape_characters(getattr(sys, name))


def escape_characters(stream: TextIO) -> None:
    """Let a stream escape the characters that its encoding lacks."""
    with contextlib.suppress(AttributeError, OSError, ValueError):  # what a test or a notebook put there
        stream.reconfigure(errors="backslashreplace")  # type: ignore[attr-defined]


def emit(text: str) -> None:
    """Print a result on standard output. A reader that left, as ``head`` does, is no error.

    Raises
    ------
    OutputError
        It cannot be written, as to a full device.
    """
    try:
        sys.stdout.write(lines(text))
        sys.stdout.flush()
    except BrokenPipeError:
        _discard(sys.stdout)
    except OSError as error:
        _discard(sys.stdout)
        raise OutputError(f"standard output: cannot be written: {error.strerror or error}") from None


def complain(text: str) -> None:
    """Print one line on standard error; where nobody can read it, the exit status has to say it alone."""
    try:
        sys.stderr.write(one_line(text) + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        _discard(sys.stderr)


def _discard(stream: TextIO) -> None:
    """Let the interpreter flush what is left to nowhere."""
    with contextlib.suppress(OSError, ValueError):  # no file descriptor where a test replaced the stream
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
