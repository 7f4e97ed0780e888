"""Medians with their spread, after a warm-up; and work in a process of its own, whose last line is a JSON document."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numba
import torch
from threadpoolctl import threadpool_limits

from bitline.errors import BitlineError

ROOT = Path(__file__).resolve().parents[1]
POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


class ChildError(BitlineError):
    """A measurement in a process of its own failed; the message ends with the last line it wrote."""


def median_seconds(work: Callable[[], Any], repeats: int = 7) -> dict[str, float]:
    """Run ``work`` once to warm up, then ``repeats`` times; median, least and largest wall-clock seconds."""
    settle()
    work()
    return spread([_seconds(work) for _ in range(repeats)])


def seconds_in_turn(works: Sequence[Callable[[], Any]], repeats: int) -> list[dict[str, float]]:
    """Run every work once, then again, ``repeats`` times, so that all see the same load of the machine; no warm-up.

    Of each the spread of wall-clock seconds and, as ``process``, the median of this process's own (of all its threads).
    """
    walls: list[list[float]] = [[] for _ in works]
    owns: list[list[float]] = [[] for _ in works]
    for _ in range(repeats):
        for work, wall, own in zip(works, walls, owns, strict=True):
            settle()
            used = time.process_time()
            wall.append(_seconds(work))
            own.append(time.process_time() - used)
    return [spread(wall) | {"process": statistics.median(own)} for wall, own in zip(walls, owns, strict=True)]


def settle() -> None:
    """Wait until this process is idle, for a second at most.

    The threads of a pool (OpenBLAS's, for one) stay busy for a tenth of a second after their last work, waiting for
    more, and take a core from whatever is measured next.
    """
    for _ in range(200):
        used = time.process_time()
        time.sleep(0.005)
        if time.process_time() - used < 0.001:
            return


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Median, least, largest and number of repeated measurements."""
    return {
        "median": statistics.median(seconds),
        "least": min(seconds),
        "largest": max(seconds),
        "repeats": len(seconds),
    }


def _seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def thread_counts() -> list[int]:
    """One thread, and all that the machine lends to this process."""
    return sorted({1, numba.config.NUMBA_NUM_THREADS})


def use_threads(threads: int) -> None:
    """Set the threads of Bitline's kernels, of torch, and of NumPy's products."""
    numba.set_num_threads(threads)
    torch.set_num_threads(threads)
    threadpool_limits(threads, user_api="blas")


def run_child(arguments: Sequence[str], *, threads: int | None = None) -> Any:
    """Run ``python -m ARGUMENTS`` and return the JSON document on the last line of its standard output.

    Every thread pool of the child is limited to ``threads`` from its start.

    Raises
    ------
    ChildError
        It failed.
    """
    limits = {} if threads is None else dict.fromkeys(POOLS, str(threads))
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        env=os.environ | limits | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise ChildError(lines[-1])
    return json.loads(done.stdout.strip().splitlines()[-1])
