"""Training and masked retraining: a plain loop, the same result for the same seed on the same machine and torch.

One-shot pruning is :func:`prune_one_shot`: project the weights, then retrain with the zeros held.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Protocol

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from bitline.errors import BitlineError, DataError
from bitline.pruning.constraints import ConstraintSet, project_layers
from bitline.pruning.layers import PrunableLayer

__all__ = ["EpochRecord", "Penalty", "TrainingPlan", "prune_one_shot", "seeded", "top1", "train", "zeros_of"]

_CHECK_EVERY = 16  # steps between looks at the loss: each look waits for a GPU


class TrainingPlan(BaseModel):
    """Stochastic gradient descent with momentum and a cosine schedule; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    epochs: Annotated[int, Field(ge=1)]
    """Passes over the training images."""

    batch_size: Annotated[int, Field(ge=2)] = 64
    """Images a step."""

    learning_rate: Annotated[float, Field(gt=0)]
    """At the first step; falls to zero along half a cosine."""

    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of Nesterov's kind where it is not zero."""

    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    """L2 penalty on every parameter."""

    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the target spread over all classes."""

    shift: Annotated[int, Field(ge=0)] = 0
    """Images are moved by up to so many pixels each way, their edges repeated."""

    seed: int = 0
    """Of the order, the shifts, and whatever the network draws itself."""


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """What one epoch came to."""

    epoch: int
    """Counted from 1."""
    epochs: int
    loss: float
    """Mean over the epoch's images, while the weights changed."""
    accuracy: float
    """Share of the epoch's (shifted) images classified correctly, 0..1."""
    learning_rate: float
    """At the epoch's last step."""
    seconds: float


class Penalty(Protocol):
    """What a solver adds to training."""

    def add_gradients(self) -> None:
        """Called after every backward pass, before the step: adds to the parameters' gradients."""

    def end_epoch(self, epoch: int) -> None:
        """Called after every epoch (counted from 1), before the caller's progress."""


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Torch's own generators start from a seed inside, and are as before afterwards."""
    devices = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def zeros_of(layers: Sequence[PrunableLayer]) -> list[tuple[Tensor, Tensor]]:
    """Each layer's weight with a mask, True where it is zero now."""
    return [(layer.module.weight, layer.module.weight.detach() == 0) for layer in layers]


def train(
    module: nn.Module,
    images: Tensor,
    labels: Tensor,
    plan: TrainingPlan,
    *,
    zeros: Sequence[tuple[Tensor, Tensor]] = (),
    penalty: Penalty | None = None,
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
    penalty : Penalty, optional
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
    _check_data(images, labels)
    device = next(module.parameters()).device
    generator = torch.Generator().manual_seed(plan.seed)
    optimiser = torch.optim.SGD(
        module.parameters(),
        lr=plan.learning_rate,
        momentum=plan.momentum,
        nesterov=plan.momentum > 0,
        weight_decay=plan.weight_decay,
    )
    # A last batch of a single image would give batch norm no variance; its image comes in other epochs.
    steps = -(-len(images) // plan.batch_size) - (len(images) % plan.batch_size == 1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, plan.epochs * steps)
    records: list[EpochRecord] = []
    good = _snapshot(module)
    with seeded(plan.seed, device):
        for epoch in range(1, plan.epochs + 1):
            began = time.monotonic()
            module.train()
            total = torch.zeros((), dtype=torch.float64, device=device)
            correct = torch.zeros((), dtype=torch.int64, device=device)
            order = torch.randperm(len(images), generator=generator)
            seen = 0
            for step in range(steps):
                picks = order[step * plan.batch_size : (step + 1) * plan.batch_size]
                x = _shifted(images[picks], plan.shift, generator).to(device)
                y = labels[picks].to(device)
                logits = module(x)
                if not step:
                    _check_classes(logits, labels)
                loss = F.cross_entropy(logits, y, label_smoothing=plan.label_smoothing)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                if penalty is not None:
                    penalty.add_gradients()
                optimiser.step()
                _hold(zeros)
                schedule.step()
                with torch.no_grad():
                    total += loss.detach().double() * len(picks)  # NaN and infinity stay in the sum
                    correct += (logits.argmax(1) == y).sum()
                seen += len(picks)
                if step % _CHECK_EVERY == 0 and not torch.isfinite(total):
                    break
            if not torch.isfinite(total) or not _finite(module):
                module.load_state_dict(good)
                module.eval()
                raise BitlineError(
                    f"training: the loss or a weight is not finite in epoch {epoch} of {plan.epochs} (learning rate "
                    f"{plan.learning_rate:g}); the weights of epoch {epoch - 1} are kept"
                )
            good = _snapshot(module)
            if penalty is not None:
                penalty.end_epoch(epoch)
            records.append(
                EpochRecord(
                    epoch=epoch,
                    epochs=plan.epochs,
                    loss=float(total) / seen,
                    accuracy=int(correct) / seen,
                    learning_rate=float(schedule.get_last_lr()[0]),
                    seconds=time.monotonic() - began,
                )
            )
            if progress is not None:
                progress(records[-1])
    module.eval()
    return records


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


@torch.no_grad()
def top1(module: nn.Module, images: Tensor, labels: Tensor, batch_size: int = 256) -> float:
    """Share of images whose largest output is their label, 0..1; in evaluation mode, which is left as it was.

    Raises
    ------
    DataError
        Images and labels that do not pair, or none.
    """
    if not len(images) or len(images) != len(labels):
        raise DataError(f"images: expected as many as labels and at least one, found {len(images)} and {len(labels)}")
    device = next(module.parameters()).device
    training = module.training
    module.eval()
    correct = 0
    for start in range(0, len(images), batch_size):
        predicted = module(images[start : start + batch_size].to(device)).argmax(1).cpu()
        correct += int((predicted == labels[start : start + batch_size]).sum())
    module.train(training)
    return correct / len(images)


def _shifted(images: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Every image moved by its own whole number of pixels, at most ``most`` up, down, left, right; edges repeat."""
    if most == 0:
        return images
    count, _, height, width = images.shape
    moves = torch.randint(-most, most + 1, (2, count, 1), generator=generator)
    rows = (torch.arange(height) + moves[0]).clamp_(0, height - 1)
    columns = (torch.arange(width) + moves[1]).clamp_(0, width - 1)
    picked = torch.arange(count)[:, None, None]
    # Advanced indices around the channels' slice put the channels last.
    return images[picked, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


@torch.no_grad()
def _hold(zeros: Sequence[tuple[Tensor, Tensor]]) -> None:
    for parameter, mask in zeros:
        parameter.masked_fill_(mask, 0.0)


def _snapshot(module: nn.Module) -> dict[str, Tensor]:
    return {key: tensor.detach().clone() for key, tensor in module.state_dict().items()}


def _finite(module: nn.Module) -> bool:
    tensors = [t for t in module.state_dict().values() if t.is_floating_point()]
    return bool(torch.stack([torch.isfinite(t).all() for t in tensors]).all())


def _check_data(images: Tensor, labels: Tensor) -> None:
    if len(images) != len(labels) or len(images) < 2:
        raise DataError(
            f"images: expected as many as labels and at least two to train, found {len(images)} and {len(labels)}"
        )
    if images.ndim != 4:
        raise DataError(f"images: expected shape (n, channels, height, width), found {tuple(images.shape)}")


def _check_classes(logits: Tensor, labels: Tensor) -> None:
    if logits.ndim != 2 or int(labels.max()) >= logits.shape[1] or int(labels.min()) < 0:
        raise DataError(
            f"labels: expected classes 0..{logits.shape[-1] - 1}, the network's outputs; "
            f"found {int(labels.min())}..{int(labels.max())}"
        )
