"""Images a second of a ResNet-20 at CIFAR size, per engine, against torch float32 in the same run.

Random weights, so no download; a trained network has more zeros in its high slices and is faster. Every engine runs
the same images, and their outputs are compared.
"""

from __future__ import annotations

import time
from typing import Any

import numba
import torch
from bitline.models.resnet import ResNet, ResNetPlan, cifar_stages

import bitline
from benchmarks.measure import median_seconds

IMAGES = 128


def run() -> dict[str, Any]:
    """Measure; processor time is of the whole process, so it says less than wall time about waiting threads."""
    torch.manual_seed(0)
    plan = ResNetPlan(in_channels=3, stem=16, stages=cifar_stages(20), classes=10, projection=False)
    module = ResNet(plan).eval()
    images = torch.rand(IMAGES, 3, 32, 32)
    network = bitline.convert(module, images[:16], bitline.load_hardware("tinyadc"), calibrator="max")
    results: dict[str, Any] = {"images": IMAGES}
    for threads in sorted({1, numba.config.NUMBA_NUM_THREADS}):
        numba.set_num_threads(threads)
        torch.set_num_threads(threads)
        outputs = {}
        for engine in ("bitserial", "certified", "exact"):
            network.engine = engine
            network.reset_counters()
            outputs[engine] = network(images)
            conversions = sum(counter.conversions for counter in network.counters)
            results[f"{engine}, {threads} threads"] = _rates(lambda: network(images), conversions)
        assert all(torch.equal(output, outputs["exact"]) for output in outputs.values()), "the engines disagree"
        with torch.no_grad():
            results[f"torch float32, {threads} threads"] = _rates(lambda: module(images), 0)
    return results


def _rates(work: Any, conversions: int) -> dict[str, float]:
    used = time.process_time()
    seconds = median_seconds(work)
    used = (time.process_time() - used) / (seconds["repeats"] + 1)
    rates = {"images_per_s": IMAGES / seconds["median"], "images_per_processor_s": IMAGES / used}
    return seconds | rates | ({"conversions_per_s": conversions / seconds["median"]} if conversions else {})
