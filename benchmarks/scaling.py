"""Growth with the number of images, with depth and with threads: ResNets at CIFAR size, both engines."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from benchmarks.measure import median_seconds, thread_counts, use_threads
from benchmarks.workload import RESNET20, crossbar_network, macs_per_image, network

IMAGES = (1, 8, 64, 512)
DEPTHS = (20, 32, 44, 56)
DEPTH_IMAGES = 32


def run(quick: bool = False) -> dict[str, Any]:
    """Measure; one call of the network on all images of a point."""
    module, images = network(RESNET20, max(IMAGES))
    crossbars = crossbar_network(RESNET20, module, quick)
    results: dict[str, Any] = {"images": {}, "depth": {}}
    for count in (1, 2) if quick else IMAGES:
        results["images"][str(count)] = _engines(crossbars, images[:count], quick)
    for depth in DEPTHS[:1] if quick else DEPTHS:
        case = replace(RESNET20, name=f"ResNet-{depth}", architecture=f"resnet{depth}_b")
        module, images = network(case, 1 if quick else DEPTH_IMAGES)
        crossbars = crossbar_network(case, module, quick)
        results["depth"][str(depth)] = {"macs_per_image": macs_per_image(crossbars)} | _engines(
            crossbars, images, quick
        )
    return results


def _engines(crossbars: Any, images: torch.Tensor, quick: bool) -> dict[str, Any]:
    results = {}
    for threads in thread_counts():
        use_threads(threads)
        for engine in ("bitserial", "certified"):
            crossbars.engine = engine
            seconds = median_seconds(
                lambda: crossbars(images), repeats=1 if quick else 3 if len(images) < max(IMAGES) else 2
            )
            results[f"{engine}, {threads} threads"] = seconds | {"images_per_s": len(images) / seconds["median"]}
    return results
