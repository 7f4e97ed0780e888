"""The scheduler's readable twin: the rules of ``bitline.chip.pipeline`` applied one cycle at a time, in plain loops."""

from __future__ import annotations

from bitline.chip.pipeline import Stage


def needed_positions(stage: Stage, source: Stage, wait, position: int) -> list[int]:
    """Input positions of one image under the window of one output position (padding left out)."""
    if wait.window is None:
        return list(range(source.positions))
    y, x = divmod(position, stage.width)
    window = wait.window
    left, _, top, _ = window.padding
    found = []
    for ky in range(window.kernel[0]):
        for kx in range(window.kernel[1]):
            row = y * window.stride[0] - top + ky * window.dilation[0]
            column = x * window.stride[1] - left + kx * window.dilation[1]
            if 0 <= row < source.height and 0 <= column < source.width:
                found.append(row * source.width + column)
    return found


def simulate_cycles(stages: list[Stage], images: int, period: int, limit: int = 200_000) -> dict:
    """Run the pipeline cycle by cycle.

    Returns the start of every position of every stage and image, the idle lane-cycles of every stage, and the most
    rows every (stage, input) pair held at once.
    """
    starts = [[[None] * stage.positions for _ in range(images)] for stage in stages]
    lane_free = [[0] * stage.lanes for stage in stages]
    following = [0] * len(stages)  # next position to start, counted over all images
    idle = [0] * len(stages)
    first_start = [None] * len(stages)
    lane_idle = [[0] * stage.lanes for stage in stages]
    needs = [
        [[needed_positions(stage, stages[w.stage], w, p) for p in range(stage.positions)] for w in stage.waits]
        for stage in stages
    ]

    def readable(stage_index: int, image: int, position: int, cycle: int) -> bool:
        start = starts[stage_index][image][position]
        return start is not None and start + stages[stage_index].depth <= cycle

    cycle = 0
    while any(following[i] < images * stage.positions for i, stage in enumerate(stages)):
        assert cycle < limit, "the twin did not finish"
        for i, stage in enumerate(stages):
            while following[i] < images * stage.positions:
                image, position = divmod(following[i], stage.positions)
                lane = following[i] % stage.lanes
                if stage.interval and lane_free[i][lane] > cycle:
                    break
                if cycle < image * period:
                    break
                if not all(
                    readable(w.stage, image, p, cycle)
                    for w, need in zip(stage.waits, needs[i], strict=True)
                    for p in need[position]
                ):
                    break
                starts[i][image][position] = cycle
                lane_free[i][lane] = cycle + stage.interval
                if first_start[i] is None:
                    first_start[i] = cycle
                idle[i] += lane_idle[i][lane]  # idle cycles count once the lane starts again
                lane_idle[i][lane] = 0
                following[i] += 1
            if stage.interval and first_start[i] is not None:
                for lane in range(min(stage.lanes, images * stage.positions)):
                    if lane_free[i][lane] <= cycle:
                        lane_idle[i][lane] += 1
        cycle += 1
    return {"starts": starts, "idle": idle, "rows": held_rows(stages, starts, cycle)}


def held_rows(stages: list[Stage], starts: list, cycles: int) -> dict[tuple[int, int], int]:
    """Most rows of an input held at once: from its first readable position to the last start that may read it."""
    most = {}
    for i, stage in enumerate(stages):
        for slot, wait in enumerate(stage.waits):
            source = stages[wait.stage]
            spans = []
            for image in range(len(starts[i])):
                for row in range(source.height):
                    written = starts[wait.stage][image][row * source.width] + source.depth
                    if wait.window is None:  # read until the last output position of the image starts
                        last = starts[i][image][-1]
                    else:
                        # every output row whose window starts at or above this row may still read it
                        window = wait.window
                        readers = [y for y in range(stage.height) if y * window.stride[0] - window.padding[2] <= row]
                        last = max(starts[i][image][y * stage.width + stage.width - 1] for y in readers)
                    spans.append((written, last))
            most[i, slot] = max(sum(written <= t <= last for written, last in spans) for t in range(cycles + 1))
    return most
