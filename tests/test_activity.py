"""Word lines driven and cells on: counted one by one in plain loops, and priced for the crossbars that exist."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import reference
from bitline import load_hardware
from bitline.activity import layer_activity, row_use
from bitline.chip.mapping import map_layer, weight_facts
from bitline.crossbar.driven import DrivenRows
from bitline.layers import LayerKind, MatrixLayer, Window
from bitline.network.conversion import convert
from strategies import Problem, examples, problems

TINYADC = load_hardware("tinyadc")


def _layer(codes: np.ndarray) -> MatrixLayer:
    codes = np.asarray(codes, np.int32)
    scale = np.ones((codes.shape[0], codes.shape[2]))
    return MatrixLayer(name="layer", kind=LayerKind.LINEAR, codes=codes, weight_scale=scale, bias=None)


@examples(60)
@given(problems())
def test_driven_rows_of_vectors_are_the_twins(problem: Problem) -> None:
    driven = DrivenRows(problem.hw, problem.signed_inputs).of_vectors(problem.x)
    assert driven.tolist() == reference.driven_rows(problem.x, problem.hw, problem.signed_inputs)


@examples(40)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([(1, 1), (3, 3), (2, 3), (1, 4)]),
    st.sampled_from([(1, 1), (2, 1), (1, 3)]),
    st.sampled_from([(1, 1), (2, 2)]),
    st.booleans(),
    st.sampled_from([1, 2]),
)
def test_driven_rows_of_windows_are_those_of_their_vectors(seed, kernel, stride, dilation, signed, dac_bits) -> None:
    rng = np.random.default_rng(seed)
    hw = TINYADC.replace(dac_bits=dac_bits)
    x = rng.integers(*((-128, 128) if signed else (0, 256)), (2, 3, 9, 11)) * (rng.random((2, 3, 9, 11)) < 0.5)
    height, width = Window(kernel=kernel, stride=stride, dilation=dilation).output_size(9, 11)
    first = int(rng.integers(0, height))
    lines = slice(first, int(rng.integers(first, height)) + 1)
    fields = [
        [
            x[image, c, h * stride[0] + i * dilation[0], w * stride[1] + j * dilation[1]]
            for c in range(3)
            for i in range(kernel[0])
            for j in range(kernel[1])
        ]
        for image in range(2)
        for h in range(lines.start, lines.stop)
        for w in range(width)
    ]
    codes = x.astype(np.int8 if signed else np.uint8)
    driven = DrivenRows(hw, signed).of_images(
        codes, Window(kernel=kernel, stride=stride, dilation=dilation, padding=(5, 5, 5, 5)), lines, width
    )
    assert driven.tolist() == reference.driven_rows(np.array(fields), hw, signed)


@pytest.mark.parametrize(
    "held",
    [
        {"encoding": "differential"},
        {"encoding": "differential", "digits": "canonical"},
        {"encoding": "offset"},
        {"encoding": "offset_flip"},
    ],
    ids=lambda held: "-".join(held.values()),
)
@examples(30)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.05, 0.3, 1.0]), st.sampled_from([5, 8, 12]), st.booleans())
def test_lines_and_cells_of_the_crossbars_that_exist(held, seed, density, width, turns) -> None:
    rng = np.random.default_rng(seed)
    hw = TINYADC.replace(rows=6, columns=width, weight_bits=5, input_bits=3, adc_bits=8, **held)
    if turns:
        hw = hw.replace(active_rows=3)
    codes = rng.integers(-7, 8, (2, 20, 5)) * (rng.random((2, 20, 5)) < density) * (rng.random((2, 20, 1)) < 0.6)
    layer = _layer(codes)
    facts = weight_facts(layer, hw, keep_rows=bool(rng.integers(2)))
    x = rng.integers(0, 8, (4, 40))
    expected = np.zeros((2, 2, 20), np.int64)
    for g in range(2):  # what is left of each group is a matrix of its own
        rows = np.flatnonzero(codes[g].any(axis=1)) if facts.removed_rows[g] else np.arange(20)
        columns = np.flatnonzero(codes[g].any(axis=0))
        if columns.size:
            expected[:, g, rows] = reference.row_use(codes[g][np.ix_(rows, columns)], hw)
    assert np.array_equal(row_use(layer, facts, hw), expected)
    driven = np.array(reference.driven_rows(x, hw))
    found = layer_activity(layer, facts, hw, driven, images=4)
    assert (found.lines_driven, found.cells_on) == tuple(int(driven @ use.reshape(-1)) for use in expected)
    # no more than there are, in every read of every vector
    mapping, reads = map_layer(layer, hw, facts), 4 * 3
    assert found.lines_driven <= reads * mapping.crossbars * hw.rows
    assert found.cells_on <= reads * mapping.cells


def test_groups_that_share_a_crossbar_by_hand() -> None:
    # three groups of 2 x 1 share one crossbar; row 1 of the first is zero and stays, the second is zero and goes
    codes = np.array([[[5], [0]], [[0], [0]], [[-1], [3]]])
    layer = _layer(codes)
    lines, cells = row_use(layer, weight_facts(layer, TINYADC), TINYADC)
    assert lines.tolist() == [[1, 1], [0, 0], [1, 1]]
    assert cells.tolist() == [[2, 0], [0, 0], [1, 1]]  # 5 = 11 in base 4: two cells; 1 and 3: one each
    # inputs 3 (two ones), 1, 255, 0, 2, 7: 2 + 1 + 0 + 0 + 1 + 3 lines; 2 x 2 + 0 + 1 x 1 + 1 x 3 cells
    driven = DrivenRows(TINYADC, False).of_vectors(np.array([[3, 1, 255, 0, 2, 7]]))
    assert driven.tolist() == [2, 1, 8, 0, 1, 3]
    done = layer_activity(layer, weight_facts(layer, TINYADC), TINYADC, driven, images=1)
    assert (done.lines_driven, done.cells_on) == (7, 8)


class _Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.linear = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(torch.relu(self.depthwise(torch.relu(self.conv(x)))).mean((2, 3)))


@pytest.mark.parametrize("changes", [{}, {"dac_bits": 2}, {"encoding": "offset_flip"}, {"active_rows": 4}])
def test_a_network_counts_what_its_vectors_drive(changes) -> None:
    """Against the recorded input vectors; enough images for the kernels that never form them."""
    generator = torch.Generator().manual_seed(0)
    network, x = _Small().eval(), torch.randn(9, 2, 12, 12, generator=generator)
    hw = TINYADC.replace(**changes)
    crossbars = convert(network, [x], hw, engine="bitserial")
    crossbars.reset_counters()
    crossbars.record_traces(10**6)
    crossbars(x)
    recorded = [reference.driven_rows(trace.x, hw, trace.signed_inputs) for trace in crossbars.traces]
    assert [counted.driven.tolist() for counted in crossbars.counters] == recorded
    crossbars.reset_counters()
    crossbars.record_traces(0)
    crossbars(x)
    assert [counted.driven.tolist() for counted in crossbars.counters] == recorded
    crossbars.engine = "certified"
    crossbars.reset_counters()
    crossbars(x)
    assert [counted.driven for counted in crossbars.counters] == [None] * 3
    crossbars.use_hardware(hw.replace(dac_bits=4))
    crossbars.engine = "bitserial"
    crossbars(x)
    assert [counted.driven.tolist() for counted in crossbars.counters] != recorded
