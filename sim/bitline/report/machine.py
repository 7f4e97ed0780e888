"""Facts about the machine a result was made on; no host name, no user, no path."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

__all__ = ["machine_facts"]

_CPU_FLAGS = ("avx2", "avx512f", "avx512_vpopcntdq")
_PACKAGES = ("numpy", "numba", "torch")


def machine_facts() -> dict[str, str | int | float]:
    """Return processor, cores available to this process, memory in GiB, operating system and package versions."""
    facts: dict[str, str | int | float] = {
        "processor": platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
    }
    for line in _lines("/proc/cpuinfo"):
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            facts["processor"] = value.strip()
        elif key.strip() == "flags":
            facts["instructions"] = " ".join(flag for flag in _CPU_FLAGS if flag in value.split())
            break
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemTotal:"):
            facts["memory_gib"] = round(int(line.split()[1]) / 2**20, 1)
            break
    facts["system"] = platform.system()
    facts["python"] = platform.python_version()
    for package in _PACKAGES:
        try:
            facts[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return facts


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text("utf-8", "replace").splitlines()
    except OSError:  # not Linux
        return []
