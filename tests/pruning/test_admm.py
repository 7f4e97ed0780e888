"""ADMM's steps by hand, and on a tiny network."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from bitline.errors import RangeError
from bitline.pruning.admm import Admm, AdmmPlan
from bitline.pruning.constraints import ColumnProportional
from bitline.pruning.layers import prunable_layers
from bitline.pruning.training import Trainer, TrainingPlan

pytestmark = pytest.mark.usefixtures("one_thread")


def _linear(values: list[list[float]]) -> nn.Linear:
    layer = nn.Linear(len(values[0]), len(values), bias=False)
    _set(layer, values)
    return layer


def _set(layer: nn.Linear, values: list[list[float]]) -> None:
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(values))


def _close(found: torch.Tensor | None, expected: list[list[float]]) -> None:
    assert found is not None
    torch.testing.assert_close(found.detach(), torch.tensor(expected, dtype=torch.float32))


def test_two_steps_by_hand() -> None:
    # One column of two rows, one non-zero allowed: W = (2, 1), so Z = (2, 0) and U = 0 at first.
    net = nn.Sequential(_linear([[2.0, 1.0]]))
    layer = net[0]
    solver = Admm(prunable_layers(net, exempt_first=False), ColumnProportional(2, rows=2), AdmmPlan(rho=0.5))
    _close(solver.z[0], [[2, 0]])
    _close(solver.u[0], [[0, 0]])
    solver.add_gradients()
    _close(layer.weight.grad, [[0, 0.5]])  # 0.5 ((2, 1) - (2, 0))

    _set(layer, [[1.5, 0.8]])
    solver.update(1)
    _close(solver.z[0], [[1.5, 0]])
    _close(solver.u[0], [[0, 0.8]])
    layer.weight.grad = torch.tensor([[10.0, 20.0]])
    _set(layer, [[1.0, 0.9]])
    solver.add_gradients()
    _close(layer.weight.grad, [[9.75, 20.85]])  # + 0.5 (1.0 - 1.5 + 0, 0.9 - 0 + 0.8)

    solver.update(2)  # W + U = (1.0, 1.7)
    _close(solver.z[0], [[0, 1.7]])
    _close(solver.u[0], [[1.0, 0.0]])  # (0, 0.8) + (1.0, 0.9) - (0, 1.7)
    # ||(1.5, 0.8) - (1.5, 0)|| / ||(1.5, 0.8)|| = 0.8 / 1.7, and ||(1.0, -0.8)|| / ||(1.0, 0.9)||
    assert solver.records[0].distance["0"] == pytest.approx(0.8 / 1.7)
    assert solver.records[1].distance["0"] == pytest.approx((1.64 / 1.81) ** 0.5)


def test_a_growing_penalty_keeps_the_dual() -> None:
    net = nn.Sequential(_linear([[2.0, 1.0]]))
    plan = AdmmPlan(rho=0.1, rho_growth=4, rho_most=0.5)
    solver = Admm(prunable_layers(net, exempt_first=False), ColumnProportional(2, rows=2), plan)
    solver.update()
    assert solver.rho == pytest.approx(0.4)
    _close(solver.u[0], [[0, 0.25]])  # rho U = 0.1 x 1 before, 0.4 x 0.25 after
    solver.update()  # W + U = (2, 1.25): U grows by (0, 1) to 1.25, and shrinks by 0.4 / 0.5
    assert solver.rho == 0.5
    _close(solver.u[0], [[0, 1.0]])


def test_update_interval() -> None:
    net = nn.Sequential(_linear([[2.0, 1.0]]))
    layers = prunable_layers(net, exempt_first=False)
    solver = Admm(layers, ColumnProportional(2, rows=2), AdmmPlan(update_every=3))
    for epoch in range(1, 8):
        solver.end_epoch(epoch)
    assert [record.epoch for record in solver.records] == [3, 6]


def test_update_interval_in_steps() -> None:
    net = nn.Sequential(_linear([[2.0, 1.0]]))
    layers = prunable_layers(net, exempt_first=False)
    solver = Admm(layers, ColumnProportional(2, rows=2), AdmmPlan(update_steps=3, update_every=1))
    for epoch in (1, 2):
        solver.begin_epoch(epoch, 2)
        for _ in range(5):
            solver.after_step()
        solver.end_epoch(epoch)
    assert [record.epoch for record in solver.records] == [1, 2, 2]


def test_the_penalty_is_the_gradient_of_its_definition() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 3, groups=2), nn.Linear(5, 3))
    solver = Admm(prunable_layers(net, exempt_first=False), ColumnProportional(3, rows=4), AdmmPlan(rho=0.3))
    solver.update()
    with torch.no_grad():
        for weight in solver.weights:
            weight += 0.1 * torch.randn(weight.shape)
    penalty = sum(
        (
            0.3 / 2 * (weight - z + u).square().sum()
            for weight, z, u in zip(solver.weights, solver.z, solver.u, strict=True)
        )
    )
    expected = torch.autograd.grad(penalty, solver.weights)
    solver.add_gradients()
    for weight, gradient in zip(solver.weights, expected, strict=True):
        torch.testing.assert_close(weight.grad, gradient)


def _problem() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(64) % 2
    images = torch.rand(64, 1, 4, 4, generator=generator)
    images[labels == 0, :, :2] += 1
    images[labels == 1, :, 2:] += 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 2))
    return net, images, labels


def test_training_pulls_the_weights_into_the_set() -> None:
    plan = TrainingPlan(epochs=20, learning_rate=0.1, batch_size=16, weight_decay=0)
    constraint = ColumnProportional(4, rows=8)
    last = []
    for admm in (AdmmPlan(rho=0.3, rho_growth=1.3, rho_most=3), AdmmPlan(rho=1e-9)):
        net, images, labels = _problem()
        layers = prunable_layers(net, exempt_first=False)
        solver = Admm(layers, constraint, admm)
        Trainer(net, images, labels, plan, solver).run()
        last.append(list(solver.records[-1].distance.values()))
    assert len(solver.records) == 20
    assert max(last[0]) < 0.1
    assert min(last[1]) > 0.3  # hardly any penalty: the weights stay away from the set


def test_impossible_plans_are_refused() -> None:
    for fields in ({"rho": 0}, {"rho_growth": 0.9}, {"update_every": 0}, {"row": 1}):
        with pytest.raises(ValidationError):
            AdmmPlan.model_validate(fields)
    with pytest.raises(RangeError, match="rho_most"):
        Admm([], ColumnProportional(2), AdmmPlan(rho=2))


def test_updates_are_counted_in_epochs_or_in_steps() -> None:
    assert AdmmPlan(update_steps=40).update_steps == 40
    with pytest.raises(ValueError, match="expected one of them, got both"):
        AdmmPlan(update_every=2, update_steps=40)
