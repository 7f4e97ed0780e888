"""The hand-written operation lists against the traced networks: two independent roads to the same price."""

from __future__ import annotations

import chip_networks
import pytest

from bitline.chip import estimate
from bitline.hardware import load_hardware
from bitline.layers import OperationKind
from bitline.network.architectures import build_architecture
from bitline.network.dataflow import operations

HW = load_hardware("tinyadc")


@pytest.mark.parametrize(
    ("name", "shape", "by_hand"),
    [
        ("resnet18", (3, 224, 224), chip_networks.resnet18()),
        ("resnet50", (3, 224, 224), chip_networks.resnet50()),
        ("resnet18_cifar", (3, 32, 32), chip_networks.resnet18(32, 10)),
        ("vgg16_cifar", (3, 32, 32), chip_networks.vgg16(32, 10)),
    ],
)
def test_traced_and_hand_written_networks_cost_the_same(name, shape, by_hand):
    traced = operations(build_architecture(name).module, shape)
    matrices = [[op for op in ops if op.kind is OperationKind.MATRIX] for ops in (traced, by_hand)]
    shapes = [sorted((op.rows, op.columns, op.positions) for op in ops) for ops in matrices]
    assert shapes[0] == shapes[1]
    for how in ("smallest", "balanced"):
        a, b = (estimate(ops, HW, replication=how) for ops in (traced, by_hand))
        assert a.totals == b.totals
        assert a.total_power_w == pytest.approx(b.total_power_w)
        assert a.energy_uj_per_image == pytest.approx(b.energy_uj_per_image)


@pytest.mark.parametrize("name", ["mobilenet_v2", "squeezenet1_1", "mlp", "lstm_mnist", "mlperftiny_dscnn"])
def test_other_networks_are_priced(name):
    network = build_architecture(name)
    report = estimate(operations(network.module, network.input_shape), HW)
    assert report.totals.images_per_s > 0
    assert 0 < report.totals.cell_utilisation <= 1
