"""The scheduler: when every position of every stage starts, in whole units of time.

The unit is the caller's: :mod:`bitline.chip.timing` gives picoseconds, the tests' twin small numbers.

A stage is one operation with ``lanes`` positions in parallel (the replicas of a matrix layer). It works through its
output positions in raster order, and position ``q`` starts at the first time at which

* every input position under its window can be read (a window of padding only waits for its image's admission),
* position ``q - 1`` has started, and
* its lane, ``q mod lanes``, is free: ``interval`` after the start of position ``q - lanes``.

The result can be read ``depth`` after the start. A stage of interval 0 (concatenation, a fused activation) has
no lanes to wait for. Images follow each other through the same lanes in order; image ``k`` is admitted at time
``k * period``. These rules are linear in the (max, +) sense, so a whole feature map is one cumulative maximum; the
cycle-by-cycle twin in the tests applies them one cycle at a time and must agree on every start.

Buffers are as large as the schedule needs, and how large that is, is a result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bitline.errors import RangeError
from bitline.layers import Window

__all__ = [
    "Schedule",
    "Stage",
    "Wait",
    "image_period",
    "last_inputs",
    "last_readers",
    "schedule",
    "waits_for",
]

_Int = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Wait:
    """What a stage's positions need of one input."""

    stage: int
    """Index of the input stage."""
    window: Window | None
    """Window over the input; None: everything (a flattened or globally pooled feature map)."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One operation as the scheduler sees it."""

    name: str
    height: int
    width: int
    interval: int
    """Time between two starts in one lane; 0: no limit."""
    lanes: int
    """Positions worked on in parallel."""
    depth: int
    """Time from a position's start to its result being readable."""
    waits: tuple[Wait, ...] = ()

    @property
    def positions(self) -> int:
        """Output positions of one image."""
        return self.height * self.width

    @property
    def busy(self) -> int:
        """Time of every lane that one image needs, rounded up."""
        return -(-self.positions * self.interval // self.lanes)


def waits_for(stage: int, window: Window, inputs: tuple[int, int], outputs: tuple[int, int]) -> Wait:
    """Return what an operation with this window needs of an input of this height and width.

    An operation whose output is not what the window makes of the input (a flattened or globally pooled map, an
    upsampling) waits for the whole input.
    """
    return Wait(stage=stage, window=window if window.output_size(*inputs) == outputs else None)


@lru_cache(maxsize=4096)
def last_inputs(kernel: int, stride: int, before: int, dilation: int, inputs: int, outputs: int) -> _Int:
    """Last input row (or column) under each output row (or column); -1 where the window holds padding only."""
    first = np.arange(outputs, dtype=np.int64) * stride - before
    tap = np.minimum((inputs - 1 - first) // dilation, kernel - 1)  # the last one inside, or negative
    last = np.where(tap >= 0, np.maximum(first + dilation * tap, -1), -1)
    last.setflags(write=False)
    return last


@lru_cache(maxsize=4096)
def last_readers(stride: int, before: int, inputs: int, outputs: int) -> _Int:
    """Last output row whose window starts at or before each input row: the row may be overwritten after it."""
    rows = (np.arange(inputs, dtype=np.int64) + before) // stride
    return np.minimum(rows, outputs - 1)


def image_period(stages: Sequence[Stage]) -> int:
    """Time between images in the steady state: the most that any stage needs for one image, at least 1."""
    return max(1, *(stage.busy for stage in stages))


@dataclass(frozen=True)
class Schedule:
    """Starts of every position."""

    stages: tuple[Stage, ...]
    images: int
    period: int
    """Time between the admission of images."""
    starts: tuple[_Int, ...]
    """For each stage [shape=(images, positions)] the time each position starts at."""

    def readable(self, stage: int) -> _Int:
        """Time from which each position's result can be read [shape=(images, positions)]."""
        return self.starts[stage] + self.stages[stage].depth

    @property
    def first_image(self) -> int:
        """Time from the first image's admission to its last result."""
        return max(int(s[0, -1]) + stage.depth for s, stage in zip(self.starts, self.stages, strict=True))

    @property
    def total(self) -> int:
        """Time until the last scheduled image's last result."""
        return max(int(s[-1, -1]) + stage.depth for s, stage in zip(self.starts, self.stages, strict=True))

    def stalled(self, stage: int) -> int:
        """Time that lanes stood idle for want of inputs between the stage's first start and their last ones.

        Summed over the lanes, for all scheduled images together.
        """
        record, starts = self.stages[stage], self.starts[stage].ravel()
        lanes = min(record.lanes, starts.size)
        if record.interval == 0:
            return 0
        waited: int = sum((starts[-lanes:] - starts[0]).tolist())  # of Python, whose sums do not overflow
        return waited - record.interval * (starts.size - lanes)

    def slowest_input(self, stage: int) -> int | None:
        """Input stage that, summed over the positions, is readable last; None for a stage without inputs."""
        waits = self.stages[stage].waits
        if len(waits) < 2:
            return waits[0].stage if waits else None
        totals = [int(_ready(self, stage, wait)[0].sum()) for wait in waits]
        return waits[int(np.argmax(totals))].stage

    def buffered_rows(self, stage: int, wait: Wait) -> int:
        """Most rows of one input that the stage must hold at once, over all scheduled images.

        A row is held from the time its first position can be read to the start of the last position that reads it.
        """
        source, reader = self.stages[wait.stage], self.stages[stage]
        written = self.readable(wait.stage).reshape(-1, source.height, source.width)[:, :, 0].ravel()
        if wait.window is None:  # every row is held until the image's last position starts
            read = np.repeat(self.starts[stage][:, -1], source.height)
        else:
            rows = last_readers(wait.window.stride[0], wait.window.padding[2], source.height, reader.height)
            read = self.starts[stage].reshape(-1, reader.height, reader.width)[:, rows, -1].ravel()
        held = np.arange(1, written.size + 1) - np.searchsorted(read, written, side="left")
        return int(held.max())


def _ready(partial: Schedule, stage: int, wait: Wait) -> _Int:
    """Time from which each position's share of one input can be read [shape=(images, positions)]; do not write."""
    source, record = partial.stages[wait.stage], partial.stages[stage]
    readable = partial.readable(wait.stage)
    images = readable.shape[0]
    if wait.window is None:
        return np.broadcast_to(readable[:, -1:], (images, record.positions))
    window = wait.window
    left, _, top, _ = window.padding
    rows = last_inputs(window.kernel[0], window.stride[0], top, window.dilation[0], source.height, record.height)
    columns = last_inputs(window.kernel[1], window.stride[1], left, window.dilation[1], source.width, record.width)
    if rows.min() >= 0 and columns.min() >= 0:
        if rows.size == source.height and columns.size == source.width and rows[0] == 0 and columns[0] == 0:
            return readable  # a 1 x 1 window with stride 1
        last = (rows[:, None] * source.width + columns).ravel()
        return np.take(readable, last, axis=1)
    last = (np.maximum(rows, 0)[:, None] * source.width + np.maximum(columns, 0)).ravel()
    needed = ((rows >= 0)[:, None] & (columns >= 0)).ravel()
    admitted = np.arange(images, dtype=np.int64)[:, None] * partial.period
    return np.where(needed, readable[:, last], admitted)


def _in_lanes(ready: _Int, interval: int, lanes: int) -> _Int:
    """Start positions in order, each in its lane; ``ready`` and the result are flat."""
    if interval == 0 or lanes >= ready.size:
        return np.maximum.accumulate(ready)
    if lanes == 1:
        steps = np.arange(ready.size, dtype=np.int64) * interval
        return np.maximum.accumulate(ready - steps) + steps
    # With monotone ready times every lane is a recurrence of its own, and their starts come out in order.
    rounds = -(-ready.size // lanes)
    slots = np.empty(rounds * lanes, dtype=np.int64)
    np.maximum.accumulate(ready, out=slots[: ready.size])
    slots[ready.size :] = slots[ready.size - 1]
    grid = slots.reshape(rounds, lanes)
    steps = (np.arange(rounds, dtype=np.int64) * interval)[:, None]
    grid -= steps
    np.maximum.accumulate(grid, axis=0, out=grid)
    grid += steps
    return slots[: ready.size]


def schedule(stages: Sequence[Stage], *, images: int = 1, period: int | None = None) -> Schedule:
    """Start every position of every stage as early as the rules allow.

    Parameters
    ----------
    stages : sequence of Stage
        In topological order: a stage's inputs come before it.
    images : int
        Images to schedule, admitted every ``period`` cycles.
    period : int, optional
        Time between admissions; by default what the slowest stage needs for one image.

    Returns
    -------
    Schedule

    Raises
    ------
    RangeError
        The last start might lie beyond what 64 bits count.
    """
    period = image_period(stages) if period is None else period
    # every stage one after the other, each position by itself: no schedule takes longer
    longest = images * period + sum(images * stage.positions * stage.interval + stage.depth for stage in stages)
    if longest >= 1 << 62:
        raise RangeError(f"the schedule may take {longest:.3g} ps, more than are counted: a bandwidth is too small")
    admitted = np.arange(images, dtype=np.int64)[:, None] * period
    starts: list[_Int] = []
    partial = Schedule(tuple(stages), images, period, ())
    for index, stage in enumerate(stages):
        if stage.waits:
            ready = _ready(partial, index, stage.waits[0])
            for wait in stage.waits[1:]:
                ready = np.maximum(ready, _ready(partial, index, wait))
        else:
            ready = np.broadcast_to(admitted, (images, stage.positions))
        started = _in_lanes(ready.reshape(-1), stage.interval, stage.lanes)
        starts.append(started.reshape(images, stage.positions))
        partial = Schedule(partial.stages, images, period, tuple(starts))
    return partial
