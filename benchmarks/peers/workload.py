"""What every peer is given, and how its answers are compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.measure import median_seconds
from benchmarks.workload import RESNET20, layer, network

LAYERS = {"dense": 0, "CP rate 16": 8}
"""Layer -> most non-zeros in a column of 128 rows; 0 is no limit."""

NETWORK_IMAGES = 4


def repeats(quick: bool) -> int:
    """Measurements of each; a peer's take seconds."""
    return 1 if quick else 3


def layers(quick: bool) -> dict[str, tuple[NDArray[np.uint8], NDArray[np.int8]]]:
    """Inputs and weights by name: the layers of ``benchmarks.kernel``."""
    return {name: layer(nonzeros, quick) for name, nonzeros in LAYERS.items()}


def measure_layer(work: Callable[[], Any], x: NDArray[np.uint8], w: NDArray[np.int8], quick: bool) -> dict[str, Any]:
    """Seconds of ``work``, and how far its result (M, N) is from the integer product."""
    exact = x.astype(np.int64) @ w.astype(np.int64)
    difference = float(np.abs(np.asarray(work(), np.float64) - exact).max())
    return median_seconds(work, repeats(quick)) | {"largest difference from the exact product": difference}


def resnet20(quick: bool) -> tuple[nn.Module, torch.Tensor]:
    """The float network of ``benchmarks.network``, and images."""
    return network(RESNET20, 1 if quick else NETWORK_IMAGES)


def measure_network(work: Callable[[], Any], module: nn.Module, images: torch.Tensor, quick: bool) -> dict[str, Any]:
    """Images a second, and how far the outputs are from torch float32's, as a fraction of the largest of these."""
    with torch.no_grad():
        reference = module(images)
        difference = float((work() - reference).abs().max() / reference.abs().max())
        seconds = median_seconds(work, 1 if quick else 2)
    return seconds | {
        "images": len(images),
        "images_per_s": len(images) / seconds["median"],
        "largest difference from float32, of the largest output": difference,
    }


def input_maxima(module: nn.Module, images: torch.Tensor) -> dict[str, float]:
    """Largest input of every convolution and linear layer on these images, by the layer's name."""
    maxima: dict[str, float] = {}
    hooks = []
    for name, part in module.named_modules():
        if isinstance(part, nn.Conv2d | nn.Linear):

            def note(_: nn.Module, inputs: tuple[torch.Tensor, ...], name: str = name) -> None:
                maxima[name] = max(maxima.get(name, 0.0), float(inputs[0].max()))

            hooks.append(part.register_forward_pre_hook(note))
    with torch.no_grad():
        module(images)
    for hook in hooks:
        hook.remove()
    return maxima
