"""The data-flow graph with shapes that the chip model reads."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import bitline
from bitline.errors import ConversionError
from bitline.layers import OperationKind, Window
from bitline.network.conversion import matrix_layers, operations

HW = bitline.load_hardware("tinyadc")
INPUT, MATRIX, MAX_POOL, AVERAGE_POOL, ELEMENTWISE, CONCAT, OTHER = (
    OperationKind(kind) for kind in ("input", "matrix", "max_pool", "average_pool", "elementwise", "concat", "other")
)


class Wrap(nn.Module):
    """A network from a function of (self, x) and named modules."""

    def __init__(self, function, **modules):
        super().__init__()
        for name, module in modules.items():
            setattr(self, name, module)
        self.function = function

    def forward(self, x):
        return self.function(self, x)


def flow(module, shape):
    """(name, kind, inputs, shape) of every operation."""
    return [(o.name, o.kind, o.inputs, o.output_shape) for o in operations(module, shape)]


def test_residual_network_by_hand():
    def function(self, x):
        y = self.pool(F.relu(self.norm(self.conv(x))))
        z = F.pad(y, (1, 1, 1, 1))
        z = self.act(self.depth(z) + self.short(y))
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(z, 1), 1))

    network = Wrap(
        function,
        conv=nn.Conv2d(3, 8, 3, stride=2, padding=1),
        norm=nn.BatchNorm2d(8),
        pool=nn.MaxPool2d(3, 2, padding=1),
        depth=nn.Conv2d(8, 8, 3, groups=8),
        short=nn.Conv2d(8, 8, 1),
        act=nn.ReLU(),
        fc=nn.Linear(8, 5),
    )
    assert flow(network, (3, 16, 12)) == [
        ("x", INPUT, (), (3, 16, 12)),
        ("conv", MATRIX, ("x",), (8, 8, 6)),
        ("pool", MAX_POOL, ("conv",), (8, 4, 3)),
        ("depth", MATRIX, ("pool",), (8, 4, 3)),
        ("short", MATRIX, ("pool",), (8, 4, 3)),
        ("add", ELEMENTWISE, ("depth", "short"), (8, 4, 3)),
        ("adaptive_avg_pool2d", AVERAGE_POOL, ("add",), (8, 1, 1)),
        ("fc", MATRIX, ("adaptive_avg_pool2d",), (5, 1, 1)),
    ]
    by_name = {o.name: o for o in operations(network, (3, 16, 12))}
    assert by_name["conv"].window == Window(kernel=(3, 3), stride=(2, 2), padding=(1, 1, 1, 1))
    assert (by_name["conv"].rows, by_name["conv"].columns, by_name["conv"].groups) == (27, 8, 1)
    assert by_name["conv"].macs == 27 * 8 * 8 * 6
    assert by_name["pool"].window == Window(kernel=(3, 3), stride=(2, 2), padding=(1, 1, 1, 1))
    # the padding before it belongs to its window
    assert by_name["depth"].window == Window(kernel=(3, 3), padding=(1, 1, 1, 1))
    assert (by_name["depth"].rows, by_name["depth"].columns, by_name["depth"].groups) == (9, 1, 8)
    assert by_name["adaptive_avg_pool2d"].window == Window(kernel=(4, 3), stride=(4, 3))
    layers = matrix_layers(network, HW, input_shape=(3, 16, 12)).layers
    matrices = [o for o in operations(network, (3, 16, 12)) if o.kind is MATRIX]
    assert [layer.name for layer in layers] == [o.name for o in matrices]
    for layer, operation in zip(layers, matrices, strict=True):
        assert layer.codes.shape == (operation.groups, operation.rows, operation.columns)
        assert layer.output_positions == operation.positions
        assert layer.macs == operation.macs


def test_every_window_gives_the_shape_that_follows():
    network = nn.Sequential(
        nn.Conv2d(1, 4, (3, 5), stride=(2, 1), padding=(0, 2), dilation=(1, 2)),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.Conv2d(4, 4, 3, padding="same", groups=2),
        nn.AvgPool2d(2, padding=1),
        nn.ZeroPad2d((1, 0, 2, 1)),
        nn.MaxPool2d(2, 1),
        nn.AdaptiveMaxPool2d((2, 3)),
    )
    done = operations(network, (1, 23, 26))
    assert len(done) == 7
    for before, after in itertools.pairwise(done):
        assert after.inputs == (before.name,)
        assert after.window.output_size(*before.output_shape[1:]) == after.output_shape[1:], after.name


def test_concatenation_and_functional_pooling():
    def function(self, x):
        x = F.max_pool2d(x, 2)
        y = torch.cat([self.a(x).relu(), F.avg_pool2d(self.b(x), 3, stride=1, padding=1)], 1)
        y = F.dropout(y, training=self.training)
        return self.c(y).mean([2, 3])

    network = Wrap(function, a=nn.Conv2d(2, 3, 1), b=nn.Conv2d(2, 4, 1), c=nn.Conv2d(7, 2, 1))
    done = flow(network, (2, 8, 8))
    assert [o[:3] for o in done] == [
        ("x", INPUT, ()),
        ("max_pool2d", MAX_POOL, ("x",)),
        ("a", MATRIX, ("max_pool2d",)),
        ("b", MATRIX, ("max_pool2d",)),
        ("avg_pool2d", AVERAGE_POOL, ("b",)),
        ("cat", CONCAT, ("a", "avg_pool2d")),
        ("c", MATRIX, ("cat",)),
        ("mean", AVERAGE_POOL, ("c",)),
    ]
    assert done[5][3] == (7, 4, 4)


def test_gate_shortcut_and_layers_kept_in_torch():
    def function(self, x):
        gate = torch.sigmoid(self.gate(F.adaptive_avg_pool2d(x, 1)))
        short = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1))
        return self.up(x * gate) + 2 * short.repeat(1, 1, 4, 4)

    network = Wrap(function, gate=nn.Conv2d(2, 2, 1), up=nn.ConvTranspose2d(2, 4, 2, stride=2))
    assert flow(network, (2, 4, 4)) == [
        ("x", INPUT, (), (2, 4, 4)),
        ("adaptive_avg_pool2d", AVERAGE_POOL, ("x",), (2, 1, 1)),
        ("gate", MATRIX, ("adaptive_avg_pool2d",), (2, 1, 1)),
        ("getitem", OTHER, ("x",), (2, 2, 2)),
        ("pad", OTHER, ("getitem",), (4, 2, 2)),
        ("mul", ELEMENTWISE, ("x", "gate"), (2, 4, 4)),
        ("up", OTHER, ("mul",), (4, 8, 8)),
        ("repeat", OTHER, ("pad",), (4, 8, 8)),
        ("add", ELEMENTWISE, ("up", "repeat"), (4, 8, 8)),
    ]


def test_padding_that_something_else_reads_too_is_an_operation():
    network = Wrap(lambda self, x: self.conv(F.pad(x, (1, 1, 1, 1)))[:, :, :4, :4], conv=nn.Conv2d(1, 1, 3))
    assert [o[0] for o in flow(network, (1, 4, 4))] == ["x", "conv"]

    def function(self, x):
        padded = F.pad(x, (1, 1, 1, 1))
        return self.conv(padded) + padded[:, :, 1:-1, 1:-1]

    network = Wrap(function, conv=nn.Conv2d(1, 1, 3))
    assert [o[0] for o in flow(network, (1, 4, 4))] == ["x", "pad", "conv", "getitem", "add"]


def test_sequences_vectors_and_shared_layers():
    assert flow(nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 2)), (3, 5))[1:] == [
        ("0", MATRIX, ("input_1",), (7, 1, 3)),
        ("2", MATRIX, ("0",), (2, 1, 3)),
    ]
    conv = nn.Sequential(nn.Conv1d(2, 3, 3), nn.MaxPool1d(2))
    assert flow(conv, (2, 10))[1:] == [("0", MATRIX, ("input_1",), (3, 1, 8)), ("1", MAX_POOL, ("0",), (3, 1, 4))]
    shared = Wrap(lambda self, x: self.a(self.a(x).relu()), a=nn.Linear(4, 4))
    assert [o[:3] for o in flow(shared, (4,))[1:]] == [("a", MATRIX, ("x",)), ("a#2", MATRIX, ("a",))]


def test_recurrent_layer_that_stays_in_torch_is_another_operation():
    rnn = nn.RNN(4, 6, batch_first=True)
    network = Wrap(lambda self, x: self.fc(self.rnn(x)[0].flatten(1)), rnn=rnn, fc=nn.Linear(18, 2))
    assert [o[:3] for o in flow(network, (3, 4))] == [
        ("x", INPUT, ()),
        ("rnn", OTHER, ("x",)),
        ("fc", MATRIX, ("rnn",)),
    ]


def test_unchanged_module_and_bad_shapes():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    state = copy.deepcopy(network.state_dict())
    operations(network, (3, 5, 5))
    assert network.training
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    with pytest.raises(ConversionError, match=r"does not run on an input of shape \(1, 5, 5\)") as error:
        operations(network, (1, 5, 5))
    assert "\n" not in str(error.value)
