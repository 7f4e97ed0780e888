"""The solvers behind one interface: phases of training, each with its part of the same budget of epochs.

Every solver ends with the weights in their constraint sets and retrains with the zeros held; they differ in what comes
before that:

- ``oneshot``: nothing, all epochs are masked retraining;
- ``admm``: TinyADC's alternating direction method of multipliers (:mod:`bitline.pruning.admm`);
- ``gradual``: the constraint tightens along a cubic from epoch to epoch (Zhu and Gupta, "To prune, or not to prune",
  2017, Eq. 1);
- ``straight_through``: the forward pass sees the projected weights, the gradient there moves the dense ones (Bengio et
  al., "Estimating or propagating gradients through stochastic neurons", 2013).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor

from bitline.errors import RangeError
from bitline.pruning.admm import Admm, AdmmPlan
from bitline.pruning.constraints import ConstraintSet, project_layers
from bitline.pruning.layers import PrunableLayer
from bitline.pruning.training import Phase, TrainingPlan

__all__ = ["Gradual", "HeldZeros", "PlannedPhase", "Solver", "StraightThrough", "plan_phases"]

Eased = Callable[[float], Sequence[ConstraintSet]]
"""One constraint set a layer, eased: from 0 (nothing is pruned) to 1 (the constraint itself)."""


class Solver(StrEnum):
    """How the weights get into their constraint sets."""

    ADMM = "admm"
    ONESHOT = "oneshot"
    GRADUAL = "gradual"
    STRAIGHT_THROUGH = "straight_through"


class HeldZeros(Phase):
    """Project, then hold the zeros while the rest trains.

    Zeros alone keep most constraints. Where they do not (weights that fit an ADC may outgrow it), the weights are
    projected again at the end of an epoch and the new zeros held too.
    """

    def __init__(self, layers: Sequence[PrunableLayer], constraints: Sequence[ConstraintSet]) -> None:
        self.layers, self.constraints = tuple(layers), tuple(constraints)
        project_layers(self.layers, self.constraints)
        self.masks = _zeros(self.layers)

    @torch.no_grad()
    def after_step(self) -> None:
        """Put the zeros back that momentum moved."""
        for layer, mask in zip(self.layers, self.masks, strict=True):
            layer.module.weight.masked_fill_(mask, 0.0)

    @torch.no_grad()
    def end_epoch(self, epoch: int) -> None:
        """Project again what has left its set."""
        for i, (layer, constraint) in enumerate(zip(self.layers, self.constraints, strict=True)):
            weight = layer.module.weight
            if constraint.violation(weight, layer.groups):
                weight.copy_(constraint.project(weight, layer.groups))
                self.masks[i] |= weight == 0

    def state_dict(self) -> dict[str, Any]:
        """The masks."""
        return {"masks": self.masks}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the masks."""
        self.masks = _on_devices(state["masks"], self.layers)


class Gradual(Phase):
    """The constraint tightens at the start of every epoch: share ``1 - (1 - t)^3`` of its pruning, t from 0 to 1."""

    def __init__(self, layers: Sequence[PrunableLayer], eased: Eased) -> None:
        self.layers, self.eased = tuple(layers), eased
        self.masks = [torch.zeros_like(layer.module.weight, dtype=torch.bool) for layer in self.layers]

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Project onto this epoch's constraint."""
        project_layers(self.layers, self.eased(1 - (1 - epoch / epochs) ** 3))
        self.masks = _zeros(self.layers)

    @torch.no_grad()
    def after_step(self) -> None:
        """Put the zeros back that momentum moved."""
        for layer, mask in zip(self.layers, self.masks, strict=True):
            layer.module.weight.masked_fill_(mask, 0.0)

    def state_dict(self) -> dict[str, Any]:
        """The masks."""
        return {"masks": self.masks}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the masks."""
        self.masks = _on_devices(state["masks"], self.layers)


class StraightThrough(Phase):
    """The loss is that of the projected weights; its gradient moves the dense ones."""

    def __init__(self, layers: Sequence[PrunableLayer], constraints: Sequence[ConstraintSet]) -> None:
        self.layers, self.constraints = tuple(layers), tuple(constraints)
        self._dense: list[Tensor] = []

    @torch.no_grad()
    def before_forward(self) -> None:
        """Put the dense weights aside and their projections in place."""
        self._dense = [layer.module.weight.detach().clone() for layer in self.layers]
        project_layers(self.layers, self.constraints)

    @torch.no_grad()
    def add_gradients(self) -> None:
        """Put the dense weights back; the gradients are those at the projections."""
        for layer, dense in zip(self.layers, self._dense, strict=True):
            layer.module.weight.copy_(dense)
        self._dense = []


@dataclass(frozen=True, kw_only=True)
class PlannedPhase:
    """One phase of a solver."""

    name: str
    """``admm``, ``gradual``, ``straight_through`` or ``retrain``."""
    plan: TrainingPlan
    begin: Callable[[], Phase]
    """Makes the phase from the network's weights as they are then."""


def epochs_before(solver: Solver, epochs: int, wanted: int | None = None) -> int:
    """Epochs before the hard projection: those wanted, else half of all, rounded down; none for ``oneshot``.

    Raises
    ------
    RangeError
        Not at least one epoch for each phase.
    """
    if solver is Solver.ONESHOT:
        return 0
    first = epochs // 2 if wanted is None else wanted
    if not 1 <= first < epochs:
        raise RangeError(
            f"epochs: {solver} needs at least one before and one after the projection, found {first} of {epochs} "
            "before it; 0 epochs project only"
        )
    return first


def plan_phases(
    solver: Solver,
    layers: Sequence[PrunableLayer],
    eased: Eased,
    plan: TrainingPlan,
    *,
    solver_epochs: int | None = None,
    retrain_rate: float | None = None,
    admm: AdmmPlan | None = None,
    last: Callable[[Sequence[PrunableLayer], Sequence[Any]], Phase] | None = None,
) -> list[PlannedPhase]:
    """Cut a budget of epochs into the phases of a solver.

    Parameters
    ----------
    solver : Solver
    layers : sequence of PrunableLayer
    eased : callable
        From 0..1 to one constraint set a layer; at 1 the constraint itself.
    plan : TrainingPlan
        Its epochs are the whole budget; every phase has its own cosine of learning rates.
    solver_epochs : int, optional
        Epochs before the hard projection; by default half of them, rounded down. ``oneshot`` has none.
    retrain_rate : float, optional
        First learning rate of the masked retraining; by default the plan's.
    admm : AdmmPlan, optional
    last : callable, optional
        Makes the phase of retraining from the layers and their constraints; :class:`HeldZeros` by default.

    Raises
    ------
    RangeError
        Not at least one epoch for each phase.
    """
    constraints = tuple(eased(1.0))
    first = epochs_before(solver, plan.epochs, solver_epochs)
    begin: dict[Solver, Callable[[], Phase]] = {
        Solver.ADMM: lambda: Admm(layers, constraints, admm or AdmmPlan()),
        Solver.GRADUAL: lambda: Gradual(layers, eased),
        Solver.STRAIGHT_THROUGH: lambda: StraightThrough(layers, constraints),
    }
    phases = []
    if first:
        phases.append(
            PlannedPhase(name=str(solver), plan=plan.model_copy(update={"epochs": first}), begin=begin[solver])
        )
    # The seed of the second phase differs, so that its order is not the first one's again.
    changes = {
        "epochs": plan.epochs - first,
        "learning_rate": retrain_rate or plan.learning_rate,
        "seed": plan.seed + (1 if first else 0),
    }
    retrain = plan.model_copy(update=changes)
    phases.append(PlannedPhase(name="retrain", plan=retrain, begin=lambda: (last or HeldZeros)(layers, constraints)))
    return phases


def _zeros(layers: Sequence[PrunableLayer]) -> list[Tensor]:
    return [layer.module.weight.detach() == 0 for layer in layers]


def _on_devices(masks: Sequence[Tensor], layers: Sequence[PrunableLayer]) -> list[Tensor]:
    return [mask.to(layer.module.weight.device) for mask, layer in zip(masks, layers, strict=True)]
