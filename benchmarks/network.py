"""Images a second of whole networks, per engine, against torch float32 in the same run.

ResNet-20 and VGG-16 at CIFAR size, ResNet-18 at 224x224; random weights, so no download. Every engine runs the same
images: outputs, conversions and saturations are compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.measure import median_seconds, thread_counts, use_threads
from benchmarks.workload import NETWORKS, Case, crossbar_network, macs_per_image, network

ENGINES = ("bitserial", "certified", "exact")


def run(quick: bool = False) -> dict[str, Any]:
    """Measure; the exact engine is the integer network without crossbars."""
    return {case.name: one_network(case, quick) for case in NETWORKS}


def one_network(case: Case, quick: bool) -> dict[str, Any]:
    """Every engine at every thread count; processor time is of the whole process, waiting threads included."""
    count = 1 if quick else case.images
    repeats = 1 if quick else 5
    module, images = network(case, count)
    crossbars = crossbar_network(case, module, quick)
    with torch.no_grad():
        reference = module(images)
    results: dict[str, Any] = {"images": count, "macs_per_image": macs_per_image(crossbars)}
    for threads in thread_counts():
        use_threads(threads)
        outputs, counts = {}, {}
        for engine in ENGINES:
            crossbars.engine = engine
            crossbars.reset_counters()
            outputs[engine] = crossbars(images)
            counts[engine] = {
                "conversions": sum(counter.conversions for counter in crossbars.counters),
                "saturations": sum(counter.saturations for counter in crossbars.counters),
            }
            measured = _rates(lambda: crossbars(images), count, repeats)
            if engine != "exact":
                measured |= counts[engine]
                measured["conversions_per_s"] = counts[engine]["conversions"] / measured["median"]
            results[f"{engine}, {threads} threads"] = measured
        assert counts["bitserial"] == counts["certified"], "the engines count other conversions or saturations"
        assert torch.equal(outputs["bitserial"], outputs["certified"]), "the engines disagree"
        if not counts["bitserial"]["saturations"]:
            assert torch.equal(outputs["bitserial"], outputs["exact"]), "the crossbars disagree with the integers"
        results["largest difference from float32, of the largest output"] = float(
            (outputs["bitserial"] - reference).abs().max() / reference.abs().max()
        )
        with torch.no_grad():
            results[f"torch float32, {threads} threads"] = _rates(lambda: module(images), count, repeats)
    return results


def _rates(work: Callable[[], Any], images: int, repeats: int) -> dict[str, float]:
    used = time.process_time()
    seconds = median_seconds(work, repeats)
    used = (time.process_time() - used) / (repeats + 1)
    return seconds | {"images_per_s": images / seconds["median"], "images_per_processor_s": images / used}
