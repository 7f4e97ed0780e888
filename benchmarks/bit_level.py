"""How near value- and bit-level pruning comes to a checkpoint's weights, and what its projection costs.

``python -m benchmarks.bit_level CHECKPOINT [--steps]``: for N = 2, 3, 4 the relative weight error of both projections
at N bits, the certified gap, and process seconds; with ``--steps`` also those of a training step on 32 x 32 images.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from bitline.preparation import load_network
from bitline.pruning.adc_fit import AdcFit
from bitline.pruning.bitlevel import project_levels
from bitline.pruning.layers import prunable_layers, weight_matrices
from bitline.pruning.training import Trainer, TrainingPlan
from bitline.pruning.value_bit import ValueBit


def main() -> None:
    """Print one line for each N."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("--steps", action="store_true")
    args = parser.parse_args()
    module = load_network(args.checkpoint)[2].module
    layers = prunable_layers(module)
    weights = [layer.module.weight.detach() for layer in layers]
    for bits in (2, 3, 4):
        limit = (1 << bits) - 1
        fit, whole = ValueBit(limit=limit), AdcFit(limit=limit, nonzeros=128)
        fit.fit(weights[0], layers[0].groups)  # compiled
        began = time.process_time()
        fitted = [fit.fit(weight, layer.groups) for layer, weight in zip(layers, weights, strict=True)]
        cold = time.process_time() - began
        masked = [whole.project(weight, layer.groups) for layer, weight in zip(layers, weights, strict=True)]
        nonzeros = [sum(int((weight != 0).sum()) for weight in found) for found in (masked, [f[0] for f in fitted])]
        began = time.process_time()
        for layer, weight, (_, grid) in zip(layers, weights, fitted, strict=True):
            fit.fit(weight, layer.groups, grid)
        warm = time.process_time() - began
        total = sum(weight.numel() for weight in weights)
        gap, proven = _gap(layers, weights, limit)
        print(
            f"N = {bits}: relative error {_error(weights, masked):.4f} whole weights, "
            f"{_error(weights, [f[0] for f in fitted]):.4f} value and bit; non-zeros {nonzeros[0] / total:.1%} and "
            f"{nonzeros[1] / total:.1%}; certified gap {gap:.3%}, {proven:.1%} of columns proven best; "
            f"{cold:.2f} s a projection, {warm:.3f} s from the last grid"
        )
    if args.steps:
        images, labels = torch.randn(1024, 3, 32, 32), torch.arange(1024) % 10
        module.to(memory_format=torch.channels_last).requires_grad_(True)
        for precision in ("float32", "bfloat16"):
            plan = TrainingPlan(epochs=1, batch_size=128, learning_rate=1e-4, precision=precision)  # type: ignore[arg-type]
            began = time.process_time()
            Trainer(module, images, labels, plan).run()
            print(f"one step of 128 images in {precision}: {(time.process_time() - began) / 8:.3f} process seconds")


def _error(weights: list[torch.Tensor], others: list[torch.Tensor]) -> float:
    """``||W - Z|| / ||W||`` over all layers."""
    gap = sum(float((weight - other).square().sum()) for weight, other in zip(weights, others, strict=True))
    return float(np.sqrt(gap / sum(float(weight.square().sum()) for weight in weights)))


def _gap(layers: list, weights: list[torch.Tensor], limit: int) -> tuple[float, float]:  # type: ignore[type-arg]
    """Cost over bound, less 1, at the quantiser's scales, and the share of columns of row tiles with both equal."""
    cost = bound = 0.0
    proven = []
    for layer, weight in zip(layers, weights, strict=True):
        for matrix in weight_matrices(weight, layer.groups):
            real = matrix.astype(np.float64)
            scale = np.abs(real).max(axis=0) / 127
            pinned = np.abs(real).argmax(axis=0)
            found = project_levels(real / scale, 128, limit, cell_bits=2, slices=4, high=127, pinned=pinned)
            cost += float((found.cost * scale**2).sum())
            bound += float((found.bound * scale**2).sum())
            proven.append((found.cost - found.bound <= 1e-9 * found.cost).all(axis=1).ravel())
    return cost / bound - 1, float(np.concatenate(proven).mean())


if __name__ == "__main__":
    main()
