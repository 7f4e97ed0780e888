"""Weights on their grid: the codes the quantiser sees are those projected, and the certificate holds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import nn

import bitline
from bitline.errors import RangeError
from bitline.hardware import load_hardware
from bitline.network.conversion import matrix_layers
from bitline.network.quantisation import quantise_weights
from bitline.pruning.adc_fit import AdcFit
from bitline.pruning.layers import prunable_layers, weight_matrices
from bitline.pruning.value_bit import ValueBit


def _largest_sum(codes: np.ndarray, rows: int, cell_bits: int, slices: int) -> int:
    """Over all row tiles, slices and signs, in plain loops."""
    return max(
        int(((part >> (cell_bits * number)) & (2**cell_bits - 1)).sum(axis=0).max(initial=0))
        for start in range(0, len(codes), rows)
        for part in (np.maximum(codes[start : start + rows], 0), np.maximum(-codes[start : start + rows], 0))
        for number in range(slices)
    )


@given(
    arrays.arrays(np.float32, (9, 2), elements=st.floats(-4, 4, width=16)),
    st.sampled_from((1, 2, 4)),
    st.integers(15, 31),
    st.integers(1, 5),
)
def test_projection_lands_on_the_grid_within_the_limit_and_stays(
    matrix: np.ndarray, cell_bits: int, limit: int, rows: int
) -> None:
    constraint = ValueBit(limit=limit, rows=rows, cell_bits=cell_bits, weight_bits=8)
    projected = constraint.project(torch.from_numpy(np.ascontiguousarray(matrix.T)))
    codes, scale = quantise_weights(projected.double().numpy().T, 8)
    assert _largest_sum(codes, rows, cell_bits, -(-7 // cell_bits)) <= limit
    assert np.abs(codes * scale - projected.double().numpy().T).max() <= 1e-6 * np.abs(matrix).max(initial=1e-6)
    assert constraint.violation(projected) == 0
    assert torch.equal(constraint.project(projected), projected)  # to the last bit


@pytest.mark.parametrize("weight_bits", [4, 8, 12, 16])
def test_a_projection_stays_as_it_is_however_fine_the_grid(weight_bits: int) -> None:
    # Float32 resolves 2^-24 of a weight, of 16-bit codes some thousandths.
    weight = torch.randn(40, 36, generator=torch.Generator().manual_seed(0))
    constraint = ValueBit(limit=7, rows=16, weight_bits=weight_bits)
    projected = constraint.project(weight)
    assert constraint.violation(projected) == 0
    assert torch.equal(constraint.project(projected), projected)


def test_what_fits_already_is_only_put_on_the_grid() -> None:
    # 127 x 0.01 is the column's unit; 0.255 is 25.5 units, the even code is 26 and the nearer scale a little lower.
    weight = torch.tensor([[1.27, 0.64, -0.255, 0.0]])
    found = ValueBit(limit=255, rows=4).project(weight)
    codes, _ = quantise_weights(found.double().numpy().T, 8)
    assert codes.ravel().tolist() in ([127, 64, -26, 0], [127, 64, -25, 0])
    assert float((found - weight).abs().max()) <= 0.005


def test_violation_counts_levels() -> None:
    weight = torch.ones(1, 6)  # six codes of 127 = 1 3 3 3: sums of 18 in three slices, 6 in the top one
    assert ValueBit(limit=18, rows=6).violation(weight) == 0
    assert ValueBit(limit=17, rows=6).violation(weight) == 3
    assert ValueBit(limit=5, rows=6).violation(weight) == 3 * 13 + 1
    assert ValueBit(limit=9, rows=3).violation(weight) == 0
    assert ValueBit(limit=8, rows=3).violation(weight) == 6


@pytest.mark.parametrize("cell_bits", [1, 2, 4])
@pytest.mark.parametrize("bits", [2, 4])
def test_certificate_proves_the_bits(bits: int, cell_bits: int) -> None:
    if 2**bits < 2**cell_bits:
        with pytest.raises(RangeError, match=r"ADC limit: must be at least 15, .* found 3"):
            ValueBit(limit=2**bits - 1, cell_bits=cell_bits)
        return
    rng = np.random.default_rng(bits)
    weight = torch.from_numpy(rng.normal(0, 0.1, (12, 20, 3, 3)).astype(np.float32))
    constraint = ValueBit(limit=2**bits - 1, cell_bits=cell_bits)
    projected = constraint.project(weight, groups=2)
    hw = load_hardware("tinyadc", cell_bits=cell_bits)
    for matrix in weight_matrices(projected, 2):
        codes, _ = quantise_weights(matrix.astype(np.float64), 8)
        assert bitline.certify(codes, hw).bits <= bits
    # Nearer than removing whole weights: the same bits at less than the other's squared error.
    whole = AdcFit(limit=2**bits - 1, nonzeros=128, cell_bits=cell_bits).project(weight, groups=2)
    assert float((projected - weight).square().sum()) < 0.8 * float((whole - weight).square().sum())


def test_batch_norm_changes_no_code_of_a_projected_network() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3, bias=False))
    norm = net[1]
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, -0.3, 0.0, 2e-3, -7.0, 1.1, 0.9, 0.5]))
        norm.running_var.copy_(torch.rand(8) * 3 + 1e-3)
        norm.running_mean.normal_()
    constraint = ValueBit(limit=7)
    layers = prunable_layers(net, exempt_first=False)
    for layer in layers:
        layer.module.weight.data = constraint.project(layer.module.weight)
    hw = load_hardware("tinyadc")
    for layer, found in zip(layers, matrix_layers(net.eval(), hw).layers, strict=True):
        own, _ = quantise_weights(weight_matrices(layer.module.weight)[0].astype(np.float64), 8)
        gains = np.sign(norm.weight.detach().numpy()) if layer is layers[0] else 1
        assert np.array_equal(found.codes[0], own * gains)
        assert bitline.certify(found.codes[0], hw).bits <= 3


def test_dead_columns_become_zeros() -> None:
    weight = torch.zeros(3, 5)
    weight[1, 2] = 1e-38
    weight[2] = torch.tensor([1.0, -0.5, 0.2, 0.1, 0.0])
    found, grid = ValueBit(limit=7).fit(weight)
    assert not found[:2].any()
    assert found[2].abs().max() > 0.9
    again, _ = ValueBit(limit=7).fit(weight, grid=grid)
    assert not again[:2].any()


def test_a_projection_from_the_last_grid_is_in_the_set_and_nearly_as_near() -> None:
    torch.manual_seed(1)
    weight = torch.randn(16, 32, 3, 3) * 0.05
    constraint = ValueBit(limit=7)
    _, grid = constraint.fit(weight)
    for _ in range(4):
        weight = weight + torch.randn_like(weight) * 5e-4
        found, grid = constraint.fit(weight, grid=grid)
        assert constraint.violation(found) == 0
    nearest = float((constraint.project(weight) - weight).norm())
    assert float((found - weight).norm()) <= 1.03 * nearest


def test_impossible_limits() -> None:
    with pytest.raises(RangeError, match=r"at least 3, .* found 2"):
        ValueBit(limit=2)
    with pytest.raises(RangeError, match=r"at least 2, 1 and 1, found 1, 2 and 128"):
        ValueBit(limit=3, weight_bits=1)
    with pytest.raises(RangeError, match="NaN"):
        ValueBit(limit=3).project(torch.tensor([[1.0, float("nan")]]))
