"""Training with stochastic gradient descent that can stop after any step and go on as if it had not.

The same seed gives the same weights on the same machine, torch and thread count. What a pruning solver adds is a
:class:`Phase`: hooks around each step and epoch, with a state of its own.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from bitline.errors import BitlineError, DataError, RangeError

__all__ = ["EpochRecord", "Phase", "Stopped", "Trainer", "TrainingPlan", "seeded", "top1"]

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

    flip: bool = False
    """Every second image or so is mirrored left to right."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the products in the forward and backward pass; weights, sums and the loss stay float32. ``auto`` is bfloat16
    on a GPU and float32 elsewhere; a CPU with AVX512-BF16 trains a ResNet-20 about 1.7 times as fast in bfloat16."""

    seed: int = 0
    """Of the order, the shifts, the flips, and whatever the network draws itself."""


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


class Phase:
    """What a solver does around plain training; every hook does nothing unless a solver says otherwise."""

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Before an epoch, counted from 1."""

    def before_forward(self) -> None:
        """Before every step's forward pass."""

    def add_gradients(self) -> None:
        """After every backward pass, before the optimiser's step."""

    def after_step(self) -> None:
        """After every step of the optimiser."""

    def end_epoch(self, epoch: int) -> None:
        """After every epoch, before it is recorded."""

    def distance(self) -> float | None:
        """``||W - Z|| / ||W||`` over all layers, where the solver keeps a Z of its own."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values from which :meth:`load_state_dict` goes on."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state."""


class Stopped(KeyboardInterrupt):
    """Training stopped between two steps because it was asked to; its state is saved."""


class Trainer:
    """Trains a network in place.

    Parameters
    ----------
    module : nn.Module
        Trained on the device its parameters are on.
    images : Tensor [shape=(n, C, H, W)]
        Training images, as ``normalise`` takes them; a fourth of the memory where these are bytes.
    labels : Tensor [shape=(n,), int64]
        Their classes.
    plan : TrainingPlan
    phase : Phase, optional
        What a solver adds.
    normalise : callable, optional
        Makes float32 inputs of a copy of some images, which it may overwrite; the images are inputs already by default.

    Raises
    ------
    DataError
        Images and labels that do not pair, or less than two images.
    """

    def __init__(
        self,
        module: nn.Module,
        images: Tensor,
        labels: Tensor,
        plan: TrainingPlan,
        phase: Phase | None = None,
        *,
        normalise: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        _check_data(images, labels)
        self.module, self.images, self.labels, self.plan = module, images, labels, plan
        self.phase = phase or Phase()
        self.normalise = normalise
        self.device = next(module.parameters()).device
        self.half = plan.precision == "bfloat16" or (plan.precision == "auto" and self.device.type == "cuda")
        self.optimiser = torch.optim.SGD(
            module.parameters(),
            lr=plan.learning_rate,
            momentum=plan.momentum,
            nesterov=plan.momentum > 0,
            weight_decay=plan.weight_decay,
        )
        # A last batch of a single image would give batch norm no variance; its image comes in other epochs.
        self.steps = -(-len(images) // plan.batch_size) - (len(images) % plan.batch_size == 1)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimiser, plan.epochs * self.steps)
        self.records: list[EpochRecord] = []
        self._generator = torch.Generator().manual_seed(plan.seed)
        self._good = _snapshot(module)
        self._step = 0
        self._order: Tensor | None = None
        self._clear()
        self._random: list[Tensor] | None = None

    @property
    def epoch(self) -> int:
        """Epochs that are complete."""
        return len(self.records)

    def run(
        self,
        progress: Callable[[EpochRecord], None] | None = None,
        *,
        save: Callable[[], None] | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> list[EpochRecord]:
        """Train until the plan's epochs are done; the network is left in evaluation mode.

        Parameters
        ----------
        progress : callable, optional
            Called after every epoch.
        save : callable, optional
            Called after every epoch, after ``progress``, and when training stops early: :meth:`state_dict` may be
            kept then.
        stop : callable, optional
            Asked after every step; True saves and raises :class:`Stopped`.

        Raises
        ------
        DataError
            A label the network has no output for.
        BitlineError
            The loss or a weight is no longer finite; the network then holds the weights of the last good epoch, and
            nothing is saved.
        """
        with seeded(self.plan.seed, self.device):
            if self._random is not None:
                _set_random(self._random, self.device)
            while self.epoch < self.plan.epochs:
                self._run_epoch(save, stop)
                if progress is not None:
                    progress(self.records[-1])
                if save is not None:
                    save()
                if stop is not None and stop():
                    raise Stopped
        self.module.eval()
        return self.records

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides what comes next; tensors and plain values."""
        return {
            "module": self.module.state_dict(),
            "good": self._good,
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "phase": self.phase.state_dict(),
            "records": [dataclasses.asdict(record) for record in self.records],
            "generator": self._generator.get_state(),
            "random": _get_random(self.device),
            "step": self._step,
            "order": self._order,
            "total": self._total,
            "correct": self._correct,
            "seen": self._seen,
            "seconds": self._seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict` of a trainer of the same plan, data and network."""
        self.module.load_state_dict(state["module"])
        self._good = {key: tensor.to(self.device) for key, tensor in state["good"].items()}
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        self.phase.load_state_dict(state["phase"])
        self.records = [EpochRecord(**record) for record in state["records"]]
        self._generator.set_state(state["generator"])
        self._random = state["random"]
        self._step, self._order = state["step"], state["order"]
        self._total, self._correct = state["total"].to(self.device), state["correct"].to(self.device)
        self._seen, self._seconds = state["seen"], state["seconds"]

    def _clear(self) -> None:
        self._total = torch.zeros((), dtype=torch.float64, device=self.device)
        self._correct = torch.zeros((), dtype=torch.int64, device=self.device)
        self._seen, self._seconds = 0, 0.0

    def _run_epoch(self, save: Callable[[], None] | None, stop: Callable[[], bool] | None) -> None:
        plan, epoch, began = self.plan, self.epoch + 1, time.monotonic()
        self.module.train()
        if self._order is None:
            self.phase.begin_epoch(epoch, plan.epochs)
            self._order = torch.randperm(len(self.images), generator=self._generator)
        while self._step < self.steps:
            picks = self._order[self._step * plan.batch_size : (self._step + 1) * plan.batch_size]
            try:
                self._train_step(picks)
            except RangeError:  # a phase that projects within the step is the first to see weights that diverged
                if _finite(self.module):
                    raise
                break
            self._step += 1
            if (self._step - 1) % _CHECK_EVERY == 0 and not torch.isfinite(self._total):
                break
            if stop is not None and self._step < self.steps and stop():
                self._seconds += time.monotonic() - began
                if save is not None:
                    save()
                raise Stopped
        if not torch.isfinite(self._total) or not _finite(self.module):
            self.module.load_state_dict(self._good)
            self.module.eval()
            raise BitlineError(
                f"training: the loss or a weight is not finite in epoch {epoch} of {plan.epochs} (learning rate "
                f"{plan.learning_rate:g}); the weights of epoch {epoch - 1} are kept"
            )
        self.phase.end_epoch(epoch)
        self._good = _snapshot(self.module)
        self.records.append(
            EpochRecord(
                epoch=epoch,
                epochs=plan.epochs,
                loss=float(self._total) / self._seen,
                accuracy=int(self._correct) / self._seen,
                learning_rate=float(self.schedule.get_last_lr()[0]),
                seconds=self._seconds + time.monotonic() - began,
            )
        )
        self._step, self._order = 0, None
        self._clear()

    def _train_step(self, picks: Tensor) -> None:
        x = _shifted(self.images[picks], self.plan.shift, self._generator)
        x = _flipped(x, self._generator) if self.plan.flip else x
        x = (x if self.normalise is None else self.normalise(x)).to(self.device)
        y = self.labels[picks].to(self.device)
        self.phase.before_forward()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            logits = self.module(x)
        if not self._step:
            _check_classes(logits, self.labels)
        logits = logits.float()
        loss = F.cross_entropy(logits, y, label_smoothing=self.plan.label_smoothing)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.phase.add_gradients()
        self.optimiser.step()
        self.phase.after_step()
        self.schedule.step()
        with torch.no_grad():
            self._total += loss.detach().double() * len(picks)  # NaN and infinity stay in the sum
            self._correct += (logits.argmax(1) == y).sum()
        self._seen += len(picks)


def _get_random(device: torch.device) -> list[Tensor]:
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def _set_random(states: list[Tensor], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda" and len(states) > 1:
        torch.cuda.set_rng_state(states[1], device)


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Torch's own generators start from a seed inside, and are as before afterwards."""
    devices = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


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


def _flipped(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image mirrored left to right, or not, with equal chances."""
    mirrored = torch.randint(0, 2, (len(images), 1, 1, 1), generator=generator, dtype=torch.bool)
    return torch.where(mirrored, images.flip(3), images)


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
