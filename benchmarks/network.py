"""Images a second of whole networks, per engine, against torch float32 in the same run.

ResNet-20 and VGG-16 at CIFAR size, ResNet-18 at 224x224; random weights, so no download. All run the same images, cut
into batches of several sizes, because what a call of many images allocates costs page faults and what a call of few
costs most is the call; each is reported at its own best size. Outputs, conversions and saturations are compared.

What a user without Bitline writes in plain torch (:func:`benchmarks.kernel.plain_torch`) is given every layer's integer
inputs and does the products alone. ResNet-20 also runs with fewer ADC bits than are certified.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.bounds import full_adders
from benchmarks.kernel import plain_torch
from benchmarks.measure import seconds_in_turn, spread, thread_counts, use_threads
from benchmarks.workload import NETWORKS, RESNET20, Case, crossbar_network, macs_per_image, network
from bitline.crossbar.encoding import encode
from bitline.crossbar.engines import Crossbars
from bitline.network.conversion import CrossbarNetwork

ENGINES = ("bitserial", "certified", "exact")
FLOAT, TUNED = "torch float32", "torch float32 tuned"
"""The float network as it is built, and with batch norm folded and channels last, as a user can have it."""
BELOW = "ADC below the certified resolution"
BELOW_IMAGES = 32


def run(quick: bool = False) -> dict[str, Any]:
    """Measure; the exact engine is the integer network without crossbars."""
    return {case.name: one_network(case, quick) for case in NETWORKS}


def one_network(case: Case, quick: bool) -> dict[str, Any]:
    """Every engine at every thread count; processor time is of the whole process, waiting threads included."""
    if quick:
        case = quick_case(case)
    module, images = network(case, case.images)
    crossbars = crossbar_network(case, module, quick)
    results: dict[str, Any] = {
        "images": len(images),
        "macs_per_image": macs_per_image(crossbars),
        "full_adders_per_image": full_adders_per_image(crossbars),
    }
    with torch.no_grad():
        reference = module(images)
    networks = dict.fromkeys(ENGINES, crossbars) | {FLOAT: module, TUNED: tuned(module)}
    sizes = dict.fromkeys(networks, case.batches) | dict.fromkeys(("bitserial", "exact"), case.batches_slow)
    for threads in thread_counts():
        use_threads(threads)
        counts = {engine: _checked(crossbars, engine, images, sizes[engine]) for engine in ENGINES}
        outputs = {engine: output for engine, (output, _) in counts.items()}
        assert counts["bitserial"][1] == counts["certified"][1], "the engines count other conversions or saturations"
        assert torch.equal(outputs["bitserial"], outputs["certified"]), "the engines disagree"
        if not counts["bitserial"][1]["saturations"]:
            assert torch.equal(outputs["bitserial"], outputs["exact"]), "the crossbars disagree with the integers"
        results["largest difference from float32, of the largest output"] = float(
            (outputs["bitserial"] - reference).abs().max() / reference.abs().max()
        )
        works = {
            (name, size): partial(_run, networks[name], name, images, size)
            for name, its in sizes.items()
            for size in its
        }
        measured = _rates(works, len(images), 1 if quick else 3)
        for engine in ("bitserial", "certified"):
            measured[engine] |= counts[engine][1]
            measured[engine]["conversions_per_s"] = counts[engine][1]["conversions"] / measured[engine]["median"]
        results |= {f"{name}, {threads} threads": rates for name, rates in measured.items()}
    if case.baseline_images:
        results[f"plain torch, {threads} threads"] = baseline(crossbars, images[: case.baseline_images])
    if case.name == RESNET20.name:
        results[BELOW] = below(crossbars, images[:BELOW_IMAGES], 1 if quick else 3)
    return results


def quick_case(case: Case) -> Case:
    """A case with hardly any work; two batch sizes of the first network alone."""
    images, batches = (2, (1, 2)) if case is RESNET20 else (1, (1,))
    return replace(
        case,
        size=min(case.size, 64),
        images=images,
        batches=batches,
        batches_slow=batches,
        baseline_images=min(case.baseline_images, 1),
    )


def tuned(module: torch.nn.Module) -> torch.nn.Module:
    """The float network with batch norm folded into the convolutions, its feature maps channels last."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch, about torch
        from torch.fx.experimental.optimization import fuse
    folded: torch.nn.Module = fuse(module)
    return folded.to(memory_format=torch.channels_last)


def _run(module: Any, name: str, images: torch.Tensor, size: int) -> torch.Tensor:
    """Outputs of all images, ``size`` of them a call; ``name`` is the engine or torch."""
    if name in ENGINES:
        module.engine = name
    with torch.no_grad():
        return torch.cat([module(batch) for batch in images.split(size)])


def _checked(
    crossbars: CrossbarNetwork, engine: str, images: torch.Tensor, sizes: tuple[int, ...]
) -> tuple[torch.Tensor, dict[str, int]]:
    """Outputs and counters of an engine, the same at every batch size."""
    outputs, counts = [], []
    for size in sizes:
        crossbars.reset_counters()
        outputs.append(_run(crossbars, engine, images, size))
        counts.append(
            {
                "conversions": sum(counter.conversions for counter in crossbars.counters),
                "saturations": sum(counter.saturations for counter in crossbars.counters),
            }
        )
    assert all(torch.equal(output, outputs[0]) for output in outputs), f"{engine}: outputs depend on the batch size"
    assert all(count == counts[0] for count in counts), f"{engine}: counters depend on the batch size"
    return outputs[0], counts[0]


def _rates(works: dict[tuple[str, int], Callable[[], Any]], images: int, repeats: int) -> dict[str, dict[str, Any]]:
    """By name the measurement at its fastest batch size, with the images a second at all of them."""
    found = dict(zip(works, seconds_in_turn(list(works.values()), repeats), strict=True))
    results = {}
    for name in dict.fromkeys(name for name, _ in works):
        by_size = {size: seconds for (its, size), seconds in found.items() if its == name}
        best = min(by_size, key=lambda size: by_size[size]["median"])
        results[name] = by_size[best] | {
            "batch": best,
            "images_per_s": images / by_size[best]["median"],
            "images_per_processor_s": images / by_size[best]["process"],
            "images_per_s_by_batch": {str(size): images / seconds["median"] for size, seconds in by_size.items()},
        }
    return results


def full_adders_per_image(crossbars: CrossbarNetwork) -> float:
    """The bound of ``benchmarks.bounds`` on all layers."""
    digits = crossbars.hw.input_bits
    return sum(
        full_adders(layer.codes, digits, (layer.macs or 0) / layer.codes.size)  # macs a weight: input vectors
        for layer in crossbars.layers
    )


def baseline(crossbars: CrossbarNetwork, images: torch.Tensor, repeats: int = 2) -> dict[str, Any]:
    """All layers' products of these images by plain torch, checked against the engine; nothing but the products."""
    crossbars.engine = "certified"
    crossbars.reset_counters()
    crossbars.record_traces(1 << 40)
    crossbars(images)
    traces = crossbars.traces
    crossbars.record_traces(0)
    crossbars.reset_counters()
    assert crossbars.certificate is not None
    seconds = np.zeros(repeats)
    for trace, proof in zip(traces, crossbars.certificate.layers, strict=True):
        assert len(trace.codes) == 1, "the baseline knows no groups"
        product = Crossbars(trace.codes, crossbars.hw, signed_inputs=trace.signed_inputs, adc=proof.adc).multiply(
            trace.x, engine="certified"
        )
        levels = torch.from_numpy(encode(trace.codes[0], crossbars.hw).levels.astype(np.float32))
        work = partial(
            plain_torch, torch.from_numpy(trace.x), levels, crossbars.hw, proof.adc.bits, trace.signed_inputs
        )
        y, saturations = work()
        assert np.array_equal(y.numpy(), product.y), "the baseline disagrees"
        assert saturations == product.saturations, "the baseline counts other saturations"
        seconds += [seconds_in_turn([work], 1)[0]["median"] for _ in range(repeats)]
    found = spread(list(map(float, seconds)))
    return found | {"images": len(images), "images_per_s": len(images) / found["median"]}


def below(crossbars: CrossbarNetwork, images: torch.Tensor, repeats: int) -> dict[str, Any]:
    """Both engines with one, two and three ADC bits less than are certified, by ADC bits; one call of the images."""
    assert crossbars.certificate is not None
    hw, certificate = crossbars.hw, crossbars.certificate
    threads = thread_counts()[-1]
    results = {}
    for bits in range(certificate.bits - 1, certificate.bits - 4, -1):
        crossbars.use_hardware(hw.replace(adc_bits=bits))
        counts = [_checked(crossbars, engine, images, (len(images),)) for engine in ("bitserial", "certified")]
        assert counts[0][1] == counts[1][1], "the engines count other conversions or saturations"
        assert torch.equal(counts[0][0], counts[1][0]), "the engines disagree"
        works = {
            (engine, len(images)): partial(_run, crossbars, engine, images, len(images))
            for engine in ("bitserial", "certified")
        }
        found = _rates(works, len(images), repeats)
        results[str(bits)] = {"certified_bits": certificate.bits} | {
            f"{engine}, {threads} threads": rates | counts[0][1] for engine, rates in found.items()
        }
    crossbars.use_hardware(hw, certificate=certificate)
    return results
