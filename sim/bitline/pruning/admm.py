"""Pruning by the alternating direction method of multipliers (ADMM).

Minimise the loss ``f(W)`` with ``W`` in a constraint set. With a copy ``Z`` of the weights that is in the set and a
scaled dual ``U``, TinyADC's equations 2 to 6 come to three steps in turn:

- ``W``: some epochs of SGD on ``f(W) + sum of rho / 2 ||W - Z + U||^2``;
- ``Z``: the projection of ``W + U``;
- ``U``: ``U + W - Z``.

References
----------
Yuan et al., "TinyADC", DATE 2021, section III, Eqs. (2) to (6).
Boyd et al., "Distributed Optimization and Statistical Learning via the ADMM", 2011, sections 3.1.1 and 3.4.1.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from bitline.errors import RangeError
from bitline.pruning.constraints import ConstraintSet, one_each
from bitline.pruning.layers import PrunableLayer
from bitline.pruning.training import Phase

__all__ = ["Admm", "AdmmPlan", "AdmmRecord"]


class AdmmPlan(BaseModel):
    """How strongly and how often the weights are pulled towards the set; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    rho: Annotated[float, Field(gt=0)] = 1e-3
    """Penalty at the start."""

    rho_growth: Annotated[float, Field(ge=1)] = 1.0
    """Factor on the penalty at every update of Z and U."""

    rho_most: Annotated[float, Field(gt=0)] = 1.0
    """The penalty grows no further."""

    update_every: Annotated[int, Field(ge=1)] = 1
    """Epochs between updates of Z and U."""

    update_steps: Annotated[int, Field(ge=1)] | None = None
    """Optimiser's steps between them, instead: several updates an epoch where the epochs are few and long."""

    @model_validator(mode="after")
    def _one_interval(self) -> Self:
        if self.update_steps is not None and self.update_every != 1:
            raise ValueError("update_every counts epochs and update_steps steps: expected one of them, got both")
        return self


@dataclass(frozen=True, kw_only=True)
class AdmmRecord:
    """One update of Z and U."""

    epoch: int
    rho: float
    """Penalty until this update."""
    distance: dict[str, float]
    """Of each layer, ``||W - Z|| / ||W||`` after it; falls to zero as the weights come to keep the constraint."""


class Admm(Phase):
    """The copies and duals of a network's layers.

    Parameters
    ----------
    layers : sequence of PrunableLayer
    constraint : ConstraintSet or sequence of ConstraintSet
        The same for every layer, or one for each.
    plan : AdmmPlan
    """

    def __init__(
        self,
        layers: Sequence[PrunableLayer],
        constraint: ConstraintSet | Sequence[ConstraintSet],
        plan: AdmmPlan,
    ) -> None:
        if plan.rho_most < plan.rho:
            raise RangeError(f"rho_most: must be at least rho: {plan.rho:g}, found {plan.rho_most:g}")
        self.layers = tuple(layers)
        self.constraints = one_each(constraint, self.layers)
        self.plan = plan
        self.rho = plan.rho
        self.z = [
            constraint.project(layer.module.weight, layer.groups)
            for layer, constraint in zip(self.layers, self.constraints, strict=True)
        ]
        self.u = [torch.zeros_like(z) for z in self.z]
        self.records: list[AdmmRecord] = []
        self._steps = 0
        self._epoch = 0

    @property
    def weights(self) -> list[Tensor]:
        """The layers' weights, W."""
        return [layer.module.weight for layer in self.layers]

    @torch.no_grad()
    def add_gradients(self) -> None:
        """Add the penalty's gradient, ``rho (W - Z + U)``."""
        for weight, z, u in zip(self.weights, self.z, self.u, strict=True):
            gap = (weight - z).add_(u)
            if weight.grad is None:
                weight.grad = gap.mul_(self.rho)
            else:
                weight.grad.add_(gap, alpha=self.rho)

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Note the epoch, for the records."""
        self._epoch = epoch

    def after_step(self) -> None:
        """Update Z and U where it is time, counted in steps."""
        self._steps += 1
        if self.plan.update_steps is not None and self._steps % self.plan.update_steps == 0:
            self.update(self._epoch)

    def end_epoch(self, epoch: int) -> None:
        """Update Z and U where it is time, counted in epochs."""
        if self.plan.update_steps is None and epoch % self.plan.update_every == 0:
            self.update(epoch)

    @torch.no_grad()
    def update(self, epoch: int = 0) -> None:
        """``Z`` by projection of ``W + U``, then ``U += W - Z``, then the penalty's growth."""
        distance = {}
        for i, (layer, weight) in enumerate(zip(self.layers, self.weights, strict=True)):
            self.z[i] = self.constraints[i].project(weight + self.u[i], layer.groups)
            gap = weight - self.z[i]
            self.u[i] += gap
            distance[layer.name] = float(gap.norm() / weight.norm().clamp_min(torch.finfo(weight.dtype).tiny))
        self.records.append(AdmmRecord(epoch=epoch, rho=self.rho, distance=distance))
        grown = min(self.rho * self.plan.rho_growth, self.plan.rho_most)
        # U is the dual divided by rho: with another rho the same dual is another U (Boyd et al., section 3.4.1).
        for u in self.u:
            u *= self.rho / grown
        self.rho = grown

    @torch.no_grad()
    def distance(self) -> float:
        """``||W - Z|| / ||W||`` over all layers."""
        pairs = list(zip(self.weights, self.z, strict=True))
        gap = sum(float((weight - z).square().sum()) for weight, z in pairs)
        norm = sum(float(weight.square().sum()) for weight, _ in pairs)
        return math.sqrt(gap / norm) if norm else 0.0

    def state_dict(self) -> dict[str, Any]:
        """Copies, duals, penalty and records."""
        return {
            "z": self.z,
            "u": self.u,
            "rho": self.rho,
            "records": [dataclasses.asdict(record) for record in self.records],
            "steps": self._steps,
            "epoch": self._epoch,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        self.z = [z.to(weight.device) for z, weight in zip(state["z"], self.weights, strict=True)]
        self.u = [u.to(weight.device) for u, weight in zip(state["u"], self.weights, strict=True)]
        self.rho = state["rho"]
        self.records = [AdmmRecord(**record) for record in state["records"]]
        self._steps, self._epoch = state["steps"], state["epoch"]
