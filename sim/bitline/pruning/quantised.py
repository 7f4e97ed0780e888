"""Quantisation-aware retraining: the loss is that of the weights on their grid, its gradient moves the dense ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from bitline.pruning.layers import PrunableLayer
from bitline.pruning.training import Phase
from bitline.pruning.value_bit import Grid, ValueBit

__all__ = ["QuantisedRetraining"]


class QuantisedRetraining(Phase):
    """A straight-through estimator on value- and bit-level pruned weights.

    Outside the optimiser's step the network holds the projected weights, so what is saved, evaluated, and seen by batch
    norm's running statistics is what the crossbars will hold; the dense weights are the phase's own. A projection
    starts from the scales and prices of the one before.

    Parameters
    ----------
    layers : sequence of PrunableLayer
    constraints : sequence of ValueBit
        One for each layer.

    References
    ----------
    Bengio et al., "Estimating or propagating gradients through stochastic neurons", 2013.
    """

    def __init__(self, layers: Sequence[PrunableLayer], constraints: Sequence[ValueBit]) -> None:
        self.layers, self.constraints = tuple(layers), tuple(constraints)
        self.dense = [layer.module.weight.detach().clone() for layer in self.layers]
        self.grids: list[Grid] = []
        for layer, constraint, dense in zip(self.layers, self.constraints, self.dense, strict=True):
            weight, grid = constraint.fit(dense, layer.groups)
            self.grids.append(grid)
            with torch.no_grad():
                layer.module.weight.copy_(weight)

    @torch.no_grad()
    def add_gradients(self) -> None:
        """Put the dense weights in place; the gradients are those at the projected ones."""
        for layer, dense in zip(self.layers, self.dense, strict=True):
            layer.module.weight.copy_(dense)

    @torch.no_grad()
    def after_step(self) -> None:
        """Take the moved dense weights away, and put projected ones in their place."""
        for i, (layer, constraint) in enumerate(zip(self.layers, self.constraints, strict=True)):
            self.dense[i].copy_(layer.module.weight)
            projected, self.grids[i] = constraint.fit(self.dense[i], layer.groups, self.grids[i])
            layer.module.weight.copy_(projected)

    def distance(self) -> float:
        """0: the network's weights are in their sets."""
        return 0.0

    def state_dict(self) -> dict[str, Any]:
        """The dense weights and the grids; the network holds the projected weights."""
        return {
            "dense": self.dense,
            "scales": [torch.from_numpy(grid.scale) for grid in self.grids],
            "prices": [torch.from_numpy(grid.prices) for grid in self.grids],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`, the network's weights being those of the same moment."""
        weights = [layer.module.weight for layer in self.layers]
        self.dense = [dense.to(weight.device) for dense, weight in zip(state["dense"], weights, strict=True)]
        self.grids = [
            Grid(scale=scale.numpy(), prices=prices.numpy())
            for scale, prices in zip(state["scales"], state["prices"], strict=True)
        ]
