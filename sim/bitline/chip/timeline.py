"""The schedule as a timeline in the Chrome trace-event format, which Perfetto and chrome://tracing open.

One process a chip, one track a layer; a slice is one row of a layer's output, from its first start to the end of its
last position's interval, and a slice of category ``stall`` where the whole row before it is done and inputs are not
there. In detail there is one track a replica and one slice a position. Times are microseconds of the chip.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitline.chip.pipeline import Stage, schedule
from bitline.chip.report import ChipReport
from bitline.errors import RangeError

__all__ = ["MAX_DETAIL_EVENTS", "timeline"]

MAX_DETAIL_EVENTS = 2_000_000
"""Most slices a detailed timeline may have; a file of that many is some 200 MB."""


def timeline(report: ChipReport, *, images: int = 1, detail: bool = False) -> dict[str, Any]:
    """Return the timeline of an estimate as plain data, ready for ``json.dump``.

    Parameters
    ----------
    report : ChipReport
        From :func:`bitline.chip.estimate`.
    images : int
        Images to show, each one steady-state interval after the last.
    detail : bool
        One track a replica and one slice a position, instead of one slice a row of output.

    Raises
    ------
    RangeError
        No images, or a detailed timeline of more than ``MAX_DETAIL_EVENTS`` slices.
    """
    if images < 1:
        raise RangeError(f"images must be at least 1, got {images}")
    run = report.schedule if images == 1 else schedule(report.schedule.stages, images=images)
    if detail:
        slices = images * sum(stage.positions for stage in run.stages if stage.interval)
        if slices > MAX_DETAIL_EVENTS:
            raise RangeError(f"a detailed timeline would have {slices} slices, at most {MAX_DETAIL_EVENTS} are written")
    events: list[dict[str, Any]] = []
    chips = {layer.name: layer.chips[0] for layer in report.layers}
    for chip in sorted(set(chips.values()) | {0}):
        events.append({"ph": "M", "name": "process_name", "pid": chip, "args": {"name": f"chip {chip}"}})
    layers = {layer.name: layer for layer in report.layers}
    microseconds = 1e-6  # of the schedule's picoseconds
    cycle = report.totals.cycle_ns * 1e3
    track, chip = 0, 0
    for index, stage in enumerate(run.stages):
        if stage.interval == 0:
            continue  # concatenations and activations take no time of their own
        chip = chips.get(stage.name, chip)
        lanes = min(stage.lanes, stage.positions)
        tracks = lanes if detail else 1
        for lane in range(tracks):
            label = f"{stage.name} [{lane}]" if detail else stage.name
            common = {"ph": "M", "pid": chip, "tid": track + lane}
            events.append({**common, "name": "thread_name", "args": {"name": label}})
            events.append({**common, "name": "thread_sort_index", "args": {"sort_index": track + lane}})
        layer = layers.get(stage.name)
        facts: dict[str, Any] = {"replicas": lanes, "interval_cycles": stage.interval / cycle}
        if layer is not None:
            facts |= {"set_by": layer.interval_set_by, "waits_for": layer.waits_for}
        slices_of = _positions if detail else _rows
        events.extend(slices_of(run.starts[index], stage, chip, track, microseconds, facts))
        track += tracks
    return {
        "traceEvents": events,
        "displayTimeUnit": "ns",
        "otherData": {
            "hardware": report.hardware,
            "cycle_ns": report.totals.cycle_ns,
            "interval_cycles": report.totals.interval_cycles,
            "bottleneck": report.bottleneck,
        },
    }


def _rows(
    starts: NDArray[np.int64], stage: Stage, pid: int, tid: int, microseconds: float, facts: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    grid = starts.reshape(-1, stage.width)  # the rows of all images
    first = grid[:, 0].tolist()
    ends = (grid[:, -1] + stage.interval).tolist()
    done = first[0]
    for number, (start, end) in enumerate(zip(first, ends, strict=True)):
        image, row = divmod(number, stage.height)
        begin = max(start, done)  # rows of several replicas overlap; slices of one track must not
        track = {"ph": "X", "pid": pid, "tid": tid}
        if begin > done:
            yield {
                **track,
                "cat": "stall",
                "name": f"wait for {facts.get('waits_for') or 'inputs'}" if row else "wait for the next image",
                "ts": done * microseconds,
                "dur": (begin - done) * microseconds,
                "args": {"image": image, "row": row, "ps": begin - done},
            }
        if end > begin:
            yield {
                **track,
                "cat": "row",
                "name": f"row {row}",
                "ts": begin * microseconds,
                "dur": (end - begin) * microseconds,
                "args": {"image": image, "first_start_ps": start, "end_ps": end, **facts},
            }
        done = max(done, end)


def _positions(
    starts: NDArray[np.int64], stage: Stage, pid: int, tid: int, microseconds: float, facts: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    for number, start in enumerate(starts.ravel().tolist()):
        image, position = divmod(number, stage.positions)
        yield {
            "ph": "X",
            "pid": pid,
            "tid": tid + number % stage.lanes,
            "cat": "position",
            "name": f"{position // stage.width},{position % stage.width}",
            "ts": start * microseconds,
            "dur": stage.interval * microseconds,
            "args": {"image": image, "start_ps": start},
        }
