"""The four solvers: their phases by hand, the same budget, and the constraint kept at the end."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bitline.errors import RangeError
from bitline.pruning.constraints import ColumnProportional, ConstraintSet, relative_distance, violations
from bitline.pruning.layers import PrunableLayer, prunable_layers
from bitline.pruning.solvers import Gradual, HeldZeros, Solver, StraightThrough, plan_phases
from bitline.pruning.training import Trainer, TrainingPlan

pytestmark = pytest.mark.usefixtures("one_thread")


def _linear(values: list[list[float]]) -> tuple[nn.Linear, list[PrunableLayer]]:
    layer = nn.Linear(len(values[0]), len(values), bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(values))
    return layer, prunable_layers(nn.Sequential(layer), exempt_first=False)


def _values(layer: nn.Linear) -> list[list[float]]:
    return [[round(v, 6) for v in row] for row in layer.weight.tolist()]


def test_held_zeros_by_hand() -> None:
    layer, layers = _linear([[2.0, 1.0, -3.0, 0.5]])
    phase = HeldZeros(layers, [ColumnProportional(2, 4)])
    assert _values(layer) == [[2.0, 0.0, -3.0, 0.0]]
    with torch.no_grad():
        layer.weight += 1
    phase.after_step()
    assert _values(layer) == [[3.0, 0.0, -2.0, 0.0]]


def test_weights_that_leave_their_set_are_projected_again_and_stay_zero() -> None:
    class Smaller(ColumnProportional):
        """Keeps half of what it is given, as a constraint on values may after training."""

        allowed = 3

        def project(self, weight: torch.Tensor, groups: int = 1) -> torch.Tensor:
            return ColumnProportional(4 / self.allowed, 4).project(weight, groups)

        def violation(self, weight: torch.Tensor, groups: int = 1) -> int:
            return ColumnProportional(4 / self.allowed, 4).violation(weight, groups)

    layer, layers = _linear([[2.0, 1.0, -3.0, 0.5]])
    constraint = Smaller(1, 4)
    phase = HeldZeros(layers, [constraint])
    assert _values(layer) == [[2.0, 1.0, -3.0, 0.0]]
    object.__setattr__(constraint, "allowed", 1)
    phase.end_epoch(1)
    assert _values(layer) == [[0.0, 0.0, -3.0, 0.0]]
    with torch.no_grad():
        layer.weight += 1
    phase.after_step()
    assert _values(layer) == [[0.0, 0.0, -2.0, 0.0]]


def test_gradual_follows_the_cubic() -> None:
    layer, layers = _linear([[float(v) for v in range(1, 9)]])
    shares: list[float] = []

    def eased(share: float) -> list[ConstraintSet]:
        shares.append(share)
        return [ColumnProportional(1 / (1 - share * (1 - 1 / 8)), 8)]

    phase = Gradual(layers, eased)
    kept = []
    for epoch in (1, 2, 3, 4):
        phase.begin_epoch(epoch, 4)
        kept.append(int(torch.count_nonzero(layer.weight)))
    assert shares == [1 - 27 / 64, 1 - 8 / 64, 1 - 1 / 64, 1.0]
    # 8 (1 - 7/8 share) = 3.95, 1.875, 1.11, 1, rounded down
    assert kept == [3, 1, 1, 1]
    with torch.no_grad():
        layer.weight += 1
    phase.after_step()
    assert int(torch.count_nonzero(layer.weight)) == 1


def test_straight_through_by_hand() -> None:
    layer, layers = _linear([[2.0, 1.0]])
    phase = StraightThrough(layers, [ColumnProportional(2, 2)])
    x = torch.tensor([[1.0, 10.0]])
    phase.before_forward()
    out = layer(x)
    assert out.item() == 2.0  # the projected weights (2, 0), not 12
    out.square().sum().backward()
    phase.add_gradients()
    assert _values(layer) == [[2.0, 1.0]]
    assert layer.weight.grad is not None
    assert layer.weight.grad.tolist() == [[4.0, 40.0]]  # 2 y x: the pruned weight has a gradient too


def test_phases_share_one_budget() -> None:
    _, layers = _linear([[2.0, 1.0]])
    plan = TrainingPlan(epochs=9, learning_rate=0.1, seed=3)

    def phases(solver: Solver, **options: object) -> list[tuple[str, int, float, int]]:
        found = plan_phases(solver, layers, lambda share: [ColumnProportional(1, 2)], plan, **options)  # type: ignore[arg-type]
        return [(p.name, p.plan.epochs, p.plan.learning_rate, p.plan.seed) for p in found]

    assert phases(Solver.ONESHOT) == [("retrain", 9, 0.1, 3)]
    for solver in (Solver.ADMM, Solver.GRADUAL, Solver.STRAIGHT_THROUGH):
        assert phases(solver) == [(str(solver), 4, 0.1, 3), ("retrain", 5, 0.1, 4)]
    assert phases(Solver.ADMM, solver_epochs=7, retrain_rate=0.01)[1] == ("retrain", 2, 0.01, 4)
    for epochs in (0, 9):
        with pytest.raises(RangeError, match=f"found {epochs} of 9"):
            phases(Solver.ADMM, solver_epochs=epochs)


@pytest.mark.parametrize("solver", list(Solver))
def test_every_solver_ends_in_the_set_and_learns(solver: Solver) -> None:
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(64) % 2
    images = torch.rand(64, 1, 4, 4, generator=generator)
    images[labels == 0, :, :2] += 1
    images[labels == 1, :, 2:] += 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 2))
    layers = prunable_layers(net, exempt_first=False)

    def eased(share: float) -> list[ConstraintSet]:
        return [ColumnProportional(1 / (1 - share * 0.75), 8)] * 2

    plan = TrainingPlan(epochs=12, learning_rate=0.1, batch_size=16)
    for phase in plan_phases(solver, layers, eased, plan):
        records = Trainer(net, images, labels, phase.plan, phase.begin()).run()
    assert violations(layers, eased(1.0)) == 0
    assert relative_distance(layers, eased(1.0)) == 0
    assert records[-1].accuracy == 1.0


def test_relative_distance_by_hand() -> None:
    _, layers = _linear([[3.0, 4.0]])
    assert relative_distance(layers, ColumnProportional(2, 2)) == pytest.approx(0.6)  # |3| / |(3, 4)|
