"""Text that a terminal may show: names come from files, and a terminal obeys control characters."""

from __future__ import annotations

import hashlib

__all__ = ["NAME_WIDTH", "clean", "lines", "one_line", "shorten"]

NAME_WIDTH = 30
_LONGEST_LINE = 2000


def clean(text: str) -> str:
    r"""Escape what cannot be printed or encoded, as Python writes it: ``\x1b``, ``\u202e``, ``\udcff``."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape", "surrogatepass").decode() for one in text)


def lines(text: str) -> str:
    """Text of several lines, each of them clean."""
    return "\n".join(clean(line) for line in text.split("\n"))


def one_line(text: str) -> str:
    """A message as one clean line of bounded length: what is cut out is from its middle."""
    line = clean(" ".join(part.strip(" ") for part in text.split("\n") if part.strip(" ")))
    if len(line) <= _LONGEST_LINE:
        return line
    half = _LONGEST_LINE // 2 - 20
    return f"{line[:half]} [... {len(line) - 2 * half:,} characters ...] {line[-half:]}"


def shorten(name: str, width: int = NAME_WIDTH) -> str:
    """Cut the middle out of a long name; what is cut stays there as four digits of its hash, so that names differ."""
    name = clean(name)
    if len(name) <= width:
        return name
    mark = f"~{hashlib.sha256(name.encode()).hexdigest()[:4]}~"
    if width < 2 * len(mark):
        return f"{name[: width - len(mark)]}{mark}"
    tail = (width - len(mark)) * 2 // 3
    return f"{name[: width - len(mark) - tail]}{mark}{name[-tail:]}"
