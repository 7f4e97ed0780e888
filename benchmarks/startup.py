"""Time from the start of a process to what a user waits for, with warm caches.

``bitline simulate`` runs on a terminal of its own (a pseudo-terminal), where progress shows; without one it writes its
report at the end and nothing before.
"""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.measure import ChildError, spread

SIMULATE = ("-m", "bitline", "simulate", "--images", "64")
COMMANDS: dict[str, Sequence[str]] = {
    "python alone": ("-c", "pass"),
    "import bitline": ("-c", "import bitline"),
    "bitline --help": ("-m", "bitline", "--help"),
}


def run(quick: bool = False) -> dict[str, Any]:
    """Seconds of wall time; the first run of each warms the file and Numba caches and is not counted."""
    repeats = 1 if quick else 7
    results: dict[str, Any] = {}
    for name, arguments in COMMANDS.items():
        times = [until_output(arguments)[1] for _ in range(repeats + 1)]
        results[name] = spread(times[1:])
    if quick:
        return results
    times = [until_output(SIMULATE) for _ in range(4)]
    results["bitline simulate --images 64, first output"] = spread([first for first, _ in times[1:]])
    results["bitline simulate --images 64, report"] = spread([end for _, end in times[1:]])
    return results


def until_output(arguments: Sequence[str]) -> tuple[float, float]:
    """Run ``python ARGUMENTS`` on a terminal; seconds to the first visible character, and to the end.

    Raises
    ------
    ChildError
        It failed.
    """
    ours, theirs = pty.openpty()
    started = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, *arguments], stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        first, seen = 0.0, b""
        while chunk := _read(ours):
            seen += chunk
            if not first and chunk.strip():
                first = time.perf_counter() - started
        os.close(ours)
        status = process.wait()
    ended = time.perf_counter() - started
    if status:
        lines = seen.decode(errors="replace").split("\n")
        raise ChildError(f"{' '.join(arguments)}: {next((line for line in reversed(lines) if line.strip()), status)}")
    return first or ended, ended


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # Linux says so when the other side is closed
        return b""
