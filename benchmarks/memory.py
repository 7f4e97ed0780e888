"""Peak resident memory of a process that converts a network and runs images through it in one call.

    python -m benchmarks.memory ARCHITECTURE IMAGES ENGINE

is one case: ENGINE is bitserial, certified, float32 (torch alone), or none (nothing but the imports).
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import run_child, spread
from benchmarks.workload import NETWORKS, RESNET18, RESNET20, Case, crossbar_network, network

CASES: tuple[tuple[Case, int, str], ...] = (
    (RESNET20, 0, "none"),
    (RESNET20, 10, "bitserial"),
    (RESNET20, 1000, "bitserial"),
    (RESNET20, 10, "certified"),
    (RESNET20, 1000, "certified"),
    (RESNET20, 1000, "float32"),
    (RESNET18, 1, "bitserial"),
    (RESNET18, 8, "bitserial"),
    (RESNET18, 8, "certified"),
    (RESNET18, 8, "float32"),
)


def run(quick: bool = False) -> dict[str, Any]:
    """MiB at the peak, by case; the largest cases decide, so what a process starts with is measured too.

    Once a case: the peak hardly changes, and each takes seconds.
    """
    results = {}
    for case, images, engine in CASES[:2] if quick else CASES:
        count = 1 if quick and images else images
        command = ["benchmarks.memory", case.architecture, str(count), engine]
        name = "imports alone" if engine == "none" else f"{case.name}, {count} images, {engine}"
        results[name] = {"peak_mib": spread([run_child(command)])}
    return results


def peak_mib() -> float:
    """Largest resident memory of this process so far.

    Not getrusage's where there is a better one: Linux counts the process that started this one into it.
    """
    try:
        for line in Path("/proc/self/status").read_text("ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:  # not Linux
        pass
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _case(architecture: str, images: int, engine: str) -> None:
    case = next(case for case in NETWORKS if case.architecture == architecture)
    if engine != "none":
        module, batch = network(case, images)
        if engine != "float32":
            module = crossbar_network(case, module)
            module.engine = engine
        with torch.no_grad():
            module(batch)
    print(json.dumps(round(peak_mib(), 1)))


if __name__ == "__main__":
    _case(sys.argv[1], int(sys.argv[2]), sys.argv[3])
