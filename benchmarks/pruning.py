"""Time of projecting a network's layers, and what ADMM adds to a training step and to an epoch.

Run alone: python -m benchmarks.pruning
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.measure import seconds_in_turn
from bitline.hardware import load_hardware
from bitline.network.architectures import build_architecture
from bitline.pruning.admm import Admm, AdmmPlan
from bitline.pruning.constraints import ColumnProportional
from bitline.pruning.layers import prunable_layers
from bitline.pruning.plan import METHODS, Pruning, eased_constraints, layer_rates
from bitline.pruning.training import Phase, Trainer, TrainingPlan

_RATE = 16.0


def run(quick: bool = False) -> dict[str, Any]:
    """Projection of ResNet-18 (CIFAR) by every constraint set; steps and epochs of ResNet-20 with and without ADMM.

    What training ResNet-18 would cost is measured in bfloat16, as the networks of docs/results/pruning.md were trained.
    """
    torch.manual_seed(0)
    if quick:
        return {
            "projection_resnet18": {"cp": _projection("cp")},
            "step_resnet20_batch4": _steps("resnet20_b", 4, 1),
            "epoch_resnet18_bfloat16": _epoch_bfloat16(images=2, batch=2, repeats=1),
        }
    return {
        "threads": torch.get_num_threads(),
        "projection_resnet18": {method: _projection(method) for method in METHODS if method != "value_bit"},
        "step_resnet20_batch128": _steps("resnet20_b", 128),
        "epoch_resnet20_1024_images": _epochs("resnet20_b", 1024),
        "epoch_resnet18_bfloat16": _epoch_bfloat16(),
    }


def _projection(method: str) -> dict[str, float]:
    """Seconds to project all layers of ResNet-18 but the first, in the memory format they are trained in."""
    hw = load_hardware("tinyadc")
    module = build_architecture("resnet18_cifar").module.to(memory_format=torch.channels_last)
    layers = prunable_layers(module)
    plan = Pruning(method=method, rate=_RATE)  # type: ignore[arg-type]
    constraints = eased_constraints(plan, layers, layer_rates(plan, layers, hw), hw)(1.0)

    def work() -> None:  # of dense weights, whose projections are not written back: projected ones are quicker
        for layer, constraint in zip(layers, constraints, strict=True):
            constraint.project(layer.module.weight, layer.groups)

    return _seconds([work], repeats=5)[0]


def _steps(architecture: str, batch: int, repeats: int = 15) -> dict[str, Any]:
    """Seconds of a training step, plain and with ADMM's gradients."""
    module = build_architecture(architecture).module.to(memory_format=torch.channels_last).requires_grad_(True).train()
    solver = Admm(prunable_layers(module), ColumnProportional(_RATE), AdmmPlan(rho=0.01))
    optimiser = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9, nesterov=True)
    x, y = torch.randn(batch, 3, 32, 32), torch.randint(0, 10, (batch,))

    def step(phase: Phase) -> None:
        loss = F.cross_entropy(module(x), y)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        phase.add_gradients()
        optimiser.step()

    plain, admm, alone, update = _seconds(
        [lambda: step(Phase()), lambda: step(solver), solver.add_gradients, solver.update], repeats
    )
    return {
        "plain": plain,
        "admm": admm,
        "gradients_alone": alone,
        "gradients_over_plain_step": alone["process"] / plain["process"],
        "update_of_z_and_u": update,
    }


def _epochs(architecture: str, images: int) -> dict[str, Any]:
    """Seconds of an epoch: a plain torch loop, and ours without and with ADMM."""
    x, y = torch.randn(images, 3, 32, 32), torch.randint(0, 10, (images,))
    plan = TrainingPlan(epochs=1, learning_rate=0.01, batch_size=128)

    def fresh() -> torch.nn.Module:
        module = build_architecture(architecture).module
        return module.to(memory_format=torch.channels_last).requires_grad_(True)

    def plain() -> None:
        module = fresh().train()
        optimiser = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, images // 128)
        order = torch.randperm(images)
        for start in range(0, images, 128):
            picks = order[start : start + 128]
            loss = F.cross_entropy(module(x[picks]), y[picks])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()

    def ours() -> None:
        Trainer(fresh(), x, y, plan).run()

    def with_admm() -> None:
        module = fresh()
        solver = Admm(prunable_layers(module), ColumnProportional(_RATE), AdmmPlan(rho=0.01))
        Trainer(module, x, y, plan, solver).run()

    works = (plain, ours, with_admm)
    return {work.__name__: found for work, found in zip(works, _seconds(works, repeats=2), strict=True)}


def _epoch_bfloat16(images: int = 256, batch: int = 128, repeats: int = 2) -> dict[str, float]:
    """A plain epoch of ResNet-18 at CIFAR size by the trainer of ``bitline prune``, in bfloat16; two steps."""
    module = build_architecture("resnet18_cifar").module.to(memory_format=torch.channels_last).requires_grad_(True)
    x, y = torch.randn(images, 3, 32, 32), torch.randint(0, 10, (images,))
    plan = TrainingPlan(epochs=1, learning_rate=0.01, batch_size=batch, precision="bfloat16")
    seconds = _seconds([lambda: Trainer(module, x, y, plan).run()], repeats)[0]
    return seconds | {
        "images": images,
        "images_per_s": images / seconds["median"],
        "images_per_processor_s": images / seconds["process"],
    }


def _seconds(works: Sequence[Callable[[], Any]], repeats: int) -> list[dict[str, float]]:
    """Seconds of works in turn, after a warm-up of each."""
    for work in works:
        work()
    return seconds_in_turn(works, repeats)


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
