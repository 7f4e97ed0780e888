"""Training and masked retraining in one call each.

One-shot pruning is :func:`prune_one_shot`: project the weights, then retrain with the zeros held.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from bitline.pruning.constraints import ConstraintSet, project_layers
from bitline.pruning.layers import PrunableLayer
from bitline.pruning.training import EpochRecord, Phase, Trainer, TrainingPlan, seeded, top1

__all__ = ["EpochRecord", "TrainingPlan", "prune_one_shot", "seeded", "top1", "train", "zeros_of"]


def zeros_of(layers: Sequence[PrunableLayer]) -> list[tuple[Tensor, Tensor]]:
    """Each layer's weight with a mask, True where it is zero now."""
    return [(layer.module.weight, layer.module.weight.detach() == 0) for layer in layers]


class _HeldTensors(Phase):
    """Parameters that are zero where their masks are True; and perhaps a solver's penalty."""

    def __init__(self, zeros: Sequence[tuple[Tensor, Tensor]], penalty: Phase) -> None:
        self.zeros, self.penalty = zeros, penalty

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        self.penalty.begin_epoch(epoch, epochs)

    def before_forward(self) -> None:
        self.penalty.before_forward()

    def add_gradients(self) -> None:
        self.penalty.add_gradients()

    @torch.no_grad()
    def after_step(self) -> None:
        self.penalty.after_step()
        for parameter, mask in self.zeros:
            parameter.masked_fill_(mask, 0.0)

    def end_epoch(self, epoch: int) -> None:
        self.penalty.end_epoch(epoch)


def train(
    module: nn.Module,
    images: Tensor,
    labels: Tensor,
    plan: TrainingPlan,
    *,
    zeros: Sequence[tuple[Tensor, Tensor]] = (),
    penalty: Phase | None = None,
    progress: Callable[[EpochRecord], None] | None = None,
) -> list[EpochRecord]:
    """Train a network in place; held zeros stay exactly zero.

    Parameters
    ----------
    module : nn.Module
        Trained on the device its parameters are on, and left in evaluation mode.
    images : Tensor [shape=(n, C, H, W), float32]
        Normalised training images.
    labels : Tensor [shape=(n,), int64]
        Their classes.
    plan : TrainingPlan
    zeros : sequence of (parameter, mask)
        As :func:`zeros_of` gives them; where the mask is True the parameter is held at zero.
    penalty : Phase, optional
        Added to the loss; the loss reported is without it.
    progress : callable, optional
        Called after every epoch.

    Returns
    -------
    list of EpochRecord

    Raises
    ------
    DataError
        Images and labels that do not pair, less than two images, or a label the network has no output for.
    BitlineError
        The loss or a weight is no longer finite; the network then holds the weights of the last good epoch.
    """
    phase = _HeldTensors(zeros, penalty or Phase())
    return Trainer(module, images, labels, plan, phase).run(progress)


def prune_one_shot(
    module: nn.Module,
    layers: Sequence[PrunableLayer],
    constraint: ConstraintSet,
    images: Tensor,
    labels: Tensor,
    plan: TrainingPlan,
    *,
    progress: Callable[[EpochRecord], None] | None = None,
) -> list[EpochRecord]:
    """Project the layers' weights onto a constraint set, then retrain with their zeros held.

    Parameters
    ----------
    module : nn.Module
        The trained dense network; pruned in place.
    layers : sequence of PrunableLayer
        Of this network.
    constraint : ConstraintSet
        The same for every layer.
    images, labels, plan, progress
        As for :func:`train`.

    Raises
    ------
    RangeError
        Weights that are not finite.
    DataError, BitlineError
        As :func:`train`.
    """
    project_layers(layers, constraint)
    return train(module, images, labels, plan, zeros=zeros_of(layers), progress=progress)
