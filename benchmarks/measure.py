"""Medians with their spread, after a warm-up."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any


def median_seconds(work: Callable[[], Any], repeats: int = 7) -> dict[str, float]:
    """Run ``work`` once to warm up, then ``repeats`` times; median, least and largest wall-clock seconds."""
    work()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return {"median": statistics.median(seconds), "least": min(seconds), "largest": max(seconds), "repeats": repeats}
