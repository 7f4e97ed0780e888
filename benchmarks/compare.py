"""Two benchmark documents side by side: which measurements moved by more than their own spread."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["compare"]

_SPREAD = {"median", "least", "largest"}
_SAME = ("processor", "cores", "instructions")
"""Facts of a machine without which a ratio says nothing of the code."""


def _medians(results: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, dict[str, float]]]:
    """Every measurement of a document, seconds or MiB: its path, and its median with the spread."""
    for name, value in results.items():
        if isinstance(value, dict) and value.keys() >= _SPREAD:
            yield " / ".join((*path, name)), value
        elif isinstance(value, dict):
            yield from _medians(value, (*path, name))


def compare(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """One line a measurement that both documents have: how many times faster or smaller, and the range of noise.

    The range is from the slowest old run over the fastest new one to the reverse; a change is called one only where 1
    lies outside of it. Two lines before them where the documents are of different machines or different sizes.
    """
    lines = []
    machines = [document.get("machine", {}) for document in (old, new)]
    if differing := [fact for fact in _SAME if machines[0].get(fact) != machines[1].get(fact)]:
        lines.append(f"different machines ({', '.join(differing)}): the ratios are not of the code alone")
    if old.get("quick", False) != new.get("quick", False):
        lines.append("one of the documents is a --quick one: its sizes are not the other's, the ratios mean nothing")
    before = dict(_medians(old["results"]))
    for name, after in _medians(new["results"]):
        if name not in before:
            continue
        was = before[name]
        ratio = was["median"] / after["median"]
        low, high = was["least"] / after["largest"], was["largest"] / after["least"]
        better, worse = ("smaller", "larger") if name.endswith("peak_mib") else ("faster", "slower")
        verdict = better if low > 1 else worse if high < 1 else "within noise"
        lines.append(f"{ratio:6.2f}x  ({low:.2f} .. {high:.2f})  {verdict:12s}  {name}")
    return lines
