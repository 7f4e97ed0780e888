"""Layers as matrices, and constraint sets on layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from bitline.errors import ConfigError, RangeError, ShapeError
from bitline.pruning.constraints import ColumnProportional, project_layers, violations
from bitline.pruning.layers import prunable_layers, weight_from_matrices, weight_matrices


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.body = nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.ReLU())
        self.head = nn.Linear(6, 2)


def test_rows_are_channel_then_kernel_row_then_kernel_column() -> None:
    # One output, 2 channels, a kernel of 2 rows and 3 columns; each value spells channel, row, column.
    weight = torch.tensor([[[[0.0, 1, 2], [10, 11, 12]], [[100, 101, 102], [110, 111, 112]]]])
    matrices = weight_matrices(weight)
    assert matrices.shape == (1, 12, 1)
    assert matrices[0, :, 0].tolist() == [0, 1, 2, 10, 11, 12, 100, 101, 102, 110, 111, 112]


def test_one_column_an_output_and_groups_are_separate() -> None:
    weight = torch.arange(4 * 3, dtype=torch.float32).reshape(4, 3)
    assert weight_matrices(weight)[0].tolist() == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]
    grouped = weight_matrices(weight.reshape(4, 3, 1, 1), groups=2)
    assert grouped.tolist() == [[[0, 3], [1, 4], [2, 5]], [[6, 9], [7, 10], [8, 11]]]


def test_matrix_multiplies_as_the_convolution_does() -> None:
    layer = nn.Conv2d(4, 6, (3, 2), groups=2, bias=False)
    x = torch.randn(1, 4, 3, 2, generator=torch.Generator().manual_seed(0))
    matrices = weight_matrices(layer.weight, 2)
    by_hand = [x[0, 2 * g : 2 * g + 2].reshape(-1).numpy() @ matrices[g] for g in range(2)]
    np.testing.assert_allclose(np.concatenate(by_hand), layer(x).detach().numpy().ravel(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_matrices_and_back(memory_format: torch.memory_format) -> None:
    weight = torch.randn(6, 2, 3, 3).to(memory_format=memory_format)
    back = weight_from_matrices(weight_matrices(weight, 3), weight)
    assert torch.equal(back, weight)
    half = weight.to(torch.float16)
    assert weight_from_matrices(weight_matrices(half), half).dtype == torch.float16


def test_groups_must_divide_the_outputs() -> None:
    with pytest.raises(ShapeError, match="multiple of 4 groups"):
        weight_matrices(torch.zeros(6, 2), 4)


def test_first_layer_is_exempt_by_default() -> None:
    net = _Net()
    assert [layer.name for layer in prunable_layers(net)] == ["body.0", "head"]
    assert [layer.name for layer in prunable_layers(net, exempt_first=False)] == ["stem", "body.0", "head"]
    assert [layer.name for layer in prunable_layers(net, exempt={"head"})] == ["body.0"]
    assert [layer.groups for layer in prunable_layers(net)] == [2, 1]
    with pytest.raises(ConfigError, match="exempt: 'norm'"):
        prunable_layers(net, exempt={"norm"})


def test_column_proportional_layers() -> None:
    net = _Net()
    with torch.no_grad():
        net.body[0].weight.copy_(torch.arange(1, 109).reshape(6, 2, 3, 3))  # rows rise, so the last ones stay
    stem = net.stem.weight.detach().clone()
    layers = prunable_layers(net)
    constraint = ColumnProportional(4, rows=8)
    assert constraint.nonzeros == 2
    assert violations(layers, constraint) == 6 * (6 + 6) + 2 * 4  # 18 rows: tiles of 8, 8 and 2; 6 rows: one tile
    project_layers(layers, constraint)
    assert violations(layers, constraint) == 0
    kept = net.body[0].weight.reshape(6, -1)
    for output in range(6):
        assert torch.nonzero(kept[output]).ravel().tolist() == [6, 7, 14, 15, 16, 17]
        assert kept[output, 6] == 18 * output + 7
    assert torch.equal(net.stem.weight, stem)


def test_impossible_rates_are_refused_at_once() -> None:
    with pytest.raises(RangeError, match="rate"):
        ColumnProportional(0.5)
    with pytest.raises(RangeError, match="rate"):
        ColumnProportional(65, rows=64)


def test_batch_norm_scaling_keeps_the_pattern() -> None:
    constraint = ColumnProportional(2, rows=4)
    weight = constraint.project(torch.randn(3, 9))
    assert constraint.violation(weight * torch.tensor([[-2.0], [1e-3], [5.0]])) == 0
