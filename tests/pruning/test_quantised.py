"""Quantisation-aware retraining: what the network holds, what the gradient moves, and going on exactly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bitline.errors import BitlineError
from bitline.pruning.admm import Admm, AdmmPlan
from bitline.pruning.constraints import ColumnProportional
from bitline.pruning.layers import prunable_layers
from bitline.pruning.quantised import QuantisedRetraining
from bitline.pruning.solvers import StraightThrough
from bitline.pruning.training import EpochRecord, Phase, Stopped, Trainer, TrainingPlan
from bitline.pruning.value_bit import ValueBit

PLAN = TrainingPlan(epochs=2, batch_size=16, learning_rate=0.05, seed=3)


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 4))


def _data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(96, 1, 6, 6, generator=generator)
    return images, images.reshape(96, 4, 9).sum(2).argmax(1)


def _phase(net: nn.Module) -> QuantisedRetraining:
    layers = prunable_layers(net, exempt_first=False)
    return QuantisedRetraining(layers, [ValueBit(limit=7, rows=16)] * len(layers))


def _straight_through(net: nn.Module) -> StraightThrough:
    layers = prunable_layers(net, exempt_first=False)
    return StraightThrough(layers, [ColumnProportional(4, rows=16)] * len(layers))


def _admm(net: nn.Module) -> Admm:
    layers = prunable_layers(net, exempt_first=False)
    return Admm(layers, ColumnProportional(4, rows=16), AdmmPlan(update_steps=2))


def test_gradients_at_the_projected_weights_move_the_dense_ones() -> None:
    net = _network()
    linear = net[4]
    assert isinstance(linear, nn.Linear)
    dense = linear.weight.detach().clone()
    phase = _phase(net)
    projected = linear.weight.detach().clone()
    assert torch.equal(projected, ValueBit(limit=7, rows=16).project(dense))
    assert not torch.equal(projected, dense)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.5)
    for step in range(1, 4):
        gradient = torch.full_like(dense, 0.01 * step)
        for parameter in net.parameters():
            parameter.grad = torch.zeros_like(parameter)
        linear.weight.grad = gradient
        phase.before_forward()
        assert torch.equal(linear.weight, projected)  # the loss is that of the projected weights
        before = linear.weight.detach().clone()
        phase.add_gradients()
        optimiser.step()
        phase.after_step()
        dense = dense - 0.5 * gradient
        assert torch.allclose(phase.dense[1], dense)
        projected = linear.weight.detach().clone()  # of the moved weights
        assert float((projected - dense).norm()) < float((before - dense).norm())
    assert phase.distance() == 0


def test_the_network_is_in_its_set_after_every_step_and_learns() -> None:
    net, (images, labels) = _network(), _data()
    phase = _phase(net)

    def fits() -> bool:
        assert all(ValueBit(limit=7, rows=16).violation(layer.module.weight) == 0 for layer in phase.layers)
        return False

    records = Trainer(net, images, labels, PLAN.model_copy(update={"epochs": 8}), phase).run(stop=fits)
    assert records[-1].loss < 0.7 * records[0].loss


@pytest.mark.parametrize("steps", [1, 5, 7, 11])
def test_stopped_after_any_step_it_goes_on_exactly(steps: int) -> None:
    images, labels = _data()
    whole = _network()
    Trainer(whole, images, labels, PLAN, _phase(whole)).run()

    first = _network()
    trainer = Trainer(first, images, labels, PLAN, _phase(first))
    seen, saved = [0], dict[str, Any]()

    def stop() -> bool:
        seen[0] += 1
        return seen[0] == steps

    def save() -> None:
        if seen[0] == steps:
            saved.update(torch.load(_copy(trainer.state_dict()), weights_only=True))

    with pytest.raises(Stopped):
        trainer.run(save=save, stop=stop)
    second = _network()
    resumed = Trainer(second, images, labels, PLAN, _phase(second))
    resumed.load_state_dict(saved)
    resumed.run()
    for key, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[key]), key


@pytest.mark.parametrize("begin", [_phase, _straight_through, _admm])
def test_weights_that_diverge_stop_it_where_they_are_projected_in_every_step(
    begin: Callable[[nn.Module], Phase],
) -> None:
    net, (images, labels) = _network(), _data()
    plan = PLAN.model_copy(update={"epochs": 3})
    kept: dict[str, Tensor] = {}
    trainer = Trainer(net, images, labels, plan, begin(net))

    def progress(record: EpochRecord) -> None:
        kept.update({key: tensor.clone() for key, tensor in net.state_dict().items()})
        images.fill_(torch.nan)

    with pytest.raises(BitlineError, match=r"not finite in epoch 2 of 3 .*; the weights of epoch 1 are kept"):
        trainer.run(progress)
    for key, tensor in net.state_dict().items():
        assert torch.equal(tensor, kept[key]), key


def _copy(state: dict[str, Any]) -> Any:
    import io

    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return buffer
