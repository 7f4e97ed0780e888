"""The scheduler against hand-computed cases and against its cycle-by-cycle twin."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from reference_pipeline import simulate_cycles

from bitline.chip.pipeline import Schedule, Stage, Wait, image_period, schedule, waits_for
from bitline.layers import Window


def _source(height=4, width=4, interval=1, lanes=1, depth=1) -> Stage:
    return Stage(name="input", height=height, width=width, interval=interval, lanes=lanes, depth=depth)


def _conv(index, source: Stage, kernel=3, stride=1, pad=1, interval=8, lanes=1, depth=14, name="conv") -> Stage:
    window = Window(kernel=(kernel, kernel), stride=(stride, stride), padding=(pad,) * 4)
    height, width = window.output_size(source.height, source.width)
    wait = waits_for(index, window, (source.height, source.width), (height, width))
    return Stage(name=name, height=height, width=width, interval=interval, lanes=lanes, depth=depth, waits=(wait,))


def test_one_convolution_by_hand():
    # Input position p is readable at p + 1. Output (0, 0), 3 x 3 padded, needs input (1, 1), position 5: cycle 6.
    source = _source()
    run = schedule([source, _conv(0, source)])
    starts = run.starts[1][0]
    assert starts[0] == 6
    # 8 cycles each from then on, so the inputs (all there by cycle 16) are never late: 6 + 15 * 8 = 126, and 14 more
    assert starts.tolist() == [6 + 8 * p for p in range(16)]
    assert run.first_image == 140
    assert run.stalled(1) == 0


def test_slow_input_stalls_a_fast_layer_by_hand():
    # The input delivers one position every 10 cycles (position p readable at 10 p + 1), the 1 x 1 layer needs 4.
    source = _source(height=1, width=5, interval=10)
    fast = _conv(0, source, kernel=1, pad=0, interval=4, depth=10)
    run = schedule([source, fast])
    assert run.starts[1][0].tolist() == [1, 11, 21, 31, 41]
    assert run.stalled(1) == 4 * 6  # four gaps of 10 cycles, 4 of them worked
    assert run.slowest_input(1) == 0


def test_two_lanes_by_hand():
    source = _source(height=1, width=6, interval=1, lanes=6)  # everything readable at cycle 1
    run = schedule([source, _conv(0, source, kernel=1, pad=0, interval=8, lanes=2)])
    assert run.starts[1][0].tolist() == [1, 1, 9, 9, 17, 17]


def test_residual_branch_is_buffered_by_hand():
    # 4 rows of 1; input row y readable at y + 1. A 3 x 3 convolution of interval 1, depth 22, then the sum of both.
    source = _source(height=4, width=1)
    conv = _conv(0, source, interval=1, depth=22)
    both = Stage(
        name="add",
        height=4,
        width=1,
        interval=1,
        lanes=1,
        depth=3,
        waits=(Wait(stage=1, window=Window()), Wait(stage=0, window=Window())),
    )
    run = schedule([source, conv, both])
    assert run.starts[1][0].tolist() == [
        2,
        3,
        4,
        5,
    ]  # row 0 needs row 1 (cycle 2); the last needs row 3 (cycle 4), in order 5
    assert run.starts[2][0].tolist() == [24, 25, 26, 27]
    assert run.buffered_rows(2, both.waits[1]) == 4  # all four rows wait for the convolution
    # row 0 is held over cycles 1..3, row 1 over 2..4, row 2 over 3..5: three rows at once
    assert run.buffered_rows(1, conv.waits[0]) == 3
    assert run.slowest_input(2) == 1


def test_flattening_waits_for_everything():
    source = _source(height=2, width=2)
    wait = waits_for(0, Window(), (2, 2), (1, 1))
    assert wait.window is None
    linear = Stage(name="fc", height=1, width=1, interval=8, lanes=1, depth=14, waits=(wait,))
    assert schedule([source, linear]).starts[1][0].tolist() == [4]


@st.composite
def _networks(draw) -> list[Stage]:
    stages = [
        _source(
            draw(st.integers(1, 5)),
            draw(st.integers(1, 5)),
            draw(st.integers(1, 3)),
            draw(st.integers(1, 3)),
            draw(st.integers(0, 2)),
        )
    ]
    for index in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(["window", "window", "add", "flatten"]))
        source_index = draw(st.integers(0, len(stages) - 1))
        source = stages[source_index]
        size, waits = (1, 1), ()
        if kind == "window":
            window = Window(
                kernel=(draw(st.integers(1, 3)), draw(st.integers(1, 3))),
                stride=(draw(st.integers(1, 3)), draw(st.integers(1, 3))),
                padding=tuple(draw(st.integers(0, 2)) for _ in range(4)),
                dilation=(draw(st.integers(1, 2)), draw(st.integers(1, 2))),
            )
            size = window.output_size(source.height, source.width)
            if min(size) >= 1:
                waits = (Wait(stage=source_index, window=window),)
        elif kind == "add":
            same = [i for i, s in enumerate(stages) if (s.height, s.width) == (source.height, source.width)]
            chosen = draw(st.lists(st.sampled_from(same), min_size=1, max_size=3, unique=True))
            size, waits = (source.height, source.width), tuple(Wait(stage=i, window=Window()) for i in chosen)
        if not waits:
            size, waits = (1, 1), (Wait(stage=source_index, window=None),)
        stages.append(
            Stage(
                name=f"stage{index}",
                height=size[0],
                width=size[1],
                interval=draw(st.integers(0, 5)),
                lanes=draw(st.integers(1, 4)),
                depth=draw(st.integers(0, 6)),
                waits=waits,
            )
        )
    return stages


@given(_networks(), st.integers(1, 3), st.integers(0, 2))
def test_equals_the_cycle_by_cycle_twin(stages, images, shorter):
    period = max(0, image_period(stages) - shorter)
    run = schedule(stages, images=images, period=period)
    twin = simulate_cycles(stages, images, period)
    for index, stage in enumerate(stages):
        assert run.starts[index].tolist() == twin["starts"][index], stage
        assert run.stalled(index) == twin["idle"][index], stage
        for slot, wait in enumerate(stage.waits):
            assert run.buffered_rows(index, wait) == twin["rows"][index, slot], (stage, wait)


@given(_networks())
def test_images_leave_at_the_period_of_the_slowest_stage(stages):
    # Lanes are at most 4, so whatever pattern the lanes fall into repeats within 12 images.
    run: Schedule = schedule(stages, images=24)
    for index, stage in enumerate(stages):
        ends = run.starts[index][:, -1]
        assert ends[23] - ends[11] == 12 * run.period, stage
