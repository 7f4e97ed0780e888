"""Time of one design point of the chip model (map, schedule, price), and how it grows.

No functional simulation and no torch; the networks are the hand-written operation lists of the chip's tests.
Run alone: python -m benchmarks.chip_model
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measure import spread
from bitline.chip import estimate
from bitline.chip.cost import peak
from bitline.chip.timeline import timeline
from bitline.hardware import load_hardware

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "chip"))
import chip_networks


def _seconds(work: Callable[[], Any], repeats: int = 15) -> dict[str, float]:
    """Run once to warm up, then ``repeats`` times: wall-clock seconds, and the median of this process's own.

    The model is one thread, so the two differ by what else the machine is doing.
    """
    work()
    wall, own = [], []
    for _ in range(repeats):
        started, used = time.perf_counter(), time.process_time()
        work()
        wall.append(time.perf_counter() - started)
        own.append(time.process_time() - used)
    return spread(wall) | {"process": statistics.median(own)}


def _chain(layers: int, size: int) -> list[Any]:
    graph = chip_networks.Graph(64, size, size)
    name = "input"
    for index in range(layers):
        name = graph.conv(f"conv{index}", name, 64)
    return graph.operations


def run(quick: bool = False) -> dict[str, Any]:
    """Measure; seconds a design point, after start-up. Takes seconds, so ``quick`` changes nothing but the repeats."""
    repeats = 1 if quick else 15
    hw = load_hardware("tinyadc")
    networks = {
        "resnet18_224": chip_networks.resnet18(),
        "resnet50_224": chip_networks.resnet50(),
        "vgg16_224": chip_networks.vgg16(),
        "resnet18_32": chip_networks.resnet18(32, 10),
    }
    resnet = networks["resnet18_224"]
    results: dict[str, Any] = {"hardware": hw.name, "peak_s": _seconds(lambda: peak(hw), repeats)}
    results["design_point_s"] = {
        f"{name}, {how}": _seconds(lambda ops=ops, how=how: estimate(ops, hw, adc_bits=6, replication=how), repeats)
        for name, ops in networks.items()
        for how in ("smallest", "balanced", "fastest")
    }
    results["layers_s"] = {}
    for layers in (5, 10, 20, 40, 80, 160):
        chain = _chain(layers, 28)
        results["layers_s"][f"{layers} layers of 64 x 28 x 28"] = _seconds(lambda ops=chain: estimate(ops, hw), repeats)
    results["positions_s"] = {}
    for size in (7, 14, 28, 56, 112, 224):
        chain = _chain(20, size)
        results["positions_s"][f"20 layers of 64 x {size} x {size}"] = _seconds(
            lambda ops=chain: estimate(ops, hw, replication="smallest"), repeats
        )
    results["tile_budget_s"] = {
        f"resnet18_224 in {tiles} tiles": _seconds(
            lambda tiles=tiles: estimate(resnet, hw, replication="fastest", tiles=tiles), repeats
        )
        for tiles in (64, 128, 256, 512, 1024, 4096, 16384)
    }
    report = estimate(resnet, hw)
    results["timeline_s"] = _seconds(lambda: json.dumps(timeline(report)), repeats)
    return results


if __name__ == "__main__":
    from bitline.report.machine import machine_facts

    print(json.dumps({"machine": machine_facts(), "chip_model": run()}, indent=2))
