"""Every error Bitline raises on purpose, under one root.

A message says what is wrong, where, what was expected and what was found, in one line. The command line prints that
line and exits with the class's ``exit_status``; library users catch :class:`BitlineError` or a subclass.
"""

from __future__ import annotations


class BitlineError(Exception):
    """Root of the errors Bitline raises on purpose; the message is one line for a person."""

    exit_status = 2


class ConfigError(BitlineError, ValueError):
    """A hardware description, recipe or option is unknown, of the wrong type or impossible."""


class ShapeError(BitlineError, ValueError):
    """Arrays whose shapes do not fit together."""


class RangeError(BitlineError, ValueError):
    """A number outside what the hardware or the option can hold (codes, weights, image counts)."""


class CheckpointError(BitlineError, ValueError):
    """A checkpoint that is missing, damaged, hostile, or does not hold usable weights."""


class ArchitectureError(BitlineError, ValueError):
    """A checkpoint and an architecture that do not belong together, or an unknown architecture."""


class ConversionError(BitlineError, ValueError):
    """A network that cannot be converted to crossbars."""


class DataError(BitlineError, ValueError):
    """A data set or trace that is missing, empty, damaged or of another shape."""


class OutputError(BitlineError, OSError):
    """An output folder or file that cannot be written."""


class ProcessError(BitlineError, RuntimeError):
    """A process in which nothing can be computed."""


class VerificationError(BitlineError):
    """A check that was asked for failed: the input was fine, the claim was not."""

    exit_status = 3
