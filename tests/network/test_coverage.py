"""What multiplies is on crossbars or listed, and counted as another program counts it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.utils.flop_counter import FlopCounterMode

from bitline.errors import ConversionError
from bitline.hardware import load_hardware
from bitline.layers import OperationKind
from bitline.network.architectures import build_architecture, list_architectures
from bitline.network.conversion import matrix_layers
from bitline.network.dataflow import account, operations
from bitline.report.coverage import coverage_lines

HW = load_hardware("tinyadc")


@fx.wrap
def attend(x, w, b):
    return F.linear(x, w, b)


class Net(nn.Module):
    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.function(self, x)


def weights(*shape):
    return nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("name", sorted({n for n in list_architectures() if "110" not in n})[::4])
def test_the_macs_of_an_architecture_are_those_that_torch_counts(name):
    network = build_architecture(name)
    graph, coverage = account(network.module, network.input_shape)
    twin = network.module.to("meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        twin(torch.zeros((1, *network.input_shape), device="meta"))
    assert coverage.total == coverage.on_crossbars == counter.get_total_flops() // 2
    assert sum(operation.macs for operation in graph if operation.kind is OperationKind.MATRIX) == coverage.total


# name: network, shape of an input, MACs on crossbars, MACs in all, kinds listed; by hand, for 9 tokens of 16
ELSEWHERE = {
    "tokens_first": (Net(lambda s, x: s.fc(x.transpose(0, 1)), fc=nn.Linear(16, 32)), 4608, 4608, []),
    "wrapped": (
        Net(lambda s, x: s.fc(attend(x, s.w, s.b)), w=weights(16, 16), b=weights(16), fc=nn.Linear(16, 4)),
        576, 576 + 2304, ["attend"],
    ),
    "matmul": (Net(lambda s, x: s.fc(x) @ s.w, fc=nn.Linear(16, 16), w=weights(16, 8)), 2304, 2304 + 1152, ["matmul"]),
    "einsum": (
        Net(lambda s, x: torch.einsum("nti,io->nto", s.fc(x), s.w), fc=nn.Linear(16, 16), w=weights(16, 8)),
        2304, 2304 + 1152, ["einsum"],
    ),
    "attention": (
        Net(lambda s, x: s.heads(s.fc(x), s.fc(x), s.fc(x))[0], fc=nn.Linear(16, 16),
            heads=nn.MultiheadAttention(16, 4, batch_first=True)),
        3 * 2304, 3 * 2304 + 4 * 2304 + 2 * 9 * 9 * 16, ["MultiheadAttention"],
    ),
    "bilinear": (
        Net(lambda s, x: s.both(s.fc(x), x), fc=nn.Linear(16, 16), both=nn.Bilinear(16, 16, 2)),
        2304, 2304 + 9 * 2 * 256, ["Bilinear"],
    ),
    "transposed": (
        Net(lambda s, x: s.up(s.fc(x)), fc=nn.Linear(16, 16), up=nn.ConvTranspose1d(9, 2, 3)),
        2304, 2304 + 16 * 9 * 2 * 3, ["ConvTranspose1d"],
    ),
    "convolution": (
        Net(lambda s, x: torch.convolution(s.fc(x), s.w, None, [1], [0], [1], False, [0], 1),
            fc=nn.Linear(16, 16), w=weights(4, 9, 1)),
        2304, 2304 + 16 * 9 * 4, ["convolution"],
    ),
    "broadcast": (
        Net(lambda s, x: (s.fc(x).unsqueeze(2) * s.w).sum(3), fc=nn.Linear(16, 16), w=weights(4, 16)),
        2304, 2304 + 9 * 4 * 16, ["mul"],
    ),
    "scaled": (Net(lambda s, x: s.fc(x) * s.w + s.w, fc=nn.Linear(16, 16), w=weights(16)), 2304, 2304, []),
}  # fmt: skip


@pytest.mark.parametrize("name", ELSEWHERE)
def test_every_product_with_weights_is_placed_or_listed_with_its_macs(name):
    module, placed, total, kinds = ELSEWHERE[name]
    found = matrix_layers(module, HW, input_shape=(9, 16))
    assert (found.coverage.on_crossbars, found.coverage.total) == (placed, total)
    assert [kept.kind for kept in found.kept] == kinds
    assert sum(o.macs for o in operations(module, (9, 16)) if o.kind is OperationKind.MATRIX) == placed
    unknown = matrix_layers(module, HW)
    assert unknown.coverage.total is None
    assert {kept.kind for kept in unknown.kept} >= set(kinds) - {"mul"}  # how far it is spread is in the shapes
    assert all(kept.macs is None for kept in unknown.kept)


def test_vectors_that_do_not_grow_with_the_batch_are_refused():
    module = Net(lambda s, x: s.fc(x.sum(0, keepdim=True)).expand(x.shape[0], -1, -1), fc=nn.Linear(16, 4))
    with pytest.raises(ConversionError, match="batch"):
        operations(module, (9, 16))


def test_the_sentence_says_how_much_of_how_much():
    module = ELSEWHERE["wrapped"][0]
    lines = coverage_lines(matrix_layers(module, HW, input_shape=(9, 16)).coverage.to_json())
    assert lines == ["on crossbars 0.576 of 2.88 kMACs an image (20 %); not on crossbars: attend"]
