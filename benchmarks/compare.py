"""Two benchmark documents side by side: which measurements moved by more than their own spread."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["compare"]


def _medians(results: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, dict[str, float]]]:
    """Every measurement of a document: its path and its seconds."""
    for name, value in results.items():
        if isinstance(value, dict) and {"median", "least", "largest"} <= value.keys():
            yield " / ".join((*path, name)), value
        elif isinstance(value, dict):
            yield from _medians(value, (*path, name))


def compare(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """One line a measurement that both documents have: how many times faster, and the range that noise allows.

    The range is from the slowest old run over the fastest new one to the reverse; a change is called one only where 1
    lies outside of it.
    """
    before = dict(_medians(old["results"]))
    lines = []
    for name, after in _medians(new["results"]):
        if name not in before:
            continue
        was = before[name]
        ratio = was["median"] / after["median"]
        low, high = was["least"] / after["largest"], was["largest"] / after["least"]
        verdict = "faster" if low > 1 else "slower" if high < 1 else "within noise"
        lines.append(f"{ratio:6.2f}x  ({low:.2f} .. {high:.2f})  {verdict:12s}  {name}")
    return lines
